"""The program that the unit runs, on made-up cards and bridges."""

import hashlib
import importlib.util
import pathlib
import subprocess
import sys

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.module_utils import host_files

ROLE = pathlib.Path(__file__).parents[4] / "roles/gpu_tuning"
MOVING_ON = "Treating as warning and moving on.\nAll done.\n"


def load():
    sys.dont_write_bytecode = True
    specification = importlib.util.spec_from_file_location("gpu_tuning_program", ROLE / "files/gpu_tuning.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Machine:
    """Cards as nvidia-smi shows them, bridges as setpci does, and the program to run against them."""

    def __init__(self, root, monkeypatch):
        self.root = root
        self.cards = {f"GPU-{name}": {"limit": 250.0, "persistence": "Enabled", "gpu": None, "mem": None, "says": {}} for name in "abc"}
        self.acs = {}
        self.calls = []
        self.program = load()
        self.program.ROOT = root
        for name in ("etc", "run", "sys/bus/pci/devices"):
            (root / name).mkdir(parents=True)
        monkeypatch.setattr(self.program.subprocess, "run", self.run)

    def run(self, arguments, timeout, **options):
        self.calls.append(" ".join(arguments))
        status, text = {"nvidia-smi": self.smi, "setpci": self.setpci}[arguments[0]](*arguments[1:])
        return subprocess.CompletedProcess(arguments, status, text, "")

    def smi(self, *arguments):
        if arguments == ("-L",):
            return 0, "".join(f"GPU {index}: NVIDIA GeForce RTX 2080 Ti (UUID: {uuid})\n" for index, uuid in enumerate(self.cards))
        uuid, option = arguments[1], arguments[2].partition("=")[0]
        if uuid not in self.cards:
            return 6, "No devices were found\n"
        card = self.cards[uuid]
        if option in card["says"]:
            return card["says"][option]
        if option == "--query-gpu":
            return 0, "{}, {}\n".format(card["persistence"], card["limit"] if card["limit"] is not None else "[N/A]")
        if option == "-pm":
            card["persistence"] = "Enabled"
        elif option == "-pl":
            card["limit"] = float(arguments[3])
        elif option in ("-lgc", "-rgc"):
            card["gpu"] = arguments[3] if option == "-lgc" else None
        elif option in ("-lmc", "-rmc"):
            return 0, f"Setting locked Memory clocks is not supported for GPU 0.\n{MOVING_ON}"
        return 0, "All done.\n"

    def setpci(self, option, bridge, register):
        if bridge not in self.acs:
            return 1, f"setpci: {bridge}: Instance #0 of Extended Capability 000d not found\n"
        name, equals, value = register.partition("=")
        if equals and self.acs[bridge] != "stuck":
            self.acs[bridge] = value
        return 0, "" if equals else self.acs[bridge] + "\n"

    def place(self, *path, vendor="0x10de", kind="0x030000"):
        device = self.root.joinpath("sys/devices/pci0000:00", *path)
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
        (self.root / "sys/bus/pci/devices" / path[-1]).symlink_to(device)

    def apply(self, acs="no", **settings):
        text = f"[pci]\ndisable_acs = {acs}\n"
        for index, (name, lines) in enumerate(settings.items()):
            text += f"[GPU-{name}]\nindex = {index}\npci_bus_id = 0000:0{index}:00.0\n{lines}\n"
        (self.root / "etc/gpu-tuning.conf").write_text(text)
        status = self.program.main()
        state = host_files.gpu_tuning(str(self.root))
        assert (state["applied"] is not None) == (status == 0)
        assert state["applied"] in (None, hashlib.sha256(text.encode()).hexdigest())
        return status, state["problems"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_limits_clocks_and_persistence(machine):
    machine.cards["GPU-b"]["persistence"] = "Disabled"
    limits = {name: f"power_limit_watts = {watts}\ngraphics_clocks_mhz = 300,1500" for name, watts in (("a", 150), ("b", 160.5), ("c", 250))}
    assert machine.apply(**limits) == (0, [])
    assert [card["limit"] for card in machine.cards.values()] == [150, 160.5, 250]
    assert [card["gpu"] for card in machine.cards.values()] == ["300,1500"] * 3
    assert machine.cards["GPU-b"]["persistence"] == "Enabled"
    assert not [call for call in machine.calls if call.startswith("nvidia-smi -i GPU-c -pl")], "a limit that is right is not set again"


def test_what_is_not_named_is_given_back(machine):
    machine.cards["GPU-a"]["gpu"] = "300,1500"
    assert machine.apply(a="", b="", c="") == (0, [])
    assert machine.cards["GPU-a"]["gpu"] is None
    assert machine.cards["GPU-a"]["limit"] == 250, "the playbook writes the default limit, the program does not know it"


def test_a_missing_card_is_named_and_the_others_are_tuned(machine, capsys):
    del machine.cards["GPU-b"]
    status, problems = machine.apply(a="power_limit_watts = 150", b="power_limit_watts = 150", c="power_limit_watts = 150")
    assert status == 1
    assert problems == [
        "GPU 1 (GPU-b, 0000:01:00.0): nvidia-smi -i GPU-b --query-gpu=persistence_mode,power.limit --format=csv,noheader,nounits: "
        "No devices were found"
    ]
    assert capsys.readouterr().err == problems[0] + "\n"
    assert [card["limit"] for card in machine.cards.values()] == [150, 150]


def test_a_card_that_nobody_named_is_said(machine):
    assert machine.apply(a="", b="") == (1, ["GPU-c is in this host, and /etc/gpu-tuning.conf does not name it: run the playbook again"])


@pytest.mark.parametrize(
    ("option", "answer", "lines", "reason"),
    [
        ("-pl", (0, f"Changing power management limit is not supported for GPU: 0.\n{MOVING_ON}"), "power_limit_watts = 150",
         "nvidia-smi -i GPU-a -pl 150: Changing power management limit is not supported for GPU: 0. Treating as warning and moving on. All done."),
        ("-pl", (2, "Provided power limit 90.00 W is not a valid power limit"), "power_limit_watts = 90",
         "nvidia-smi -i GPU-a -pl 90: Provided power limit 90.00 W is not a valid power limit"),
        ("-pl", (0, "All done.\n"), "power_limit_watts = 150", "its power limit is 250.0 W after it was set to 150 W"),
        ("-lgc", (4, "Insufficient Permissions"), "graphics_clocks_mhz = 300,1500", "nvidia-smi -i GPU-a -lgc 300,1500: Insufficient Permissions"),
        ("-rgc", (9, "no driver"), "", "nvidia-smi -i GPU-a -rgc: no driver"),
        ("-none", None, "memory_clocks_mhz = 405,7000",
         "nvidia-smi -i GPU-a -lmc 405,7000: Setting locked Memory clocks is not supported for GPU 0. "
         "Treating as warning and moving on. All done."),
    ],
)  # fmt: skip
def test_a_refusal_is_said_whatever_the_exit_status(machine, option, answer, lines, reason):
    machine.cards["GPU-a"]["says"][option] = answer
    status, problems = machine.apply(a=lines, b="power_limit_watts = 150", c="")
    assert (status, problems) == (1, [f"GPU 0 (GPU-a, 0000:00:00.0): {reason}"])
    assert machine.cards["GPU-b"]["limit"] == 150


def test_a_hanging_or_missing_nvidia_smi_is_said(machine, monkeypatch):
    def hang(arguments, timeout, **options):
        raise subprocess.TimeoutExpired(arguments, timeout)

    def missing(arguments, timeout, **options):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(machine.program.subprocess, "run", hang)
    assert machine.apply(a="")[1][0] == "GPU 0 (GPU-a, 0000:00:00.0): nvidia-smi gave no answer within 60 s: look for Xid lines in the kernel log"
    monkeypatch.setattr(machine.program.subprocess, "run", missing)
    assert machine.apply(a="")[1] == [
        "GPU 0 (GPU-a, 0000:00:00.0): nvidia-smi cannot be started: No such file or directory",
        "nvidia-smi cannot be started: No such file or directory",
    ]


def test_acs_is_switched_off_above_the_cards_only_and_given_back(machine):
    machine.place("0000:00:01.0", "0000:01:00.0", "0000:02:08.0", "0000:03:00.0")
    machine.place("0000:00:01.0", "0000:01:00.0", "0000:02:09.0", "0000:04:00.0", kind="0x030200")
    machine.place("0000:00:02.0", "0000:05:00.0", vendor="0x8086", kind="0x020000")
    machine.place("0000:00:03.0", "0000:06:00.1", kind="0x040300")  # a card's sound device alone is no card
    machine.acs = {"0000:00:01.0": "001d", "0000:02:08.0": "001d", "0000:02:09.0": "0000", "0000:00:02.0": "001d", "0000:00:03.0": "001d"}
    before = dict(machine.acs)
    for dummy in range(2):
        assert machine.apply(acs="yes", a="", b="", c="") == (0, [])
        assert machine.acs == before | {"0000:00:01.0": "0000", "0000:02:08.0": "0000"}
    assert machine.apply(a="", b="", c="") == (0, [])
    assert machine.acs == before


def test_a_bridge_that_keeps_its_acs_is_named(machine):
    machine.place("0000:00:01.0", "0000:03:00.0")
    machine.acs = {"0000:00:01.0": "stuck"}
    status, problems = machine.apply(acs="yes", a="", b="", c="")
    assert status == 1
    assert problems == ["the bridge 0000:00:01.0: its ACS control register is stuck after it was set to 0000"]


def test_the_role_and_gpu_facts_mean_the_same_files():
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    paths = host_files._GPU_TUNING
    assert {key: variables[f"__gpu_tuning_{key}"] for key in paths} == {key: f"/{path}" for key, path in paths.items()}
    assert load().SETTINGS == paths["settings"]
    assert (load().APPLIED, load().PROBLEMS) == (host_files._GPU_TUNING_APPLIED, host_files._GPU_TUNING_PROBLEMS)
