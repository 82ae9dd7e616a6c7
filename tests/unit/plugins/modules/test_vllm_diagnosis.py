"""What is gathered of a serving host: a made-up file system, stand-ins for the programs, and an engine that answers or does not."""

import http.server
import itertools
import json
import os
import pathlib
import socketserver
import threading
import time

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import vllm_diagnosis
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import diagnosis

KEY = "sk-test-very-secret"
LOG = (
    "INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5\n"
    f"INFO 11-22 02:25:17 [api_server.py:1044] args: Namespace(port=8888, api_key='{KEY}', block_size=16)\n"
    "INFO 11-22 02:25:53 [executor_base.py:112] # cuda blocks: 1000, # CPU blocks: 58254\n"
    "INFO:     Application startup complete.\n"
)
OOM = "INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5\ntorch.OutOfMemoryError: CUDA out of memory.\n"
ACTIVE = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0", "MainPID": "71", "ExecMainStartTimestampMonotonic": "0"}
FAILED = {"LoadState": "loaded", "ActiveState": "failed", "Result": "exit-code", "NRestarts": "0", "MainPID": "0", "ExecMainCode": "1", "ExecMainStatus": "1"}
DEFINITION = {
    "name": "coder", "supervisor": "systemd", "runtime": "container", "engine_version": "0.8.5", "served_model_name": "coder", "port": 8888,
    "model": {"repo_id": "Qwen/Qwen3-32B-AWQ", "path": "/model"}, "gpus": [0], "command": ["docker", "run", "--env-file", "/etc/vllm/coder/environment"],
    "rungs": [{"reason": "as planned", "changes": {}, "argv": ["--model", "/model"], "kv_tokens": 16000}], "hang_argv": [],
    "expected": {"kv_tokens": 16000}, "limits": {"ready_seconds": 900},
}  # fmt: skip


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """host.write(path, text), host.program(name, script), host.unit(**properties) and host.gather(**arguments)."""

    class Host:
        root = tmp_path / "root"
        journal = tmp_path / "journal"

        def __init__(self):
            (tmp_path / "bin").mkdir()
            self.journal.write_text(LOG)
            self.program("systemctl", f"cat {tmp_path}/properties\n")
            self.program("journalctl", f"cat {self.journal}\n")
            self.program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1\n")
            self.write("proc/uptime", "86400.52 100000.00\n")
            self.write("proc/meminfo", "MemTotal: 1024 kB\nMemAvailable: 512 kB\n")
            self.unit(**ACTIVE)

        def write(self, name, text):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if isinstance(text, str) else json.dumps(text))

        def program(self, name, body):
            path = tmp_path / "bin" / name
            path.write_text("#!/bin/sh\n" + body)
            path.chmod(0o755)

        def unit(self, **properties):
            (tmp_path / "properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

        def instance(self, name="coder", **changes):
            self.write(f"etc/vllm/{name}/definition.json", dict(DEFINITION, name=name, **changes))
            self.write(f"etc/systemd/system/vllm-{name}.service", "[Service]\n")

        def gather(self, **arguments):
            return run_module(vllm_diagnosis, **dict({"timeout": 2, "stall_seconds": 1}, **arguments))["gathered"]

    monkeypatch.setenv("PATH", "{}:{}".format(tmp_path / "bin", os.environ["PATH"]))
    monkeypatch.setattr(vllm_diagnosis, "ROOT", str(tmp_path / "root"))
    return Host()


@pytest.fixture
def engine():
    """An engine's /health and /metrics; engine.figures is what the next answers of /metrics have."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = "" if self.path == "/health" else metrics(**next(self.server.figures)) if self.path == "/metrics" else None
            self.send_response(self.server.status if body is not None else 404)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.status, server.figures = 200, itertools.repeat({"running": 0, "tokens": 5})
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def metrics(running, tokens):
    return (
        f'vllm:num_requests_running{{model_name="coder"}} {running}.0\nvllm:num_requests_waiting{{model_name="coder"}} 0.0\n'
        f'vllm:gpu_cache_usage_perc{{model_name="coder"}} 0.25\nvllm:generation_tokens_total{{model_name="coder"}} {tokens}.0\n'
    )


def test_a_host_with_nothing_on_it(host):
    host.program("systemctl", "exit 127\n")
    found = host.gather()
    assert found["instances"] == {}
    assert found["cards"] == {"state": "missing", "source": "sysfs", "gpus": [], "lost": [], "processes": [], "driver_version": None}
    assert found["docker"] == {"version": None, "problem": None, "data_root": "/var/lib/docker"}
    assert found["memory"]["available_bytes"] == 512 * 1024
    assert found["uptime_seconds"] == 86400
    assert found["watchdog"] is None
    assert found["file_systems"]["/"]["total_bytes"] > 0
    assert found["problems"] == []


def test_an_instance_that_serves(host, engine):
    host.instance(url=engine.url)
    host.write("etc/vllm/coder/environment", f"VLLM_API_KEY={KEY}\n")
    host.write("etc/vllm/coder/generation", "2\n")
    host.write("var/lib/vllm/coder/generations/1/generation.json", {"number": 1, "status": "failed", "why": "out of memory"})
    host.write("var/lib/vllm/coder/generations/2/generation.json", {"number": 2, "status": "proved"})
    host.write("var/lib/vllm/coder/state.json", {"rung": 0, "status": "running", "quarantine": None})
    host.write("var/lib/vllm/coder/starts.jsonl", '{"time": "a"}\n{"time": "b", "generation": 2, "rung": 0, "log": ["x"]}\n')
    host.write("var/lib/vllm/coder/evidence/20261127T120000Z-stall/summary.json", {})
    host.write("etc/systemd/system/vllm-watchdog.service", "")
    found = host.gather()
    assert list(found["instances"]) == ["coder"]
    assert found["watchdog"] == "active"
    coder = found["instances"]["coder"]
    assert coder["health"] == {"status": 200, "error": None}
    assert coder["metrics"] == {"running": 0.0, "waiting": 0.0, "kv_usage": 0.25, "generated_tokens": 5.0}
    assert coder["kv_tokens"] == 16000
    assert coder["progress"]["phase"] == "serving"
    assert coder["causes"] == []
    assert coder["generations"] == {"installed": 2, "latest": [{"number": 1, "status": "failed", "why": "out of memory"}, {"number": 2, "status": "proved"}]}
    assert coder["last_start"] == {"time": "b", "generation": 2, "rung": 0, "log": ["x"]}
    assert coder["evidence"] == [str(host.root / "var/lib/vllm/coder/evidence/20261127T120000Z-stall")]
    assert coder["definition"]["rungs"] == [{"reason": "as planned", "changes": {}, "kv_tokens": 16000}]
    assert "command" not in coder["definition"]
    assert coder["process"]["running_seconds"] > 0
    assert coder["log"][-1] == "INFO:     Application startup complete."
    assert KEY not in json.dumps(found)
    assert diagnosis.judge(found).wrong == []


def test_an_instance_without_a_definition(host, engine):
    """What an older release of the role left: a unit, and the address from the inventory."""
    host.write("etc/systemd/system/vllm-coder.service", "[Service]\n")
    coder = host.gather(instances={"coder": engine.url + "/"})["instances"]["coder"]
    assert coder["definition"] is None and coder["definition_error"] is None
    assert coder["url"] == engine.url
    assert coder["health"]["status"] == 200


def test_a_unit_that_failed(host):
    host.instance(url="http://127.0.0.1:1")
    host.unit(**FAILED)
    host.journal.write_text(OOM)
    coder = host.gather()["instances"]["coder"]
    assert coder["process"]["trouble"] == "has failed (result exit-code)"
    assert coder["process"]["exit_status"] == 1
    assert [cause["code"] for cause in coder["causes"]] == ["out_of_memory"]
    assert coder["health"] == {"status": None, "error": coder["health"]["error"]} and "refused" in coder["health"]["error"]
    assert coder["metrics"] == {}
    assert host.gather(log_lines=0)["instances"]["coder"]["log"] == []


def test_an_instance_that_is_not_there(host):
    host.unit(LoadState="not-found", ActiveState="inactive")
    host.journal.write_text("")
    found = host.gather(instances={"coder": "http://127.0.0.1:1"})
    assert found["instances"]["coder"]["definition"] is None
    assert diagnosis.judge(found, {"instances": ["coder"]}).states["coder"][0] == "absent"


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_broken_definition_hides_nothing(host, text):
    host.instance("chat", url="http://127.0.0.1:1")
    host.instance()
    host.write("etc/vllm/coder/definition.json", text)
    host.write("var/lib/vllm/coder/state.json", "{")
    host.write("var/lib/vllm/coder/starts.jsonl", "{")
    host.write("var/lib/vllm/coder/generations/1/generation.json", "nonsense")
    found = host.gather()
    assert "/etc/vllm/coder/definition.json is not" in found["instances"]["coder"]["definition_error"]
    assert found["instances"]["chat"]["definition"]["engine_version"] == "0.8.5"


def test_what_the_host_program_could_not_put_on_a_full_disk(host):
    host.instance()
    host.write("var/lib/vllm/coder/state.json", {"rung": 0})
    host.write("run/vllm/coder.state.json", {"rung": 2})
    assert host.gather()["instances"]["coder"]["state"] == {"rung": 2}


# -- Progress ------------------------------------------------------------------------------------------------------------------------------


def test_a_hang(host, engine):
    host.instance(url=engine.url)
    engine.figures = itertools.repeat({"running": 1, "tokens": 5})
    found = host.gather()
    assert found["instances"]["coder"]["stalled_seconds"] >= 1
    assert diagnosis.judge(found).states["coder"][0] == "stalls"


@pytest.mark.parametrize("later", [{"running": 1, "tokens": 6}, {"running": 0, "tokens": 5}])
def test_an_engine_that_works_is_watched_to_the_first_token(host, engine, later):
    host.instance(url=engine.url)
    engine.figures = itertools.chain([{"running": 1, "tokens": 5}], itertools.repeat(later))
    began = time.monotonic()
    assert host.gather(stall_seconds=60)["instances"]["coder"]["stalled_seconds"] == 0
    assert time.monotonic() - began < 30


def test_metrics_of_both_engines():
    text = 'vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.5\nvllm:num_requests_running{engine="0"} 1.0\nvllm:num_requests_running{engine="1"} 2.0\n'
    assert vllm_diagnosis.parse_metrics(text) == {"kv_usage": 0.5, "running": 3.0}
    assert vllm_diagnosis.parse_metrics("# nothing\n") == {}


# -- What hangs or is down -----------------------------------------------------------------------------------------------------------------


def test_everything_hangs(host, engine):
    """nvidia-smi, systemctl and Docker hang, and the engine's socket takes connections that nobody answers."""
    for name in ("nvidia-smi", "docker"):
        host.program(name, "sleep 60\n")
    host.instance(url=engine.url)
    engine.status = 503
    began = time.monotonic()
    found = host.gather(timeout=1)
    assert time.monotonic() - began < 30
    assert found["cards"]["state"] == "hangs"
    assert any("nvidia-smi gave no answer within 1 s" in problem for problem in found["problems"])
    assert found["instances"]["coder"]["health"]["status"] == 503


def test_docker_is_down(host):
    host.write("var/run/docker.sock", "")
    host.instance(supervisor="docker", url="http://127.0.0.1:1")
    os.unlink(host.root / "etc/systemd/system/vllm-coder.service")
    found = host.gather()
    assert found["docker"]["version"] is None
    assert "Docker Engine" in found["docker"]["problem"]
    assert found["instances"]["coder"]["process"] is None
    assert diagnosis.judge(found).findings[0].code == "docker_down"


def test_a_container(host, tmp_path, engine):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps({"Version": "26.1.3"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "socket"

        def log_message(self, *args):
            pass

    state = {"Status": "exited", "ExitCode": 1, "StartedAt": "2026-11-22T02:25:16.123456789Z", "FinishedAt": "2026-11-22T02:26:16Z"}
    (tmp_path / "container").write_text(json.dumps({"state": state, "restarts": 3}))
    (tmp_path / "log").write_text(OOM)
    host.program("docker", f'echo "$@" >> {tmp_path}/asked\ncase "$1" in inspect) cat {tmp_path}/container ;; logs) cat {tmp_path}/log >&2 ;; esac\n')
    host.instance(supervisor="docker", url="http://127.0.0.1:1")
    os.unlink(host.root / "etc/systemd/system/vllm-coder.service")
    (host.root / "var/run").mkdir(parents=True)
    with Server(str(host.root / "var/run/docker.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        coder = host.gather()["instances"]["coder"]
        server.shutdown()
    assert coder["process"]["kind"] == "container"
    assert coder["process"]["trouble"] == "has ended (status 1)"
    assert coder["process"]["restarts"] == 3
    assert [cause["code"] for cause in coder["causes"]] == ["out_of_memory"]
    assert "Env" not in (tmp_path / "asked").read_text()


# -- Parts of the host ---------------------------------------------------------------------------------------------------------------------


def test_cards_and_who_is_on_them(host):
    query = "0, GPU-1, NVIDIA GeForce RTX 2080 Ti, 7.5, 22528, 0, 00000000:3B:00.0, 0x1E0710DE, 3, 3, 16, 16, 250, 250, 100, 280, Enabled, 570.153.02"
    host.program(
        "nvidia-smi",
        f'case "$1" in --query-gpu=index,uuid*) echo "{query}" ;; --query-gpu=*) echo "0, 20480, 61, 120.5, 40" ;; '
        '--query-compute-apps*) echo "00000000:3B:00.0, 4242, python3, really, 20000" ;; esac\n',
    )
    host.write("sys/module/nvidia/version", "570.153.02\n")
    cards = host.gather()["cards"]
    assert cards["state"] == "answers"
    (card,) = cards["gpus"]
    assert (card["memory_used_bytes"], card["temperature_celsius"], card["power_watts"], card["utilization_percent"]) == (20480 * 1024**2, 61, 120.5, 40)
    assert cards["processes"] == [{"pci_bus_id": "0000:3b:00.0", "pid": 4242, "program": "python3, really", "memory_bytes": 20000 * 1024**2}]


def test_what_the_kernel_says():
    records = [
        "4,1,5000000,-;Out of memory: Killed process 4242 (pt_main_thread) total-vm:1kB",
        "6,2,6000000,-;memory is fine",
        "4,3,7000000,-;Memory cgroup out of memory: Killed process 7 (python3) total-vm:1kB",
    ]
    assert vllm_diagnosis.read_killed(records) == [
        {"pid": 4242, "program": "pt_main_thread", "seconds_since_boot": 5},
        {"pid": 7, "program": "python3", "seconds_since_boot": 7},
    ]


def test_who_listens(host, engine):
    host.instance(url=engine.url)
    host.write("proc/net/tcp", pathlib.Path("/proc/net/tcp").read_text())
    for name in ("comm", "cgroup"):
        host.write(f"proc/{os.getpid()}/{name}", pathlib.Path(f"/proc/self/{name}").read_text() if name == "comm" else "0::/system.slice/web.service\n")
    (host.root / f"proc/{os.getpid()}/fd").symlink_to("/proc/self/fd")
    listener = host.gather()["instances"]["coder"]["listener"]
    assert listener == {"pid": os.getpid(), "program": pathlib.Path("/proc/self/comm").read_text().strip(), "unit": "web.service"}


def test_nobody_listens(host):
    host.instance(url="http://127.0.0.1:1")
    assert host.gather()["instances"]["coder"]["listener"] is None


def test_check_mode_looks_all_the_same(host, run_module):
    assert "gathered" in run_module(vllm_diagnosis, check=True)
