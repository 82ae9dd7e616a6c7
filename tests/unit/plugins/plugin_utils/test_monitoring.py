"""What Prometheus is told of the fleet."""

import pathlib

import pytest
import yaml
from ansible.template import trust_as_template

from ansible_collections.gpuhosts.inference.plugins.filter import monitoring_prometheus as prometheus_filter
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import monitoring

ROLES = pathlib.Path(__file__).parents[4] / "roles"
SETTINGS = {"scrape_seconds": 15, "port": 9090, "alertmanagers": []}
CODER = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ", "port": 8888}
OPEN = {"monitoring_listen_address": "0.0.0.0", "ansible_host": "10.0.0.1"}


def made(hosts, server="mon01", servers=("mon01",), **settings):
    gpu_hosts = [name for name in hosts if name.startswith("gpu")]
    return monitoring.prometheus(hosts, gpu_hosts, list(servers), server, SETTINGS | settings)


def targets(found):
    """{job: {target: labels}}."""
    jobs = yaml.safe_load(found["config"])["scrape_configs"]
    return {job["job_name"]: {target["targets"][0]: target["labels"] for target in job["static_configs"]} for job in jobs}


def rules(found):
    (group,) = yaml.safe_load(found["rules"])["groups"]
    return {(rule["record"], rule["labels"]["host"]): rule["expr"] for rule in group["rules"]}


def test_defaults_are_those_of_the_roles():
    known = {}
    for role in ("monitoring", "vllm"):
        known |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
    assert {name: known.get(name, []) for name in monitoring.DEFAULTS} == monitoring.DEFAULTS


def test_targets_by_the_inventory():
    found = made({"gpu01": OPEN | {"vllm_instances": [CODER, {"name": "chat", "model": "a/b", "port": 8001}]}, "mon01": {"ansible_host": "10.0.0.9"}})
    assert found["problems"] == []
    assert targets(found) == {
        "node": {"10.0.0.1:9100": {"host": "gpu01"}, "127.0.0.1:9100": {"host": "mon01"}},
        "vllm": {"10.0.0.1:8888": {"host": "gpu01", "name": "coder"}, "10.0.0.1:8001": {"host": "gpu01", "name": "chat"}},
        "prometheus": {"127.0.0.1:9090": {"host": "mon01"}},
    }


@pytest.mark.parametrize(
    "variables, target",
    [
        ({"monitoring_address": "gpu01.lan"}, "gpu01.lan:9100"),
        ({"ansible_host": "fd00::1"}, "[fd00::1]:9100"),
        ({}, "gpu01:9100"),
        ({"monitoring_exporter_port": 9101}, "gpu01:9101"),
    ],
)
def test_the_address_of_a_host(variables, target):
    assert list(targets(made({"gpu01": {"monitoring_listen_address": "0.0.0.0"} | variables, "mon01": {}}))["node"])[0] == target


def test_a_host_that_watches_itself_needs_no_open_port():
    found = made({"gpu01": {"vllm_instances": [CODER]}}, server="gpu01", servers=["gpu01"])
    assert found["problems"] == []
    assert list(targets(found)["node"]) == ["127.0.0.1:9100"] and list(targets(found)["vllm"]) == ["127.0.0.1:8888"]
    listens = {"monitoring_listen_address": "10.0.0.1", "vllm_listen_address": "10.0.0.2", "vllm_instances": [CODER]}
    found = targets(made({"gpu01": listens}, server="gpu01", servers=["gpu01"]))
    assert list(found["node"]) == ["10.0.0.1:9100"] and list(found["vllm"]) == ["10.0.0.2:8888"]


def test_what_a_server_cannot_reach_is_named():
    hosts = {"gpu01": {"vllm_listen_address": "127.0.0.1", "vllm_instances": [CODER]}, "mon01": {}}
    assert made(hosts)["problems"] == [
        "gpu01: its exporter node listens on 127.0.0.1 only, where mon01 cannot ask it: set monitoring_listen_address to an address that mon01 reaches.",
        "gpu01: its instance coder listens on 127.0.0.1 only, where mon01 cannot ask it: set vllm_listen_address to an address that mon01 reaches.",
    ]


def test_dcgm_is_a_target_of_its_own():
    found = targets(made({"gpu01": OPEN | {"monitoring_gpu_exporter": "dcgm"}, "mon01": {"monitoring_gpu_exporter": "dcgm"}}))
    assert found["dcgm"] == {"10.0.0.1:9400": {"host": "gpu01"}}


def test_what_the_inventory_expects():
    hardware = {"gpus": [{}, {}, {}, {}]}
    hosts = {
        "gpu01": OPEN | {"gpuhosts_hardware": hardware},
        "gpu02": OPEN | {"gpuhosts_hardware": hardware, "monitoring_cards": 2},
        "gpu03": OPEN,
        "mon01": {},
    }
    assert rules(made(hosts)) == {
        ("gpuhosts:prometheus_server", "mon01"): "vector(1)",
        ("gpuhosts:gpu_cards_expected", "gpu01"): "vector(4)",
        ("gpuhosts:gpu_cards_expected", "gpu02"): "vector(2)",
    }


def test_alertmanagers():
    document = yaml.safe_load(made({"mon01": {}}, alertmanagers=["10.0.0.9:9093"])["config"])
    assert document["alerting"] == {"alertmanagers": [{"static_configs": [{"targets": ["10.0.0.9:9093"]}]}]}


def test_the_filter_takes_a_host_of_both_groups_once():
    hosts = {"gpu01": {}, "gpu02": OPEN, "other": {}}
    found = prometheus_filter.monitoring_prometheus(hosts, ["gpu01", "gpu02"], ["gpu01"], "gpu01", SETTINGS)
    assert found["config"].count("host: gpu01\n") == 2 and "other" not in found["config"]


def test_texts_of_an_inventory_are_written_like_any_other():
    name, address = trust_as_template("gpu01"), trust_as_template("10.0.0.1")
    hosts = {name: OPEN | {"ansible_host": address, "vllm_instances": [CODER | {"name": trust_as_template("coder")}], "monitoring_cards": 4}}
    found = prometheus_filter.monitoring_prometheus(hosts, [name], [name], name, SETTINGS | {"alertmanagers": [address]})
    assert "host: gpu01" in found["config"] and "host: gpu01" in found["rules"]


WELL = {"listen_address": "127.0.0.1", "allowed_addresses": [], "gpu_exporter": "textfile", "dcgm_image": ""}


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({}, None),
        ({"listen_address": "0.0.0.0", "allowed_addresses": ["10.0.0.0/24", "10.0.1.7"]}, None),
        ({"listen_address": "::", "allowed_addresses": ["any"]}, None),
        ({"gpu_exporter": "dcgm", "dcgm_image": "nvcr.io/nvidia/k8s/dcgm-exporter@sha256:" + "0" * 64}, None),
        (
            {"listen_address": "0.0.0.0"},
            "gpu01: its exporter would answer everybody at 0.0.0.0: list who may ask in monitoring_allowed_addresses, addresses or networks, or [any].",
        ),
        ({"listen_address": "eth0"}, "gpu01: monitoring_listen_address is eth0, which is no address: write one of the host's, or 0.0.0.0."),
        ({"allowed_addresses": ["mon01"]}, "gpu01: mon01 in monitoring_allowed_addresses is no address and no network: write 10.0.0.5 or 10.0.0.0/24."),
        (
            {"gpu_exporter": "dcgm"},
            "gpu01: monitoring_dcgm_image is not set: name NVIDIA's dcgm-exporter by its digest, registry/name@sha256:..., "
            "or set monitoring_gpu_exporter to textfile.",
        ),
        (
            {"gpu_exporter": "dcgm", "dcgm_image": "dcgm:4"},
            "gpu01: monitoring_dcgm_image is dcgm:4: name NVIDIA's dcgm-exporter by its digest, "
            "registry/name@sha256:..., or set monitoring_gpu_exporter to textfile.",
        ),
    ],
)
def test_exporters_are_closed_and_pinned(settings, problem):
    assert monitoring.exporter_problems("gpu01", WELL | settings) == ([problem] if problem else [])
