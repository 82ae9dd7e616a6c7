"""Set what /etc/gpu-tuning.conf says about the cards, at boot and whenever the playbook changes it.

For each card the power limit, the locked clocks and persistence mode, then the PCI bridges above the cards. Cards are named by their uuid,
because indices move up when a card falls off the bus. A card that is missing or refuses is named on standard error, the others are set all
the same, and the exit status is 1. nvidia-smi exits with 0 for settings that a card does not support ("Treating as warning and moving on"),
so its words are read, and power limits are read back.

/run/gpu-tuning holds what only this boot needs to know: the checksum of the settings once all are applied, what could not be, and what the
bridges had before.
"""

import configparser
import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path("/")
SETTINGS = "etc/gpu-tuning.conf"
APPLIED = "run/gpu-tuning/applied"
PROBLEMS = "run/gpu-tuning/problems"
BRIDGES = "run/gpu-tuning/acs.json"
TIMEOUT_SECONDS = 60
BUS_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Refused(Exception):
    """Something that could not be set, and why."""


def run(*arguments):
    """Standard output of a command. Raises Refused where it fails, does not answer, or says that the card cannot do it."""
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Refused("%s gave no answer within %d s: look for Xid lines in the kernel log" % (arguments[0], TIMEOUT_SECONDS)) from None
    except OSError as error:
        raise Refused("%s cannot be started: %s" % (arguments[0], error.strerror)) from None
    words = " ".join((result.stdout + result.stderr).split())
    if result.returncode or "not supported" in words:
        raise Refused("%s: %s" % (" ".join(arguments), words or "exit status %d" % result.returncode))
    return result.stdout


class Card:
    """One card, by its uuid."""

    def __init__(self, uuid):
        self.uuid = uuid

    def set(self, *arguments):
        run("nvidia-smi", "-i", self.uuid, *arguments)

    def read(self):
        """(persistence mode, power limit in watts or None where the driver does not manage the card's power)"""
        line = run("nvidia-smi", "-i", self.uuid, "--query-gpu=persistence_mode,power.limit", "--format=csv,noheader,nounits")
        persistence, limit = (cell.strip() for cell in line.split(","))
        return persistence, float(limit) if re.fullmatch(r"[0-9.]+", limit) else None

    def clocks(self, wanted, lock, reset):
        """Lock clocks to "lowest,highest" MHz, or give them back. What cannot be locked needs no giving back."""
        if wanted:
            self.set(lock, wanted)
            return
        try:
            self.set(reset)
        except Refused as refusal:
            if "not supported" not in str(refusal):
                raise

    def tune(self, wanted):
        persistence, limit = self.read()
        if persistence == "Disabled":
            # Without it the driver forgets everything below as soon as no program uses the card.
            self.set("-pm", "1")
        watts = wanted.getfloat("power_limit_watts")
        if watts is not None and watts != limit:
            self.set("-pl", "%g" % watts)
            limit = self.read()[1]
            if watts != limit:
                raise Refused("its power limit is %s W after it was set to %g W" % (limit, watts))
        self.clocks(wanted.get("graphics_clocks_mhz"), "-lgc", "-rgc")
        self.clocks(wanted.get("memory_clocks_mhz"), "-lmc", "-rmc")


def bridges():
    """Bus ids of the bridges between the NVIDIA cards and the processor, from the places of the cards in the device tree."""
    found = set()
    for device in (ROOT / "sys/bus/pci/devices").glob("*"):
        try:
            kind = (device / "vendor").read_text(encoding="ascii").strip(), (device / "class").read_text(encoding="ascii")[:4]
        except OSError:
            continue
        if kind == ("0x10de", "0x03"):
            found.update(part for part in device.resolve().parent.parts if BUS_ID.fullmatch(part))
    return sorted(found)


def read_acs(bridge):
    """The bridge's ACS control register, None where it has none."""
    try:
        return run("setpci", "-s", bridge, "ECAP_ACS+6.w").strip()
    except Refused as refusal:
        if "cannot be started" in str(refusal):
            raise
        return None


def write_acs(bridge, value):
    run("setpci", "-s", bridge, "ECAP_ACS+6.w=" + value)
    if read_acs(bridge) != value:
        raise Refused("its ACS control register is %s after it was set to %s" % (read_acs(bridge), value))


def set_acs(disable):
    """Switch ACS off, or back to what it was at boot. Yields what failed."""
    path = ROOT / BRIDGES
    before = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
    wanted = before
    if disable:
        for bridge in bridges():
            value = read_acs(bridge)
            if value not in (None, "0000"):
                before[bridge] = value
        wanted = dict.fromkeys(before, "0000")
        path.write_text(json.dumps(before), encoding="ascii")
    for bridge, value in wanted.items():
        try:
            write_acs(bridge, value)
        except Refused as refusal:
            yield "the bridge %s: %s" % (bridge, refusal)
    if not disable and path.exists():
        path.unlink()


def apply(text):
    """Set everything. Yields a sentence for each card or bridge that is not as it should be."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(text)
    cards = {name: section for name, section in settings.items() if name.startswith("GPU-")}
    for uuid, wanted in cards.items():
        try:
            Card(uuid).tune(wanted)
        except Refused as refusal:
            yield "GPU %s (%s, %s): %s" % (wanted["index"], uuid, wanted["pci_bus_id"], refusal)
    try:
        for uuid in re.findall(r"UUID: (GPU-[0-9a-fA-F-]+)", run("nvidia-smi", "-L")):
            if uuid not in cards:
                yield "%s is in this host, and /%s does not name it: run the playbook again" % (uuid, SETTINGS)
    except Refused as refusal:
        yield str(refusal)
    try:
        yield from set_acs(settings.getboolean("pci", "disable_acs"))
    except Refused as refusal:
        yield str(refusal)


def main():
    applied = ROOT / APPLIED
    applied.parent.mkdir(mode=0o755, exist_ok=True)
    applied.unlink(missing_ok=True)
    text = (ROOT / SETTINGS).read_text(encoding="utf-8")
    problems = "".join(problem + "\n" for problem in apply(text))
    (ROOT / PROBLEMS).write_text(problems, encoding="utf-8")
    if problems:
        print(problems, end="", file=sys.stderr)
        return 1
    applied.write_text(hashlib.sha256(text.encode()).hexdigest() + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
