# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated engine as a process on a loopback port: its endpoints, logs, failures and faults."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import time

import lab_engine
import pytest

CHAT = {"model": "coder", "messages": [{"role": "user", "content": "write bubble sort"}]}
VISIBLE = (
    "cache_config_info num_requests_running num_requests_waiting gpu_cache_usage_perc num_preemptions_total prompt_tokens_total "
    "generation_tokens_total request_success_total time_to_first_token_seconds time_per_output_token_seconds e2e_request_latency_seconds "
    "request_queue_time_seconds"
).split()
HIDDEN = "num_requests_swapped cpu_cache_usage_perc gpu_prefix_cache_hit_rate cpu_prefix_cache_hit_rate".split()


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    return lab_engine.launcher(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def engine(launch):
    with launch("--max-model-len", "4096") as running:
        yield running


# -- endpoints


@pytest.mark.parametrize("method, path, status, text", [
    ("GET", "/health", 200, ""),
    ("GET", "/ping", 200, ""),
    ("POST", "/ping", 200, ""),
    ("GET", "/version", 200, '{"version":"0.8.5"}'),
    ("GET", "/load", 200, '{"server_load":0}'),
    ("GET", "/nothing", 404, '{"detail":"Not Found"}'),
    ("GET", "/v1/chat/completions", 405, '{"detail":"Method Not Allowed"}'),
])
def test_plain_endpoints(engine, method, path, status, text):
    assert engine.request(method, path) == (status, text)


def test_models(engine):
    dummy, text = engine.request("GET", "/v1/models")
    model, = json.loads(text)["data"]
    assert (model["id"], model["max_model_len"], model["owned_by"]) == ("coder", 4096, "vllm")


def test_chat(engine):
    status, body = engine.post("/v1/chat/completions", CHAT)
    assert (status, body["object"], body["model"]) == (200, "chat.completion", "coder")
    choice, = body["choices"]
    answer = "This answer comes from a simulated engine, no model was run. The prompt reads: write bubble sort"
    assert choice["message"]["content"] == answer
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_max_tokens_end_an_answer(engine):
    for name in ("max_tokens", "max_completion_tokens"):
        dummy, body = engine.post("/v1/chat/completions", CHAT | {name: 4})
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["choices"][0]["message"]["content"] == "This"
        assert body["usage"]["completion_tokens"] == 4


def test_completions(engine):
    status, body = engine.post("/v1/completions", {"model": "coder", "prompt": ["a", [98, 99]], "max_tokens": 200})
    assert status == 200
    assert [choice["text"].rsplit(": ")[-1] for choice in body["choices"]] == ["a", "bc"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["usage"]["prompt_tokens"] == 3


def test_completion_defaults_to_16_tokens(engine):
    dummy, body = engine.post("/v1/completions", {"model": "coder", "prompt": "a"})
    assert body["usage"]["completion_tokens"] == 16


def test_chat_stream(engine):
    events = engine.events("/v1/chat/completions", CHAT)
    dummy, whole = engine.post("/v1/chat/completions", CHAT)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == whole["choices"][0]["message"]["content"]
    assert [event["choices"][0]["finish_reason"] for event in events[-2:]] == [None, "stop"]
    assert not any("usage" in event for event in events)


def test_stream_with_usage(engine):
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", {"model": "coder", "prompt": "a"})):
        last = engine.events(path, body | {"max_tokens": 5, "stream_options": {"include_usage": True}})[-1]
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 5


def test_stream_of_an_empty_answer_still_ends(engine):
    events = engine.events("/v1/chat/completions", CHAT | {"stop": ["T"]})
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"][0]["stop_reason"] == "T"


def test_tokens_there_and_back(engine):
    dummy, there = engine.post("/tokenize", {"model": "coder", "prompt": "ab 冒"})
    assert (there["count"], there["max_model_len"]) == (6, 4096)
    assert engine.post("/detokenize", {"model": "coder", "tokens": there["tokens"]}) == (200, {"prompt": "ab 冒"})


def test_invocations_serve_both_kinds(engine):
    assert engine.post("/invocations", CHAT)[1]["object"] == "chat.completion"
    assert engine.post("/invocations", {"prompt": "a"})[1]["object"] == "text_completion"


def test_unknown_model(engine):
    assert engine.post("/v1/chat/completions", CHAT | {"model": "x"}) == (404, {
        "object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "param": None, "code": 404})


@pytest.mark.parametrize("path, body, message", [
    ("/v1/chat/completions", CHAT | {"max_tokens": 5000},
     "length is 4096 tokens. However, you requested 5036 tokens (36 in the messages, 5000 in the completion)"),
    ("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": "a" * 5000}]},
     "you requested 5019 tokens in the messages, Please reduce"),
    ("/v1/chat/completions", CHAT | {"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
    ("/v1/chat/completions", CHAT | {"max_tokens": "4"}, "Input should be a valid integer"),
    ("/v1/chat/completions", CHAT | {"temperature": -1}, "temperature must be non-negative, got -1.0."),
    ("/v1/chat/completions", CHAT | {"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`"),
    ("/v1/chat/completions", {"model": "coder"}, "'loc': ('body', 'messages'), 'msg': 'Field required'"),
    ("/v1/chat/completions", b"{bad", "json_invalid"),
    ("/v1/completions", {"model": "coder"}, "'loc': ('body', 'prompt'), 'msg': 'Field required'"),
    ("/detokenize", {"tokens": [999]}, "999 is out of vocabulary"),
])
def test_bad_requests(engine, path, body, message):
    status, answer = engine.post(path, body)
    assert (status, answer["object"], answer["type"], answer["code"]) == (400, "error", "BadRequestError", 400)
    assert message in answer["message"]


def test_only_json_is_read(engine):
    assert engine.request("POST", "/v1/chat/completions", CHAT, {"Content-Type": "text/plain"})[0] == 415


@pytest.mark.parametrize("arguments, env", [(["--api-key", "k"], {}), ([], {"VLLM_API_KEY": "k"})])
def test_the_key_guards_v1_only(launch, arguments, env):
    with launch(*arguments, env=env) as engine:
        assert engine.request("GET", "/v1/models") == (401, '{"error":"Unauthorized"}')
        assert engine.request("GET", "/v1/models", headers={"Authorization": "Bearer k"})[0] == 200
        assert engine.request("GET", "/metrics")[0] == 200
        assert engine.post("/invocations", CHAT)[0] == 200


# -- metrics and logs


def test_metrics_appear_and_advance(launch):
    with launch() as engine:
        assert {name.partition("{")[0] for name in engine.metrics()} == {"vllm:cache_config_info"}
        dummy, body = engine.post("/v1/chat/completions", CHAT)
        names = {re.sub(r"_(sum|count|bucket)$", "", name.partition("{")[0]) for name in engine.metrics()}
        assert {f"vllm:{name}" for name in VISIBLE} <= names
        assert not {f"vllm:{name}" for name in HIDDEN} & names
        assert engine.metric("generation_tokens_total") == body["usage"]["completion_tokens"]
        assert engine.metric("prompt_tokens_total") == body["usage"]["prompt_tokens"]
        assert engine.metrics()['vllm:request_success_total{finished_reason="stop",model_name="coder"}'] == "1.0"


def test_hidden_metrics_for_exactly_one_version(launch):
    with launch("--show-hidden-metrics-for-version", "0.7") as engine:
        engine.post("/v1/chat/completions", CHAT)
        assert {f"vllm:{name}" for name in HIDDEN} <= {name.partition("{")[0] for name in engine.metrics()}


def test_prompts_that_begin_alike_are_hits(launch):
    options = ["--show-hidden-metrics-for-version", "0.7"]
    with launch(*options, "--enable-prefix-caching") as engine:
        engine.post("/v1/completions", {"model": "coder", "prompt": "a" * 64})
        assert engine.metric("gpu_prefix_cache_hit_rate") == 0
        engine.post("/v1/completions", {"model": "coder", "prompt": "a" * 64})
        assert engine.metric("gpu_prefix_cache_hit_rate") == 0.5
    with launch(*options) as engine:
        engine.post("/v1/completions", {"model": "coder", "prompt": "a" * 64})
        assert engine.metric("gpu_prefix_cache_hit_rate") == -1


def test_no_metrics_without_statistics(launch):
    with launch("--disable-log-stats") as engine:
        engine.post("/v1/chat/completions", CHAT)
        assert engine.metrics() == {}


def test_the_log_tells_the_memory(launch):
    arguments = "--gpu-memory-utilization 0.96 --max-model-len 32768 --tensor-parallel-size 2 --swap-space 1"
    with launch(*arguments.split()) as engine:
        engine.post("/v1/chat/completions", CHAT)
        log = engine.log()
        assert "the current vLLM instance can use total_gpu_memory (21.48GiB) x gpu_memory_utilization (0.96) = 20.62GiB\n" in log
        assert "model weights take 0.00GiB; non_torch_memory takes 0.20GiB; PyTorch activation peak memory takes 0.03GiB;" in log
        blocks = int(re.search(r"# cuda blocks: (\d+), # CPU blocks: 262144\n", log)[1])
        assert f"Maximum concurrency for 32768 tokens per request: {blocks * 16 / 32768:.2f}x\n" in log
        assert f'num_gpu_blocks="{blocks}"' in next(iter(engine.metrics()))
        assert "Graph capturing finished" in log
        assert "INFO:     Application startup complete.\n" in log
        assert re.search(r'INFO:     127\.0\.0\.1:\d+ - "POST /v1/chat/completions HTTP/1\.1" 200 OK\n', log)
        assert re.search(r"Received request chatcmpl-[0-9a-f]{32}: prompt: '<\|im_start\|>user\\nwrite bubble sort", log)


def test_eager_and_quiet(launch):
    with launch("--enforce-eager", "--disable-log-requests", "--disable-uvicorn-access-log") as engine:
        engine.post("/v1/chat/completions", CHAT)
        assert not re.search("Graph capturing|Received request|POST", engine.log())


# -- refusals


def test_a_bad_command_line(launch):
    with launch("--max-batch-size", "3", until="exit") as engine:
        assert engine.process.returncode == 2
        assert engine.log().startswith("usage: api_server.py")
        assert engine.log().endswith("api_server.py: error: unrecognized arguments: --max-batch-size 3\n")


def test_no_checkpoint(launch, tmp_path):
    with launch(model=tmp_path / "none", until="exit") as engine:
        assert engine.process.returncode == 1
        assert f"ValueError: Invalid repository ID or local directory specified: '{tmp_path}/none'." in engine.log()


def test_no_weights(launch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(lab_engine.CONFIG))
    with launch(model=tmp_path, until="exit") as engine:
        assert engine.process.returncode == 1
        assert f"RuntimeError: Cannot find any model weights with `{tmp_path}`" in engine.log()


def test_bfloat16(launch):
    with launch("--dtype", "bfloat16", until="exit") as engine:
        assert engine.process.returncode == 1
        assert "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0." in engine.log()


def smi(folder, script):
    folder.mkdir(exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_cards_are_asked_for(launch, tmp_path):
    env = smi(tmp_path / "bin", '[ "$1" = --query-gpu=memory.total,memory.reserved ] && for card in 1 2; do echo "11264, 264"; done')
    with launch("--tensor-parallel-size", "2", env=env) as engine:
        assert "total_gpu_memory (10.74GiB) x gpu_memory_utilization (0.90) = 9.67GiB" in engine.log()
    with launch("--tensor-parallel-size", "4", env=env, until="exit") as engine:
        assert engine.process.returncode == 1
        assert "RuntimeError: please set tensor_parallel_size (4) to less than max local gpu count (2)" in engine.log()


@pytest.mark.parametrize("card, message", [
    ("230, 0", r"ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
    ("240, 0", r"ValueError: The model's max seq len \(32768\) is larger than .* that can be stored in KV cache \(\d+\)."),
    ("200, 0", r"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"),
])
def test_too_little_memory(launch, tmp_path, card, message):
    arguments = ["--max-model-len", "32768", "--max-num-batched-tokens", "2048", "--enable-chunked-prefill"]
    with launch(*arguments, env=smi(tmp_path / "bin", f"echo '{card}'"), until="exit") as engine:
        assert engine.process.returncode == 1
        assert re.search(f"^{message}", engine.log(), re.MULTILINE)
        assert re.search(r"^ERROR .* \[engine\.py:448\] ", engine.log(), re.MULTILINE)
        assert engine.log().endswith("RuntimeError: Engine process failed to start. See stack trace for the root cause.\n")


# -- faults


def fault(text):
    return {"GPUHOSTS_SIMULATED_FAULT": text}


def test_an_unknown_fault_is_refused(launch):
    with launch(env=fault("hangg"), until="exit") as engine:
        assert engine.process.returncode == 2
        assert "GPUHOSTS_SIMULATED_FAULT: unknown fault 'hangg', known here: oom_at_load" in engine.log()


def test_out_of_memory_in_the_first_starts(launch, tmp_path):
    env = fault("oom_at_load:2") | {"GPUHOSTS_SIMULATED_STATE": str(tmp_path)}
    for dummy in range(2):
        with launch(env=env, until="exit") as engine:
            assert engine.process.returncode == 1
            assert "\ntorch.OutOfMemoryError: CUDA out of memory." in engine.log()
    with launch(env=env) as engine:
        assert engine.healthy()


def test_out_of_memory_until_an_option_is_lowered(launch):
    with launch(env=fault("oom_above:max_num_seqs=32"), until="exit") as engine:
        assert engine.process.returncode == 1
    with launch("--max-num-seqs", "32", env=fault("oom_above:max_num_seqs=32")) as engine:
        assert engine.healthy()


def test_slow_load(launch):
    begun = time.monotonic()
    with launch(env=fault("slow_load:1")) as engine:
        assert time.monotonic() - begun >= 1
        assert re.search(r"Loading weights took 1\.0\d seconds", engine.log())


def test_hang_at_load(launch):
    with launch("--tensor-parallel-size", "2", env=fault("hang_at_load"), until="assigned as DP rank 0") as engine:
        with pytest.raises(ConnectionError):
            engine.request("GET", "/health")
        stop(engine)


def stop(engine):
    begun = time.monotonic()
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(5) == 0
    assert time.monotonic() - begun < 1


def test_hang_after_some_requests(launch):
    with launch("--max-num-seqs", "2", env=fault("hang:3")) as engine, concurrent.futures.ThreadPoolExecutor() as clients:
        for dummy in range(3):
            assert engine.post("/v1/chat/completions", CHAT)[0] == 200
        answers = [clients.submit(engine.post, "/v1/chat/completions", CHAT) for dummy in range(5)]
        engine.wait(lambda: engine.metric("num_requests_running") == 2 and engine.metric("num_requests_waiting") == 3)
        generated = engine.metric("generation_tokens_total")
        assert engine.metric("gpu_cache_usage_perc") > 0
        time.sleep(0.3)
        assert engine.healthy()
        assert engine.metric("generation_tokens_total") == generated
        assert not any(answer.done() for answer in answers)
        assert engine.tell("") == (200, {"fault": {}})
        assert [answer.result()[0] for answer in answers] == [200] * 5
        assert engine.metric("num_requests_running") == 0


def test_a_frozen_engine_still_stops(launch):
    with launch(env=fault("hang")) as engine, concurrent.futures.ThreadPoolExecutor() as clients:
        answer = clients.submit(engine.post, "/v1/chat/completions", CHAT)
        engine.wait(lambda: engine.metric("num_requests_running") == 1 if len(engine.metrics()) > 1 else False)
        stop(engine)
        assert answer.exception()


def test_crash(launch):
    with launch(env=fault("crash:1")) as engine:
        assert engine.post("/v1/chat/completions", CHAT)[0] == 200
        assert engine.request("POST", "/v1/chat/completions", CHAT) == (500, "")
        assert engine.process.wait(5) == 1
        assert "CUDA error: an illegal memory access was encountered" in engine.log()


def test_slow(launch):
    with launch() as engine:
        assert engine.tell("slow:20") == (200, {"fault": {"slow": 20.0}})
        begun = time.monotonic()
        engine.post("/v1/chat/completions", CHAT | {"max_tokens": 10})
        assert 0.5 <= time.monotonic() - begun < 2


def test_bad_and_garbage_answers(launch):
    with launch(env=fault("bad_answer")) as engine:
        assert engine.request("POST", "/v1/chat/completions", CHAT) == (500, "Internal Server Error")
        assert engine.healthy()
        engine.tell("garbage_answer")
        assert engine.post("/v1/chat/completions", CHAT | {"max_tokens": 4})[1]["choices"][0]["message"]["content"] == "!!!!"


def test_faults_at_run_time_are_checked(launch, engine):
    status, body = engine.tell("oom_at_load")
    assert status == 400
    assert body["message"] == "unknown fault 'oom_at_load', known here: hang, crash, slow, bad_answer, garbage_answer"


def test_a_client_that_leaves_ends_its_request(launch):
    with launch(env=fault("slow:20")) as engine:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port)
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT | {"stream": True}), {"Content-Type": "application/json"})
        connection.getresponse().read(10)
        connection.close()
        engine.wait(lambda: engine.metric("num_requests_running") == 0)
        assert 'vllm:request_success_total{finished_reason="abort",model_name="coder"}' in engine.metrics()


def test_sigterm_is_graceful(launch):
    with launch() as engine:
        stop(engine)
        assert "Shutting down FastAPI HTTP server." in engine.log()
        assert engine.log().endswith("INFO:     Application shutdown complete.\n")
