"""Children that cannot hang their caller."""

import time

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import child


def test_output_and_status():
    assert child.run(["sh", "-c", "echo out; echo err >&2; exit 3"], 10) == (3, "out\n", "err\n")


def test_a_hanging_command_is_killed_with_its_children(tmp_path):
    mark = tmp_path / "mark"
    began = time.monotonic()
    with pytest.raises(child.TimedOut, match="no answer within 0.3 s"):
        child.run(["sh", "-c", f"(sleep 1; touch {mark}) & sleep 60"], 0.3)
    assert time.monotonic() - began < 3
    time.sleep(1.2)
    assert not mark.exists()


def test_a_missing_program_is_an_oserror():
    with pytest.raises(OSError):
        child.run(["/nonexistent/nvidia-smi"], 1)
