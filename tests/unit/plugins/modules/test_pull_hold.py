"""The hold of a run from a controller, on a systemctl that writes down what it is asked."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import pull_hold

SYSTEMCTL = """#!/bin/sh
echo "$*" >> {log}
case "$1 $PULL" in
  "restart "*|"stop "*) exit $STATUS;;
  "is-active "*) echo "$PULL";;
  "show "*) echo "Mon 2026-03-02 11:07:12 UTC";;
esac
"""


@pytest.fixture
def host(run_module, tmp_path, monkeypatch):
    """host(status, pull, **arguments): (the module's result, what systemctl was asked); status is that of starting and stopping, pull the run's state."""
    log, unit, program = tmp_path / "log", tmp_path / "unit", tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(log=log))
    program.chmod(0o755)
    monkeypatch.setattr(pull_hold, "UNIT", str(unit))
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    def run(status=0, pull="inactive", there=True, **arguments):
        monkeypatch.setenv("STATUS", str(status))
        monkeypatch.setenv("PULL", pull)
        unit.write_text("") if there else unit.unlink(missing_ok=True)
        log.write_text("")
        return run_module(pull_hold, **arguments), log.read_text().splitlines()

    return run


@pytest.mark.parametrize("state, verb", [("held", "restart"), ("free", "stop")])
def test_a_host_is_held_and_given_back(host, state, verb):
    result, asked = host(state=state)
    assert (result["changed"], result["held"], asked) == (False, state == "held", [f"{verb} gpuhosts-hold.service"])


@pytest.mark.parametrize("given", [{"check": True}, {"there": False}])
def test_in_check_mode_or_without_the_units_nothing_is_done(host, given):
    result, asked = host(**given)
    assert (result["held"], asked) == (False, [])


def test_a_run_that_does_not_end_is_named(host):
    result, asked = host(status=1, pull="activating")
    assert result["msg"] == (
        "The host converges itself since Mon 2026-03-02 11:07:12 UTC (gpuhosts-pull.service), and did not come to its end in pull_wait_seconds. "
        "Wait for it (journalctl -fu gpuhosts-pull.service on the host), or end it there with systemctl stop gpuhosts-pull.service; then run again. "
        "Nothing was changed."
    )
    assert asked[-1] == "reset-failed gpuhosts-hold.service", "no failed unit is left"


def test_a_hold_that_fails_by_itself_is_not_laid_to_the_run(host):
    result, asked = host(status=1)
    assert result["msg"].startswith("gpuhosts-hold.service does not start, and without it the host could converge itself meanwhile")
