"""An engine that serves, and the ways in which it does not."""

import http.server
import json
import os
import socket
import threading
import time

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import vllm_ready

KEY = "sk-test-very-secret"
INVOCATION = "5d0149bfa2c34b79bccb13074001eb20"
START = (
    "INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5\n"
    f"INFO 11-22 02:25:17 [api_server.py:1044] args: Namespace(port=8888, api_key='{KEY}', block_size=16)\n"
    "INFO 11-22 02:25:24 [model_runner.py:1108] Starting to load model /model...\n"
    "Loading safetensors checkpoint shards:  38% Completed | 3/8 [00:05<00:05,  5.02s/it]\n"
)
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 100.00 MiB. GPU 2 has a total capacity of 21.48 GiB of which 45.00 MiB is free.\n"
BLOCKS = START + "INFO 11-22 02:25:53 [executor_base.py:112] # cuda blocks: 1000, # CPU blocks: 58254\nINFO:     Application startup complete.\n"
METRICS = 'vllm:cache_config_info{block_size="16",cache_dtype="auto",num_cpu_blocks="10",num_gpu_blocks="2000",swap_space="4"} 1.0\n'
COMPLETION = {
    "choices": [{"message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}
STREAM = [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}]


def events(deltas, done=True):
    lines = ["data: " + json.dumps({"choices": [{"delta": delta}]}) for delta in deltas] + (["data: [DONE]"] if done else [])
    return "".join(line + "\n\n" for line in lines)


class Engine(http.server.ThreadingHTTPServer):
    """Answers that tests change: path -> [status, body]; `loading` counts how often /health says 503 first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.loading = 0
        self.key = None
        self.requests = []
        self.answers = {
            "/health": [200, ""],
            "/version": [200, {"version": "0.8.5"}],
            "/v1/models": [200, {"data": [{"id": "coder"}]}],
            "/v1/chat/completions": [200, COMPLETION],
            "stream": [200, events(STREAM)],
        }
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health" and self.server.loading:
            self.server.loading -= 1
            return self.answer(503, "")
        if self.path.startswith("/v1") and self.server.key and self.headers.get("Authorization") != "Bearer " + self.server.key:
            return self.answer(401, {"error": "Unauthorized"})
        return self.answer(*self.server.answers.get(self.path, [404, {"detail": "Not Found"}]))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        return self.answer(*self.server.answers["stream" if request.get("stream") else self.path])

    def answer(self, status, body):
        if status == "hang":
            time.sleep(1.5)
            return
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def engine():
    with Engine() as instance:
        threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield instance
        instance.shutdown()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(name, text) puts a shell script on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", "{}:{}".format(programs, os.environ["PATH"]))

    def write(name, text):
        (programs / name).write_text("#!/bin/sh\n" + text)
        (programs / name).chmod(0o755)

    return write


@pytest.fixture
def journal(tmp_path, program):
    """Stands in for journalctl: what is written to the file of this name is the log of the present start, `history` that of all of them."""
    log, history = tmp_path / "journal", tmp_path / "history"
    log.write_text("")
    history.write_text("")
    program("journalctl", f'echo "$@" >> {tmp_path}/asked\ncase "$1" in -u) cat {history} ;; *) cat {log} ;; esac\n')
    return log


@pytest.fixture
def systemd(tmp_path, program, journal):
    """Stands in for systemctl; systemd(ActiveState="failed", ...) sets what the unit is like."""
    state = tmp_path / "unit"
    program("systemctl", f"cat {state}\n")

    def describe(**values):
        usual = {"LoadState": "loaded", "ActiveState": "active", "Result": "success", "NRestarts": "0", "InvocationID": INVOCATION}
        values = dict(usual, **values)
        fresh = tmp_path / "unit.new"
        fresh.write_text("".join("{}={}\n".format(*pair) for pair in values.items()))
        fresh.replace(state)

    describe()
    return describe


@pytest.fixture
def warnings(monkeypatch):
    """What the module warns of. Where a test has imported a filter, Ansible takes this process for a controller, and puts warnings on its screen."""
    said = []
    monkeypatch.setattr(vllm_ready.AnsibleModule, "warn", lambda module, warning: said.append(warning))
    return said


@pytest.fixture
def ready(run_module):
    def run(engine, **arguments):
        defaults = {"url": engine.url, "served_model_name": "coder", "timeout": 1, "delay": 0, "request_timeout": 5}
        return run_module(vllm_ready, **dict(defaults, **arguments))

    return run


def test_ready(ready, engine):
    engine.loading = 2
    result = ready(engine, url=engine.url + "/", timeout=10)
    assert result["changed"] is False
    assert result["answer"] == "Hello there."
    assert result["finish_reason"] == "stop"
    assert result["usage"]["completion_tokens"] == 3
    assert result["version"] == "0.8.5"
    assert result["models"] == ["coder"]
    assert result["waited_seconds"] >= 0
    assert result["completion_seconds"] > 0
    assert "streamed_chunks" not in result
    (request,) = engine.requests
    assert request == {
        "model": "coder",
        "messages": [{"role": "user", "content": "Say hello in one short sentence."}],
        "max_tokens": 16,
        "temperature": 0.0,
    }


def test_stream(ready, engine):
    result = ready(engine, stream=True, messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    assert result["streamed_chunks"] == 2
    assert result["streamed_answer"] == "Hello"
    assert [request.get("stream", False) for request in engine.requests] == [False, True]
    assert {request["max_tokens"] for request in engine.requests} == {4}


def test_thoughts_count_as_an_answer(ready, engine):
    message = {"content": None, "reasoning_content": "The user greets me"}
    engine.answers["/v1/chat/completions"][1] = {"choices": [{"message": message, "finish_reason": "length"}]}
    engine.answers["stream"][1] = events([{"reasoning_content": "The"}, {"reasoning_content": " user"}])
    result = ready(engine, stream=True)
    assert result["answer"] == "The user greets me"
    assert result["streamed_answer"] == "The user"
    assert result["usage"] is None


def test_check_mode_does_not_wait(ready, engine, run_module):
    result = run_module(vllm_ready, check=True, url="http://127.0.0.1:1", served_model_name="coder")
    assert result["skipped"] is True
    assert result["changed"] is False


def test_api_key(ready, engine):
    engine.key = KEY
    assert ready(engine, api_key=KEY)["answer"] == "Hello there."
    result = ready(engine, api_key="wrong-but-secret")
    assert result["reason"] == "unhealthy"
    assert "refuses the API key (401)" in result["msg"]
    assert "wrong-but-secret" not in json.dumps(result)


def test_unreachable(ready, engine):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = ready(engine, url=url, timeout=0)
    assert result["failed"] is True
    assert result["reason"] == "unreachable"
    assert result["msg"].startswith(f"The engine at {url} still cannot be reached (")
    assert "log" not in result
    assert result["waited_seconds"] >= 0


def test_unhealthy(ready, engine):
    engine.loading = 1000000
    result = ready(engine, timeout=1, delay=1)
    assert result["reason"] == "unhealthy"
    assert "answers /health with status 503" in result["msg"]


def test_model_missing(ready, engine):
    result = ready(engine, served_model_name="other")
    assert result["reason"] == "model_missing"
    assert "serves coder, not other" in result["msg"]


def test_models_without_a_list(ready, engine):
    engine.answers["/v1/models"] = [500, "boom"]
    result = ready(engine)
    assert result["reason"] == "unhealthy"
    assert "answers 500 without a list of models: boom" in result["msg"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([400, {"object": "error", "message": "This model's maximum context length is 16 tokens.", "code": 400}], "answers 400: This model's maximum"),
        ([404, {"error": {"message": "The model does not exist.", "code": 404}}], "answers 404: The model does not exist."),
        ([500, "Internal Server Error"], "answers 500: Internal Server Error"),
        ([200, {"choices": [{"message": {"content": ""}}]}], "empty text"),
        ([200, {"choices": []}], "without a completion"),
        ([200, "<html>"], "without a completion"),
        (["hang", ""], "gave no answer"),
    ],
)
def test_completion_failed(ready, engine, answer, words):
    engine.answers["/v1/chat/completions"] = answer
    result = ready(engine, request_timeout=1)
    assert result["reason"] == "completion_failed"
    assert words in result["msg"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([200, events(STREAM, done=False)], "broke off before [DONE]"),
        ([200, events([{"role": "assistant"}, {}])], "without any text"),
        ([200, 'data: {"error": {"message": "engine died"}}\n\n'], "reports an error: engine died"),
        ([200, "data: nonsense\n\n"], "no completion: nonsense"),
        ([503, "overloaded"], "answers 503 to a streamed request: overloaded"),
        (["hang", ""], "broke off ("),
    ],
)
def test_stream_failed(ready, engine, answer, words):
    engine.answers["stream"] = answer
    result = ready(engine, stream=True, request_timeout=1)
    assert result["reason"] == "stream_failed"
    assert words in result["msg"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"ActiveState": "failed", "Result": "exit-code"}, "has failed (result exit-code)"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "is not known to systemd"),
        ({"ActiveState": "inactive"}, "is not running and not about to be started"),
    ],
)
def test_a_dead_unit_is_not_waited_for(ready, engine, systemd, journal, state, words):
    systemd(**state)
    began = time.monotonic()
    journal.write_text(START + OOM)
    result = ready(engine, unit="vllm-coder.service", timeout=60, log_lines=2)
    assert time.monotonic() - began < 5
    assert result["reason"] == "unit_failed"
    assert result["msg"].startswith("The unit vllm-coder.service " + words)
    assert result["msg"].endswith(
        ": card 2 of the engine ran out of memory while the weights were loaded: 100.00 MiB were wanted, 45.00 MiB of 21.48 GiB were free. The weights do not "
        "fit: use more cards (gpus and options.tensor_parallel_size), a checkpoint with fewer bits, or options.cpu_offload_gb. swap_space holds no weights."
    )
    assert [cause["code"] for cause in result["causes"]] == ["out_of_memory"]
    assert result["log"] == [START.splitlines()[-1], OOM.strip()]
    assert result["progress"]["detail"] == "shards 3/8"


def test_a_unit_that_keeps_restarting(ready, engine, systemd):
    engine.loading = 1000000
    systemd(ActiveState="activating", NRestarts="5")
    threading.Timer(0.5, systemd, kwargs={"ActiveState": "activating", "NRestarts": "8"}).start()
    result = ready(engine, unit="vllm-coder.service", timeout=60, delay=0)
    assert result["reason"] == "unit_failed"
    assert "has restarted 3 times" in result["msg"]


def test_a_unit_about_to_start_is_waited_for(ready, engine, systemd):
    engine.loading = 2
    systemd(ActiveState="inactive", Job="1234", NRestarts="9")
    assert ready(engine, unit="vllm-coder.service", timeout=10)["answer"] == "Hello there."


def test_the_log_of_the_present_start_is_read_first(ready, engine, systemd, journal, tmp_path):
    systemd(ActiveState="failed")
    journal.write_text(START + "api_server.py: error: unrecognized arguments: --xformers\n")
    (tmp_path / "history").write_text(START + OOM)
    result = ready(engine, unit="vllm-coder.service", timeout=60)
    assert [cause["code"] for cause in result["causes"]] == ["bad_argument"]
    assert (tmp_path / "asked").read_text().splitlines()[0].startswith(f"_SYSTEMD_INVOCATION_ID={INVOCATION} + INVOCATION_ID={INVOCATION} -n ")


def test_the_log_of_the_start_before_explains_a_restart(ready, engine, systemd, journal, tmp_path):
    engine.loading = 1000000
    systemd(ActiveState="activating", NRestarts="5")
    journal.write_text(START.splitlines()[0])
    (tmp_path / "history").write_text(START + OOM + START.splitlines()[0])
    threading.Timer(0.3, systemd, kwargs={"ActiveState": "activating", "NRestarts": "8"}).start()
    result = ready(engine, unit="vllm-coder.service", timeout=60, delay=0)
    assert result["msg"].startswith("The unit vllm-coder.service has restarted 3 times while it was waited for: card 2 of the engine ran out of memory")


def test_a_dead_unit_without_a_cause_in_its_log(ready, engine, systemd, journal):
    systemd(ActiveState="failed", Result="exit-code")
    result = ready(engine, unit="vllm-coder.service", timeout=60)
    assert result["msg"] == "The unit vllm-coder.service has failed (result exit-code): correct what its log names and start it again."
    assert result["causes"] == []
    assert result["log"] == []


def test_a_unit_that_the_kernel_killed(ready, engine, systemd, journal):
    systemd(ActiveState="failed", Result="exit-code", ExecMainCode="1", ExecMainStatus="137")
    journal.write_text(START)
    assert "the engine was killed (exit status 137)" in ready(engine, unit="vllm-coder.service", timeout=60)["msg"]


def test_no_secret_of_the_log_is_returned(ready, engine, systemd, journal):
    systemd(ActiveState="failed")
    journal.write_text(START + "RuntimeError: Authorization: Bearer another-secret\n")
    found = json.dumps(ready(engine, unit="vllm-coder.service", timeout=60))
    assert KEY not in found
    assert "another-secret" not in found
    assert "api_key=***" in found


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (START, "after 0 s, its log shows no error, and it is still at: loading weights, 3 of 8 shards. Give it more time (timeout)"),
        (BLOCKS, "after 0 s, and its log says that it serves: check the port and the address in url"),
        (START.splitlines()[0] + "\nINFO 11-22 02:25:19 [pynccl.py:69] vLLM is using nccl==2.21.5\n", "the start stopped where the cards connect"),
    ],
)
def test_the_time_is_over_and_the_unit_runs(ready, engine, systemd, journal, log, words):
    journal.write_text(log)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = ready(engine, url=url, unit="vllm-coder.service", timeout=0)
    assert result["reason"] == "unreachable"
    assert words in result["msg"]


# -- Containers ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path, program):
    """Stands in for docker; docker(Status="exited", log="...") sets what the container is like."""
    state, log = tmp_path / "container", tmp_path / "docker-log"
    program("docker", f'echo "$@" >> {tmp_path}/asked\ncase "$1" in inspect) cat {state} ;; logs) cat {log} >&2 ;; esac\n')

    def describe(log_text="", restarts=0, **values):
        usual = {"Status": "running", "ExitCode": 0, "OOMKilled": False, "StartedAt": "2026-11-22T02:25:16Z", "FinishedAt": "0001-01-01T00:00:00Z"}
        log.write_text(log_text)
        fresh = tmp_path / "container.new"
        fresh.write_text(json.dumps({"state": dict(usual, **values), "restarts": restarts}))
        fresh.replace(state)

    describe()
    return describe


def test_a_container(ready, engine, docker, tmp_path):
    docker(log_text=BLOCKS)
    result = ready(engine, container="vllm-coder")
    assert result["ready"] is True
    assert result["kv_tokens"] == 16000
    assert "logs --since 2026-11-22T02:25:16Z vllm-coder" in (tmp_path / "asked").read_text().splitlines()
    assert "Env" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"Status": "exited", "ExitCode": 1, "FinishedAt": "2026-11-22T02:26:16Z"}, "has ended (status 1)"),
        ({"Status": "dead"}, "is dead"),
        ({"Status": "paused"}, "is paused"),
    ],
)
def test_a_dead_container_is_not_waited_for(ready, engine, docker, state, words):
    docker(log_text=START + OOM, **state)
    result = ready(engine, container="vllm-coder", timeout=60)
    assert result["reason"] == "container_failed"
    assert result["msg"].startswith(f"The container vllm-coder {words}: card 2 of the engine ran out of memory")
    assert [cause["code"] for cause in result["causes"]] == ["out_of_memory"]


def test_a_container_that_keeps_restarting(ready, engine, docker):
    engine.loading = 1000000
    docker(restarts=7, Status="restarting")
    threading.Timer(0.3, docker, kwargs={"restarts": 10, "Status": "restarting", "log_text": START + OOM}).start()
    result = ready(engine, container="vllm-coder", timeout=60)
    assert result["msg"].startswith("The container vllm-coder has restarted 3 times while it was waited for: card 2")


def test_a_container_that_the_kernel_killed(ready, engine, docker):
    docker(log_text=START, Status="exited", ExitCode=137, OOMKilled=True, FinishedAt="2026-11-22T02:26:16Z")
    assert [cause["code"] for cause in ready(engine, container="vllm-coder")["causes"]] == ["host_memory"]


def test_a_container_that_is_not_there(ready, engine, program, monkeypatch):
    monkeypatch.setattr(vllm_ready, "GONE_SECONDS", 0)
    program("docker", "echo 'Error response from daemon: No such container: vllm-coder' >&2; exit 1\n")
    result = ready(engine, container="vllm-coder", timeout=60)
    assert result["msg"] == "The container vllm-coder is not there: check the name, or deploy the instance."


def test_a_container_that_is_being_created_anew_is_waited_for(ready, engine, program):
    """The watchdog removes a container to create it on the next step of its ladder."""
    program("docker", "echo 'Error response from daemon: No such container: vllm-coder' >&2; exit 1\n")
    assert ready(engine, container="vllm-coder")["answer"] == "Hello there."


def test_docker_does_not_answer(ready, engine, program):
    program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    assert ready(engine, container="vllm-coder")["answer"] == "Hello there.", "the endpoint is what counts"


def test_a_unit_or_a_container(ready, engine):
    assert "mutually exclusive" in ready(engine, container="vllm-coder", unit="vllm-coder.service")["msg"]


# -- The size of the KV cache --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "metrics", "tokens"),
    [(BLOCKS, METRICS, 16000), ("", METRICS, 32000), ("", "# no such metric\n", None), ("GPU KV cache size: 63,584 tokens", METRICS, 63584)],
)
def test_the_size_of_the_cache(ready, engine, systemd, journal, warnings, log, metrics, tokens):
    journal.write_text(log)
    engine.answers["/metrics"] = [200, metrics]
    result = ready(engine, unit="vllm-coder.service", expected_kv_tokens=16000, kv_tolerance=1)
    assert result["kv_tokens"] == tokens
    assert result["memory_lines"] == [line for line in log.splitlines() if "blocks" in line or "version" in line or "tokens" in line]
    assert warnings == []


@pytest.mark.parametrize(("expected", "tolerance"), [(16000, 0.1), (17700, 0.1), (20000, 0.25), (8000, 0.1), (None, 0.1)])
def test_a_cache_as_planned(ready, engine, systemd, journal, warnings, expected, tolerance):
    journal.write_text(BLOCKS)
    result = ready(engine, unit="vllm-coder.service", kv_tolerance=tolerance, **({"expected_kv_tokens": expected} if expected else {}))
    assert result["ready"] is True
    assert warnings == []


@pytest.mark.parametrize("context", [None, 16000])
def test_a_smaller_cache_than_planned(ready, engine, systemd, journal, warnings, context):
    journal.write_text(BLOCKS)
    engine.answers["/v1/models"] = [200, {"data": [{"id": "coder", "max_model_len": context}]}]
    result = ready(engine, unit="vllm-coder.service", expected_kv_tokens=20000)
    assert result["ready"] is True
    assert warnings == [
        "The KV cache of coder holds 16000 tokens, 20% less than the plan's 20000: look for another process on its cards, and let playbooks/ledger.yml "
        "correct the next plan by this start."
    ]


def test_a_cache_that_does_not_hold_one_sequence(ready, engine, systemd, journal):
    journal.write_text(BLOCKS)
    engine.answers["/v1/models"] = [200, {"data": [{"id": "coder", "max_model_len": 32768}]}]
    result = ready(engine, unit="vllm-coder.service", expected_kv_tokens=40000)
    assert result["reason"] == "kv_size"
    assert result["msg"].startswith(
        "The KV cache of coder holds 16000 tokens, 60% less than the plan's 40000 and less than one sequence of 32768: lower options.max_model_len, or look"
    )
    assert result["kv_tokens"] == 16000


# -- Plausible answers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Hi",
        "!!!",
        "?",
        "vttvhkaehavgthahmekooegeuhavtavtagukkeuv",  # the lab's model of random numbers
        "kkkkkkkkkkkkkkkk",  # and the same, asked for the likeliest token
        "好的，这里有一个冒泡排序。",
        "😀😀😀😀 hello",
        "!!!! ok",
        "....?",
        "\ufffd\ufffd\ufffd\ufffd a",  # bytes that are cut
    ],
)
def test_a_plausible_answer(ready, engine, text):
    engine.answers["/v1/chat/completions"][1] = {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}
    assert ready(engine)["answer"] == text


@pytest.mark.parametrize("text", ["!!!!", "!" * 32, "! ! ! ! !", "\n!!!!\n", "........", "\ufffd" * 8, "\x00\x01\x02\x03", "\ufffd\x00\ufffd\x00"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_implausible_answer(ready, engine, systemd, journal, text, streamed):
    journal.write_text(BLOCKS + "INFO x\nTimeoutError: RPC call to execute_model timed out.\n")
    if streamed:
        engine.answers["stream"][1] = events([{"content": piece} for piece in text])
    else:
        engine.answers["/v1/chat/completions"][1] = {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}
    result = ready(engine, unit="vllm-coder.service", stream=streamed)
    assert result["reason"] == "implausible_answer"
    assert "characters that no model means (" in result["msg"]
    assert "Set options.dtype to float32" in result["msg"]


# -- Slices --------------------------------------------------------------------------------------------------------------------------------


def test_a_slice(ready, engine, systemd, journal):
    journal.write_text(START)
    engine.loading = 1000000
    systemd(NRestarts="4")
    result = ready(engine, unit="vllm-coder.service", timeout=60, delay=1, patience=1)
    assert result["ready"] is False
    assert "failed" not in result
    assert result["progress"] == {"phase": "loading weights", "detail": "shards 3/8", "share": 0.375}
    assert result["resume"]["restarts_before"] == 4

    # Restarts and time count from the first slice.
    systemd(NRestarts="7")
    later = ready(engine, unit="vllm-coder.service", timeout=60, delay=1, patience=1, resume=result["resume"])
    assert "has restarted 3 times" in later["msg"]
    systemd(NRestarts="4")
    later = ready(engine, unit="vllm-coder.service", timeout=60, delay=1, patience=30, resume=dict(result["resume"], waited_seconds=59.5))
    assert later["reason"] == "unhealthy"
    assert later["waited_seconds"] >= 59.5
    engine.loading = 0
    later = ready(engine, unit="vllm-coder.service", timeout=60, patience=1, resume=dict(result["resume"], waited_seconds=12))
    assert later["ready"] is True
    assert 12 <= later["waited_seconds"] < 20


def test_a_slice_without_a_log(ready, engine):
    engine.loading = 1000000
    result = ready(engine, timeout=60, delay=1, patience=1)
    assert result["ready"] is False
    assert result["progress"] is None


def test_no_slices_by_default(ready, engine):
    engine.loading = 3
    assert ready(engine, timeout=60, patience=0)["ready"] is True
