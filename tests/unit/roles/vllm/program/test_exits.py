"""How an end is judged, and what is left of it."""

import json

import pytest

from vllm_instance import exits

ENDED = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "1", "INVOCATION_ID": "abc"}


@pytest.fixture
def end(machine):
    """Returns end(log, **environment): the unit ended and left this log."""

    def end(log="", name="coder", **environment):
        machine.answer("journalctl --quiet", log)
        exits.exited(machine.host, name, dict(ENDED, **environment))
        return machine.state(name)

    return end


def test_out_of_memory_takes_the_next_rung(machine, end, logs, capsys):
    machine.define()
    machine.set_state(status="running")
    state = end(logs["oom"])
    assert (state["rung"], state["status"], state["quarantine"]) == (1, "running", None)
    (event,) = state["history"]
    assert {key: event[key] for key in ("event", "reason", "rung", "time")} == {
        "event": "step_down",
        "reason": "oom",
        "rung": 1,
        "time": "2027-01-15T08:00:00Z",
    }
    assert "rung 1 of 2 (fewer sequences: max_num_seqs 32) is next" in event["message"]
    assert "rung 1 of 2" in capsys.readouterr().err, "the journal says it too"
    assert 'gpuhosts_vllm_rung{name="coder"} 1\n' in machine.host.metrics.read_text()
    assert 'gpuhosts_vllm_step_downs_total{name="coder"} 1\n' in machine.host.metrics.read_text()


def test_the_log_of_this_start_is_read(machine, end, logs):
    machine.define()
    end(logs["oom"], INVOCATION_ID="f00d")
    assert machine.calls("journalctl --sync")
    assert machine.calls("journalctl --quiet")[0].endswith(" _SYSTEMD_INVOCATION_ID=f00d")


def test_out_of_memory_while_serving_ends_with_status_0_and_is_one_all_the_same(machine, end, logs):
    machine.define()
    serving = "INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5\nINFO:     Application startup complete.\n"
    log = serving + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 100.00 MiB.\nINFO:     Shutting down\n"
    assert end(log, SERVICE_RESULT="success", EXIT_STATUS="0")["rung"] == 1


@pytest.mark.parametrize("kind", ["stop", "restart"])
def test_a_stop_that_was_asked_for_is_no_failure_whatever_the_log_says(machine, end, logs, kind):
    machine.define()
    machine.answer("systemctl list-jobs", f"112 vllm-coder.service {kind} running\n")
    state = end(logs["oom"])
    assert (state["rung"], state["status"], state["history"]) == (0, "stopped", [])


def test_a_start_that_is_queued_is_no_stop(machine, end, logs):
    machine.define()
    machine.answer("systemctl list-jobs", "112 vllm-coder.service start waiting\n")
    assert end(logs["oom"])["rung"] == 1


def test_without_an_answer_of_systemd_its_result_tells(machine, end, logs):
    machine.define()
    machine.answer("systemctl list-jobs", status=1, errors="Failed to connect to bus\n")
    assert end(logs["oom"], SERVICE_RESULT="success")["rung"] == 0
    assert end(logs["oom"])["rung"] == 1


@pytest.mark.parametrize(
    "how", [{"EXIT_STATUS": "137"}, {"EXIT_CODE": "killed", "EXIT_STATUS": "KILL", "SERVICE_RESULT": "signal"}, {"SERVICE_RESULT": "oom-kill"}]
)
def test_a_kill_for_want_of_ram_takes_no_rung(machine, end, logs, how):
    machine.define()
    state = end(logs["oom"], **how)
    assert state["rung"] == 0
    assert machine.events() == [("restart", "crash")]
    assert "exit status 137" in state["history"][-1]["message"]


def test_a_crash_is_counted_and_its_cause_and_remedy_are_said(machine, end, logs):
    machine.define()
    state = end(logs["crash"])
    assert machine.events() == [("restart", "crash")]
    assert state["counts"]["restarts"] == {"crash": 1}
    assert "exit status 1" in state["history"][0]["message"]
    assert "restart 1 of at most 3 within 3600 s" in state["history"][0]["message"]
    assert 'gpuhosts_vllm_restarts_total{name="coder",reason="crash"} 1\n' in machine.host.metrics.read_text()


def test_an_error_of_several_lines_is_told_by_its_first(machine, end):
    machine.define()
    state = end("RuntimeError: CUDA error: an illegal memory access was encountered\\nCUDA kernel errors might be reported elsewhere\n")
    assert "an illegal memory access was encountered, remedy" in state["history"][0]["message"]


def test_a_log_that_comes_late_is_read_again(machine, end, logs, monkeypatch):
    machine.define()
    machine.answer("journalctl --quiet", "")

    def sleep(seconds):
        machine.answer("journalctl --quiet", logs["oom"])

    machine.host.sleep = sleep
    exits.exited(machine.host, "coder", ENDED)
    assert machine.state()["rung"] == 1


def test_what_this_program_said_is_not_taken_for_the_engines_words(machine, end):
    machine.define()
    end("vllm-instance: coder: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 MiB\n")
    assert machine.state()["rung"] == 0


def test_failures_beyond_the_bound_are_quarantine(machine, end, logs, capsys):
    machine.define()
    for dummy in range(3):
        end(logs["crash"])
        machine.clock.pass_(60)
    assert machine.state()["status"] != "quarantined"
    state = end(logs["crash"])
    assert state["status"] == "quarantined"
    assert state["quarantine"]["reason"] == "crash"
    message = state["quarantine"]["message"]
    assert "4 failures within 3600 s (crash, crash, crash, crash)" in message
    assert message.endswith("vllm-instance release coder")
    assert "quarantined" in capsys.readouterr().err
    assert 'gpuhosts_vllm_quarantined{name="coder"} 1\n' in machine.host.metrics.read_text()
    assert machine.program("run", "coder").returncode == 78


def test_failures_that_are_long_ago_do_not_count(machine, end, logs):
    machine.define()
    for dummy in range(10):
        end(logs["crash"])
        machine.clock.pass_(1201)
    assert machine.state()["status"] != "quarantined"


def test_steps_down_are_no_failures(machine, end, logs):
    machine.define(limits={"restarts": 0})
    assert end(logs["oom"])["status"] != "quarantined"


def test_the_end_of_the_ladder_is_quarantine_and_names_the_rungs(machine, end, logs):
    machine.define()
    for dummy in range(2):
        end(logs["oom"])
    assert machine.state()["rung"] == 2
    state = end(logs["oom"])
    assert (state["status"], state["rung"]) == ("quarantined", 2)
    for words in ("rung 0 of 2 (as planned)", "rung 1 of 2 (fewer sequences: max_num_seqs 32)", "rung 2 of 2", "the ladder ends there"):
        assert words in state["quarantine"]["message"]


def test_the_bound_of_steps_is_the_hosts_own_and_counts_from_what_a_person_chose(machine, end, logs):
    machine.define(limits={"ladder_steps": 1})
    end(logs["oom"])
    assert machine.state()["rung"] == 1
    state = end(logs["oom"])
    assert state["status"] == "quarantined"
    assert "limits.ladder_steps is 1" in state["quarantine"]["message"]
    machine.set_state(status="running", quarantine=None, rung=1, base=1)
    assert end(logs["oom"])["rung"] == 2


def test_a_refused_start_is_not_judged(machine, end, logs):
    machine.define()
    machine.set_state(status="quarantined", quarantine={"message": "so"})
    before = machine.state()
    end(logs["oom"], EXIT_STATUS="78")
    end(logs["oom"])
    assert machine.state() == before


def test_a_start_that_was_refused_for_its_definition_says_so_once(machine, end, capsys):
    (machine.host.etc("coder")).mkdir(parents=True)
    end(EXIT_STATUS="78")
    assert capsys.readouterr().err == "", "`run` has said it"


def test_an_end_frees_the_cards(machine, end, logs):
    machine.define()
    machine.host.run("coder.start").parent.mkdir(parents=True, exist_ok=True)
    machine.host.run("coder.start").write_text("{}")
    end(logs["crash"])
    assert not machine.host.run("coder.start").exists()


def test_a_stop_never_fails_of_the_judgement(machine, capsys):
    """No definition, no state directory, no systemctl, no journalctl: the unit still stops."""
    for name in ("systemctl", "journalctl"):
        (machine.bin / name).write_text("#!/nonexistent\n")
    assert machine.program("exited", "coder", **ENDED).returncode == 0
    machine.define()
    (machine.root / "var").write_text("a file where a directory should be")
    ended = machine.program("exited", "coder", **ENDED)
    assert ended.returncode == 0
    assert "cannot be written" in ended.stderr


def test_a_disk_that_takes_nothing_does_not_hide_the_next_rung(machine, end, logs, capsys):
    machine.define()
    (machine.root / "var").write_text("a file where a directory should be")
    assert end(logs["oom"])["rung"] == 1, "kept in /run until there is room"
    assert "cannot be written" in capsys.readouterr().err
    assert "32" in machine.program("run", "coder").stdout + " ".join(machine.calls("docker run"))
    (machine.root / "var").unlink()
    assert end(logs["oom"])["rung"] == 2
    assert json.loads((machine.host.lib("coder") / "state.json").read_text())["rung"] == 2
    assert not machine.host.run("coder.state.json").exists()


def test_a_state_that_cannot_be_read_is_put_aside_and_serving_goes_on(machine, end, logs, capsys):
    machine.define()
    path = machine.host.lib("coder") / "state.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"rung": -1}', '{"rung": "1"}', '{"status": "odd"}', '{"history": [1]}', '{"counts": {}}'):
        path.write_text(text)
        assert machine.state()["rung"] == 0
        assert "going on as if nothing had happened, from rung 0" in capsys.readouterr().err
        assert (path.parent / "state.json.broken").read_text() == text
    path.write_text("{")
    assert end(logs["oom"])["rung"] == 1


def test_a_log_that_cannot_be_understood_counts_all_the_same(machine, end, monkeypatch, capsys):
    machine.define()
    monkeypatch.setattr(exits.vllm_log, "causes", lambda *given: 1 / 0)
    monkeypatch.setattr(exits, "_log", lambda *given: "")
    end()
    assert machine.events() == [("restart", "crash")]
    assert "its log cannot be understood (ZeroDivisionError: division by zero)" in capsys.readouterr().err


def test_a_bound_beyond_the_history_is_a_bound(machine, end, logs):
    machine.define(limits={"restarts": 30})
    machine.set_state(history=[{"time": "2027-01-15T08:00:00Z", "event": "start", "reason": "ready", "rung": 0, "message": ""}] * 50)
    for dummy in range(30):
        machine.set_state(history=machine.state()["history"] * 2)
        end(logs["crash"])
    assert machine.state()["status"] != "quarantined"
    assert end(logs["crash"])["status"] == "quarantined"


def test_the_history_is_bounded(machine, end, logs):
    machine.define(limits={"restarts": 1000})
    machine.set_state(history=[{"time": "2027-01-15T08:00:00Z", "event": "start", "reason": "ready", "rung": 0, "message": str(n)} for n in range(60)])
    end(logs["crash"])
    history = machine.state()["history"]
    assert len(history) == 50
    assert history[-1]["event"] == "restart"
