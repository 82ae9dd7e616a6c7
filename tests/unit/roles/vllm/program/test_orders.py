"""What a person asks and orders."""

import json
import os
import shlex

import pytest

from vllm_instance import orders
from vllm_instance.host import Failed


def test_reset_goes_back_to_the_plans_first_choice_and_restarts(machine):
    machine.define()
    machine.set_state(status="running", rung=2, hang_remedy=True)
    ended = machine.program("reset", "coder")
    assert ended.returncode == 0
    assert ended.stdout == "coder: from rung 2 to rung 0 of 2 (as planned).\nRestarted; vllm-instance status coder shows when it serves.\n"
    state = machine.state()
    assert (state["rung"], state["base"], state["hang_remedy"]) == (0, 0, False)
    assert machine.events() == [("reset", "command")]
    assert machine.calls("systemctl") == ["systemctl reset-failed vllm-coder.service", "systemctl restart vllm-coder.service"]
    assert 'gpuhosts_vllm_rung{name="coder"} 0\n' in machine.host.metrics.read_text()


def test_reset_to_another_rung_keeps_the_remedy(machine):
    machine.define()
    machine.set_state(status="running", rung=2, hang_remedy=True)
    assert machine.program("reset", "coder", "--rung", "1").returncode == 0
    state = machine.state()
    assert (state["rung"], state["base"], state["hang_remedy"]) == (1, 1, True)


def test_reset_that_changes_nothing_restarts_nothing(machine):
    machine.define()
    machine.set_state(status="running")
    assert machine.program("reset", "coder").stdout.endswith("What runs does not change: nothing was restarted.\n")
    assert machine.calls() == []


def test_reset_to_a_rung_that_does_not_exist(machine):
    machine.define()
    for rung in ("3", "-1"):
        ended = machine.program("reset", "coder", "--rung", rung)
        assert ended.returncode == 1
        assert "coder has the rungs 0 to 2" in ended.stderr
    assert machine.state()["history"] == []


@pytest.mark.parametrize(("status", "words"), [("quarantined", "vllm-instance release coder starts it"), ("stopped", "stays so")])
def test_reset_starts_nothing_that_is_down(machine, status, words):
    machine.define()
    machine.set_state(status=status, rung=1)
    assert words in machine.program("reset", "coder").stdout
    assert machine.calls() == []


def test_release_ends_a_quarantine_and_starts(machine):
    machine.define()
    machine.set_state(status="quarantined", rung=1, quarantine={"time": "2026-11-27T12:00:00Z", "reason": "oom", "message": "so", "evidence": None})
    ended = machine.program("release", "coder")
    assert ended.stdout.splitlines()[0] == "coder: quarantine of 2026-11-27T12:00:00Z ended, on rung 1 of 2 (fewer sequences: max_num_seqs 32)."
    state = machine.state()
    assert (state["status"], state["quarantine"], state["rung"]) == ("running", None, 1)
    assert machine.events() == [("release", "command")]
    assert machine.calls("systemctl") == ["systemctl reset-failed vllm-coder.service", "systemctl start vllm-coder.service"]
    assert machine.program("release", "coder").stdout == "coder: is not in quarantine, nothing was done.\n"
    assert machine.events() == [("release", "command")]


def test_release_lets_failures_count_anew(machine, logs):
    machine.define()
    machine.answer("journalctl --quiet", logs["crash"])
    ended = {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1", "INVOCATION_ID": "abc"}
    for dummy in range(4):
        machine.program("exited", "coder", **ended)
    assert machine.state()["status"] == "quarantined"
    machine.program("release", "coder")
    for dummy in range(3):
        machine.program("exited", "coder", **ended)
    assert machine.state()["status"] == "running"


def test_release_of_a_container_creates_it_with_its_own_restart_policy(machine):
    machine.define(supervisor="docker", command=["docker", "run", "--detach", "--restart", "always", "engine"])
    machine.set_state(status="quarantined")
    machine.program("release", "coder")
    assert machine.calls() == ["docker rm --force vllm-coder", "docker run --detach --restart always engine --model /model --max-num-seqs 64"]


def test_a_restart_that_fails_is_said(machine):
    machine.define()
    machine.set_state(status="running", rung=1)
    machine.answer("systemctl restart", status=1, errors="Job for vllm-coder.service failed.\n")
    ended = machine.program("reset", "coder")
    assert ended.returncode == 1
    assert ended.stderr == "vllm-instance: coder: systemctl restart: Job for vllm-coder.service failed.\n"


def test_only_root_gives_orders(machine, monkeypatch):
    definition = machine.define()
    machine.set_state(rung=1)
    monkeypatch.setattr(orders.os, "geteuid", lambda: os.getuid() + 1)
    for order in (lambda: orders.reset(machine.host, definition, 0), lambda: orders.release(machine.host, definition)):
        with pytest.raises(Failed, match="only root may do this: sudo vllm-instance re"):
            order()
    assert machine.state()["rung"] == 1


def test_who_has_replaced_what_runs_starts_it_himself(machine):
    machine.define()
    machine.set_state(rung=2, status="quarantined", quarantine={"time": "T", "reason": "oom", "message": "m", "evidence": None})
    assert machine.program("reset", "coder", "--no-start").returncode == 0
    state = machine.state()
    assert (state["rung"], state["status"], state["quarantine"]) == (0, "running", None)
    assert machine.events()[-1] == ("reset", "change")
    assert not machine.calls("systemctl")


def test_command_prints_what_would_run(machine):
    coder = machine.define(command=["docker", "run", "--label", "a b", "engine"])
    machine.set_state(rung=1)
    text = machine.program("command", "coder").stdout
    identity = coder.identity(machine.state())
    assert text == f"docker run --label=gpuhosts.command={identity} --label 'a b' engine --model /model --max-num-seqs 32\n"
    assert shlex.split(text)[4] == "a b"
    machine.define(supervisor="compose", command=["docker", "compose", "--file", "compose.yaml"])
    assert machine.program("command", "coder").stdout.splitlines()[1] == "# the engine's arguments: --model /model --max-num-seqs 32"
    assert machine.calls() == []


def test_status_for_people(machine, engine):
    machine.define(url=engine.url)
    machine.define("second", supervisor="docker", gpus=[2, 3])
    machine.set_state(status="running", rung=1, history=[{"time": "T", "event": "step_down", "reason": "oom", "rung": 1, "message": "so it was"}])
    (machine.host.etc("broken")).mkdir()
    (machine.host.etc("broken") / "definition.json").write_text("{")
    lines = machine.program("status").stdout.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["INSTANCE", "UP", "STATUS", "SUPERVISOR", "RUNG", "KV", "TOKENS", "CARDS"],
        ["broken", "-", "broken", "-", "-", "-", "-"],
        ["coder", "yes", "running", "systemd", "1", "of", "2", "900", "0,1"],
        ["second", "no", "stopped", "docker", "0", "of", "2", "1000", "2,3"],
    ]
    assert "  on rung 1 of 2 (fewer sequences: max_num_seqs 32)" in lines
    assert "  T step_down (oom): so it was" in lines
    assert [line for line in lines if "definition.json cannot be read" in line]
    assert machine.program("status", "second").stdout.count("\n") == 2
    assert machine.calls() == []


def test_status_for_programs(machine, engine):
    machine.define(url=engine.url)
    machine.set_state(status="quarantined", rung=2, hang_remedy=True, quarantine={"time": "T", "reason": "oom", "message": "so", "evidence": None})
    (one,) = json.loads(machine.program("status", "coder", "--json").stdout)["instances"]
    wanted = {
        "name": "coder",
        "up": True,
        "status": "quarantined",
        "rung": 2,
        "rungs": 2,
        "rung_reason": "shorter context",
        "rung_changes": {"max_model_len": 8192},
        "kv_tokens_planned": 800,
        "hang_remedy": True,
        "definition_error": None,
        "quarantine": {"time": "T", "reason": "oom", "message": "so", "evidence": None},
    }
    assert {key: one[key] for key in wanted} == wanted


def test_status_of_nothing(machine):
    assert machine.program("status").stdout == "There is no instance on this host.\n"
    assert json.loads(machine.program("status", "--json").stdout) == {"instances": []}
    ended = machine.program("status", "coder")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no instance coder on this host" in ended.stderr


def test_names_are_no_paths(machine):
    ended = machine.program("status", "../../etc")
    assert ended.returncode == 2
    assert "is no instance's name" in ended.stderr
