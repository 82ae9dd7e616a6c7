"""The watchdog over units of systemd: what it sees, and what it does about it."""

import json
import os
import pathlib
import socket

import pytest

from vllm_instance import evidence as captured
from vllm_instance import exposition, turns
from vllm_instance import watch as loop
from vllm_instance.watch import Watch
from vllm_instance.watched import Watched


@pytest.fixture
def watched(machine, engine, logs):
    """The instance coder, served by an engine under systemd, as the watchdog sees it; look(seconds) looks again after that time."""
    machine.define(url=engine.url, limits={"stall_seconds": 0.2})
    machine.set_state(status="running")
    machine.unit()
    machine.answer("journalctl --quiet", logs["start"])
    watched = Watched(machine.host, "coder")

    def look(seconds=5):
        machine.clock.pass_(seconds)
        return watched.look()

    watched.again = look
    return watched


def hang(machine, engine, watched):
    """The engine hangs with a request in it, until the watchdog acts."""
    engine.count(running=1, tokens=100)
    watched.again()
    engine.completion = None
    watched.again()


def evidence(machine, name="coder"):
    folder = machine.host.lib(name) / "evidence"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_a_start_that_serves_is_kept_beside_the_plan_once(machine, engine, watched, logs):
    (machine.host.etc("coder") / "generation").write_text("7\n")
    engine.health = 503
    assert watched.again() is False
    engine.health = 200
    assert watched.again(42) is True
    assert watched.again() is True
    assert Watched(machine.host, "coder").look() is True, "another watchdog knows it from the disk"
    (line,) = (machine.host.lib("coder") / "starts.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:47Z",
        "generation": 7,
        "rung": 0,
        "hang_remedy": False,
        "start": "start1",
        "log": [entry for entry in logs["start"].splitlines() if "Application" not in entry],
    }
    assert machine.events() == [("start", "ready")]
    assert machine.state()["history"][0]["message"] == "serves after 42 s on rung 0 of 2 (as planned)"
    machine.unit(invocation="start2")
    watched.again()
    assert machine.events() == [("start", "ready")] * 2


def test_a_journal_without_the_containers_first_words_is_not_all_there_is(machine, watched, logs):
    machine.answer("journalctl --quiet", "INFO:     Application startup complete.\n")
    machine.answer("docker logs", logs["start"])
    watched.again()
    assert len(json.loads((machine.host.lib("coder") / "starts.jsonl").read_text())["log"]) == 3


def test_half_a_line_of_a_power_cut_spoils_nothing(machine, watched):
    path = machine.host.lib("coder") / "starts.jsonl"
    path.write_text('{"start": "start0"}\n{"start": "sta')
    watched.again()
    assert json.loads(path.read_text().splitlines()[-1])["start"] == "start1"
    assert Watched(machine.host, "coder").look()
    assert len(path.read_text().splitlines()) == 3


def test_a_start_frees_the_cards_when_it_serves(machine, engine, watched):
    engine.health = 503
    watched.again()
    assert turns.started(machine.host, "coder") is not None, "a start that nobody announced is waited for too"
    engine.health = 200
    watched.again()
    assert turns.started(machine.host, "coder") is None


def test_a_hang_leaves_evidence_gets_the_remedy_and_a_restart(machine, engine, watched):
    hang(machine, engine, watched)
    assert machine.events()[1:] == [("hang_remedy", "stall"), ("restart", "stall")]
    state = machine.state()
    assert state["hang_remedy"] is True
    assert state["counts"]["restarts"] == {"stall": 1}
    (folder,) = evidence(machine)
    assert folder.name == "20270115T080010Z-stall"
    assert str(folder) in state["history"][-1]["message"]
    acts = [call for call in machine.calls() if call.startswith(("systemctl restart", "docker kill"))]
    assert acts == ["systemctl restart --no-block vllm-coder.service", "docker kill vllm-coder"], "the job first: `exited` then knows that it was asked for"
    calls = machine.calls()
    assert calls.index("docker top vllm-coder -eo pid,ppid,stat,wchan:32,pcpu,etime,args") < calls.index(acts[0]), "evidence before the end"
    assert machine.program("command", "coder").stdout.endswith("--disable-custom-all-reduce\n")


def test_an_engine_that_answers_a_token_does_not_hang(machine, engine, watched):
    engine.count(running=1, tokens=100)
    for dummy in range(5):
        assert watched.again() is True
    assert len(engine.requests) == 4
    assert machine.events() == [("start", "ready")]


def test_the_key_of_the_environment_file_is_used_and_stands_on_no_command_line(machine, engine, watched):
    (machine.host.etc("coder") / "environment").write_text("# ours\nHF_HUB_OFFLINE=1\nVLLM_API_KEY=planted-key-1\n")
    engine.count(running=1, tokens=100)
    watched.again()
    watched.again()
    assert engine.requests == [("/v1/completions", {"model": "coder", "prompt": "1", "max_tokens": 1, "temperature": 0}, "Bearer planted-key-1")]
    hang(machine, engine, watched)
    assert evidence(machine)
    assert not [call for call in machine.calls() if "planted" in call]


def test_one_card_hangs_of_no_other_and_gets_no_remedy(machine, engine, watched):
    machine.define(url=engine.url, limits={"stall_seconds": 0.2}, gpus=[0])
    hang(machine, engine, watched)
    assert machine.events()[1:] == [("restart", "stall")]
    assert machine.state()["hang_remedy"] is False


def test_a_plan_that_has_the_remedy_gets_it_once(machine, engine, watched):
    rungs = [dict(machine.define().rungs[0], argv=["--disable-custom-all-reduce", "--model", "/model"])]
    machine.define(url=engine.url, limits={"stall_seconds": 0.2}, rungs=rungs)
    hang(machine, engine, watched)
    assert machine.events()[1:] == [("restart", "stall")]
    assert machine.program("command", "coder").stdout.count("--disable-custom-all-reduce") == 1


def test_repetition_is_quarantine(machine, engine, watched, capsys):
    for number in range(4):
        machine.unit(invocation=f"start{number}")
        engine.completion = 200
        hang(machine, engine, watched)
    state = machine.state()
    assert state["status"] == "quarantined"
    assert machine.events()[-2:] == [("start", "ready"), ("quarantine", "stall")]
    assert machine.calls("systemctl")[-1].startswith("systemctl stop --no-block vllm-coder.service")
    message = state["quarantine"]["message"]
    assert "requests are in the engine and no token came" in message, "what was seen"
    assert "4 failures within 3600 s (stall, stall, stall, stall)" in message, "how often"
    assert state["quarantine"]["evidence"] == str(evidence(machine)[-1])
    assert state["quarantine"]["evidence"] in message, "where the evidence is"
    assert message.endswith("vllm-instance release coder"), "what ends it"
    assert "quarantined" in capsys.readouterr().err


def test_a_quarantined_unit_that_runs_is_stopped_again(machine, engine, watched):
    machine.set_state(status="quarantined")
    machine.forget_calls()
    assert watched.again() is False
    assert machine.calls("systemctl stop") == ["systemctl stop --no-block vllm-coder.service"]
    machine.unit(state="deactivating")
    machine.forget_calls()
    watched.again()
    assert machine.calls("systemctl stop") == []


def test_health_that_goes_away_is_a_restart(machine, engine, watched):
    watched.again()
    engine.health = 503
    assert watched.again(30) is False
    assert machine.events() == [("start", "ready")]
    watched.again(31)
    assert machine.events()[1:] == [("restart", "unanswered")]
    assert "--disable" not in machine.program("command", "coder").stdout, "no sign of a hang between cards"


def test_a_start_that_never_serves_is_a_restart_with_the_remedy(machine, engine, watched):
    engine.health = 503
    watched.again()
    watched.again(895)
    assert machine.events() == []
    watched.again()
    assert machine.events() == [("hang_remedy", "stall"), ("restart", "hang_at_load")]


def test_the_time_to_load_begins_when_the_turn_has_come(machine, engine, watched):
    engine.health = 503
    definition = machine.define(url=engine.url)
    turns._mark(machine.host, definition, "waiting", os.getpid())
    for dummy in range(3):
        assert watched.again(900) is False
    turns.note_start(machine.host, definition)
    watched.again(895)
    assert machine.events() == []
    watched.again()
    assert machine.events()[-1] == ("restart", "hang_at_load")


def test_native_engines_are_killed_by_systemd(machine, engine, watched):
    machine.define(url=engine.url, runtime="native", command=["/opt/vllm/bin/python3"], limits={"stall_seconds": 0.2})
    hang(machine, engine, watched)
    assert [call for call in machine.calls("systemctl") if "show" not in call][-2:] == [
        "systemctl restart --no-block vllm-coder.service",
        "systemctl kill --signal=SIGKILL vllm-coder.service",
    ]
    assert machine.calls("docker") == []


def test_a_change_by_the_playbook_is_left_alone(machine, engine, watched, capsys):
    path = machine.host.run("coder.changing")
    path.write_text(str(os.getpid()))
    os.utime(path, (machine.clock.seconds, machine.clock.seconds))
    hang(machine, engine, watched)
    assert machine.events() == [("start", "ready")], "it observes"
    assert evidence(machine) == []
    assert "a change of the instance is under way" in capsys.readouterr().err
    for number, stale in enumerate(("999999999", "no number", str(os.getpid()))):
        path.write_text(stale)
        age = 1000 if stale == str(os.getpid()) else 0
        os.utime(path, (machine.clock.seconds - age, machine.clock.seconds - age))
        watched.again()
        assert machine.events().count(("restart", "stall")) == number + 1, "who is gone changes nothing"
        machine.unit(invocation=f"again{number}")
        engine.completion = 200
        engine.count(running=1, tokens=100)
        watched.again()
        engine.completion = None


def test_an_instance_that_was_restarted_meanwhile_is_not_restarted_again(machine, engine, watched, monkeypatch):
    monkeypatch.setattr(captured, "capture", lambda *given: machine.unit(invocation="another"))
    hang(machine, engine, watched)
    assert machine.events() == [("start", "ready")]
    assert machine.calls("systemctl restart") == []


def test_a_silent_systemd_is_said_once_and_watched_on(machine, watched, capsys):
    machine.answer("systemctl show", status=1, errors="Failed to connect to bus: No such file or directory\n")
    for dummy in range(3):
        assert watched.again() is False
    assert capsys.readouterr().err.count("Failed to connect to bus") == 1
    machine.unit()
    assert watched.again() is True
    machine.answer("systemctl show", status=1, errors="Failed to connect to bus: No such file or directory\n")
    watched.again()
    assert capsys.readouterr().err.count("Failed to connect to bus") == 1, "again, for it had answered in between"


def test_a_definition_that_changes_is_read_again(machine, engine, watched):
    engine.count(running=1, tokens=100)
    machine.define(url=engine.url, limits={"stall_seconds": 1000})
    watched.again()
    engine.completion = None
    watched.again()
    assert machine.events() == [("start", "ready")]
    machine.define(url=engine.url, limits={"stall_seconds": 0.2})
    watched.again()
    assert machine.events()[-1] == ("restart", "stall")


def test_a_broken_definition_hides_no_other(machine, engine, watched, capsys):
    machine.define("other", url=engine.url)
    machine.define("third", url=engine.url)
    (machine.host.etc("other") / "definition.json").write_text("{")
    rounds = Watch(machine.host)
    for dummy in range(2):
        assert rounds.round() is True
    text = machine.host.metrics.read_text()
    assert 'gpuhosts_vllm_up{name="coder"} 1\n' in text
    assert 'gpuhosts_vllm_up{name="third"} 1\n' in text
    assert 'gpuhosts_vllm_definition_broken{name="other"} 1\n' in text
    assert 'gpuhosts_vllm_up{name="other"}' not in text
    assert capsys.readouterr().err.count("cannot be read") == 1
    machine.define("other", url=engine.url)
    rounds.round()
    assert 'gpuhosts_vllm_up{name="other"} 1\n' in machine.host.metrics.read_text()
    for name in ("other", "third"):
        (machine.host.etc(name) / "definition.json").unlink()
    rounds.round()
    assert "third" not in machine.host.metrics.read_text()


def test_a_fault_of_the_program_itself_hides_no_other(machine, engine, watched, monkeypatch, capsys):
    machine.define("other", url=engine.url)
    look = Watched._look
    monkeypatch.setattr(Watched, "_look", lambda self: 1 / 0 if self._name == "coder" else look(self))
    Watch(machine.host).round()
    assert 'gpuhosts_vllm_up{name="coder"} 0\n' in machine.host.metrics.read_text()
    assert 'gpuhosts_vllm_up{name="other"} 1\n' in machine.host.metrics.read_text()
    assert "coder: cannot be watched (ZeroDivisionError: division by zero)" in capsys.readouterr().err


def test_a_look_that_hangs_hides_no_other_and_in_the_end_the_watchdog(machine, engine, watched, monkeypatch):
    machine.define("other", url=engine.url)
    look = Watched._look
    monkeypatch.setattr(Watched, "_look", lambda self: engine.silence.wait(30) if self._name == "coder" else look(self))
    rounds = Watch(machine.host)
    machine.host.monotonic = machine.clock.now
    assert rounds.round(patience=0) is True
    rounds._looking["other"][0].join()
    rounds.round(patience=0)
    assert 'gpuhosts_vllm_up{name="other"} 1\n' in machine.host.metrics.read_text()
    machine.clock.pass_(901)
    assert rounds.round(patience=0) is False, "systemd hears nothing more and restarts it"


def test_the_metrics_are_whole_and_name_every_family(machine, engine, watched):
    Watch(machine.host).round()
    path = machine.host.metrics
    assert path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    for family, (kind, dummy) in exposition.FAMILIES.items():
        assert f"# TYPE {family} {kind}\n" in text
        assert f"# HELP {family} " in text
    assert 'gpuhosts_vllm_kv_tokens_planned{name="coder"} 1000\n' in text
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no half files for the collector"


def test_metrics_that_stay_the_same_are_not_written_again_but_are_not_old(machine, engine, watched):
    rounds = Watch(machine.host)
    rounds.round()
    path = machine.host.metrics
    before = path.stat().st_ino
    os.utime(path, (1, 1))
    rounds.round()
    assert path.stat().st_ino == before
    assert path.stat().st_mtime > 1


def test_metrics_that_cannot_be_written_are_said_once(machine, engine, watched, capsys):
    rounds = Watch(machine.host)
    machine.host.metrics.parent.parent.mkdir(parents=True, exist_ok=True)
    machine.host.metrics.parent.write_text("a file where a directory should be")
    for dummy in range(3):
        rounds.round()
    assert capsys.readouterr().err.count("vllm_instances.prom cannot be written") == 1


def test_systemd_hears_of_it(machine, engine, watched, monkeypatch):
    """READY=1 at once, WATCHDOG=1 after each round, and STOPPING=1 at SIGTERM."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = pathlib.Path(machine.root / "notify")
    heard.bind(str(path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setattr(loop.signal, "signal", lambda number, handler: setattr(machine, "terminate", handler))
    rounds = Watch.round

    def last_round(self):
        machine.terminate()
        return rounds(self)

    monkeypatch.setattr(Watch, "round", last_round)
    loop.watch(machine.host, 0)
    said = [heard.recv(1000).decode() for dummy in range(3)]
    heard.close()
    assert said == ["READY=1\nSTATUS=watching coder", "WATCHDOG=1\nSTATUS=watching coder", "STOPPING=1"]
