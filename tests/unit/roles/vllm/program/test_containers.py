"""The watchdog over containers that Docker supervises: it is told of no end, and finds it."""

import os

import pytest

from vllm_instance import instance, orders, turns
from vllm_instance.host import Failed
from vllm_instance.watched import Watched


@pytest.fixture(params=["docker", "compose"])
def supervisor(request):
    return request.param


@pytest.fixture
def watched(machine, engine, logs, supervisor):
    """The instance coder in a container that runs and has been looked at once."""
    commands = {
        "docker": ["docker", "run", "--detach", "--restart", "always", "--name", "vllm-coder", "engine"],
        "compose": ["docker", "compose", "--file", "/etc/vllm/coder/compose.yaml"],
    }
    machine.define(supervisor=supervisor, url=engine.url, command=commands[supervisor], limits={"stall_seconds": 0.2})
    machine.set_state(status="running")
    machine.container()
    machine.answer("docker logs", logs["start"])
    watched = Watched(machine.host, "coder")

    def look(seconds=15):
        machine.clock.pass_(seconds)
        machine.forget_calls()
        return watched.look()

    watched.again = look
    look()
    return watched


def created(machine):
    """The commands that created a container."""
    return [call for call in machine.calls() if call.startswith(("docker run", "docker compose"))]


def test_out_of_memory_is_found_and_the_next_rung_is_created(machine, watched, logs, supervisor):
    machine.container(restarts=1, started="2026-11-27T12:05:00.000000001Z")
    machine.answer("docker logs", logs["oom"])
    assert watched.again() is False
    assert machine.state()["rung"] == 1
    assert machine.events()[-1] == ("step_down", "oom")
    assert machine.calls("docker logs") == [
        "docker logs --tail 2000 --since 2026-11-27T12:00:00.000000001Z --until 2026-11-27T12:05:00.000000001Z vllm-coder"
    ], "the start that ended, and not the one that Docker began since"
    assert machine.calls("docker rm") == ["docker rm --force vllm-coder"]
    machine.container(status=None)
    watched.again()
    if supervisor == "docker":
        assert created(machine)[0].endswith("engine --model /model --max-num-seqs 32")
    else:
        assert created(machine)[0].endswith("compose.rung.json up --detach")
        assert '"32"' in (machine.host.etc("coder") / "compose.rung.json").read_text()
    machine.container(identity="c2")
    assert watched.again() is True
    assert machine.state()["rung"] == 1


def test_an_end_is_judged_once_whatever_happens_to_the_watchdog(machine, watched, logs):
    machine.container(restarts=1)
    machine.answer("docker logs", logs["crash"])
    watched.again()
    assert machine.events()[-1] == ("restart", "crash")
    before = machine.events()
    watched.again()
    another = Watched(machine.host, "coder")
    another.look()
    another.look()
    assert machine.events() == before


def test_an_end_between_creation_and_the_first_look_is_judged(machine, watched, logs):
    """`vllm-instance run` has created it, and Docker restarted it at once: also the first time in a boot."""
    machine.host.run("coder.seen").unlink()
    assert machine.program("run", "coder").returncode == 0
    machine.container(identity="c2", restarts=1)
    machine.answer("docker logs", logs["oom"])
    Watched(machine.host, "coder").look()
    assert machine.state()["rung"] == 1


def test_a_crash_is_docker_to_restart_and_too_many_are_quarantine(machine, watched, logs):
    machine.answer("docker logs", logs["crash"])
    for number in range(1, 4):
        machine.container(status="restarting", restarts=number, exit_code=1)
        watched.again()
        assert created(machine) + machine.calls("docker rm") == [], "Docker does that itself"
    assert "exit status 1" in machine.state()["history"][-1]["message"]
    machine.container(status="restarting", restarts=4, exit_code=1)
    watched.again()
    assert machine.state()["status"] == "quarantined"
    assert [call for call in machine.calls() if call.startswith(("docker update", "docker stop"))] == [
        "docker update --restart=no vllm-coder",
        "docker stop --time 0 vllm-coder",
    ], "a boot does not start it either"


def test_a_quarantine_whose_stop_failed_is_stopped_again_and_one_that_stands_is_left(machine, watched):
    machine.set_state(status="quarantined")
    assert watched.again() is False
    assert machine.calls("docker update")
    machine.container(status="exited", policy="no")
    watched.again()
    assert machine.calls("docker update") + created(machine) == []
    machine.container(status=None)
    watched.again()
    assert created(machine) == []


def test_the_end_of_the_ladder_is_quarantine(machine, watched, logs):
    machine.set_state(rung=2)
    machine.container(restarts=1)
    machine.answer("docker logs", logs["oom"])
    watched.again()
    assert machine.state()["quarantine"]["reason"] == "oom"
    assert machine.calls("docker update")


def test_a_hang_is_removed_and_created_anew_with_the_remedy(machine, watched, engine, supervisor):
    engine.count(running=1, tokens=100)
    watched.again()
    engine.completion = None
    watched.again()
    assert machine.events()[-2:] == [("hang_remedy", "stall"), ("restart", "stall")]
    assert machine.calls("docker rm")
    machine.container(status=None)
    watched.again()
    if supervisor == "docker":
        assert created(machine)[0].endswith("--disable-custom-all-reduce")
    else:
        assert "--disable-custom-all-reduce" in (machine.host.etc("coder") / "compose.rung.json").read_text()


def test_after_a_boot_what_should_run_is_started(machine, watched):
    machine.host.run("coder.seen").unlink()
    machine.container(status="exited", exit_code=128, error="could not select device driver")
    again = Watched(machine.host, "coder")
    again.look()
    assert created(machine)
    machine.container(identity="c2")
    assert again.look() is True


def test_after_a_boot_what_was_shut_down_in_order_is_started_too(machine, watched):
    machine.host.run("coder.seen").unlink()
    machine.container(status="exited", exit_code=0)
    machine.forget_calls()
    Watched(machine.host, "coder").look()
    assert created(machine)


def test_after_a_boot_what_docker_started_itself_is_left(machine, watched):
    machine.host.run("coder.seen").unlink()
    machine.container(restarts=3)
    machine.forget_calls()
    assert Watched(machine.host, "coder").look() is True
    assert created(machine) == []
    assert machine.state()["counts"]["restarts"] == {}, "ends of another boot are no ends of this one"


def test_a_start_that_docker_could_not_make_is_made_again(machine, watched):
    machine.container(status="exited", error="could not select device driver")
    watched.again()
    assert created(machine)


def test_who_stops_a_container_by_hand_wants_it_stopped(machine, watched):
    machine.container(status="exited", exit_code=0)
    watched.again()
    assert machine.state()["status"] == "running", "Docker may be about to start it"
    watched.again()
    assert machine.state()["status"] == "stopped"
    assert created(machine) == []
    machine.host.run("coder.seen").unlink()
    watched.again()
    assert created(machine) == [], "after a boot neither"
    machine.container(started="2026-11-27T13:00:00Z")
    assert watched.again() is True
    assert machine.state()["status"] == "running", "and who starts it wants it to run"


def test_a_docker_that_does_not_answer_says_nothing_about_containers(machine, watched, capsys):
    machine.answer("docker inspect", status=1, errors="Cannot connect to the Docker daemon at unix:///var/run/docker.sock\n")
    for dummy in range(3):
        assert watched.again() is False
    assert machine.state()["status"] == "running"
    assert created(machine) == []
    assert capsys.readouterr().err.count("Cannot connect") == 1


def test_a_container_that_cannot_be_created_is_a_failure_and_not_tried_again_at_once(machine, watched, capsys):
    machine.container(status=None)
    for command in ("docker run", "docker compose"):
        machine.answer(command, status=125, errors="docker: Error response from daemon: no such device\n")
    watched.again(seconds=5)
    assert machine.events()[-1] == ("restart", "crash")
    assert "its container cannot be started" in machine.state()["history"][-1]["message"]
    watched.again(seconds=5)
    assert created(machine) == []
    for dummy in range(3):
        watched.again(seconds=11)
    assert machine.state()["status"] == "quarantined"


def test_a_change_by_the_playbook_is_left_alone_and_its_ends_are_judged_afterwards(machine, watched, logs):
    path = machine.host.run("coder.changing")
    path.write_text(str(os.getpid()))
    os.utime(path, (machine.clock.seconds, machine.clock.seconds))
    machine.container(status=None)
    watched.again()
    assert created(machine) == []
    machine.container(restarts=1)
    machine.answer("docker logs", logs["oom"])
    watched.again()
    assert machine.state()["rung"] == 0
    path.unlink()
    watched.again()
    assert machine.state()["rung"] == 1


def test_its_turn_is_waited_for_without_holding_up_the_watchdog(machine, watched):
    turns._mark(machine.host, machine.define("other", gpus=[1]), "starting", os.getpid())
    machine.container(status=None)
    watched.again()
    assert created(machine) == []
    turns.over(machine.host, "other")
    watched.again()
    assert created(machine)


def test_its_start_is_waited_for_by_others(machine, watched, engine):
    machine.container(status=None)
    watched.again()
    machine.answer("docker inspect --format", "running\n")
    engine.health = 503
    assert turns.blockers(machine.host, machine.define("other", gpus=[1])) == ["coder"]


def test_a_container_that_was_created_is_waited_for_as_long_as_it_lives_and_not_its_creator(machine, engine):
    engine.health = 503
    instance.run(machine.host, machine.define(supervisor="docker", url=engine.url))
    machine.answer("docker inspect --format", "running\n")
    assert turns.blockers(machine.host, machine.define("other", gpus=[1])) == ["coder"]
    machine.answer("docker inspect --format", "exited\n")
    assert turns.blockers(machine.host, machine.define("other", gpus=[1])) == []


def test_while_another_process_works_on_the_container_the_watchdog_only_looks(machine, watched, logs):
    definition = machine.define(supervisor="docker")
    machine.container(status=None)
    with instance.working(machine.host, definition):
        watched.again()
        assert created(machine) == []
        with pytest.raises(Failed, match="at work on it"):
            orders.reset(machine.host, definition, 1)
        assert machine.state()["rung"] == 0
        machine.host.sleep = lambda seconds: machine.clock.pass_(100)
        with pytest.raises(Failed, match="another vllm-instance has been at work on it"):
            instance.run(machine.host, definition)
    watched.again()
    assert created(machine)
