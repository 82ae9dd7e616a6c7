"""Load by the engine's own tool: a docker that is a small program here, and an engine whose metrics are a text."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import vllm_benchmark

DEFINITION = {
    "name": "coder", "runtime": "container", "engine_version": "0.8.5", "served_model_name": "coder-v1", "url": "http://127.0.0.1:8888", "gpus": [0, 1],
    "image": {"id": "sha256:aa", "reference": "vllm@sha256:bb"}, "model": {"repo_id": "m", "commit": "c1", "path": "/models/m", "revision": None},
    "command": ["docker", "run"], "rungs": [{"argv": ["--model", "/model/m"]}, {"argv": ["--model", "/model/m", "--max-num-seqs", "8"]}],
}  # fmt: skip
METRICS = """# HELP vllm:num_requests_running Requests.
vllm:num_requests_running{model_name="coder"} 0.0
vllm:request_success_total{finished_reason="stop",model_name="coder"} 2.0
vllm:request_success_total{finished_reason="length",model_name="coder"} 3.0
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="coder"} 5.0
python_gc_objects_collected_total{generation="0"} 9.0
"""
RESULT = {"completed": 1, "duration": 2.0, "output_throughput": 8.0, "itls": [[0.1]], "generated_texts": ["x", ""]}
RESULT["errors"] = ["", "Traceback (most recent call last):\n  File x\nConnectionResetError: gone\n"]


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """host(**arguments) runs the module. host.docker(body) says what docker does, host.call() how it was started, host.metrics what the engine says."""
    programs, etc = tmp_path / "bin", tmp_path / "etc/vllm/coder"
    programs.mkdir()
    etc.mkdir(parents=True)
    (etc / "definition.json").write_text(json.dumps(DEFINITION))
    (etc / "environment").write_text("VLLM_API_KEY=s3cret\nsite_passwd=s3cret\nVLLM_USE_V1=0\n")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(vllm_benchmark, "ROOT", str(tmp_path))
    monkeypatch.setattr(vllm_benchmark, "read_memory", lambda gpus: dict.fromkeys(gpus, 5 * 2**30))

    def run(**arguments):
        return run_module(vllm_benchmark, **({"name": "coder"} | arguments))

    def docker(body):
        (programs / "docker").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/call\necho "$OPENAI_API_KEY" > {tmp_path}/key\n{body}\n')
        (programs / "docker").chmod(0o755)

    class Answer:
        def read(self):
            return run.metrics.encode()

    run.metrics, run.docker, run.root = METRICS, docker, tmp_path
    run.call = lambda: (tmp_path / "call").read_text().splitlines()
    monkeypatch.setattr(vllm_benchmark, "open_url", lambda *arguments, **more: Answer())
    docker(f"echo '{json.dumps(RESULT)}'".replace("\\n", "\\\\n"))
    return run


def test_what_the_tool_and_the_engine_say_is_returned(host):
    found = host(options={"max_concurrency": 4})
    assert found["tool"] == {"completed": 1, "duration": 2.0, "output_throughput": 8.0}
    assert found["errors"] == {"ConnectionResetError: gone": 1}
    assert found["metrics"]["after"] == {"vllm:num_requests_running": 0.0, "vllm:request_success_total": 5.0} == found["metrics"]["peak"]
    assert found["cards"] == {"0": 5 * 2**30, "1": 5 * 2**30}
    assert found["instance"]["environment"] == {"VLLM_USE_V1": "0"} and found["instance"]["rung"] == 0
    assert found["changed"] is False


def test_it_runs_in_the_engines_container_with_its_key_out_of_sight(host):
    host(options={"max_concurrency": 4, "ignore_eos": True, "trust_remote_code": False})
    call = host.call()
    assert call[:4] == ["exec", "--env=OPENAI_API_KEY", "vllm-coder", "sh"]
    assert " ".join(call[7:]) == (
        "timeout 3600 vllm bench serve --base-url http://127.0.0.1:8000 --model /model/m --served-model-name coder-v1 --disable-tqdm "
        "--max-concurrency 4 --ignore-eos"
    )
    assert (host.root / "key").read_text() == "s3cret\n" and "s3cret" not in " ".join(call)


def test_an_address_of_its_own_gets_a_key_of_its_own(host):
    host(url="http://gateway", api_key="other")
    assert "--base-url http://gateway --model" in " ".join(host.call()) and (host.root / "key").read_text() == "other\n"
    host(url="http://gateway")
    assert (host.root / "key").read_text() == "\n"


def test_an_engine_without_a_container_has_its_tool_beside_it():
    definition = DEFINITION | {"runtime": "native", "command": ["/opt/vllm/0.8.5/bin/python3", "-m", "x"]}
    words = vllm_benchmark.command(definition, {}, None, 60)
    assert words[:2] == ["sh", "-c"] and words[4:10] == ["timeout", "60", "/opt/vllm/0.8.5/bin/vllm", "bench", "serve", "--base-url"]
    assert words[10] == "http://127.0.0.1:8888"


def test_an_engine_in_the_hosts_network_is_asked_at_its_own_port():
    words = vllm_benchmark.command(DEFINITION | {"command": ["docker", "run", "--network=host"]}, {}, None, 60)
    assert words[words.index("--base-url") + 1] == "http://127.0.0.1:8888"


def test_the_script_prints_the_result_alone(tmp_path):
    """What the tool prints goes to standard error, and what it wrote does not stay."""
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\necho words; echo "$3" >&2; echo "{}" > "$3/$5"\n')
    tool.chmod(0o755)
    status, output, errors = vllm_benchmark.child.run(["sh", "-c", vllm_benchmark.SCRIPT, "sh", str(tool)], 10)
    first, kept = errors.split()
    assert (status, output, first) == (0, "{}\n", "words")
    assert vllm_benchmark.child.run(["ls", kept], 10)[0] != 0


@pytest.mark.parametrize(
    "body, said",
    [
        ("echo 'sh: 1: exec: vllm: not found' >&2; exit 127",
         "The engine of coder, vLLM 0.8.5, has no load tool, vllm bench serve (sh: 1: exec: vllm: not found): benchmark an engine that has it."),
        ("echo \"vllm: error: argument: invalid choice: 'bench'\" >&2; exit 2", "The engine of coder, vLLM 0.8.5, has no load tool, vllm bench serve ("),
        ("echo 'Error response from daemon: No such container: vllm-coder' >&2; exit 1",
         "The container of coder does not run: vllm-instance status coder on the host says why."),
        ("echo 'ValueError: Initial test run failed - Please make sure. Error: Unauthorized' >&2; exit 1",
         "The API key is refused by the instance coder: set benchmark_api_key to the one that it takes."),
        ("echo 'ValueError: Initial test run failed. Error: Bad Request' >&2; exit 1",
         "The first request is refused by the instance coder as a bad one, mostly because prompt and answer are longer than max_model_len: "
         "lower random_input_len."),
        ("echo 'aiohttp.ClientConnectorError: Cannot connect to host 127.0.0.1:8000' >&2; exit 1",
         "Nobody answers at the instance coder: vllm-instance status coder on the host says what became of the engine."),
        ("exit 124", "The load on coder was not done after 3600 s and was ended: raise benchmark_timeout, or ask for fewer prompts."),
        ("echo 'error: argument --seed: invalid int value' >&2; exit 2", "vllm bench serve failed on coder: error: argument --seed: invalid int value"),
        ("echo nothing", "vllm bench serve failed on coder: exit status 0"),
    ],
)  # fmt: skip
def test_why_nothing_was_measured_is_one_sentence(host, body, said):
    host.docker(body)
    found = host()
    assert found["failed"] and said in found["msg"]


def test_a_tool_that_does_not_end_is_ended(host, monkeypatch):
    def run(command, timeout):
        raise vllm_benchmark.child.TimedOut

    monkeypatch.setattr(vllm_benchmark.child, "run", run)
    assert host(timeout=5)["msg"] == "The load on coder was not done after 5 s and was ended: raise benchmark_timeout, or ask for fewer prompts."


def test_requests_of_others_are_not_measured_unless_that_is_wanted(host):
    host.metrics = METRICS.replace('running{model_name="coder"} 0.0', 'running{model_name="coder"} 3.0')
    said = "coder works on 3 requests of others, whose load would be measured too: try again when it is idle, or set benchmark_beside_others."
    assert host()["msg"] == said and not (host.root / "call").exists()
    assert "msg" not in host(beside_others=True)


def test_an_engine_without_metrics_is_measured(host):
    host.metrics = "python_gc_objects_collected_total 9.0\n"
    assert host()["metrics"] == {"before": {}, "after": {}, "peak": {}}


def test_the_rung_in_force_is_told(host):
    state = host.root / "var/lib/vllm/coder"
    state.mkdir(parents=True)
    (state / "state.json").write_text('{"rung": 1}')
    assert host()["instance"]["argv"] == DEFINITION["rungs"][1]["argv"]


def test_an_instance_that_is_not_there(host):
    assert host(name="nobody")["msg"] == "There is no instance nobody on this host: run playbooks/serve.yml first."


def test_check_mode_puts_no_load_on_anything(host):
    assert host(check=True)["skipped"] and not (host.root / "call").exists()
