"""preflight on a bare host of a lab of its own: what it finds there is said, and nothing on the host is touched."""

import json
import os
import pathlib
import re
import subprocess

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]
LAB = "gpuhosts-preflight-test"
HOST = f"{LAB}-gpu01"
CARDS = [{"name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 11264 * 1024**2}] * 4
LARGE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64,
    "num_hidden_layers": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "torch_dtype": "float16", "tie_word_embeddings": False,
}  # fmt: skip


def play(playbook, *arguments):
    """Run a playbook of the checkout on the lab; return its exit status and all it printed, with single spaces."""
    command = ["ansible-playbook", playbook, "--inventory=inventories/lab", "--limit=gpu01,localhost", *arguments]
    settings = {"LAB_NAME": LAB, "LAB_ENGINE": "simulated", "LAB_PORT": "0", "PWD": str(CHECKOUT), "ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "1000"}
    result = subprocess.run(command, cwd=CHECKOUT, env=os.environ | settings, capture_output=True, text=True, timeout=900, check=False)
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def inside(command):
    return subprocess.run(["docker", "exec", HOST, "bash", "-c", command], capture_output=True, text=True, check=True).stdout


def state():
    """Every file of the host with its size and time, without what the system itself keeps writing; every package and every unit that runs."""
    files = inside("find / -xdev -type f -not -path '/var/log/*' -not -path '/root/.ansible*' -printf '%p %s %T@\\n' | sort")
    return files, inside("dpkg-query -W"), inside("systemctl list-units --type=service --state=running --plain --no-legend | cut -d' ' -f1")


@pytest.fixture(scope="module")
def lab():
    try:
        status, output = play("playbooks/lab_up.yml")
        assert status == 0, output
        yield
    finally:
        play("playbooks/lab_down.yml")


@pytest.fixture
def preflight(lab, tmp_path):
    """preflight(variable=value, ...): (exit status, output, report of the host); the host is the same afterwards."""

    def run(**variables):
        before = state()
        variables["preflight_report_directory"] = str(tmp_path)
        status, output = play("playbooks/preflight.yml", "--extra-vars", json.dumps(variables))
        assert state() == before
        assert re.search(r"gpu01 : ok=\d+ changed=0 unreachable=0", output), output
        return status, output, json.loads((tmp_path / "report.json").read_text())["gpu01"]

    return run


def instance(**options):
    return [{"name": "coder", "model": "Qwen/Qwen3-32B", "profile": "as_given", "options": {"dtype": "half", **options}}]


def codes(report):
    return sorted({problem["code"] for problem in report["problems"]})


def test_a_bare_host_may_be_built(preflight):
    status, output, report = preflight()
    assert status == 0, output
    assert report["problems"] == []
    assert report["plan"] is None
    assert "gpu01: No plan was made: without a running driver nobody knows how much memory the cards have." in output


def test_a_described_host_is_planned_before_anything_is_there(preflight):
    """The model's config.json comes from the hub."""
    cards = [card | {"memory_total_bytes": 22528 * 1024**2} for card in CARDS]
    status, output, report = preflight(gpuhosts_hardware={"gpus": cards})
    assert status == 0, output
    assert report["plan"]["verdict"] == "fits"


def test_everything_is_said_at_once(preflight):
    status, output, report = preflight(
        gpuhosts_hardware={"gpus": CARDS * 2},
        nvidia_driver_versoin="570.153.02",
        cuda_repository_uri="http://mirror.invalid/cuda/",
        preflight_memory_gib=100000,
        preflight_image_gib=1000000,
    )
    assert status != 0
    assert codes(report) == ["card_count", "disk", "memory", "unknown_variable", "unreachable"]
    for sentence in (
        "gpu01: nvidia_driver_versoin is not a variable of the role nvidia_driver. Write nvidia_driver_version if that is meant, otherwise remove it",
        "gpu01: gpuhosts_hardware has 8 cards, and the PCI bus has 4 (0000:",
        "gpu01: http://mirror.invalid/cuda/InRelease cannot be had from this host (",
        "gpu01: http://mirror.invalid/cuda/3bf863cc.pub cannot be had from this host (",
        "of RAM, less than 100000 (preflight_memory_gib).",
        "and 1000000.0 are needed: the image vllm/vllm-openai 1000000.0.",
        "Nothing was changed on any host.",
    ):
        assert sentence in output


def test_a_removed_variable(preflight):
    status, output, report = preflight(vllm_replicas=2, __preflight_removed={"vllm_replicas": {"release": "0.2.0", "instead": "vllm_instances"}})
    assert status != 0
    assert "gpu01: vllm_replicas was removed in release 0.2.0. Use vllm_instances instead." in output


def test_a_plan_that_is_refused(preflight):
    models = {"Qwen/Qwen3-32B": LARGE}
    status, output, report = preflight(gpuhosts_hardware={"gpus": CARDS}, gpuhosts_models=models, vllm_instances=instance(tensor_parallel_size=4))
    assert status != 0
    # Whether 65 GB of weights have room on the disk is up to the machine that the test runs on.
    assert [code for code in codes(report) if code != "disk"] == ["weights_over_card"]
    assert "gpu01: Instance 'coder': " in output
    assert report["problems"][0]["message"] in output
    assert "Nothing was changed on any host." in output


def test_a_model_that_the_hub_does_not_have(preflight):
    status, output, report = preflight(vllm_instances=instance())
    assert status != 0
    assert codes(report) == ["no_model_config"]
    assert "gpu01: Qwen/Qwen3-32B: http://mirror:8080 has no Qwen/Qwen3-32B at revision main (HTTP 404)" in output


def test_a_foreign_driver_and_a_repository_with_two_keys(preflight):
    repository = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"
    inside("touch /usr/bin/nvidia-uninstall")
    for name, key in (("a", "[signed-by=/usr/share/keyrings/cuda.gpg] "), ("b", "")):
        inside(f"echo 'deb {key}{repository}/ /' > /etc/apt/sources.list.d/{name}.list")
    try:
        status, output, report = preflight()
    finally:
        inside("rm /usr/bin/nvidia-uninstall /etc/apt/sources.list.d/[ab].list")
    assert status != 0
    assert codes(report) == ["foreign_driver", "signed_by_conflict"]
    assert "Remove it with nvidia-uninstall --silent and reboot" in output
    assert f"apt has {repository} twice with different keys: /etc/apt/sources.list.d/a.list (Signed-By /usr/share/keyrings/cuda.gpg) and " in output
