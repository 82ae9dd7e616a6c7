"""One command names what is wrong, and the gate says why: on an engine that was told to fail."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request

import pytest
from lab_play import Machine, play

LAB = os.environ["LAB_NAME"]
URL = f"http://127.0.0.1:{os.environ['LAB_PORT']}"
GPU01 = Machine(f"{LAB}-gpu01")
UNIT = "vllm-coder.service"
KEY = "sk-planted-in-the-environment"


@pytest.fixture
def diagnose(tmp_path):
    """diagnose(): exit status, what was printed, and the JSON of gpu01."""

    def run():
        arguments = ("--extra-vars", json.dumps({"diagnose_directory": str(tmp_path / "diagnose"), "diagnose_stall_seconds": 5}))
        status, output = play("playbooks/diagnose.yml", *arguments, host="gpu01")
        return status, output, json.loads((tmp_path / "diagnose" / "gpu01.json").read_text())

    return run


@pytest.fixture
def tell():
    """tell("hang"): the engine that runs does so. Taken back afterwards."""

    def say(fault):
        body = json.dumps({"fault": fault}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{URL}/simulated/fault", body, {"Content-Type": "application/json"}), timeout=30):
            pass

    yield say
    with contextlib.suppress(OSError):
        say("")


@pytest.fixture
def restarted():
    """restarted(line): the engine starts with one more line in its environment. Taken back afterwards, and waited for."""
    path = GPU01.out("ls /etc/vllm/coder/environment /etc/default/vllm-coder 2>/dev/null | head -n 1")
    before = GPU01.out(f"cat {path}")

    def start(line):
        GPU01.write(path, f"{before}\n{line}\n")
        GPU01.run(f"systemctl restart --no-block {UNIT}")

    yield start
    GPU01.write(path, before + "\n")
    GPU01.run(f"systemctl restart {UNIT}")
    healthy()


def ends(status):
    """Wait until the engine that was just started, or the client that starts it, has ended with this status."""
    GPU01.run(f"until journalctl --unit {UNIT} --since @{int(time.time()) - 5} | grep -q 'Main process exited.*status={status}'; do sleep 0.2; done")


def healthy(seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{URL}/health", timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(f"the engine at {URL} does not come back")


def first(report, subject="coder"):
    return next(finding for finding in report["findings"] if finding["subject"] == subject)


def test_a_healthy_host(diagnose):
    healthy()
    status, output, report = diagnose()
    assert status == 0, output
    assert "gpu01: 1 instance, nothing wrong." in output
    assert "coder serves: " in output
    assert report["wrong"] == []
    assert [finding for finding in report["findings"] if finding["weight"] >= 40] == []
    assert report["gathered"]["instances"]["coder"]["kv_tokens"] > 0
    assert len(report["gathered"]["cards"]["gpus"]) == 4


def test_one_execution_and_no_change(diagnose):
    output = diagnose()[1]
    assert "changed=0" in output
    assert output.count("TASK [") <= 6


def test_an_engine_that_ends_at_once(diagnose, restarted):
    model = GPU01.out("dirname $(find /home/llm/model -name config.json | head -n 1)")
    GPU01.run(f"mv {model}/config.json {model}/config.json.away")
    try:
        restarted("GPUHOSTS_TEST=1")
        ends(1)
        status, output, report = diagnose()
    finally:
        GPU01.run(f"mv {model}/config.json.away {model}/config.json")
    assert status != 0
    assert report["wrong"] == ["coder"]
    assert first(report)["code"] == "missing_checkpoint"
    assert "gpu01: coder does not serve: no complete checkpoint" in output
    assert "Run site.yml again: it fetches what is missing below model_weights_root." in output


def test_a_hang(diagnose, tell):
    tell("hang")
    request = {"model": "coder", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    ask = ["curl", "--silent", "--header", "Content-Type: application/json", "--data", json.dumps(request), f"{URL}/v1/chat/completions"]
    client = subprocess.Popen(ask, stdout=subprocess.DEVNULL)
    try:
        GPU01.run("until curl -s localhost:8888/metrics | grep -Eq '^vllm:num_requests_running.* [1-9]'; do sleep 0.2; done")
        status, output, report = diagnose()
    finally:
        client.kill()
        client.wait()
    assert status != 0
    assert report["states"]["coder"]["state"] == "stalls"
    assert first(report)["code"] == "hang"
    assert "/health answers, and no token came in" in output
    assert "options.disable_custom_all_reduce" in output


def test_a_port_that_another_program_has(diagnose):
    GPU01.run(f"systemctl stop {UNIT}")
    GPU01.run("systemd-run --quiet --unit squatter python3 -m http.server 8888")
    try:
        GPU01.run("until curl -s localhost:8888 > /dev/null; do sleep 0.2; done")
        GPU01.run(f"systemctl start --no-block {UNIT}")
        ends(125)
        status, output, report = diagnose()
    finally:
        GPU01.run("systemctl stop squatter")
        GPU01.run(f"systemctl restart {UNIT}")
        healthy()
    assert status != 0
    assert first(report)["code"] == "port_taken"
    assert "Give the instance another port, or stop" in output


def test_docker_is_down(diagnose):
    GPU01.run("systemctl stop docker.service docker.socket")
    try:
        status, output, report = diagnose()
    finally:
        GPU01.run(f"systemctl start docker.service && systemctl restart {UNIT}")
        healthy()
    assert status != 0
    assert report["findings"][0]["code"] == "docker_down"
    assert report["wrong"] == ["coder"]


def test_nvidia_smi_hangs(diagnose):
    GPU01.fault("hang")
    try:
        status, output, report = diagnose()
    finally:
        GPU01.fault()
    assert status == 0, "the engine serves"
    assert report["findings"][0]["code"] == "nvidia_smi_hangs"
    assert "gpu01: 1 instance, and trouble with the host." in output


def test_no_key_is_told(diagnose, restarted, tmp_path):
    restarted(f"VLLM_API_KEY={KEY}")
    time.sleep(1)
    healthy()
    output, report = diagnose()[1:]
    assert KEY not in output
    assert KEY not in json.dumps(report)


# -- The gate ------------------------------------------------------------------------------------------------------------------------------


def test_the_gate_shows_how_far_a_slow_start_is(restarted):
    restarted("GPUHOSTS_SIMULATED_FAULT=slow_load:40")
    GPU01.run(f"until journalctl --unit {UNIT} --since -60s | grep -q 'Starting to load model'; do sleep 0.2; done")
    status, output = play("playbooks/verify.yml", host="gpu01")
    assert status == 0, output
    assert "gpu01 coder: loading weights, 0 of 1 shards, " in output
    assert "coder on gpu01: vLLM 0.8.5 answered" in output


def test_the_gate_refuses_garbage(tell):
    tell("garbage_answer")
    status, output = play("playbooks/verify.yml", host="gpu01")
    assert status != 0
    assert "reason: implausible_answer" in output
    assert "characters that no model means ('!!!!!!!!!!!!!!!!')" in output


def test_the_gate_says_why_an_engine_ended(restarted):
    restarted("GPUHOSTS_SIMULATED_FAULT=oom_at_load")
    ends(1)
    GPU01.run(f"systemctl stop {UNIT}")
    status, output = play("playbooks/verify.yml", host="gpu01")
    assert status != 0
    assert "reason: unit_failed" in output
    assert "ran out of memory while its memory was profiled: 100.00 MiB were wanted" in output
