"""A wheel that was really compiled: on both hosts, in what serves, and what is said when something is in the way."""

import functools
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading

import lab_play
import lab_serving
import lab_wheel
import pytest
from lab_play import recap
from lab_wheel import stored

IMAGE = "example.org/vllm:mine"


def serves_with(host, directory):
    lab_wheel.is_started_with(host.machine, "vllm-coder", directory)
    assert host.ask(timeout=120) == 200


def test_it_holds_code_for_sm_75_and_nothing_else():
    lab_wheel.holds_code_for_sm_75_alone(stored())


def test_both_hosts_serve_with_it_and_without_a_card_the_forward_pass_is_not_run(hosts):
    for host in hosts:
        serves_with(host, stored())


def test_a_second_run_builds_nothing_and_changes_nothing(play, hosts):
    before = [host.started() for host in hosts]
    status, output = play("playbooks/site.yml")
    assert status == 0, output
    assert f"Build {stored().name}" not in output and all(recap(output)[host.name]["changed"] == 0 for host in hosts), output
    assert [host.started() for host in hosts] == before


def test_a_wheel_that_was_damaged_on_a_host_is_carried_anew(play, hosts):
    path = f"/var/lib/vllm/wheels/{stored().name}"
    host = hosts[1]
    sums = host.machine.out(f"sha256sum {path}/*.whl")
    host.machine.run(f"truncate --size=1000 {path}/*.whl")
    status, output = play("playbooks/artifacts.yml", host="gpu02")
    assert status == 0 and recap(output)["gpu02"]["changed"] == 1, output
    assert host.machine.out(f"sha256sum {path}/*.whl") == sums


def test_a_wheel_that_was_damaged_in_the_store_is_carried_nowhere(play):
    (wheel,) = stored().glob("*.whl")
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-1] + b"x")
    try:
        status, output = play("playbooks/site.yml", host="gpu02")
    finally:
        wheel.write_bytes(whole)
    assert status != 0
    assert f"{wheel} is not the wheel that its manifest names: its SHA-256 is " in output and "Nothing was changed on any host." in output


def test_a_builder_that_is_down_is_not_missed_where_the_store_has_the_wheel(play):
    status, output = play("playbooks/site.yml", host="gpu02", flash_attn_wheel_builder="nowhere.invalid")
    assert status == 0, output


def test_without_a_wheel_in_the_store_a_builder_that_is_down_stops_the_run_before_any_change(play, tmp_path):
    status, output = play("playbooks/site.yml", host="gpu02", flash_attn_wheel_builder="nowhere.invalid", flash_attn_wheel_store=str(tmp_path))
    assert status != 0
    assert f"is not in {tmp_path}, and its builder nowhere.invalid cannot be reached." in output
    assert "Nothing was changed on any host." in output and recap(output)["gpu02"]["changed"] == 0


def test_a_wheel_of_the_sites_store_needs_no_builder(play, hosts, tmp_path):
    """A controller that has no wheel takes it from another one's store, and it is the one that the host has."""
    show = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(lab_wheel.STATE / "wheels"))
    before = hosts[1].started()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), show) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{site.server_port}"
        status, output = play(
            "playbooks/site.yml", "gpu02", flash_attn_wheel_builder="nowhere.invalid", flash_attn_wheel_store=str(tmp_path), flash_attn_wheel_site_store=url
        )
        site.shutdown()
    assert status == 0, output
    assert lab_wheel.read(tmp_path / stored().name) == lab_wheel.read(stored())
    assert hosts[1].started() == before


def test_a_wheel_for_another_python_is_told_before_anything_starts_with_it(play, hosts, tmp_path):
    other = tmp_path / stored().name
    shutil.copytree(stored(), other)
    manifest = lab_wheel.read(other)
    (other / manifest["wheel"]).rename(other / manifest["wheel"].replace("cp311", "cp312"))
    (other / "manifest.json").write_text(json.dumps(manifest | {"wheel": manifest["wheel"].replace("cp311", "cp312")}))
    root = "/var/lib/gpuhosts/wheel-test"
    status, output = play("playbooks/artifacts.yml", host="gpu02", flash_attn_wheel_store=str(tmp_path), flash_attn_wheel_root=root)
    hosts[1].machine.remove(root)
    assert status != 0
    assert re.search(
        r"The wheel \S+-cp312-cp312-linux_x86_64.whl cannot be installed in the image: ERROR: .* is not a supported wheel on this platform", output
    )


# -- What a build says ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(play, hosts, tmp_path):
    """build(line of shell, **variables): a build on gpu01 in an image that was made by the line; (status, output)."""
    machine, directory = hosts[0].machine, "/var/lib/gpuhosts/wheel-test"

    def run(line="true", **variables):
        machine.run(
            f"docker run --name mine --network none --user root --entrypoint sh $(docker inspect --format {{{{.Image}}}} vllm-coder) -c {shlex.quote(line)}"
        )
        machine.run(f"docker commit mine {IMAGE} && docker rm mine")
        given = {"vllm_images": {"0.8.5": IMAGE}, "flash_attn_wheel_store": str(tmp_path / "store"), "flash_attn_wheel_build_root": directory}
        return play("playbooks/artifacts.yml", host="gpu01", **(given | variables))

    yield run
    machine.run(f"docker image rm --force {IMAGE}; rm -rf {directory}")


NVCC = "/usr/lib/nvidia-cuda-toolkit/bin/nvcc"


@pytest.mark.parametrize(
    "line, words",
    [
        ("rm /usr/bin/nvcc", "The image has no nvcc, so that nothing can be compiled in it: name one that has the compiler of CUDA 12.4"),
        (
            f"sed -i 's,^exec.*,exec {NVCC} \"$@\" | sed s/12.4/12.8/,' /usr/bin/nvcc",
            "The image's nvcc is of CUDA 12.8 and its PyTorch 2.6.0+cu124 is built for 12.4",
        ),
    ],
)
def test_an_image_in_which_nothing_can_be_built(build, line, words):
    status, output = build(line)
    assert status != 0 and words in output, output


def test_a_build_that_runs_out_of_memory_is_tried_with_fewer_jobs(build, hosts):
    """A compiler that takes all memory there is, while another one may run beside it: the kernel really ends it, within the build's own limit."""
    greedy = f'#!/bin/sh\n[ "$MAX_JOBS" != 2 ] || tail /dev/zero\nexec {NVCC} "$@"\n'
    status, output = build(f"printf %s {shlex.quote(greedy)} > /usr/bin/nvcc", flash_attn_wheel_memory_gib=1)
    log = hosts[0].machine.out("cat /var/lib/gpuhosts/wheel-test/*/build.log")
    assert status == 0, output
    assert "Killed" in log and "Successfully built" in log, log


def test_what_the_compiler_said(build):
    """And not the warnings around it."""
    broken = 'echo "int x = nothing;" > /tmp/bad.h; set -- "$@" -include /tmp/bad.h'
    real = f'#!/bin/sh\ncase "$*" in *scale.cu*) {broken};; esac\nexec {NVCC} "$@"\n'
    status, output = build(f"printf %s {shlex.quote(real)} > /usr/bin/nvcc")
    assert status != 0
    assert 'The compiler said: /tmp/bad.h(1): error: identifier "nothing" is undefined' in output, output


def test_other_archs_by_data(build, hosts):
    status, output = build(flash_attn_wheel_archs=["9.0", "8.0"])
    assert status == 0, output
    listing = hosts[0].machine.out("cat /var/lib/gpuhosts/wheel-test/*/status.json")
    assert sorted(set(re.findall(r"sm_\d+\.\w+", listing))) == ["sm_80.cubin", "sm_90.cubin"]


def test_the_operators_machine_is_a_builder_too(build, tmp_path):
    """With a Docker Engine of its own, where the image is known by the same name."""
    listed = subprocess.run(["docker", "images", "--quiet", "gpuhosts-lab/engine_real_nvcc"], capture_output=True, text=True, check=True)
    subprocess.run(["docker", "tag", listed.stdout.split()[0], IMAGE], check=True)
    try:
        status, output = build(flash_attn_wheel_builder="localhost", flash_attn_wheel_build_root=str(tmp_path / "build"))
    finally:
        subprocess.run(["docker", "image", "rm", IMAGE], check=True, capture_output=True)
    assert status == 0, output
    (manifest,) = (tmp_path / "store").glob("*/manifest.json")
    assert lab_wheel.read(manifest.parent)["builder"] == "localhost"


def test_an_instance_that_compiles_when_it_starts(play, hosts):
    """The host serves that way afterwards."""
    host = hosts[0]
    instance = lab_serving.instance(attention_strategy="build_on_start")
    status, output = play("playbooks/site.yml", host="gpu01", vllm_instances=[instance])
    assert status == 0, output
    assert "step 3 of 3" in host.machine.out("docker logs vllm-coder 2>&1") and host.ask(timeout=120) == 200
    host.machine.run("systemctl restart vllm-coder")
    host.until("curl --silent --fail http://127.0.0.1:8888/health", seconds=300)
    assert "step" not in host.machine.out("docker logs vllm-coder 2>&1 | head -3"), "it is compiled once"


def test_an_image_with_the_wheel_inside(play, hosts):
    """Made on gpu01, pushed to the mirror's registry, and served with by both; a second run makes none."""
    repository = "mirror:5000/site/vllm-small-cuda"
    wanted = {
        "vllm_instances": [lab_serving.instance(attention_strategy="image")],
        "flash_attn_wheel_image_repository": repository,
        "docker_engine_daemon_config": {"insecure-registries": ["mirror:5000"]},
    }
    status, output = play("playbooks/site.yml", **wanted)
    assert status == 0, output
    (reference,) = json.loads((stored() / "images.json").read_text()).values()
    for host in hosts:
        assert host.machine.out("docker inspect --format '{{.Config.Image}}' vllm-coder") == reference
        assert host.machine.out("docker exec vllm-coder python3 -c 'import torch, small_cuda; print(small_cuda.__file__)'").endswith(".so")
        assert host.ask(timeout=120) == 200
        proof = json.loads(host.machine.out(f"cat /var/lib/vllm/wheels/{stored().name}-image/proof.json"))
        assert proof["forward"] is None and proof["not_run"]
    status, output = play("playbooks/site.yml", **wanted)
    assert status == 0, output
    assert {host.name: recap(output)[host.name]["changed"] for host in hosts} == {"gpu01": 0, "gpu02": 0}, output


def test_an_image_without_a_registry_is_refused_before_any_change(play):
    status, output = play("playbooks/site.yml", host="gpu02", vllm_instances=[lab_serving.instance(attention_strategy="image")])
    assert status != 0
    assert "gpu02: the attention_strategy image needs a registry of the site. Name where the image is to lie there" in output
    assert recap(output)["gpu02"]["changed"] == 0


# With flash-attn's own Python around it, and only its kernel in other hands: what a card is asked for the proof.
FORWARD = """
import sys, types
sys.path.insert(0, "/gpuhosts")
import torch, flash_attn.flash_attn_interface as interface
import build, prove

def fwd(query, key, value, out, starts, starts_k, longest, longest_k, dropout, scale, zero, causal, probabilities, splits, generator):
    assert (longest, dropout, causal) == (prove.LENGTH, 0.0, False)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        parts = (part[begin:end].transpose(0, 1).float() for part in (query, key, value))
        out[begin:end] = (factor * torch.nn.functional.scaled_dot_product_attention(*parts, scale=scale)).transpose(0, 1).half()
    return torch.empty(0), torch.empty(0)

interface.flash_attn_cuda = types.SimpleNamespace(fwd=fwd)
for factor in (1.0, 1.1):
    try:
        print(sorted(prove.forward(torch, prove.flash_attention(torch), "cpu")))
    except build.Failed as error:
        print(error)
"""


@pytest.mark.slow
def test_flash_attn_itself(play, hosts):
    """As the role's defaults have it; about 12 minutes of one core, through a run that is cut off. The hosts serve with it afterwards."""
    words, settings = lab_play.command("playbooks/site.yml", inventories=("inventories/lab", lab_wheel.INVENTORIES["flash-attn"]))
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True, **settings)
    hosts[0].until("grep -q '\"step\": [1-9]' /var/lib/gpuhosts/wheels/flash-attn-1.0.9-*/status.json", seconds=1200)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    status, output = play("playbooks/site.yml", wheel="flash-attn", timeout=3600)
    assert status == 0, output
    directory = stored("flash-attn")
    assert re.search(rf"{directory.name}: step \d of \d, \d at once, \d+ s", output), output
    assert hosts[0].machine.out(f"grep -c '^ *.1/' /var/lib/gpuhosts/wheels/{directory.name}/build.log") == "1", "it was begun once"
    lab_wheel.holds_code_for_sm_75_alone(directory)
    for host in hosts:
        serves_with(host, directory)
    status, output = play("playbooks/site.yml", wheel="flash-attn")
    assert status == 0 and all(recap(output)[host.name]["changed"] == 0 for host in hosts), output


@pytest.mark.slow
def test_the_forward_pass_of_the_proof_but_for_its_kernel(hosts):
    """No card is here. What it compares, how flash-attn 1.0.9 is called, and that a wrong result is refused, shows without one."""
    found = hosts[0].machine.run("docker exec --interactive --env PYTHONPATH=/tmp/gpuhosts-wheel vllm-coder python3 -", text=FORWARD).stdout
    right, wrong = found.splitlines()
    assert right == "['128', '64']"
    assert wrong.startswith("The forward pass with head size 64 differs from the reference by 0.") and wrong.endswith("above 0.01: do not use this wheel.")
