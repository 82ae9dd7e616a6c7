"""Starting an instance."""

import json
import os
import subprocess

import pytest

from vllm_instance import definition, docker, instance, turns
from vllm_instance.host import Failed


@pytest.fixture
def start(machine, monkeypatch):
    """Returns start(definition) -> the command that this process would have become, None where it returned."""

    def start(definition):
        became = []
        monkeypatch.setattr(instance.os, "execvp", lambda program, command: became.append(command))
        instance.run(machine.host, definition)
        return became[0] if became else None

    return start


def test_the_process_becomes_the_engine_of_the_first_rung(machine):
    machine.define()
    machine.answer("docker run", "engine output\n", 3)
    ended = machine.program("run", "coder")
    assert (ended.returncode, ended.stdout) == (3, "engine output\n"), "what the engine says and ends with is the unit's own"
    words = machine.calls()[-1].split()
    assert words[2].startswith("--label=gpuhosts.command=")
    assert words[:2] + words[3:] == "docker run --rm --name vllm-coder engine@sha256:1 --model /model --max-num-seqs 64".split()
    assert machine.state()["status"] == "running"


def test_a_left_over_container_goes_first(machine, start):
    start(machine.define())
    assert machine.calls() == ["docker inspect --type container vllm-coder", "docker rm --force vllm-coder"]
    machine.answer("docker rm", status=1, errors="Cannot connect to the Docker daemon\n")
    assert start(machine.define()), "docker run will say it better"


def running(machine, **labels):
    """The answer of docker inspect about a container that runs."""
    state = {"Status": "running", "Running": True, "Restarting": False, "StartedAt": "T", "ExitCode": 0, "Error": "", "Pid": 77}
    policy = {"RestartPolicy": {"Name": "no"}}
    found = {"Id": "1", "State": state, "RestartCount": 0, "HostConfig": policy, "Config": {"Labels": labels}}
    machine.answer("docker inspect --type container vllm-coder", json.dumps([found]))


def test_a_container_that_outlived_its_client_is_kept(machine, start):
    """With live-restore engines go on while Docker restarts."""
    coder = machine.define()
    running(machine, **{"gpuhosts.command": coder.identity(machine.state())})
    assert start(coder) == ["docker", "attach", "--no-stdin", "vllm-coder"]


def test_a_container_of_another_command_is_not_kept(machine, start):
    coder = machine.define()
    running(machine, **{"gpuhosts.command": coder.identity(machine.state())})
    machine.set_state(rung=1)
    assert start(coder)[:2] == ["docker", "run"]
    assert machine.calls("docker rm") == ["docker rm --force vllm-coder"]


def test_a_docker_that_does_not_answer_is_waited_for_and_is_no_failure_of_the_engine(machine, start):
    machine.answer("docker inspect", "", 1, "Cannot connect to the Docker daemon")
    coder = machine.define()
    with pytest.raises(instance.NotYet, match="Docker does not answer .* see journalctl --unit docker"):
        start(coder)
    assert len(machine.calls("docker inspect")) > 5
    machine.program("exited", "coder", SERVICE_RESULT="exit-code", EXIT_CODE="exited", EXIT_STATUS="75")
    assert machine.state()["history"] == []


def test_what_was_started_is_noted(machine, start):
    start(machine.define())
    assert machine.host.run("coder.running").read_text() == "7\n"


def test_the_rung_and_the_remedy_of_the_state_are_started(machine, start, capsys):
    definition = machine.define()
    machine.set_state(rung=1, hang_remedy=True)
    assert start(definition)[-5:] == ["--model", "/model", "--max-num-seqs", "32", "--disable-custom-all-reduce"]
    assert "coder: starts on rung 1 of 2 (fewer sequences: max_num_seqs 32), with --disable-custom-all-reduce" in capsys.readouterr().err


def test_a_ladder_that_became_shorter_ends_at_its_last_rung(machine, start):
    machine.set_state(rung=2)
    command = start(machine.define(rungs=machine.define().rungs[:2]))
    assert command[-2:] == ["--max-num-seqs", "32"]


def test_a_native_engine_needs_no_docker(machine, start):
    definition = machine.define(runtime="native", command=["/opt/vllm/bin/python3", "-m", "vllm.entrypoints.openai.api_server"])
    assert start(definition)[:3] == ["/opt/vllm/bin/python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert machine.calls() == []


def test_a_program_that_does_not_exist_is_said(machine):
    machine.define(runtime="native", command=["/opt/vllm/bin/python3"])
    ended = machine.program("run", "coder")
    assert ended.returncode == 1
    assert ended.stderr == "vllm-instance: coder: /opt/vllm/bin/python3 cannot be started: No such file or directory\n"


def test_quarantine_refuses_with_the_status_that_systemd_does_not_restart(machine):
    machine.define()
    machine.set_state(status="quarantined", quarantine={"time": "2026-11-27T12:00:00Z", "reason": "stall", "message": "4 hangs", "evidence": None})
    ended = machine.program("run", "coder")
    assert ended.returncode == 78
    assert ended.stderr == "vllm-instance: coder: is in quarantine since 2026-11-27T12:00:00Z and is not started: 4 hangs\n"
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "it is no mapping"),
        ('{"name": "coder"}', "supervisor is missing or of the wrong type"),
    ],
)
def test_a_definition_that_cannot_be_used_is_refused(machine, text, words):
    machine.define()
    path = machine.host.etc("coder") / "definition.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    ended = machine.program("run", "coder")
    assert ended.returncode == 78
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_what_a_definition_lacks_is_named(machine):
    for change, words in (
        ({"name": "other"}, "it is of other"),
        ({"supervisor": "cron"}, "supervisor cron with runtime container is not known"),
        ({"command": []}, "command is no list of words"),
        ({"rungs": []}, "rungs is no list of rungs with an argv"),
        ({"hang_argv": [1]}, "hang_argv is no list of words"),
        ({"limits": dict.fromkeys(definition.LIMITS, True)}, "limits.ready_seconds is no number"),
    ):
        path = machine.host.etc("coder") / "definition.json"
        machine.define()
        document = json.loads(path.read_text())
        document.update(change)
        path.write_text(json.dumps(document))
        assert words in machine.program("run", "coder").stderr


def test_docker_creates_the_container_and_the_program_returns(machine, start):
    definition = machine.define(supervisor="docker", command=["docker", "run", "--detach", "--restart", "always", "--name", "vllm-coder", "engine"])
    assert start(definition) is None
    assert machine.calls() == [
        "docker rm --force vllm-coder",
        "docker run --detach --restart always --name vllm-coder engine --model /model --max-num-seqs 64",
    ]


def test_compose_gets_a_second_file_on_a_lower_rung_and_loses_it_on_the_first(machine, start):
    definition = machine.define(supervisor="compose", command=["docker", "compose", "--file", "/etc/vllm/coder/compose.yaml"])
    overlay = machine.host.etc("coder") / "compose.rung.json"
    machine.set_state(rung=1)
    start(definition)
    assert machine.calls()[-1] == f"docker compose --file /etc/vllm/coder/compose.yaml --file {overlay} up --detach"
    assert json.loads(overlay.read_text()) == {"services": {"vllm": {"command": ["--model", "/model", "--max-num-seqs", "32"]}}}
    machine.set_state(rung=0)
    start(definition)
    assert machine.calls()[-1] == "docker compose --file /etc/vllm/coder/compose.yaml up --detach"
    assert not overlay.exists()


def test_a_container_that_cannot_be_created_is_said(machine):
    machine.define(supervisor="docker")
    machine.answer("docker run", status=125, errors="docker: Error response from daemon: port is already allocated.\n")
    ended = machine.program("run", "coder")
    assert ended.returncode == 1
    assert ended.stderr == "vllm-instance: coder: docker run: docker: Error response from daemon: port is already allocated.\n"


class Living:
    """Another process, for a mark that is of one."""

    def __enter__(self):
        self._process = subprocess.Popen(["sleep", "600"])
        return self._process

    def __exit__(self, *given):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def other(machine):
    """Another instance that has begun to start on card 1, as the process that __enter__ gives."""
    definition = machine.define("other", gpus=[1, 2])
    with Living() as process:
        turns._mark(machine.host, definition, "starting", process.pid)
        yield process


def test_who_shares_a_card_waits_for_who_starts(machine, other, start, capsys):
    """The clock of these tests goes on when somebody sleeps: the wait ends when the other's time is over."""
    began = machine.clock.seconds
    assert start(machine.define())
    assert machine.clock.seconds - began > 900
    said = capsys.readouterr().err.splitlines()
    assert said == ["vllm-instance: coder: waits for other, which is starting on the same cards"], "once, not at each look"


def test_who_shares_no_card_does_not_wait(machine, other, start):
    began = machine.clock.seconds
    start(machine.define(gpus=[0]))
    assert machine.clock.seconds == began


def test_the_wait_ends_when_the_other_serves(machine, other, start, engine):
    machine.define("other", gpus=[1, 2], url=engine.url)
    turns._mark(machine.host, machine.define("other", gpus=[1, 2], url=engine.url), "starting", other.pid)
    engine.health = 503
    assert not turns.take(machine.host, machine.define(), wait=False)
    engine.health = 200
    assert turns.take(machine.host, machine.define(), wait=False)


def test_the_wait_ends_when_the_other_is_gone(machine, other):
    assert not turns.take(machine.host, machine.define(), wait=False)
    other.kill()
    other.wait()
    assert turns.take(machine.host, machine.define(), wait=False)


def test_another_process_with_the_same_number_is_not_the_one_that_started(machine, other):
    path = machine.host.run("other.start")
    mark = json.loads(path.read_text())
    path.write_text(json.dumps(dict(mark, born=mark["born"] - 1)))
    assert turns.take(machine.host, machine.define(), wait=False)


def test_a_container_that_starts_is_waited_for_until_it_ends(machine):
    turns.note_start(machine.host, machine.define("other", supervisor="docker"))
    for output, status, errors, starting in (
        ("running\n", 0, "", True),
        ("restarting\n", 0, "", True),
        ("exited\n", 0, "", False),
        ("\n", 1, "Error: No such container: vllm-other\n", False),
        ("", 1, "Cannot connect to the Docker daemon\n", True),
    ):
        machine.answer("docker inspect", output, status, errors)
        assert turns.blockers(machine.host, machine.define()) == (["other"] if starting else []), output + errors


def test_who_waits_blocks_nobody(machine, other):
    turns._mark(machine.host, machine.define("third", gpus=[0, 1]), "waiting", other.pid)
    assert turns.waiting(machine.host, "third")
    assert turns.started(machine.host, "third") is None
    assert turns.take(machine.host, machine.define(gpus=[0]), wait=False)


def test_a_mark_that_nobody_can_read_blocks_nobody(machine, other):
    machine.host.run("other.start").write_text("{")
    assert turns.take(machine.host, machine.define(), wait=False)


def test_two_that_start_at_once_do_not_start_together(machine):
    """Two real processes. Each becomes a docker that leaves a file while it runs and finds none of the other's."""
    script = machine.bin / "docker"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1" = inspect ] && { echo "Error: No such container" >&2; exit 1; }\n[ "$1" = run ] || exit 0\n'
        f'if mkdir {machine.root}/card 2> /dev/null; then sleep 0.3; rmdir {machine.root}/card; else echo together; fi\n'
    )  # fmt: skip
    command = [os.sys.executable, "-I", "-B", os.path.dirname(docker.__file__), "--root", str(machine.root), "run"]
    for name in ("coder", "other"):
        machine.define(name)
    started = [subprocess.Popen(command + [name], stdout=subprocess.PIPE, text=True) for name in ("coder", "other")]
    assert [process.communicate(timeout=60)[0] for process in started] == ["", ""]


def test_a_quarantine_during_the_wait_is_heeded(machine, other, start):
    definition = machine.define()

    def quarantine(seconds):
        machine.clock.pass_(seconds)
        machine.set_state(status="quarantined")

    machine.host.sleep = quarantine
    with pytest.raises(Failed, match="is in quarantine"):
        start(definition)
