"""What is shown while a long command runs."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.action import watched_command
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import slices as sliced

GIB = 2**30


class Display:
    """Keeps what would be displayed."""

    def __init__(self):
        self.lines = []

    def display(self, text, **unused):
        self.lines.append(text)


@pytest.fixture
def play(monkeypatch):
    """Returns play(outcomes, **arguments) -> (result, lines shown, arguments of each slice), ten seconds lying between two slices."""

    def play(outcomes, **arguments):
        action = watched_command.ActionModule.__new__(watched_command.ActionModule)
        action._task, action._display = type("Task", (), {"args": {"name": "fetch-it", "directory": "/d", **arguments}}), Display()
        slices, clock = [], iter(range(0, 1000, 10))
        monkeypatch.setattr(watched_command.SlicedAction, "run", lambda *unused: {})
        monkeypatch.setattr(sliced.time, "monotonic", lambda: next(clock))

        def execute(module_name, module_args, task_vars):
            slices.append(dict(module_args))
            return outcomes[len(slices) - 1]

        monkeypatch.setattr(action, "_execute_module", execute)
        return action.run(task_vars={"inventory_hostname": "gpu01"}), action._display.lines, slices

    return play


def test_how_much_has_come_and_how_fast(play):
    outcomes = [{"resume": True, "bytes": share * GIB, "output": ""} for share in (1, 3)] + [{"resume": False, "rc": 0, "bytes": 4 * GIB, "output": ""}]
    result, lines, slices = play(outcomes, total_bytes=4 * GIB, stdin="secret")
    assert result["rc"] == 0
    assert lines == ["gpu01 fetch-it: 1.00 of 4.00 GiB, 25%", "gpu01 fetch-it: 3.00 of 4.00 GiB, 75%, 204.8 MiB/s"]
    assert [(one.get("resume"), one["stdin"]) for one in slices] == [(None, "secret"), (True, ""), (True, "")]


def test_what_the_command_says_is_shown_once(play):
    said = "the hub throttles this network address (HTTP 429): asked again after 10 s."
    outcomes = [{"resume": True, "bytes": 0, "output": said}, {"resume": True, "bytes": 0, "output": said}, {"failed": True, "msg": said, "resume": False}]
    result, lines, dummy = play(outcomes)
    assert result["failed"]
    assert lines == ["gpu01 fetch-it: 0.00 GiB", f"  {said}", "gpu01 fetch-it: 0.00 GiB, 0.0 MiB/s"]


def test_the_longer_it_takes_the_fewer_lines(play):
    outcomes = [{"resume": True, "bytes": 0, "output": ""}] * 40 + [{"resume": False, "rc": 0, "bytes": 0, "output": ""}]
    slices = play(outcomes)[2]
    assert [slices[number].get("patience") for number in (0, 1, 10, 20, 40)] == [None, 10, 18, 38, 60]
