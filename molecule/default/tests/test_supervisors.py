"""The real engine under every supervisor, once with a wheel: it serves, a second run changes nothing, and it survives what happens to a host."""

import json
import time

import lab_play
import lab_wheel
import pytest

MODEL = "gpuhosts-lab/tiny-qwen3"
CODER = {"name": "coder", "model": MODEL, "port": 8888, "profile": "as_given", "options": {"max_model_len": 4096, "max_num_seqs": 8, "swap_space": 1}}
# One for each supervisor, each on a card of its own; systemd's is the scenario's own.
INSTANCES = [CODER | {"gpus": [0]}] + [
    CODER | {"name": supervisor, "port": port, "gpus": [card], "supervisor": supervisor}
    for card, (supervisor, port) in enumerate((("docker", 8890), ("compose", 8891)), 1)
]
NAMES = [instance["name"] for instance in INSTANCES]
# Docker's starts with a wheel that is compiled on gpu01 (molecule/flash_attn_wheel has all else that there is to see of wheels).
INSTANCES[1]["attention_strategy"] = "wheel"


def play(playbook, host="gpu01", instances=INSTANCES, **variables):
    inventories = ("inventories/lab", lab_wheel.INVENTORIES["small"])
    return lab_play.play(playbook, "--extra-vars", json.dumps({"vllm_instances": instances, **variables}), host=host, inventories=inventories)


def serve():
    return play("playbooks/serve.yml")


def answers(machine, port, seconds=180):
    """Whether the instance completes a chat, within that time; asked on the host itself."""
    body = json.dumps(
        {"model": next(each["name"] for each in INSTANCES if each["port"] == port), "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    )
    request = f"curl --silent --fail --max-time 60 --header 'Content-Type: application/json' --data '{body}' http://127.0.0.1:{port}/v1/chat/completions"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = machine.run(request, check=False)
        if found.returncode == 0 and json.loads(found.stdout)["choices"][0]["message"]["content"]:
            return True
        time.sleep(1)
    return False


@pytest.fixture(scope="module")
def machine(on):
    """gpu01 with one instance for each supervisor; the scenario's own instance afterwards."""
    status, output = lab_play.play(lab_wheel.SCENARIO / "prepare.yml")
    assert status == 0, output
    status, output = serve()
    assert status == 0, output
    yield on("gpu01")
    assert lab_play.play("playbooks/serve.yml", host="gpu01")[0] == 0


def test_each_answers(machine):
    for instance in INSTANCES:
        assert answers(machine, instance["port"], 5), instance["name"]


def test_a_second_run_changes_nothing(machine):
    before = machine.out("docker ps --no-trunc --format '{{.ID}}' | sort")
    status, output = serve()
    assert status == 0 and "changed=0" in output and "Build small-cuda" not in output, output
    assert machine.out("docker ps --no-trunc --format '{{.ID}}' | sort") == before


def test_a_wheel_is_compiled_once_and_carried_to_each_host(machine, on):
    """Really compiled, with nvcc, for the cards alone. The second host asks no builder."""
    lab_wheel.holds_code_for_sm_75_alone(lab_wheel.stored())
    lab_wheel.is_started_with(machine, "vllm-docker", lab_wheel.stored())
    status, output = play("playbooks/artifacts.yml", host="gpu02", instances=INSTANCES[1:2], flash_attn_wheel_builder="nowhere.invalid")
    assert status == 0, output
    lab_wheel.is_carried(on("gpu02"), lab_wheel.stored())


def test_the_containers_are_alike(machine):
    """Compose, docker run and the unit make the same container, but for who restarts it."""
    found = {name: json.loads(machine.out(f"docker inspect vllm-{name}"))[0] for name in NAMES}
    for name, container in found.items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["IpcMode"] == "host", name
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), name
        assert host["LogConfig"]["Config"] == {"max-size": "50m", "max-file": "3"}, name
        assert len(machine.out(f"docker exec vllm-{name} nvidia-smi -L").splitlines()) == 1, name
    assert [found[name]["HostConfig"]["RestartPolicy"]["Name"] for name in NAMES] == ["no", "always", "always"]


def test_a_daemon_reload_changes_nothing(machine):
    before = machine.out("docker ps --no-trunc --format '{{.ID}}' | sort")
    machine.run("systemctl daemon-reload")
    assert machine.out("docker ps --no-trunc --format '{{.ID}}' | sort") == before
    for name in NAMES:
        assert len(machine.out(f"docker exec vllm-{name} nvidia-smi -L").splitlines()) == 1


def test_a_restart_of_docker_engine_costs_no_request(machine):
    """Containers outlive it (live-restore), and systemd's unit finds its own again."""
    before = machine.out("docker ps --no-trunc --format '{{.ID}}' | sort")
    machine.run("systemctl restart docker")
    for instance in INSTANCES:
        assert answers(machine, instance["port"], 60), instance["name"]
    machine.run("timeout 60 bash -c 'until systemctl is-active --quiet vllm-coder; do sleep 0.3; done'")
    assert machine.out("docker ps --no-trunc --format '{{.ID}}' | sort") == before


@pytest.mark.parametrize("instance", [INSTANCES[0], *(pytest.param(instance, marks=pytest.mark.slow) for instance in INSTANCES[1:])], ids=NAMES)
def test_a_request_ends_before_its_engine_stops(machine, instance):
    """vLLM 0.8.5 itself drops what it works on when it is told to stop."""
    body = json.dumps({"model": instance["name"], "prompt": "Hi", "max_tokens": 1500, "ignore_eos": True})
    request = f"curl --silent --max-time 120 --header 'Content-Type: application/json' --data '{body}' http://127.0.0.1:{instance['port']}/v1/completions"
    machine.run(f"({request} > /tmp/answer) >/dev/null 2>&1 &")
    metrics = f"curl --silent http://127.0.0.1:{instance['port']}/metrics"
    machine.run(f"timeout 60 bash -c 'until {metrics} | grep --quiet \"num_requests_running{{.*}} 1.0\"; do sleep 0.2; done'")
    before = machine.out(f"docker inspect --format '{{{{.Id}}}}' vllm-{instance['name']}")
    if instance.get("supervisor"):
        machine.run(f"vllm-instance stop {instance['name']} && vllm-instance run {instance['name']}")
    else:
        machine.run(f"systemctl restart vllm-{instance['name']}")
    assert json.loads(machine.out("cat /tmp/answer"))["usage"]["completion_tokens"] == 1500
    assert answers(machine, instance["port"]), instance["name"]
    assert machine.out(f"docker inspect --format '{{{{.Id}}}}' vllm-{instance['name']}") != before


@pytest.mark.slow
def test_a_reboot_brings_all_back(machine):
    machine.reboot()
    for instance in INSTANCES:
        assert answers(machine, instance["port"]), instance["name"]
    status, output = serve()
    assert status == 0 and "changed=0" in output, output
