# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the cards' metrics for the textfile collector of node_exporter: python3 <this directory> OUTPUT STATE

OUTPUT is replaced whole. STATE keeps what was counted, because the kernel log forgets. The readers of nvidia-smi, of the PCI bus and of Xid lines
lie beside this file; they are those of the collection's modules.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import child
import nvidia_pci
import nvidia_smi
import nvidia_xid

SECONDS = 10  # for each answer of nvidia-smi

# Family: (type, help). Memory in bytes, power in watts, shares from 0 to 1.
FAMILIES = {
    "gpuhosts_gpu_smi_up": ("gauge", "Whether nvidia-smi answers for every card."),
    "gpuhosts_gpu_cards": ("gauge", "Cards that nvidia-smi reports."),
    "gpuhosts_gpu_lost": ("gauge", "Cards on the PCI bus that nvidia-smi does not report."),
    "gpuhosts_gpu_info": ("gauge", "1 for each card, with what it is."),
    "gpuhosts_gpu_memory_total_bytes": ("gauge", "Memory of the card."),
    "gpuhosts_gpu_memory_used_bytes": ("gauge", "Memory in use."),
    "gpuhosts_gpu_temperature_celsius": ("gauge", "Temperature of the core."),
    "gpuhosts_gpu_power_watts": ("gauge", "Power drawn."),
    "gpuhosts_gpu_power_limit_watts": ("gauge", "Power limit in force."),
    "gpuhosts_gpu_utilization_ratio": ("gauge", "Share of the time in which the card computed."),
    "gpuhosts_gpu_throttled": ("gauge", "Whether the card is slowed down by a fault, by reason."),
    "gpuhosts_gpu_xids_total": ("counter", "Errors of cards that the driver reported in the kernel log."),
}


def ask(program, question):
    """(whether it answered, its words)."""
    if program is None:
        return False, ""
    try:
        status, stdout, stderr = child.run([program] + nvidia_smi.ARGUMENTS[question], SECONDS)
    except (child.TimedOut, OSError):
        return False, ""
    return status == 0, stdout


def read_cards(program):
    """(whether nvidia-smi answers, its cards with C(usage) and C(throttle) added). A driver that does not answer once is not asked again."""
    answers, text = ask(program, "query")
    cards = nvidia_smi.parse_query(text)[0]
    usage, throttle = {}, {}
    if answers:
        answers, text = ask(program, "usage")
        usage = nvidia_smi.parse_usage(text)
    if answers:
        # A driver that does not know the field says so for all cards; the others count all the same.
        throttle = nvidia_smi.parse_throttle(ask(program, "throttle")[1])
    for card in cards:
        card["usage"], card["throttle"] = usage.get(card["index"], {}), throttle.get(card["index"])
    return answers, cards


def count_xids(state, records, boot):
    """The state with the Xids of records that it has not seen: {"boot", "sequence", "xids": {"bus id code": count}}."""
    seen = state.get("sequence", -1) if state.get("boot") == boot else -1
    fresh = [(int(number), record) for record in records for number in record.split(",")[1:2] if number.isdigit() and int(number) > seen]
    xids = dict(state.get("xids", {}))
    for xid in nvidia_xid.parse_records(record for number, record in fresh):
        key = f"{xid['pci_bus_id']} {xid['code']}"
        xids[key] = xids.get(key, 0) + 1
    return {"boot": boot, "sequence": max([seen] + [number for number, record in fresh]), "xids": xids}


def samples(answers, cards, on_bus, xids):
    """(family, labels, value) of everything; what a card does not tell is left out. on_bus: bus ids."""
    reported = {card["pci_bus_id"] for card in cards}
    yield "gpuhosts_gpu_smi_up", {}, int(answers)
    yield "gpuhosts_gpu_cards", {}, len(cards)
    yield "gpuhosts_gpu_lost", {}, len([bus_id for bus_id in on_bus if bus_id not in reported])
    for card in cards:
        labels, usage = {"gpu": card["index"], "uuid": card["uuid"] or ""}, card["usage"]
        utilization = usage.get("utilization_percent")
        details = {"model": card["name"], "pci_bus_id": card["pci_bus_id"], "driver": card["driver_version"]}
        yield "gpuhosts_gpu_info", dict(labels, **details), 1
        for name, value in (
            ("memory_total_bytes", card["memory_total_bytes"]),
            ("memory_used_bytes", usage.get("memory_used_bytes")),
            ("temperature_celsius", usage.get("temperature_celsius")),
            ("power_watts", usage.get("power_watts")),
            ("power_limit_watts", card["power_limit_watts"]),
            ("utilization_ratio", None if utilization is None else utilization / 100),
        ):
            if value is not None:
                yield "gpuhosts_gpu_" + name, labels, value
        if card["throttle"] is not None:
            for reason in nvidia_smi.THROTTLE:
                yield "gpuhosts_gpu_throttled", dict(labels, reason=reason), int(reason in card["throttle"])
    for key, count in sorted(xids.items()):
        bus_id, code = key.split(" ")
        yield "gpuhosts_gpu_xids_total", {"pci_bus_id": bus_id, "xid": code}, count


def render(found):
    """The text of all families."""
    lines = {family: [f"# HELP {family} {text}", f"# TYPE {family} {kind}"] for family, (kind, text) in FAMILIES.items()}
    for family, labels, value in found:
        words = ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())
        lines[family].append(f"{family}{{{words}}} {value}")
    return "".join(line + "\n" for family in lines.values() for line in family)


def escape(value):
    """A label's value as the format wants it."""
    return str("" if value is None else value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read_state(path):
    """What was counted; nothing where there is no state, or none that can be read."""
    try:
        with open(path, encoding="utf-8") as source:
            state = json.load(source)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write(path, text):
    """Replace the file whole, or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    # The collector reads *.prom only.
    with open(path + ".new", "w", encoding="utf-8") as target:
        target.write(text)
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)


def main(output, kept, root="/"):
    """Ask, count, write."""
    with open(os.path.join(root, "proc/sys/kernel/random/boot_id"), encoding="utf-8") as source:
        boot = source.read().strip()
    answers, cards = read_cards(shutil.which("nvidia-smi"))
    state = count_xids(read_state(kept), nvidia_xid.read_records(os.path.join(root, "dev/kmsg")), boot)
    on_bus = [card["pci_bus_id"] for card in nvidia_pci.read_cards(root)]
    write(kept, json.dumps(state))
    write(output, render(samples(answers, cards, on_bus, state["xids"])))


if __name__ == "__main__":
    main(*sys.argv[1:3])
