"""A wheel that was really compiled: on both hosts, in what serves, and what is said when something is in the way."""

import json
import shlex

import lab_serving
import pytest
from lab_play import recap

IMAGE = "example.org/vllm:mine"


def holds_code_for_sm_75_alone(directory):
    manifest = json.loads((directory / "manifest.json").read_text())
    listings = [text for listing in manifest["objdump"].values() for text in listing.values()]
    lines = [line for text in listings for line in text.splitlines()]
    assert lines and all(line.endswith(".sm_75.cubin") for line in lines), lines
    assert manifest["wanted"]["archs"] == ["7.5"] and manifest["imported"] == manifest["imports"]
    assert (manifest["torch"], manifest["cuda"], manifest["builder"]) == ("2.6.0+cu124", "12.4", "gpu01")


def serves_with(host, directory):
    manifest = json.loads((directory / "manifest.json").read_text())
    assert host.machine.out(f"sha256sum /var/lib/vllm/wheels/{directory.name}/{manifest['wheel']}").split()[0] == manifest["sha256"]
    assert "PYTHONPATH=/tmp/gpuhosts-wheel" in host.machine.out("docker exec vllm-coder cat /proc/1/environ | tr '\\0' '\\n'")
    inside = f"import torch; import {manifest['imports'][0]} as module; print(module.__file__)"
    found = host.machine.out(f"docker exec --env PYTHONPATH=/tmp/gpuhosts-wheel vllm-coder python3 -c {shlex.quote(inside)}")
    assert found.startswith("/tmp/gpuhosts-wheel/")
    assert host.ask(timeout=120) == 200


def test_it_holds_code_for_sm_75_and_nothing_else(stored):
    holds_code_for_sm_75_alone(stored())


def test_both_hosts_serve_with_it(hosts, stored):
    for host in hosts:
        serves_with(host, stored())


def test_without_a_card_the_forward_pass_is_not_run_and_that_is_kept(hosts, stored):
    proofs = [json.loads(host.machine.out(f"cat /var/lib/vllm/wheels/{stored().name}/proof.json")) for host in hosts]
    assert all(proof["forward"] is None and proof["not_run"] for proof in proofs), proofs


def test_a_second_run_builds_nothing_and_changes_nothing(play, hosts, stored):
    before = [host.started() for host in hosts]
    status, output = play("playbooks/site.yml")
    assert status == 0, output
    assert f"Build {stored().name}" not in output and all(recap(output)[host.name]["changed"] == 0 for host in hosts), output
    assert [host.started() for host in hosts] == before


def test_a_wheel_that_was_damaged_on_a_host_is_carried_anew(play, hosts, stored):
    path = f"/var/lib/vllm/wheels/{stored().name}"
    host = hosts[1]
    sums = host.machine.out(f"sha256sum {path}/*.whl")
    host.machine.run(f"truncate --size=1000 {path}/*.whl")
    status, output = play("playbooks/artifacts.yml", host="gpu02")
    assert status == 0 and recap(output)["gpu02"]["changed"] == 1, output
    assert host.machine.out(f"sha256sum {path}/*.whl") == sums


def test_a_wheel_that_was_damaged_in_the_store_is_carried_nowhere(play, stored):
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
        return play("playbooks/artifacts.yml", host="gpu01", **given, **variables)

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


def test_an_image_with_the_wheel_inside(play, hosts, stored):
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


@pytest.mark.slow
def test_flash_attn_itself(play, hosts, stored):
    """As the role's defaults have it; about 12 minutes of one core. The hosts serve with it afterwards."""
    status, output = play("playbooks/site.yml", wheel="flash-attn", timeout=3600)
    assert status == 0, output
    holds_code_for_sm_75_alone(stored("flash-attn"))
    for host in hosts:
        serves_with(host, stored("flash-attn"))
    status, output = play("playbooks/site.yml", wheel="flash-attn")
    assert status == 0 and all(recap(output)[host.name]["changed"] == 0 for host in hosts), output
