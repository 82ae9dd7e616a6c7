"""Units and drop-ins, rendered from the role's own variables; and what makes a host differ, which is all that a converged host is asked."""

import json
import pathlib

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = pathlib.Path(__file__).parents[4] / "roles/monitoring"
DIGEST = "nvcr.io/nvidia/k8s/dcgm-exporter@sha256:" + "0" * 64
GIB = 2**30


@pytest.fixture
def value():
    """value(expression or template's name, facts={}, **variables): what the role makes of it on the GPU host gpu01, watched by itself."""

    def template(expression, facts=None, **variables):
        loader = DataLoader()
        loader.set_basedir(str(ROLE))
        known = {"role_path": str(ROLE), "inventory_hostname": "gpu01", "monitoring_servers": ["gpu01"], "monitoring_gpu_hosts": ["gpu01"]}
        for part in ("defaults", "vars"):
            found = loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
            known = found | known if part == "defaults" else known | found
        gpuhosts = {"packages": {}, "monitoring": {"files": {}, "units": {}}, "docker": {"version": "26.1", "cdi": True}, "file_systems": {}}
        known |= {
            "ansible_facts": {"gpuhosts": gpuhosts | (facts or {})},
            "hostvars": {"gpu01": {}, "mon01": {}},
            "ansible_search_path": [str(ROLE)],
        } | variables
        text = (ROLE / "templates" / expression).read_text(encoding="utf-8") if expression.endswith(".j2") else "{{ " + expression + " }}"
        return Templar(loader, variables=known).template(trust_as_template(text))

    return template


def test_dcgm_runs_by_its_digest_with_the_hosts_cards(value):
    unit = value("dcgm-exporter.service.j2", monitoring_gpu_exporter="dcgm", monitoring_dcgm_image=DIGEST)
    assert (
        "ExecStart=/usr/bin/docker run --rm --name=gpuhosts-dcgm-exporter --device=nvidia.com/gpu=all --security-opt=no-new-privileges "
        "--volume=/etc/gpuhosts-monitoring/dcgm.csv:/etc/gpuhosts-dcgm.csv:ro --publish=127.0.0.1:9400:9400 "
        f"{DIGEST} --collectors /etc/gpuhosts-dcgm.csv\n"
    ) in unit


def test_the_exporter_of_the_cards_is_one_of_three(value):
    timer, dcgm = "gpuhosts-gpu-metrics.timer", "gpuhosts-dcgm-exporter.service"
    for exporter, units in (("textfile", {timer}), ("dcgm", {dcgm}), ("none", set())):
        assert set(value("__monitoring_units", monitoring_gpu_exporter=exporter)) & {timer, dcgm} == units
        paths = value("__monitoring_files.keys() | list", monitoring_gpu_exporter=exporter)
        assert {pathlib.Path(path).name for path in paths} & {timer, dcgm} == units
    assert set(value("__monitoring_units", monitoring_servers=["mon01"], inventory_hostname="mon01")) == {
        "prometheus-node-exporter.service",
        "prometheus.service",
    }


def test_every_field_of_dcgm_that_the_rules_read_is_asked_for():
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROLE / "files/rules").glob("*.yml"))
    asked = {line.partition(",")[0] for line in (ROLE / "files/dcgm.csv").read_text(encoding="utf-8").splitlines() if line[:1] != "#"}
    assert asked == {word for word in rules.replace("(", " ").replace(")", " ").split() if word.startswith("DCGM_")}


def test_node_exporter_is_closed(value):
    drop_in = value("node-exporter.conf.j2")
    assert "--web.listen-address=127.0.0.1:9100 --collector.textfile.directory=/var/lib/vllm/metrics\n" in drop_in and "IPAddress" not in drop_in
    drop_in = value("node-exporter.conf.j2", monitoring_listen_address="fd00::1", monitoring_allowed_addresses=["fd00::9", "10.0.0.0/24"])
    assert "--web.listen-address=[fd00::1]:9100 " in drop_in
    assert "IPAddressDeny=any\nIPAddressAllow=localhost fd00::9 10.0.0.0/24\n" in drop_in
    assert "IPAddress" not in value("node-exporter.conf.j2", monitoring_listen_address="0.0.0.0", monitoring_allowed_addresses=["any"])


def test_prometheus_is_closed_and_bounded(value):
    drop_in = value("prometheus.conf.j2", monitoring_retention_gib="5")
    assert "--web.listen-address=127.0.0.1:9090 " in drop_in
    assert "--storage.tsdb.retention.time=30d --storage.tsdb.retention.size=5GB\n" in drop_in


def test_grafana_gets_files_where_it_is_said_to_be(value):
    assert not [path for path in value("__monitoring_files.keys() | list") if "grafana" in path or "dashboards" in path]
    files = value("__monitoring_files", monitoring_grafana_provisioning="/etc/grafana/provisioning")
    assert "path: /etc/gpuhosts-monitoring/dashboards\n" in files["/etc/grafana/provisioning/dashboards/gpuhosts.yaml"]
    assert "url: http://127.0.0.1:9090\n" in files["/etc/grafana/provisioning/datasources/gpuhosts.yaml"]
    assert {path.name for path in map(pathlib.Path, files) if path.suffix == ".json"} == {"fleet.json", "host.json", "instance.json"}
    assert json.loads(files["/etc/gpuhosts-monitoring/dashboards/fleet.json"])["uid"] == "gpuhosts-fleet"


def converged(value, **variables):
    units, files = value("__monitoring_units", **variables), value("__monitoring_checksums", **variables)
    packages = dict.fromkeys(value("__monitoring_packages", **variables), "1")
    return {"packages": packages, "monitoring": {"files": files, "units": dict.fromkeys(units, True)}}


def test_a_converged_host_does_not_differ(value):
    facts = converged(value)
    assert value("__monitoring_differs", facts) is False
    changed = facts["monitoring"] | {"files": facts["monitoring"]["files"] | {"/etc/gpuhosts-monitoring/prometheus.yml": None}}
    assert value("__monitoring_differs", facts | {"monitoring": changed}) is True
    stopped = facts["monitoring"] | {"units": facts["monitoring"]["units"] | {"prometheus.service": False}}
    assert value("__monitoring_differs", facts | {"monitoring": stopped}) is True
    assert value("__monitoring_differs", facts | {"packages": {"prometheus": "1"}}) is True
    assert value("__monitoring_differs", facts, monitoring_scrape_seconds=30) is True


def test_without_servers_nothing_is_wanted_and_what_is_there_goes(value):
    assert value("__monitoring_differs", monitoring_servers=[]) is False
    facts = converged(value)
    assert value("__monitoring_differs", facts, monitoring_servers=[]) is True
    assert value("__monitoring_unwanted_files", facts, monitoring_servers=[]) == sorted(facts["monitoring"]["files"])
    assert value("__monitoring_unwanted_units", facts, monitoring_servers=[]) == sorted(facts["monitoring"]["units"])
    # The same where a host has left the fleet of those that are watched.
    assert value("__monitoring_differs", facts, monitoring_servers=["mon01"], monitoring_gpu_hosts=["gpu02"]) is True


def test_a_full_disk_is_refused(value):
    facts = {"file_systems": {"/var/lib/prometheus": {"free_bytes": GIB // 2}}}
    assert value("__monitoring_problems", facts) == [
        "gpu01: 0.5 GiB are free at /var/lib/prometheus, and Prometheus stores nothing on a full disk: free 2 GiB, or keep less with monitoring_retention_gib."
    ]
    assert value("__monitoring_problems", {"file_systems": {"/var/lib/prometheus": {"free_bytes": 3 * GIB}}}) == []
    assert value("__monitoring_problems", facts, monitoring_servers=["mon01"], inventory_hostname="gpu01", hostvars={"gpu01": {}, "mon01": {}}) == []


def test_what_cannot_work_is_refused_by_the_server_and_the_host(value):
    hosts = {"gpu01": {}, "mon01": {}}
    (problem,) = value("__monitoring_problems", monitoring_servers=["mon01"], inventory_hostname="mon01", hostvars=hosts)
    assert problem.startswith("gpu01: its exporter node listens on 127.0.0.1 only, where mon01 cannot ask it")
    (problem,) = value("__monitoring_problems", monitoring_listen_address="0.0.0.0")
    assert problem.startswith("gpu01: its exporter would answer everybody at 0.0.0.0")
