"""Every query of every panel, asked of a real Prometheus that reads a simulated engine and, through node_exporter, the two textfiles."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import lab_engine
import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import monitoring

CHECKOUT = pathlib.Path(__file__).parents[4]
ROLE = CHECKOUT / "roles/monitoring"
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROLE / "files/dashboards").glob("*.json"))}
QUERIES = [
    pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    for target in panel["targets"]
]
NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *clocks_throttle*) echo "0, 0x0000000000000004"; echo "1, 0x0000000000000040" ;;
  *temperature*) echo "0, 21000, 71, 180.5, 97"; echo "1, 20000, 88, 175.0, 95" ;;
  *) cat "$(dirname "$0")/query.csv" ;;
esac
"""
# A stepped-down instance, so that an alert fires; restarts of one reason are enough.
INSTANCES = """gpuhosts_vllm_up{name="coder"} 1
gpuhosts_vllm_rung{name="coder"} 1
gpuhosts_vllm_quarantined{name="coder"} 0
gpuhosts_vllm_kv_tokens_planned{name="coder"} 249184
gpuhosts_vllm_restarts_total{name="coder",reason="stall"} 1
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(condition, log):
    """Wait for a condition; what the program said is the failure's message."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.2)


@contextlib.contextmanager
def process(log, *command, **environment):
    with log.open("w") as output:
        running = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, **environment)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


class Prometheus:
    """A server that runs."""

    def __init__(self, url):
        self.url = url

    def ask(self, expression):
        """The samples of an instant query; an assertion where the query is refused."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]["result"]

    def ready(self):
        """Whether every target was read often enough for a rate, and rules and alerts were evaluated on that."""
        recorded = "gpuhosts:request_seconds:p95 and gpuhosts:preemptions:increase10m and gpuhosts:prefix_hits:ratio"
        wanted = ("ALERTS", "min(count_over_time(up[1m])) > 3", recorded)
        try:
            return all(self.ask(expression) for expression in wanted)
        except OSError:
            return False


@pytest.fixture(scope="module")
def textfiles(tmp_path_factory):
    """The directory of textfiles, the cards' written by the role's own program from what an nvidia-smi says."""
    base = tmp_path_factory.mktemp("textfiles")
    (base / "bin").mkdir()
    (base / "bin/nvidia-smi").write_text(NVIDIA_SMI)
    (base / "bin/nvidia-smi").chmod(0o755)
    lines = (CHECKOUT / "tests/unit/fixtures/nvidia_smi/query_2080ti_22gb.csv").read_text().splitlines()[:2]
    (base / "bin/query.csv").write_text("".join(line + "\n" for line in lines))
    state = base / "state.json"
    state.write_text(json.dumps({"xids": {"0000:3b:00.0 79": 1}}))
    out = base / "metrics"
    command = [sys.executable, "-B", ROLE / "files/gpu_metrics", out / "gpuhosts_gpu.prom", state]
    subprocess.run(command, check=True, env={"PATH": f"{base}/bin:/usr/bin:/bin"})
    (out / "vllm_instances.prom").write_text(INSTANCES)
    return out


@pytest.fixture(scope="module")
def prometheus(program, textfiles, tmp_path_factory):
    """Prometheus with the role's rules and the configuration that the role makes of an inventory, a second between two readings."""
    base = tmp_path_factory.mktemp("prometheus")
    start = lab_engine.launcher(tmp_path_factory.mktemp("engine"))
    node, own = free_port(), free_port()
    (base / "rules").mkdir()
    for path in (ROLE / "files/rules").glob("*.yml"):
        (base / "rules" / path.name).symlink_to(path)
    exporter = [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}", f"--collector.textfile.directory={textfiles}"]
    options = ["--max-model-len", "4096", "--enable-prefix-caching", "--show-hidden-metrics-for-version", "0.7"]
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(start(*options))
        instance = {"name": "coder", "model": "m", "port": engine.port}
        host = {"monitoring_exporter_port": node, "monitoring_cards": 2, "vllm_listen_address": "127.0.0.1", "vllm_instances": [instance]}
        settings = {"scrape_seconds": 1, "port": own, "alertmanagers": []}
        made = monitoring.prometheus({"gpu01": host}, ["gpu01"], ["gpu01"], "gpu01", settings)
        (base / "prometheus.yml").write_text(made["config"])
        (base / "rules/inventory.yml").write_text(made["rules"])
        stack.enter_context(process(base / "exporter.log", *exporter))
        options = ["--config.file", base / "prometheus.yml", "--storage.tsdb.path", base / "data", f"--web.listen-address=127.0.0.1:{own}"]
        stack.enter_context(process(base / "prometheus.log", program("prometheus"), *options))
        server = Prometheus(f"http://127.0.0.1:{own}")

        def answered():
            # Equal prompts are found in the cache.
            engine.post("/v1/chat/completions", {"model": "coder", "messages": [{"role": "user", "content": "write bubble sort " * 20}], "max_tokens": 8})
            return server.ready()

        until(answered, base / "prometheus.log")
        yield server


@pytest.mark.parametrize("expression", QUERIES)
def test_every_panel_has_data(prometheus, expression):
    found = prometheus.ask(expression.replace("$host", ".+").replace("$name", ".+"))
    assert found, expression
    assert all(sample["value"][1] != "NaN" for sample in found), found


def test_a_panel_without_data_is_found_out(prometheus):
    """The test above asks what can be empty: a name that nobody has is."""
    assert prometheus.ask("gpuhosts:renamed") == []


def test_the_configuration_is_prometheus_own(program, tmp_path):
    """All that the configuration can have, checked by promtool."""
    host = {"monitoring_gpu_exporter": "dcgm", "vllm_instances": [{"name": "coder", "model": "m", "port": 8888}]}
    settings = {"scrape_seconds": 15, "port": 9090, "alertmanagers": ["10.0.0.9:9093"]}
    made = monitoring.prometheus({"gpu01": host, "mon01": {}}, ["gpu01"], ["gpu01"], "gpu01", settings)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/inventory.yml").write_text(made["rules"])
    (tmp_path / "prometheus.yml").write_text(made["config"])
    result = subprocess.run([program("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert yaml.safe_load(made["config"])["scrape_configs"][1]["job_name"] == "dcgm"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_for_any_datasource_and_do_not_overlap(name):
    board = DASHBOARDS[name]
    assert board["uid"] == f"gpuhosts-{name}"
    seen = set()
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & seen and at["x"] + at["w"] <= 24, panel["title"]
        seen |= cells
