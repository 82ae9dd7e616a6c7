"""Bad input gets one clear sentence, and nothing is touched. Each test runs the real playbook against a lab that is not there."""

import functools
import json
import pathlib
import shutil
import socket
import subprocess

import lab_play
import pytest

LAB = "gpuhosts-refused"


play = functools.partial(lab_play.play, timeout=300, LAB_NAME=LAB)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Whatever a test is told, no container and no state of the refused lab may come of it."""
    yield
    assert not (lab_play.CHECKOUT / ".lab" / LAB).exists()
    if shutil.which("docker"):
        listed = subprocess.run(["docker", "ps", "--all", "--quiet", f"--filter=label=gpuhosts.lab={LAB}"], capture_output=True, text=True, check=False)
        assert listed.stdout == ""


def test_no_docker_and_not_root():
    # A user namespace without a mapping: the same files, and a user who is not root.
    status, output = play("playbooks/lab_up.yml", prefix=["unshare", "--user"], DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert status != 0
    assert "No Docker Engine answers on this machine, and only root may install one: run this as root (sudo make lab), or install Docker" in output
    assert "Nothing was changed." in output


def test_a_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = play("playbooks/lab_up.yml", LAB_PORT=str(port))
    assert status != 0
    assert f"Port {port} of 127.0.0.1 is taken by another program, and gpu01 is to be published there" in output


def test_too_little_disk():
    status, output = play("playbooks/lab_up.yml", "--extra-vars=lab_disk_gib=1000000")
    assert status != 0
    assert "The lab needs 1000000 GiB free below /var/lib/docker, and" in output


def test_more_hosts_than_may_watch_files(tmp_path):
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    many = tmp_path / "hosts.yml"
    hosts = limit // 12 + 1
    many.write_text(json.dumps({"gpu_hosts": {"hosts": {f"gpu{number:02}": {"lab_port": 0} for number in range(1, hosts + 1)}}}))
    status, output = play("playbooks/lab_up.yml", inventories=("inventories/lab", str(many)))
    assert status != 0
    assert f"{hosts} more hosts need " in output
    assert f"and fs.inotify.max_user_instances is {limit}: allow more with sudo sysctl fs.inotify.max_user_instances=" in output


def test_a_host_that_is_not_up():
    status, output = play("site.yml")
    assert status != 0
    for host in ("gpu01", "gpu02"):
        assert f"{host}: it is in the inventory and does not answer (Error response from daemon: No such container: {LAB}-{host})" in output
        assert f"Start it, or leave it out with --limit 'all:!{host}'." in output
    assert "Nothing was changed on any host." in output


@pytest.mark.parametrize(
    "instance, sentence",
    [
        ({"prot": 8888}, "Instance 'coder': prot is not a key of an instance. Write port if that is meant"),
        ({"options": {"max_batch_size": 2}}, "max_batch_size"),
        ({"options": {"xformers": True}}, "VLLM_ATTENTION_BACKEND"),
        ({"options": {"pip": 2}}, "pipeline"),
        ({"port": 99999}, "99999"),
    ],
)
def test_an_instance_that_cannot_be(instance, sentence):
    instances = [{"name": "coder", "model": "Qwen/Qwen3-32B-AWQ"} | instance]
    status, output = play("site.yml", "--extra-vars", json.dumps({"vllm_instances": instances}))
    assert status != 0
    assert sentence in output
    assert "Nothing was changed on any host." in output


def test_a_benchmark_that_nobody_knows():
    status, output = play("playbooks/benchmark.yml", "--extra-vars=scenario=fast")
    assert status != 0
    known = "article_2080ti, article_low_memory, chat, soak"
    assert f"gpu01: There is no scenario fast: choose one with -e scenario=NAME, {known}. Nothing was measured." in output


def test_a_rollout_takes_no_hosts_apart_that_hold_one_instance():
    status, output = play("playbooks/rollout.yml", inventories=("inventories/lab", "molecule/ray_cluster/inventory"))
    assert status != 0
    assert "gpu01, gpu02 of the group ray_cluster hold instances together, and waves would take them apart: roll out with --limit" in output
    assert "Nothing was changed." in output
