"""Monitoring switched on for the whole fleet, on one GPU host that watches both, and off again."""

import json
import time
import urllib.parse

import lab_play
import pytest

pytestmark = pytest.mark.slow
LAB = ("inventories/lab",)
ON = (*LAB, "molecule/simulated/monitoring")
UNITS = ("prometheus.service", "prometheus-node-exporter.service", "gpuhosts-gpu-metrics.timer")
OWN = ("/etc/gpuhosts-monitoring", "/usr/local/lib/gpuhosts/gpu_metrics", "/var/lib/gpuhosts-monitoring", "/var/lib/vllm/metrics/gpuhosts_gpu.prom",
       "/etc/systemd/system/prometheus.service.d", "/etc/systemd/system/prometheus-node-exporter.service.d",
       "/etc/systemd/system/gpuhosts-gpu-metrics.timer", "/etc/systemd/system/gpuhosts-gpu-metrics.service")  # fmt: skip


def ask(host, expression):
    """The samples of a query, by the server's own loopback."""
    text = host.machine.out(f"curl -sf 'http://127.0.0.1:9090/api/v1/query?{urllib.parse.urlencode({'query': expression})}'")
    return json.loads(text)["data"]["result"]


def until(condition):
    """Wait until a condition holds; a minute and a half are six readings."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def watched(gpu01, gpu02):
    """The server, with monitoring on; off at the end."""
    code, output = lab_play.play("playbooks/monitoring.yml", inventories=ON)
    assert code == 0, output
    gpu01.ask()
    yield gpu01
    code, output = lab_play.play("playbooks/monitoring.yml", inventories=LAB)
    assert code == 0, output


def test_every_target_answers(watched):
    wanted = {("node", "gpu01"), ("node", "gpu02"), ("vllm", "gpu01"), ("vllm", "gpu02"), ("prometheus", "gpu01")}
    until(lambda: {(sample["metric"]["job"], sample["metric"]["host"]) for sample in ask(watched, "up == 1")} == wanted)


def test_cards_and_instances_of_both_hosts_are_told(watched):
    until(lambda: len(ask(watched, "gpuhosts:gpu_cards")) == 2)
    cards = {sample["metric"]["host"]: sample["value"][1] for sample in ask(watched, "gpuhosts:gpu_cards")}
    assert cards == {"gpu01": "4", "gpu02": "4"}
    instances = {(sample["metric"]["host"], sample["metric"]["name"]): sample["value"][1] for sample in ask(watched, "gpuhosts_vllm_up")}
    assert instances == {("gpu01", "coder"): "1", ("gpu02", "coder"): "1"}


def test_prometheus_is_not_reached_from_outside(watched, gpu02):
    assert watched.machine.run("ss -Hltn 'sport = :9090'").stdout.split()[3] == "127.0.0.1:9090"
    assert gpu02.machine.run(f"curl -s --max-time 5 http://{watched.machine.container}:9090/-/ready", check=False).returncode != 0


def test_a_missing_card_is_told(watched, gpu02):
    gpu02.machine.fault("missing:2")
    try:
        gpu02.machine.run("systemctl start gpuhosts-gpu-metrics.service")
        watched.until('curl -sf \'http://127.0.0.1:9090/api/v1/query?query=gpuhosts:gpu_cards\' | grep -q \'"host":"gpu02"}[^}]*"3"\'')
        until(lambda: ask(watched, 'gpuhosts:gpu_cards{host="gpu02"} == 3'))
        # Pending: it fires when it has lasted two minutes.
        until(lambda: ask(watched, 'ALERTS{alertname="GpuMissing"}'))
        (alert,) = [sample["metric"] for sample in ask(watched, 'ALERTS{alertname="GpuMissing"}')]
        assert alert["host"] == "gpu02"
    finally:
        gpu02.machine.fault()


def test_a_second_run_of_the_site_stays_within_the_budget(watched):
    code, output = lab_play.play("site.yml", inventories=ON)
    assert code == 0, output
    found = lab_play.recap(output)
    assert [(host, found[host]["changed"]) for host in ("gpu01", "gpu02")] == [("gpu01", 0), ("gpu02", 0)]
    assert max(found[host]["ok"] for host in ("gpu01", "gpu02")) <= 30


def test_a_server_without_a_way_to_its_targets_says_so(watched):
    code, output = lab_play.play("playbooks/monitoring.yml", "--extra-vars", '{"monitoring_listen_address": "127.0.0.1"}', inventories=ON, host="gpu01")
    assert code != 0
    assert "gpu02: its exporter node listens on 127.0.0.1 only, where gpu01 cannot ask it: set monitoring_listen_address" in output


def test_off_leaves_nothing_behind(watched, gpu02):
    code, output = lab_play.play("playbooks/monitoring.yml", inventories=LAB)
    assert code == 0, output
    for host in (watched, gpu02):
        assert [path for path in OWN if host.machine.has(path)] == []
        for unit in UNITS:
            assert host.machine.run(f"systemctl is-active {unit}", check=False).stdout.strip() == "inactive"
            assert host.machine.run(f"systemctl is-enabled {unit}", check=False).stdout.strip() in ("disabled", "not-found", "")
        assert host.machine.has("/var/lib/vllm/metrics/vllm_instances.prom")
    code, output = lab_play.play("playbooks/monitoring.yml", inventories=LAB)
    assert [recap["ok"] for recap in lab_play.recap(output).values()] == [1, 1], "facts alone"
