"""The program that writes the cards' metrics, against an nvidia-smi and a kernel log of the test's own."""

import importlib.util
import json
import pathlib
import sys

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import nvidia_smi

CHECKOUT = pathlib.Path(__file__).parents[4]
FILES = CHECKOUT / "roles/monitoring/files/gpu_metrics"
QUERY = (CHECKOUT / "tests/unit/fixtures/nvidia_smi/query_2080ti_22gb.csv").read_text(encoding="utf-8")
ANSWERS = {
    "query": (0, QUERY),
    "usage": (0, "0, 21000, 71, 180.50, 97\n1, 3, 31, [N/A], 0\n"),
    "throttle": (0, "0, 0x0000000000000044\n1, [N/A]\n"),
}


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(FILES))
    specification = importlib.util.spec_from_file_location("gpu_metrics_program", FILES / "__main__.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def smi(program, monkeypatch, **answers):
    """Let nvidia-smi answer like this; returns the questions that it was asked."""
    asked = []
    questions = {json.dumps(arguments): name for name, arguments in nvidia_smi.ARGUMENTS.items()}

    def run(command, timeout):
        asked.append(questions[json.dumps(command[1:])])
        answer = {**ANSWERS, **answers}[asked[-1]]
        if answer is None:
            raise program.child.TimedOut("no answer")
        return (*answer, "")

    monkeypatch.setattr(program.child, "run", run)
    return asked


def samples(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_its_readers_are_the_modules_own():
    for name in ("child", "nvidia_pci", "nvidia_smi", "nvidia_xid"):
        assert (FILES / f"{name}.py").resolve() == CHECKOUT / f"plugins/module_utils/{name}.py"


def test_what_cards_say(program, monkeypatch):
    smi(program, monkeypatch)
    answers, cards = program.read_cards("nvidia-smi")
    found = samples(program.render(program.samples(answers, cards, [cards[0]["pci_bus_id"], "0000:ff:00.0"], {"0000:3b:00.0 79": 2})))
    labels = f'gpu="0",uuid="{cards[0]["uuid"]}"'
    assert found["gpuhosts_gpu_smi_up{}"] == "1"
    assert found["gpuhosts_gpu_cards{}"] == str(len(cards))
    assert found["gpuhosts_gpu_lost{}"] == "1"
    assert found[f"gpuhosts_gpu_memory_used_bytes{{{labels}}}"] == str(21000 * 1024 * 1024)
    assert found[f"gpuhosts_gpu_temperature_celsius{{{labels}}}"] == "71"
    assert found[f"gpuhosts_gpu_power_watts{{{labels}}}"] == "180.5"
    assert found[f"gpuhosts_gpu_utilization_ratio{{{labels}}}"] == "0.97"
    # A power limit (0x4) is no fault, heat (0x40) is.
    assert {reason: found[f'gpuhosts_gpu_throttled{{{labels},reason="{reason}"}}'] for reason in nvidia_smi.THROTTLE} == {
        "hw_slowdown": "0", "sw_thermal_slowdown": "0", "hw_thermal_slowdown": "1", "hw_power_brake": "0",
    }  # fmt: skip
    assert found['gpuhosts_gpu_xids_total{pci_bus_id="0000:3b:00.0",xid="79"}'] == "2"
    # What a card does not tell is not there, which is not 0.
    assert not [name for name in found if 'gpu="1"' in name and ("power_watts" in name or "throttled" in name)]


def test_a_driver_that_hangs_is_asked_once(program, monkeypatch):
    asked = smi(program, monkeypatch, query=None)
    answers, cards = program.read_cards("nvidia-smi")
    assert asked == ["query"]
    found = samples(program.render(program.samples(answers, cards, ["0000:3b:00.0"], {})))
    assert found == {"gpuhosts_gpu_smi_up{}": "0", "gpuhosts_gpu_cards{}": "0", "gpuhosts_gpu_lost{}": "1"}


def test_an_old_driver_without_the_field_tells_the_rest(program, monkeypatch):
    smi(program, monkeypatch, throttle=(2, 'Field "clocks_throttle_reasons.active" is not a valid field to query.\n'))
    answers, cards = program.read_cards("nvidia-smi")
    assert answers and cards[0]["usage"]["temperature_celsius"] == 71 and cards[0]["throttle"] is None


def test_without_the_program(program):
    assert program.read_cards(None) == (False, [])


def record(sequence, code=79):
    return f"3,{sequence},1234,-;NVRM: Xid (PCI:0000:3b:00): {code}, pid=1, GPU has fallen off the bus.\n"


def test_xids_are_counted_once(program):
    """The kernel log forgets its oldest lines, and a count that falls would look like a reboot."""
    state = program.count_xids({}, ["6,1,1,-;something else\n", record(2), record(3, 13)], "boot")
    assert state["xids"] == {"0000:3b:00.0 79": 1, "0000:3b:00.0 13": 1}
    assert program.count_xids(state, [record(2), record(3, 13)], "boot") == state
    state = program.count_xids(state, [record(9)], "boot")
    assert state["xids"]["0000:3b:00.0 79"] == 2
    # A boot numbers its records from 0 again.
    assert program.count_xids(state, [record(2)], "next")["xids"]["0000:3b:00.0 79"] == 3


def test_it_writes_both_files_whole(program, monkeypatch, tmp_path):
    smi(program, monkeypatch)
    monkeypatch.setattr(program.shutil, "which", lambda name: name)
    monkeypatch.setattr(program.nvidia_xid, "read_records", lambda path: [record(5)])
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot\n")
    output, state = tmp_path / "metrics/gpu.prom", tmp_path / "state/kept.json"
    for dummy in range(2):
        program.main(str(output), str(state), str(tmp_path))
    assert samples(output.read_text())['gpuhosts_gpu_xids_total{pci_bus_id="0000:3b:00.0",xid="79"}'] == "1"
    assert oct(output.stat().st_mode)[-3:] == "644"
    assert [path.name for path in output.parent.iterdir()] == ["gpu.prom"]
    # A state that cannot be read is begun anew.
    state.write_text("half a")
    program.main(str(output), str(state), str(tmp_path))
    assert json.loads(state.read_text())["sequence"] == 5


def test_a_quoted_name_is_escaped(program):
    text = program.render([("gpuhosts_gpu_info", {"model": 'a "b" \\c'}, 1)])
    assert 'gpuhosts_gpu_info{model="a \\"b\\" \\\\c"} 1' in text
