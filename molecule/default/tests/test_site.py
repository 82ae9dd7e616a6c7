"""What a converged host must be, asked of the host itself."""

import base64
import json
import os
import pathlib
import urllib.request

import pytest

LAB = os.environ["LAB_NAME"]
PORTS = {f"{LAB}-gpu01": int(os.environ["LAB_PORT"]), f"{LAB}-gpu02": int(os.environ["LAB_PORT"]) + 1}
testinfra_hosts = [f"docker://{name}" for name in PORTS]


@pytest.fixture
def url(host):
    """The host's instance as the operator's machine reaches it."""
    return f"http://127.0.0.1:{PORTS[host.backend.name]}"


def post(url, **body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return answer.status, answer.read().decode()


@pytest.mark.parametrize(
    "package, version",
    [
        ("nvidia-driver-cuda", "570.153.02-"),
        ("nvidia-kernel-open-dkms", "570.153.02-"),
        ("cuda-toolkit-12-8", "12.8.1-"),
        ("nvidia-container-toolkit", "1.17.8-"),
        ("docker.io", ""),
    ],
)
def test_packages_are_installed_at_their_version(host, package, version):
    assert host.package(package).is_installed
    assert host.package(package).version.startswith(version)


def test_a_newer_driver_in_the_repository_is_not_a_candidate(host):
    policy = host.check_output("apt-cache policy libcuda1")
    assert "575.57.08-1" in policy
    assert "Candidate: 570.153.02-1" in policy


@pytest.mark.parametrize("unit", ["docker", "nvidia-persistenced", "vllm-coder", "vllm-watchdog"])
def test_units_run_now_and_at_boot(host, unit):
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_driver_that_runs_is_the_one_installed(host):
    assert host.file("/sys/module/nvidia/version").content_string.strip() == "570.153.02"


def test_the_host_and_the_engine_see_the_same_four_cards(host):
    cards = host.check_output("nvidia-smi -L").splitlines()
    assert len(cards) == 4
    assert all("NVIDIA GeForce RTX 2080 Ti" in card for card in cards)
    assert host.check_output("docker exec vllm-coder nvidia-smi -L").splitlines() == cards


def test_cards_survive_a_daemon_reload(host):
    host.check_output("systemctl daemon-reload")
    assert len(host.check_output("docker exec vllm-coder nvidia-smi -L").splitlines()) == 4


def test_docker_has_our_keys(host):
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["features"] == {"cdi": True}
    assert config["registry-mirrors"] == ["http://mirror:5000"]


@pytest.mark.parametrize(
    "path, mode",
    [
        ("/etc/vllm/coder/environment", 0o600),
        ("/etc/vllm/coder/definition.json", 0o644),
        ("/etc/systemd/system/vllm-coder.service", 0o644),
        ("/etc/docker/daemon.json", 0o644),
        ("/etc/apt/keyrings/nvidia-cuda.asc", 0o644),
    ],
)
def test_files_belong_to_root_with_their_mode(host, path, mode):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_the_model_is_complete(host):
    manifest = json.loads(host.check_output("cat $(realpath /home/llm/model/gpuhosts-lab/tiny-qwen3).json"))
    assert manifest["repo_id"] == "gpuhosts-lab/tiny-qwen3"
    for name, entry in manifest["files"].items():
        assert host.file(f"/home/llm/model/gpuhosts-lab/tiny-qwen3/{name}").size == entry["size"]


def test_the_port_listens(host):
    assert host.socket("tcp://0.0.0.0:8888").is_listening


def test_it_is_vllm_0_8_5(url):
    with urllib.request.urlopen(f"{url}/version", timeout=30) as answer:
        assert json.load(answer)["version"].startswith("0.8.5")


def test_the_articles_request_is_answered(url):
    status, body = post(
        f"{url}/v1/chat/completions",
        model="coder",
        messages=[{"role": "system", "content": "你是一个聪明的 AI 助手。"}, {"role": "user", "content": "请写一个 Python 冒泡排序。"}],
        max_tokens=512,
        temperature=0.2,
    )
    answer = json.loads(body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


def test_a_streamed_completion_ends(url):
    status, body = post(f"{url}/v1/chat/completions", model="coder", messages=[{"role": "user", "content": "Hello"}], max_tokens=8, stream=True)
    assert status == 200
    assert body.count("data: {") > 1
    assert body.rstrip().endswith("data: [DONE]")


def test_the_engine_has_the_articles_metrics(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    for name in ("gpu_cache_usage_perc", "num_requests_running", "generation_tokens_total"):
        assert f"vllm:{name}" in metrics


def test_the_option_schema_is_the_engines_own(host):
    checkout = pathlib.Path(__file__).parents[3]
    program = base64.b64encode((checkout / "tools/options_from_engine.py").read_bytes()).decode()
    # A default of 0.8.5 depends on this variable, which the lab's image sets and the official one does not.
    python = "docker exec --interactive vllm-coder env --unset=VLLM_USE_V1 python3 -"
    generated = host.check_output(f"echo {program} | base64 --decode | {python} 2>/dev/null")
    assert generated == (checkout / "plugins/plugin_utils/planner/schemas/v0_8_5.py").read_text(encoding="utf-8").rstrip("\n")


def test_the_engine_was_given_the_units_command_line(host):
    """The planner's argv, through unit file, systemd and docker, arrives unchanged."""
    arguments = json.loads(host.check_output("docker inspect --format '{{ json .Args }}' vllm-coder"))
    assert arguments[2:] == [
        "--model", "/model/tiny-qwen3", "--served-model-name", "coder", "--tensor-parallel-size", "1", "--dtype", "auto",
        "--max-model-len", "32768", "--max-num-batched-tokens", "32768", "--gpu-memory-utilization", "0.96", "--block-size", "16",
        "--enable-prefix-caching", "--swap-space", "1", "--max-num-seqs", "64",
    ]  # fmt: skip
