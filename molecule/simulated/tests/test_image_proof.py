"""An image is looked into before it is used on a card, and one that cannot run there changes nothing."""

import json
import os
import shlex

import pytest
from lab_play import Machine, play, recap

GPU01 = Machine(f"{os.environ['LAB_NAME']}-gpu01")
IMAGE = "example.org/vllm:mine"


@pytest.fixture
def image():
    """image(line of shell) makes an image on gpu01 out of the engine's, after the line ran in it; returns what the role is told of it."""
    made = []

    def make(line):
        GPU01.run(f"docker run --name mine --network none --entrypoint sh $(docker inspect --format {{{{.Image}}}} vllm-coder) -c {shlex.quote(line)}")
        made.append(GPU01.out(f"docker commit mine {IMAGE} && docker rm mine > /dev/null").splitlines()[0])
        return "--extra-vars", json.dumps({"vllm_images": {"0.8.5": IMAGE}})

    yield make
    GPU01.run(f"docker image rm --force {IMAGE}")
    GPU01.remove(*(f"/var/lib/vllm/proofs/{made_id.partition(':')[2]}.json" for made_id in made))


def test_what_was_found_is_kept_by_the_images_id():
    (name,) = GPU01.out("ls /var/lib/vllm/proofs").splitlines()
    assert name == GPU01.out("docker inspect --format {{.Image}} vllm-coder").partition(":")[2] + ".json"
    proof = json.loads(GPU01.out(f"cat /var/lib/vllm/proofs/{name}"))
    assert proof["vllm"] == "0.8.5" and proof["extensions"]["_C"]["elf"]["75"] == 28


def serves():
    """When the engine was started, and with which definition."""
    return GPU01.out("systemctl show --property ActiveState,ExecMainStartTimestamp vllm-coder; sha256sum /etc/systemd/system/vllm-coder.service")


@pytest.mark.parametrize(
    "line, message, remedy",
    [
        (
            "rm vllm/*.stand_in.so",
            f"The image {IMAGE} holds no code for any NVIDIA card: its vLLM 0.8.5 is built for another kind of device.",
            "Name an image of vLLM 0.8.5 in vllm_images, such as vllm/vllm-openai:v0.8.5.",
        ),
        (
            "rm vllm/_C.stand_in.so",
            f"The image {IMAGE} holds no code for sm_75, which GPU 0, 1, 2, 3 needs: it has no vllm._C.",
            "Use a vLLM that is built for compute capability 7.5",
        ),
        (
            "sed -i s/0.8.5/0.19.1/ vllm/_version.py",
            f"The image {IMAGE} holds vLLM 0.19.1, and the plan is for 0.8.5.",
            "Set the instance's engine_version to 0.19.1, or name an image of vLLM 0.8.5",
        ),
        ("rm -r vllm", f"The image {IMAGE} has no vLLM that its python3 would start.", "such as vllm/vllm-openai:v0.8.5."),
        ("rm /usr/bin/python3", f"What is inside the image {IMAGE} cannot be read", "Name an image in vllm_images that has vLLM and python3."),
    ],
)
def test_an_image_that_cannot_run_is_refused_before_any_change(image, line, message, remedy):
    before = serves()
    status, output = play("playbooks/serve.yml", *image(f"cd /opt/simulated-engine && {line}"), host="gpu01")
    assert status != 0
    assert message in output and remedy in output
    assert serves() == before


def test_a_kept_proof_is_judged_again_for_another_driver(image):
    """And nothing is started for it: the second run has nothing that changes."""
    arguments = image("cd /opt/simulated-engine && mkdir torch && touch torch/__init__.py && echo \"cuda = '13.0'\" > torch/version.py")
    for changed in (1, 0):
        status, output = play("playbooks/serve.yml", *arguments, host="gpu01")
        assert status != 0
        assert f"The image {IMAGE} is built for CUDA 13.0 and needs driver 580 or later: the host has 570.153.02." in output
        assert "Use a build for CUDA 12, or install driver 580 or later." in output
        assert recap(output)["gpu01"]["changed"] == changed
