"""A host to run the program on: a folder as its root, a clock that stands until it is moved, small programs in place of docker and systemd,
and an engine that answers over HTTP as it is told.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

ROLE = pathlib.Path(__file__).parents[5] / "roles/vllm"
PACKAGE = ROLE / "files/vllm_instance"

sys.dont_write_bytecode = True
sys.path.insert(0, str(PACKAGE.parent))

from vllm_instance import definition as definitions  # noqa: E402
from vllm_instance.host import Host  # noqa: E402
from vllm_instance.state import Store  # noqa: E402

LIMITS = {
    "ready_seconds": 900,
    "drain_seconds": 120,
    "stall_seconds": 120,
    "unanswered_seconds": 60,
    "ladder_steps": 3,
    "restarts": 3,
    "restart_window_seconds": 3600,
}
RUNGS = [
    {"reason": "as planned", "changes": {}, "argv": ["--model", "/model", "--max-num-seqs", "64"], "kv_tokens": 1000},
    {"reason": "fewer sequences", "changes": {"max_num_seqs": 32}, "argv": ["--model", "/model", "--max-num-seqs", "32"], "kv_tokens": 900},
    {"reason": "shorter context", "changes": {"max_model_len": 8192}, "argv": ["--model", "/model", "--max-model-len", "8192"], "kv_tokens": 800},
]
HANG_ARGV = ["--disable-custom-all-reduce"]

OOM_LOG = """\
INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5
INFO 11-22 02:25:18 [model_runner.py:1108] Starting to load model /model...
ERROR 11-22 02:25:20 [engine.py:448] CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 21.48 GiB of which 45.00 MiB is free.
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 21.48 GiB of which 45.00 MiB is free.
RuntimeError: Engine process failed to start. See stack trace for the root cause.
"""
CRASH_LOG = """\
INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5
INFO:     Application startup complete.
RuntimeError: CUDA error: an illegal memory access was encountered
"""
START_LOG = """\
INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5
INFO 11-22 02:25:18 [model_runner.py:1140] Model loading took 4.5000 GiB and 3.000000 seconds
INFO 11-22 02:25:19 [executor_base.py:112] # cuda blocks: 15574, # CPU blocks: 1024
INFO:     Application startup complete.
"""

# Notes how it was called, and answers by the first of the test's rules that its arguments begin with.
FAKE = """\
#!/bin/sh
here=${0%/*}
words="${0##*/} $*"
printf '%s\\n' "$words" >> "$here/calls"
for rule in "$here"/answers/*; do
  [ -d "$rule" ] || break
  IFS= read -r beginning < "$rule/beginning"
  case "$words" in "$beginning"*) cat "$rule/output"; cat "$rule/errors" >&2; exit "$(cat "$rule/status")" ;; esac
done
"""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.seconds = 1_800_000_000.0

    def now(self):
        return self.seconds

    def pass_(self, seconds):
        self.seconds += seconds


class FakeEngine:
    """What an engine answers: health and completion are statuses (None: nothing in time), metrics is a text."""

    def __init__(self):
        self.health, self.completion, self.metrics = 200, 200, ""
        self.requests, self.silence = [], threading.Event()
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                engine.answer(self, engine.health if self.path == "/health" else 200, engine.metrics if self.path == "/metrics" else "")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                engine.requests.append((self.path, json.loads(body), self.headers.get("Authorization")))
                engine.answer(self, engine.completion, "{}")

            def log_message(self, *given):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler, status, text):
        if status is None:
            self.silence.wait(30)
            return
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(text.encode())

    def count(self, running, tokens, waiting=0):
        self.metrics = (
            f'vllm:num_requests_running{{model_name="coder"}} {running}\nvllm:num_requests_waiting{{model_name="coder"}} {waiting}\n'
            f'vllm:prompt_tokens_total{{model_name="coder"}} 7.0\nvllm:generation_tokens_total{{model_name="coder"}} {float(tokens)}\n'
        )

    def close(self):
        self.silence.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Machine:
    """The host and its stand-ins."""

    def __init__(self, root):
        self.root = root
        self.clock = Clock()
        self.host = Host(root, now=self.clock.now, monotonic=self.clock.now, sleep=self.clock.pass_)
        self.bin = root / "bin"
        self.bin.mkdir()
        for name in ("docker", "systemctl", "journalctl", "nvidia-smi"):
            program = self.bin / name
            program.write_text(FAKE)
            program.chmod(0o755)
        self.answer("docker inspect", "", 1, "Error: No such container")

    def answer(self, beginning, output="", status=0, errors=""):
        """From now on a command that begins with these words answers so. Longer beginnings go first."""
        rule = self.bin / "answers" / f"{999 - len(beginning):03} {beginning}"
        rule.mkdir(parents=True, exist_ok=True)
        for name, text in (("beginning", beginning + "\n"), ("output", output), ("errors", errors), ("status", str(status))):
            (rule / name).write_text(text)

    def calls(self, beginning=""):
        path = self.bin / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def forget_calls(self):
        (self.bin / "calls").unlink(missing_ok=True)

    def define(self, name="coder", **given):
        """Write a definition; returns it as the program reads it. limits: what differs from LIMITS."""
        document = {
            "name": name,
            "supervisor": "systemd",
            "runtime": "container",
            "engine_version": "0.8.5",
            "served_model_name": name,
            "url": "http://127.0.0.1:9",
            "port": 9,
            "model": {"repo_id": "a/b", "revision": "main", "commit": None, "path": "/model"},
            "image": {"reference": "engine@sha256:1", "id": "sha256:2"},
            "gpus": [0, 1],
            "command": ["docker", "run", "--rm", "--name", f"vllm-{name}", "engine@sha256:1"],
            "rungs": RUNGS,
            "hang_argv": HANG_ARGV,
            "expected": {"kv_tokens": 1000},
        }
        document.update(given, limits=dict(LIMITS, **given.get("limits", {})))
        directory = self.host.etc(name)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "definition.json").write_text(json.dumps(document))
        (directory / "generation").write_text("7\n")
        return definitions.read(self.host, name)

    def state(self, name="coder"):
        return Store(self.host, name).read()

    def set_state(self, name="coder", **given):
        with Store(self.host, name).change() as state:
            state.update(given)

    def events(self, name="coder"):
        return [(event["event"], event["reason"]) for event in self.state(name)["history"]]

    def unit(self, state="active", pid=4711, invocation="start1"):
        """What systemctl show answers."""
        self.answer("systemctl show", f"ActiveState={state}\nSubState=running\nMainPID={pid}\nInvocationID={invocation}\nControlGroup=\n")

    def container(self, status="running", identity="c1", started="2026-11-27T12:00:00.000000001Z", restarts=0, exit_code=0, error="", policy="always"):
        """What docker inspect answers; status None: there is no container."""
        if status is None:
            self.answer("docker inspect", "[]\n", 1, "Error: No such container: vllm-coder\n")
            return
        state = {"Status": status, "Running": status in ("running", "restarting"), "Restarting": status == "restarting", "StartedAt": started}
        state.update({"ExitCode": exit_code, "Error": error})
        document = {"Id": identity, "RestartCount": restarts, "State": state, "HostConfig": {"RestartPolicy": {"Name": policy}}}
        self.answer("docker inspect", json.dumps([document]))

    def program(self, *arguments, **environment):
        """Run the program as the host does; returns subprocess.CompletedProcess."""
        command = [sys.executable, "-I", "-B", str(PACKAGE), "--root", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, **environment), check=False, timeout=60)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{machine.bin}:/usr/bin:/bin")
    for name in ("NOTIFY_SOCKET", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)
    return machine


@pytest.fixture
def engine():
    engine = FakeEngine()
    yield engine
    engine.close()


@pytest.fixture
def logs():
    """Logs of engines by what happened in them."""
    return {"oom": OOM_LOG, "crash": CRASH_LOG, "start": START_LOG}
