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
def systemd(tmp_path, monkeypatch):
    """Stand-ins for systemctl and journalctl on PATH; systemd(ActiveState="failed", ...) sets what the unit is like."""
    programs = tmp_path / "bin"
    programs.mkdir()
    state = tmp_path / "unit"
    (programs / "systemctl").write_text(f"#!/bin/sh\ncat {state}\n")
    (programs / "journalctl").write_text(f'#!/bin/sh\necho "$@"\necho "torch.OutOfMemoryError: CUDA out of memory. key {KEY}"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", "{}:{}".format(programs, os.environ["PATH"]))

    def describe(**values):
        values = dict({"LoadState": "loaded", "ActiveState": "active", "Result": "success", "NRestarts": "0"}, **values)
        fresh = tmp_path / "unit.new"
        fresh.write_text("".join("{}={}\n".format(*pair) for pair in values.items()))
        fresh.replace(state)

    describe()
    return describe


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
def test_a_dead_unit_is_not_waited_for(ready, engine, systemd, state, words):
    systemd(**state)
    began = time.monotonic()
    result = ready(engine, unit="vllm-coder.service", timeout=60, api_key=KEY, log_lines=7)
    assert time.monotonic() - began < 5
    assert result["reason"] == "unit_failed"
    assert result["msg"].startswith("The unit vllm-coder.service ")
    assert words in result["msg"]
    assert result["log"][0] == "-u vllm-coder.service -n 7 --no-pager -o cat"
    assert "CUDA out of memory" in result["log"][1]
    assert KEY not in json.dumps(result)


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
