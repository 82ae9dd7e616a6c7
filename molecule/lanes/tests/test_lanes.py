"""An engine's version, and whether it runs in a container, are settings of an instance: changed like any other, and back."""

import json
import urllib.request

import lab_serving
import pytest

# These engines are real: they read the tiny model and warm up on one core.
PATIENT = {"vllm_ready_timeout": 600, "vllm_stall_seconds": 120, "vllm_unanswered_seconds": 60}


@pytest.fixture(scope="module")
def host():
    return lab_serving.Host("gpu01")


def serve(host, changed=None, **keys):
    """Bring the scenario's instance to these keys; it answers afterwards."""
    status, output = host.serve(lab_serving.instance(**keys), **PATIENT)
    assert status == 0, output
    assert changed is None or f"changed={changed} " in output, output
    assert host.ask(timeout=120) == 200


def version(host):
    """The version that the engine itself tells, over its own port."""
    with urllib.request.urlopen(host.url + "/version", timeout=30) as answer:
        return json.load(answer)["version"].partition(".post")[0]


def test_to_the_newest_lane_of_this_driver_and_back(host):
    for engine_version in ("0.8.5", "0.19.1", "0.8.5"):
        serve(host, engine_version=engine_version)
        assert version(host) == engine_version
    assert len(host.machine.out("ls /var/lib/vllm/proofs").splitlines()) == 2, "each image was looked into, and what was found is kept"


def test_a_lane_that_the_driver_cannot_run_changes_nothing(host):
    before = host.started()
    status, output = host.serve(lab_serving.instance(engine_version="0.33.0"), playbook="playbooks/site.yml", **PATIENT)
    assert status != 0
    assert "vLLM 0.33.0 is built for CUDA 13.0 and needs driver 580 or later: the host has 570.153.02." in output
    assert host.started() == before and host.ask() == 200


def test_out_of_the_container(host):
    serve(host, runtime="native")
    assert version(host) == "0.8.5"
    assert not host.machine.out("docker ps --quiet --filter name=vllm-coder")
    assert host.machine.out("readlink /opt/vllm/0.8.5").startswith("0.8.5-")
    running = host.machine.out("tr '\\0' '\\n' < /proc/$(systemctl show --property MainPID --value vllm-coder)/environ")
    assert any(line.startswith("CUDA_VISIBLE_DEVICES=0") for line in running.splitlines()), running


def test_a_second_run_downloads_and_changes_nothing(host):
    serve(host, changed=0, runtime="native")


def test_what_it_does_not_depend_on_leaves_it_alone(host):
    process = "systemctl show --property MainPID --value vllm-coder"
    before = host.machine.out(process)
    host.machine.run("systemctl daemon-reload && systemctl restart docker")
    assert host.ask(timeout=120) == 200 and host.machine.out(process) == before


def test_it_is_back_after_a_restart(host):
    host.machine.run("systemctl restart vllm-coder")
    host.until("curl --silent --fail http://127.0.0.1:8888/health", seconds=300)
    assert host.ask(timeout=120) == 200


def test_it_is_back_after_a_reboot(host):
    host.machine.reboot()
    host.until("curl --silent --fail http://127.0.0.1:8888/health", seconds=300)
    assert host.ask(timeout=120) == 200


def test_a_virtual_environment_that_lost_a_part_is_made_anew(host):
    host.machine.run("rm /opt/vllm/0.8.5/gpuhosts.json && rm -r /opt/vllm/0.8.5/lib/python3*/site-packages/vllm")
    serve(host, runtime="native")


def test_back_into_the_container(host):
    serve(host)
    assert host.machine.out("docker ps --quiet --filter name=vllm-coder")
