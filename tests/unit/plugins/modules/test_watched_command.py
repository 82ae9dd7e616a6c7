"""A long command: started once, waited for in slices, its input seen by nobody."""

import contextlib
import os
import pathlib
import signal

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import background
from ansible_collections.gpuhosts.inference.plugins.modules import watched_command

SECRET = "hf_0123456789abcdef"


@pytest.fixture
def run(run_module, monkeypatch, tmp_path):
    """Returns run(script, **options) -> the module's result for a line of shell."""
    monkeypatch.setattr(background, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(background, "DELAY", 0.01)

    def run(script, **options):
        given = {"name": "fetch-it", "argv": ["sh", "-c", script], "directory": str(tmp_path / "store"), "patience": 30, **options}
        return run_module(watched_command, **given)

    return run


@pytest.fixture
def begun(run, tmp_path):
    """Returns a command that runs, and waits for the file `go`; it is ended when the test is over."""
    script = f"echo $$ >{tmp_path}/pid; echo begun; cat >/dev/null; until test -e {tmp_path}/go; do sleep 0.05; done; echo end; exit 3"
    yield run(script, patience=1, stdin=SECRET), script
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((tmp_path / "pid").read_text(encoding="ascii")), signal.SIGKILL)


def test_a_command_that_ends_well(run, tmp_path):
    store = tmp_path / "store"
    found = run(f"mkdir {store}; head --bytes=10000 /dev/zero >{store}/file; wc --bytes", stdin="what")
    assert (found["changed"], found["rc"], found["output"], found["resume"]) == (True, 0, "4", False)
    assert 10000 <= found["bytes"] < 20000


def test_a_command_that_fails_says_why(run):
    found = run("echo 'no such revision: correct it' >&2; exit 7")
    assert (found["failed"], found["rc"], found["msg"]) == (True, 7, "no such revision: correct it")
    assert run("exit 7")["msg"] == "fetch-it ended with status 7, and said nothing."


def test_a_command_outlives_the_call_and_is_found_by_the_next(run, begun, tmp_path):
    found, script = begun
    assert (found["resume"], found["output"]) == (True, "begun")
    again = run(f"echo second >{tmp_path}/second", patience=0)
    assert again["resume"] is True, "what runs is waited for"
    (tmp_path / "go").touch()
    found = run(script, resume=True)
    assert (found["failed"], found["rc"], found["output"]) == (True, 3, "begun\nend")
    assert not (tmp_path / "second").exists(), "and no second one is started"


def test_the_result_of_an_earlier_command_is_not_taken_for_that_of_a_later_one(run):
    assert run("exit 0")["rc"] == 0
    assert run("exit 4")["rc"] == 4


def test_its_input_is_in_no_file_and_no_argument_list(begun, tmp_path):
    assert begun[0]["resume"] is True
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_text(encoding="utf-8")] == []
    lines = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
    assert not any(SECRET.encode() in line for line in lines)


def test_a_command_that_was_killed_is_no_success(run, begun, tmp_path):
    os.killpg(os.getpgid(int((tmp_path / "pid").read_text(encoding="ascii"))), signal.SIGKILL)
    found = run("exit 0", resume=True)
    assert (found["failed"], found["rc"], found["msg"]) == (True, None, "fetch-it was ended before it was done: run again. begun")


def test_check_mode_starts_nothing(run, tmp_path):
    found = run(f"touch {tmp_path}/it", check=True)
    assert (found["changed"], found["bytes"]) == (True, 0)
    assert not (tmp_path / "it").exists()


def test_holes_are_not_counted(tmp_path):
    with (tmp_path / "pieces").open("wb") as pieces:
        pieces.seek(1 << 30)
        pieces.write(b"end")
    assert background.size(str(tmp_path)) < 1 << 20
