"""Stopping an instance: its requests end first."""

import json

import pytest

from vllm_instance import drain

STOP = "docker stop --time 15 vllm-coder"
DOOR = "nsenter --target 77 --net iptables --wait --insert INPUT --protocol tcp --dport 8000 --syn --jump REJECT --reject-with tcp-reset"
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue\n"
LISTENS = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000\n"
REQUEST = "   1: 0100007F:1F40 0100007F:D431 01 00000000:00000000\n"
OTHER = "   2: 0100007F:0050 0100007F:D432 01 00000000:00000000\n"


@pytest.fixture
def container(machine):
    """container(state): what /proc shows of the network of a container that runs."""
    program = machine.bin / "nsenter"
    program.write_text((machine.bin / "docker").read_text())
    program.chmod(0o755)
    state = {"Status": "running", "Running": True, "Restarting": False, "StartedAt": "T", "ExitCode": 0, "Error": "", "Pid": 77}
    found = {"Id": "1", "State": state, "RestartCount": 0, "HostConfig": {"RestartPolicy": {"Name": "no"}}, "Config": {"Labels": {}}}
    machine.answer("docker inspect --type container vllm-coder", json.dumps([found]))

    def network(*lines):
        path = machine.root / "proc/77/net/tcp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + LISTENS + "".join(lines))

    network()
    return network


def test_the_door_is_closed_before_the_engine_is_told(machine, container):
    machine.define()
    assert machine.program("stop", "coder", MAINPID="4711").returncode == 0
    assert machine.calls()[1:] == [DOOR, STOP]


def test_requests_are_waited_for(machine, container):
    coder = machine.define()
    container(REQUEST, OTHER)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        machine.clock.pass_(seconds)
        if len(waited) == 5:
            container(OTHER)

    machine.host.sleep = sleep
    drain.drain(machine.host, coder)
    assert len(waited) == 5


def test_not_for_ever(machine, container, capsys):
    coder = machine.define(limits={"drain_seconds": 20})
    container(REQUEST, REQUEST)
    began = machine.clock.now()
    drain.drain(machine.host, coder)
    assert machine.clock.now() - began == 20
    assert "coder: 2 connections are cut after 20 s" in capsys.readouterr().err


def test_without_a_packet_filter_it_waits_all_the_same(machine, container, capsys):
    machine.answer("nsenter", "", 1, "iptables: command not found")
    drain.drain(machine.host, machine.define())
    assert "new requests cannot be refused while it drains: nsenter --target: iptables: command not found" in capsys.readouterr().err


def test_a_client_that_ended_by_itself_leaves_its_container_alone(machine, container):
    machine.define()
    machine.program("stop", "coder")
    assert machine.calls() == [], "with live-restore it goes on"


@pytest.mark.parametrize("supervisor", ["docker", "compose"])
def test_what_docker_supervises_is_stopped_and_stays_so(machine, container, supervisor):
    machine.define(supervisor=supervisor)
    machine.set_state(status="running")
    machine.program("stop", "coder")
    assert machine.calls()[1:] == [DOOR, STOP]
    assert machine.state()["status"] == "stopped"


def test_a_native_engine_is_waited_for_and_stopped_by_systemd(machine):
    machine.define(runtime="native", command=["/opt/vllm/bin/python3"])
    assert machine.program("stop", "coder", MAINPID="4711").returncode == 0
    assert machine.calls() == []


def test_the_hosts_own_network_gets_no_rule(machine, container):
    """It would stay there, and close the port of the next engine: of an instance over several hosts."""
    machine.define(command=["docker", "run", "--rm", "--network=host", "image"])
    assert machine.program("stop", "coder", MAINPID="4711").returncode == 0
    assert machine.calls() == [STOP]


def test_a_docker_that_does_not_answer_keeps_no_stop_from_ending(machine):
    machine.answer("docker inspect", "", 1, "Cannot connect to the Docker daemon")
    machine.define()
    ended = machine.program("stop", "coder", MAINPID="4711")
    assert "its requests are not waited for" in ended.stderr
    assert machine.calls("docker stop") == [STOP]
