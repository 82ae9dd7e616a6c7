"""What an operator is told when an engine fails: the real playbook against an engine that was told to."""

import json
import os
import urllib.request

import pytest
from lab_play import play

LAB = os.environ["LAB_NAME"]
URL = f"http://127.0.0.1:{os.environ['LAB_PORT']}"
testinfra_hosts = [f"docker://{LAB}-gpu01"]


def verify():
    """Run playbooks/verify.yml on gpu01; return its exit status and all it printed."""
    return play("playbooks/verify.yml", host="gpu01")


@pytest.fixture
def fault():
    """Tell the engine to fail, and take it back afterwards."""

    def tell(name):
        body = json.dumps({"fault": name}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{URL}/simulated/fault", body, {"Content-Type": "application/json"}), timeout=30):
            pass

    yield tell
    tell("")


def test_the_engine_sizes_its_cache_by_the_card(host):
    log = host.check_output("journalctl --unit vllm-coder --output cat --no-pager")
    assert "total_gpu_memory (21.48GiB) x gpu_memory_utilization (0.96) = 20.62GiB" in log
    assert "# cuda blocks:" in log


def test_verify_passes_while_it_answers():
    status, output = verify()
    assert status == 0
    assert "coder on gpu01: vLLM 0.8.5 answered" in output


def test_verify_fails_with_the_engines_last_lines_when_it_does_not(fault):
    fault("bad_answer")
    status, output = verify()
    assert status != 0
    assert "reason: completion_failed" in output
    assert "500 Internal Server Error" in output, "the engine's log says what it answered"


def test_a_stopped_unit_is_named(host):
    host.check_output("systemctl stop vllm-coder")
    try:
        status, output = verify()
    finally:
        host.check_output("systemctl start vllm-coder")
    assert status != 0
    assert "reason: unit_failed" in output
    assert "vllm-coder.service" in output
