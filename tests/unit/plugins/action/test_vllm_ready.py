"""The gate in a real playbook: what the operator sees while an engine starts, and that a gate without a wait costs one execution."""

import http.server
import json
import os
import re
import sys
import threading
import time

import pytest
from lab_play import play

START = (
    "INFO 11-22 02:25:24 [model_runner.py:1108] Starting to load model /model...\n"
    "Loading safetensors checkpoint shards:  38% Completed | 3/8 [00:05<00:05,  5.02s/it]\n"
)
MODULE = {"served_model_name": "coder", "unit": "vllm-coder.service", "patience": 2, "delay": 1}
TELL = {"ansible.builtin.debug": {"msg": "told {{ ready.answer | default('nothing') }}, slices {{ ready.resume is defined }}"}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        if time.monotonic() < self.server.healthy_at:
            return self.answer(503, "")
        return self.answer(200, json.dumps({"data": [{"id": "coder"}], "version": "0.8.5"}))

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        return self.answer(200, json.dumps({"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}))

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def engine():
    """A server that is healthy after engine.healthy_at."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.healthy_at, server.asked = 0, 0
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(tmp_path, engine):
    """run(*arguments, timeout=60, **keywords of the task) runs a playbook with the gate on gpu01: this machine, with stand-ins for systemd."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "log").write_text(START)
    (programs / "systemctl").write_text("#!/bin/sh\necho LoadState=loaded\necho ActiveState=active\necho NRestarts=0\n")
    (programs / "journalctl").write_text(f"#!/bin/sh\ncat {tmp_path}/log\n")
    for program in programs.iterdir():
        program.chmod(0o755)

    def start(*arguments, timeout=60, **keywords):
        module = dict(MODULE, url=f"http://127.0.0.1:{engine.server_port}", timeout=timeout)
        task = dict(keywords, **{"gpuhosts.inference.vllm_ready": module, "register": "ready"})
        (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "gpu01", "gather_facts": False, "tasks": [task, TELL]}]))
        hosts = (f"{name} ansible_connection=local ansible_python_interpreter={sys.executable}\n" for name in ("gpu01", "box"))
        (tmp_path / "hosts").write_text("".join(hosts))
        inventories = (tmp_path / "hosts",)
        return play(tmp_path / "play.yml", *arguments, inventories=inventories, PATH="{}:{}".format(programs, os.environ["PATH"]))

    return start


@pytest.mark.parametrize("keywords", [{}, {"delegate_to": "box"}])
def test_signs_of_life(run, engine, keywords):
    engine.healthy_at = time.monotonic() + 8
    status, output = run(**keywords)
    assert status == 0, output
    lines = re.findall(r"gpu01 coder: loading weights, 3 of 8 shards, (\d+) s of at most 60 s", output)
    assert lines
    assert [int(seconds) for seconds in lines] == sorted(int(seconds) for seconds in lines)
    assert "told Hello., slices False" in output


def test_a_gate_without_a_wait(run, engine):
    status, output = run()
    assert status == 0, output
    assert "gpu01 coder:" not in output
    assert engine.asked == 4, "/health, /v1/models, /version and /metrics, once each: the module ran once"


def test_the_whole_time_counts(run, engine):
    engine.healthy_at = time.monotonic() + 600
    status, output = run(timeout=5)
    assert status != 0
    assert "answers /health with status 503 after 5 s" in output


def test_check_mode_does_not_wait(run, engine):
    engine.healthy_at = time.monotonic() + 600
    status, output = run("--check")
    assert status == 0, output
    assert "skipped=1" in output
    assert engine.asked == 0


def test_a_task_without_a_log_shows_nothing(run, engine):
    engine.healthy_at = time.monotonic() + 5
    status, output = run(no_log=True)
    assert status == 0, output
    assert "shards" not in output
