"""Real Ray over two hosts, and over it the simulated engine, whose ranks are real actors: vLLM's CPU build falls back to one host."""

import json
import time

import lab_play
import lab_serving
import pytest

INVENTORIES = ("inventories/lab", "molecule/ray_cluster/inventory")
QUESTION = {"model": "big", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
# An image of the worker's own: the same engine, and another id.
OTHER = "registry.example/other-engine:1"


def play(playbook, *more, **variables):
    return lab_play.play(playbook, "--extra-vars", json.dumps(variables), inventories=(*INVENTORIES, *more))


def until(what, seconds=180):
    """Wait until what() is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(1)


def answers(head):
    return head.ask(**QUESTION) == 200


def said(head):
    """What the host program has recorded of the instance."""
    return [event["message"] for event in head.status("big")["instances"][0]["history"]]


def members(head):
    """What member.py says on the head: (exit status, text)."""
    argv = "docker exec vllm-big python3 /ray_cluster/member.py status --address=$(hostname -i) --port=6379"
    worker = lab_serving.Host("gpu02").machine.out("hostname -i")
    found = head.machine.run(f"{argv} --worker=gpu02={worker}", check=False)
    return found.returncode, found.stdout


def test_real_ray_has_both_hosts_and_the_simulated_engine_a_stage_on_each(gpu01, gpu02):
    addresses = [host.machine.out("hostname -i") for host in (gpu01, gpu02)]
    assert members(gpu01) == (0, f"2 of 2 members are there: the head ({addresses[0]}), gpu02 ({addresses[1]}).\n")
    shown = gpu01.machine.out("docker exec vllm-big ray status --address=$(hostname -i):6379")
    assert "4.0/4.0 GPU" in shown, shown
    log = gpu01.machine.out("docker logs vllm-big 2>&1")
    for stage, address in enumerate(addresses):
        assert f"pipeline stage {stage}: 2 ranks on {address}" in log
    assert answers(gpu01)


def test_every_member_has_its_own_address_and_the_interface(gpu01, gpu02):
    for host, container in ((gpu01, "vllm-big"), (gpu02, "ray-worker")):
        variables = host.machine.out(f"docker exec {container} env").splitlines()
        assert {f"VLLM_HOST_IP={host.machine.out('hostname -i')}", "NCCL_SOCKET_IFNAME=eth0", "GLOO_SOCKET_IFNAME=eth0"} <= set(variables)


def test_the_members_alone_reach_rays_ports(gpu01, gpu02):
    mirror = lab_play.Machine(f"{lab_serving.LAB}-mirror")
    for host, other in ((gpu01, gpu02), (gpu02, gpu01)):
        # Every one that is open at all.
        ports = [int(port) for port in host.machine.out("ss -Hltn | awk '{print $4}' | sed 's/.*://'").split() if 6379 <= int(port) < 6500]
        assert len(ports) > 3
        for port in ports:
            probe = f"timeout 2 bash -c '</dev/tcp/{host.machine.out('hostname -i')}/{port}'"
            assert other.machine.run(probe, check=False).returncode == 0, port
            assert mirror.run(probe, check=False).returncode != 0, port
    # The engine's own port is for clients.
    assert mirror.run(f"curl --fail --silent http://{gpu01.machine.out('hostname -i')}:8888/health", check=False).returncode == 0


def test_verify_says_who_is_there():
    status, output = play("playbooks/verify.yml")
    assert status == 0 and "2 of 2 members are there: the head" in output


def test_a_member_with_another_image_is_named_and_what_serves_goes_on(gpu01, gpu02, tmp_path):
    reference = gpu01.definition("big")["image"]["reference"]
    gpu02.machine.run(f"docker build --tag {OTHER} -", text=f"FROM {reference}\nLABEL other=1\n")
    (tmp_path / "other.yml").write_text(json.dumps({"gpu_hosts": {"hosts": {"gpu02": {"vllm_images": {"0.8.5": OTHER}}}}}))
    before = gpu01.started("vllm-big"), gpu02.started("ray-worker")
    status, output = play("playbooks/ray_cluster.yml", tmp_path / "other.yml")
    ids = [host.machine.out(f"docker inspect --format '{{{{.Id}}}}' {image}") for host, image in ((gpu02, OTHER), (gpu01, reference))]
    assert status != 0 and f"big: gpu02 has the image {ids[0]}, and the head gpu01 {ids[1]}. Give all members the same vllm_images" in output, output
    assert (gpu01.started("vllm-big"), gpu02.started("ray-worker")) == before and answers(gpu01)


def test_a_run_without_a_member_is_refused(gpu01):
    status, output = lab_play.play("playbooks/ray_cluster.yml", host="gpu01", inventories=INVENTORIES)
    assert status != 0 and "big is held by gpu01, gpu02, and gpu02 was not looked at in this run." in output, output
    assert answers(gpu01)


def test_a_killed_worker_is_named_and_the_group_recovers_as_one(gpu01, gpu02):
    before, address = gpu01.started("vllm-big"), gpu02.machine.out("hostname -i")
    gpu02.machine.run("docker kill ray-worker")
    until(lambda: any(f"the worker gpu02 ({address}) was lost" in message for message in said(gpu01)))
    until(lambda: answers(gpu01))
    assert gpu01.started("vllm-big") != before and members(gpu01)[0] == 0


def test_a_worker_that_stays_away_is_named_until_it_is_back(gpu01, gpu02):
    gpu02.machine.run("systemctl stop ray-worker")
    until(lambda: members(gpu01)[0] == 1 and "Missing: gpu02" in members(gpu01)[1])
    assert "waiting for gpu02" in gpu01.machine.out("docker logs vllm-big 2>&1")
    # Without the completion, which would be waited for.
    status, output = lab_play.play("playbooks/verify.yml", "--start-at-task=Ask Ray for its members", inventories=INVENTORIES)
    assert status != 0 and "big on gpu01: 1 of 2 members are there" in output and "Missing: gpu02" in output, output
    gpu02.machine.run("systemctl start ray-worker")
    until(lambda: answers(gpu01))


def test_workers_join_a_head_that_was_killed(gpu01, gpu02):
    worker = gpu02.started("ray-worker")
    gpu01.machine.run("docker kill vllm-big")
    until(lambda: gpu02.machine.run("docker inspect ray-worker", check=False).returncode == 0 and gpu02.started("ray-worker") != worker)
    until(lambda: answers(gpu01))
    assert members(gpu01)[0] == 0


@pytest.mark.parametrize("name", ["gpu01", "gpu02"])
def test_the_firewall_is_there_once_after_another_start(name, request):
    host = request.getfixturevalue(name)
    host.machine.run("systemctl reload ray-cluster-firewall")
    for program in ("iptables", "ip6tables"):
        rules = host.machine.out(f"{program} --list-rules INPUT").splitlines()
        assert len([rule for rule in rules if rule.endswith("-j RAY-CLUSTER")]) == 1
