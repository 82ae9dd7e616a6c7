"""Recording and alert rules, judged by promtool: each alert fires when it should, with its sentence, and keeps quiet when it should not."""

import json
import pathlib
import re
import subprocess
import typing

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import lanes

CHECKOUT = pathlib.Path(__file__).parents[4]
RULES = sorted((CHECKOUT / "roles/monitoring/files/rules").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for rule in group["rules"] if "alert" in rule
}
RUNBOOK = "https://github.com/gpuhosts/inference/blob/main/docs/alerts.md"
GIB = 2**30


class Case(typing.NamedTuple):
    """What is seen a minute apart on host `sick`, at what minute the alert fires and not a minute earlier, and what on host `well` it must not fire for."""

    alert: str
    minute: int
    sick: dict
    well: dict
    labels: dict
    summary: str


def series(host, found):
    """{(metric, labels) or metric: values} as promtool takes it."""
    for key, values in found.items():
        metric, labels = key if isinstance(key, tuple) else (key, ())
        words = ",".join(f'{name}="{value}"' for name, value in {"host": host, **dict(labels)}.items())
        yield {"series": f"{metric}{{{words}}}", "values": values}


def of(metric, **labels):
    """A key of a case: the metric with labels, those of an instance unless others are given."""
    return metric, tuple((labels or {"name": "coder"}).items())


NODE = {"job": "node", "instance": "sick:9100"}
ROOT = {"mountpoint": "/", "fstype": "ext4", "device": "/dev/sda1"}
CASES = [
    # Ten requests a minute; they wait 40 s, and 20 s where all is well. The mean is over five minutes, so it takes one more to be there.
    Case(
        "VllmQueueTimeHigh",
        16,
        {of("vllm:request_queue_time_seconds_sum"): "0+400x40", of("vllm:request_queue_time_seconds_count"): "0+10x40"},
        {of("vllm:request_queue_time_seconds_sum"): "0+200x40", of("vllm:request_queue_time_seconds_count"): "0+10x40"},
        {"name": "coder"},
        "coder on sick: requests wait 40 s on average before they are computed.",
    ),
    Case(
        "VllmWaitsWithoutRunning",
        2,
        {of("vllm:num_requests_waiting"): "3x10", of("vllm:num_requests_running"): "0x10"},
        {of("vllm:num_requests_waiting"): "3x10", of("vllm:num_requests_running"): "1x10"},
        {"name": "coder"},
        "coder on sick: 3 requests wait and none is computed.",
    ),
    # A rate needs two values. A long prefill counts as tokens.
    Case(
        "VllmNoTokens",
        6,
        {of("vllm:num_requests_running"): "2x20", of("vllm:generation_tokens_total"): "9x20", of("vllm:prompt_tokens_total"): "9x20"},
        {of("vllm:num_requests_running"): "2x20", of("vllm:generation_tokens_total"): "9x20", of("vllm:prompt_tokens_total"): "0+9x20"},
        {"name": "coder"},
        "coder on sick: 2 requests run and no token comes.",
    ),
    Case(
        "VllmKvCacheFull",
        5,
        {of("vllm:gpu_cache_usage_perc"): "0.97x10"},
        {of("vllm:gpu_cache_usage_perc"): "0.9x10"},
        {"name": "coder"},
        "coder on sick: 97% of the KV cache is in use.",
    ),
    Case(
        "VllmPreemptions",
        11,
        {of("vllm:num_preemptions_total"): "0x10 3x10"},
        {of("vllm:num_preemptions_total"): "3x20"},
        {"name": "coder"},
        "coder on sick: running requests were put back 3 times within 10 minutes.",
    ),
    Case(
        "VllmSteppedDown",
        3,
        {of("gpuhosts_vllm_rung"): "0x2 2x10"},
        {of("gpuhosts_vllm_rung"): "0x20"},
        {"name": "coder"},
        "coder on sick: runs on rung 2 of its ladder instead of the plan.",
    ),
    Case(
        "VllmRestarted",
        3,
        {of("gpuhosts_vllm_restarts_total", name="coder", reason="stall"): "0x2 1x10"},
        {of("gpuhosts_vllm_restarts_total", name="coder", reason="stall"): "1x20"},
        {"name": "coder", "reason": "stall"},
        "coder on sick: was restarted within the last hour (stall).",
    ),
    Case(
        "VllmQuarantined",
        3,
        {of("gpuhosts_vllm_quarantined"): "0x2 1x10"},
        {of("gpuhosts_vllm_quarantined"): "0x20"},
        {"name": "coder"},
        "coder on sick: failed too often and is stopped until somebody releases it.",
    ),
    Case(
        "VllmDown",
        10,
        {of("gpuhosts_vllm_up"): "0x20"},
        {of("gpuhosts_vllm_up"): "1x20"},
        {"name": "coder"},
        "coder on sick: does not answer /health on its own host.",
    ),
    Case(
        "VllmUnreachable",
        5,
        {of("up", job="vllm", name="coder", instance="sick:8888"): "0x20", of("gpuhosts_vllm_up"): "1x20"},
        {of("up", job="vllm", name="coder", instance="well:8888"): "0x20", of("gpuhosts_vllm_up"): "0x20"},
        {"job": "vllm", "name": "coder", "instance": "sick:8888"},
        "coder on sick: answers on its own host, and Prometheus does not reach sick:8888.",
    ),
    Case(
        "VllmMetricsMissing",
        5,
        {of("up", job="vllm", name="coder", instance="sick:8888"): "1x20"},
        {of("up", job="vllm", name="coder", instance="well:8888"): "1x20", of("vllm:cache_config_info"): "1x20"},
        {"job": "vllm", "name": "coder", "instance": "sick:8888"},
        "coder on sick: /metrics of sick:8888 answers without metrics of vLLM.",
    ),
    Case(
        "VllmDefinitionBroken",
        3,
        {of("gpuhosts_vllm_definition_broken"): "0x2 1x10"},
        {of("gpuhosts_vllm_definition_broken"): "0x20"},
        {"name": "coder"},
        "coder on sick: its definition cannot be read, so it is neither started nor watched.",
    ),
    Case(
        "VllmWatchdogSilent",
        6,
        {of("node_textfile_mtime_seconds", file="/var/lib/vllm/metrics/vllm_instances.prom"): "0x20"},
        {of("node_textfile_mtime_seconds", file="/var/lib/vllm/metrics/vllm_instances.prom"): "0+60x20"},
        {"file": "/var/lib/vllm/metrics/vllm_instances.prom"},
        "sick: nobody has watched the instances for 6m 0s.",
    ),
    Case(
        "ExporterDown",
        5,
        {of("up", **NODE): "0x20"},
        {of("up", job="vllm", name="coder"): "0x20"},
        NODE,
        "sick: the exporter node does not answer Prometheus at sick:9100.",
    ),
    Case(
        "GpuMissing",
        2,
        {of("gpuhosts:gpu_cards_expected", by="inventory"): "4x10", of("gpuhosts_gpu_cards", job="node"): "3x10"},
        {of("gpuhosts:gpu_cards_expected", by="inventory"): "4x10", of("gpuhosts_gpu_cards", job="node"): "4x10"},
        {},
        "sick: cards of the inventory that do not answer: 1.",
    ),
    Case("GpuLost", 2, {"gpuhosts_gpu_lost": "1x10"}, {"gpuhosts_gpu_lost": "0x10"}, {}, "sick: cards on the PCI bus that nvidia-smi does not report: 1."),
    Case("GpuDriverSilent", 2, {"gpuhosts_gpu_smi_up": "0x10"}, {"gpuhosts_gpu_smi_up": "1x10"}, {}, "sick: nvidia-smi fails or hangs."),
    Case(
        "GpuMetricsSilent",
        6,
        {of("node_textfile_mtime_seconds", file="/var/lib/vllm/metrics/gpuhosts_gpu.prom"): "0x20"},
        {of("node_textfile_mtime_seconds", file="/var/lib/vllm/metrics/gpuhosts_gpu.prom"): "0+60x20"},
        {"file": "/var/lib/vllm/metrics/gpuhosts_gpu.prom"},
        "sick: the cards have not been asked for 6m 0s.",
    ),
    Case(
        "GpuHot",
        10,
        {of("gpuhosts_gpu_temperature_celsius", gpu="2", uuid="GPU-2"): "88x20"},
        {of("gpuhosts_gpu_temperature_celsius", gpu="2", uuid="GPU-2"): "84x20"},
        {"gpu": "2"},
        "sick: GPU 2 has 88 degrees Celsius.",
    ),
    Case(
        "GpuThrottled",
        10,
        {of("gpuhosts_gpu_throttled", gpu="2", reason="hw_thermal_slowdown"): "1x20", of("gpuhosts_gpu_throttled", gpu="2", reason="hw_power_brake"): "0x20"},
        {of("gpuhosts_gpu_throttled", gpu="2", reason="hw_thermal_slowdown"): "0x20"},
        {"gpu": "2"},
        "sick: GPU 2 has been slowed down for its heat or its power supply.",
    ),
    # The same by DCGM's mask: 0x40 is heat, 0x4 a power limit, 0x1 no work.
    Case(
        "GpuThrottled",
        10,
        {of("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", gpu="2"): "64x20"},
        {of("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", gpu="2"): "5x20"},
        {"gpu": "2"},
        "sick: GPU 2 has been slowed down for its heat or its power supply.",
    ),
    # The series comes into being with the error.
    Case(
        "GpuXid",
        20,
        {of("gpuhosts_gpu_xids_total", pci_bus_id="0000:3b:00.0", xid="79"): "_x20 1x10"},
        {of("gpuhosts_gpu_xids_total", pci_bus_id="0000:3b:00.0", xid="13"): "5x40"},
        {"pci_bus_id": "0000:3b:00.0", "xid": "79"},
        "sick: the driver reported Xid 79 of the card 0000:3b:00.0.",
    ),
    Case(
        "GpuXid",
        3,
        {of("DCGM_FI_DEV_XID_ERRORS", gpu="2"): "0x2 48x10"},
        {of("DCGM_FI_DEV_XID_ERRORS", gpu="2"): "0x20"},
        {"gpu": "2", "pci_bus_id": "GPU 2", "xid": "48"},
        "sick: the driver reported Xid 48 of the card GPU 2.",
    ),
    Case(
        "DiskLow",
        10,
        {of("node_filesystem_avail_bytes", **ROOT): f"{20 * GIB}x20", of("node_filesystem_size_bytes", **ROOT): f"{1000 * GIB}x20"},
        {of("node_filesystem_avail_bytes", **ROOT): f"{20 * GIB}x20", of("node_filesystem_size_bytes", **ROOT): f"{100 * GIB}x20"},
        ROOT,
        "sick: 20GiB are left at / for weights, images and logs.",
    ),
    Case(
        "PrometheusDiskFull",
        5,
        {of("node_filesystem_avail_bytes", **ROOT): f"{GIB}x20", of("gpuhosts:prometheus_server", by="inventory"): "1x20"},
        {of("node_filesystem_avail_bytes", **ROOT): f"{GIB}x20"},
        ROOT,
        "sick: 1GiB are left at /, and Prometheus stores nothing when they are gone.",
    ),
    Case(
        "PrometheusCannotStore",
        3,
        {of("prometheus_tsdb_wal_writes_failed_total", job="prometheus"): "0x2 4x10"},
        {of("prometheus_tsdb_wal_writes_failed_total", job="prometheus"): "4x20"},
        {"job": "prometheus"},
        "sick: Prometheus could not write its data, so what happens now may be lost.",
    ),
]


# promtool's own order is that of the files: alerts would see each recording a minute late.
ORDER = ["gpuhosts_engines", "gpuhosts_cards", "gpuhosts_engine_alerts", "gpuhosts_host_alerts"]


def promtool(program, *arguments):
    result = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_rules(program):
    promtool(program, "check", "rules", *RULES)


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case.alert}" for number, case in enumerate(CASES)])
def test_an_alert_fires_for_the_sick_host_alone(program, tmp_path, case):
    labels = {"severity": ALERTS[case.alert]["labels"]["severity"], "host": "sick", **case.labels}
    fires = {"exp_labels": labels, "exp_annotations": {"summary": case.summary, "runbook_url": f"{RUNBOOK}#{case.alert.lower()}"}}
    document = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": "1m",
        "group_eval_order": ORDER,
        "tests": [
            {
                "interval": "1m",
                "input_series": [*series("sick", case.sick), *series("well", case.well)],
                "alert_rule_test": [
                    {"eval_time": f"{case.minute - 1}m", "alertname": case.alert, "exp_alerts": []},
                    {"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": [fires]},
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(document), encoding="utf-8")
    promtool(program, "test", "rules", tmp_path / "test.yml")


def test_every_alert_has_a_case_and_a_page():
    assert {case.alert for case in CASES} == set(ALERTS)
    pages = re.findall(r"^## (\w+)$", (CHECKOUT / "docs/alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert pages == list(ALERTS), "one page for each alert, in their order"


@pytest.mark.parametrize("version", lanes.LANES)
def test_every_metric_of_every_lane_has_a_name_of_ours(version):
    """What a lane calls otherwise must be read by the rules under that name too; cache_config is read by an alert."""
    text = "".join(path.read_text(encoding="utf-8") for path in RULES)
    assert [name for name in lanes.lane(version).metrics.values() if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", text)] == []


@pytest.mark.parametrize(
    "found, record, value",
    [
        ({"vllm:kv_cache_usage_perc": "0.5x9"}, "gpuhosts:kv_cache_usage:ratio", 0.5),
        ({"vllm:gpu_cache_usage_perc": "0.5x9"}, "gpuhosts:kv_cache_usage:ratio", 0.5),
        ({"vllm:prefix_cache_hits_total": "0+6x9", "vllm:prefix_cache_queries_total": "0+8x9"}, "gpuhosts:prefix_hits:ratio", 0.75),
        ({"vllm:gpu_prefix_cache_hits_total": "0+6x9", "vllm:gpu_prefix_cache_queries_total": "0+8x9"}, "gpuhosts:prefix_hits:ratio", 0.75),
        ({"vllm:gpu_prefix_cache_hit_rate": "0.75x9"}, "gpuhosts:prefix_hits:ratio", 0.75),
        ({"vllm:gpu_prefix_cache_hit_rate": "-1x9"}, "gpuhosts:prefix_hits:ratio", None),
        ({"vllm:cpu_cache_usage_perc": "0.25x9"}, "gpuhosts:swap_usage:ratio", 0.25),
        *(
            ({of(f"vllm:{name}_seconds_bucket", name="coder", le=bound): "0+6x9" for bound in ("1.0", "+Inf")},
             "gpuhosts:time_per_output_token_seconds:p95", 0.95)
            for name in ("inter_token_latency", "time_per_output_token")
        ),
    ],
    ids=lambda value: next(iter(value))[0] if isinstance(value, dict) and isinstance(next(iter(value)), tuple) else str(value)[:50],
)  # fmt: skip
def test_lanes_get_one_name(program, tmp_path, found, record, value):
    found = {key if isinstance(key, tuple) else of(key): values for key, values in found.items()}
    expected = [] if value is None else [{"labels": f'{record}{{host="a",name="coder"}}', "value": value}]
    tests = [{"interval": "1m", "input_series": list(series("a", found)), "promql_expr_test": [{"expr": record, "eval_time": "8m", "exp_samples": expected}]}]
    document = {"rule_files": [str(path) for path in RULES], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(document), encoding="utf-8")
    promtool(program, "test", "rules", tmp_path / "test.yml")


def test_both_exporters_get_one_name(program, tmp_path):
    """The same card by the textfile and by DCGM, which counts in percent and MiB."""
    ours = {
        "gpuhosts_gpu_cards": "1x9", "gpuhosts_gpu_temperature_celsius": "60x9", "gpuhosts_gpu_power_watts": "170x9", "gpuhosts_gpu_utilization_ratio": "0.5x9",
        "gpuhosts_gpu_memory_used_bytes": f"{GIB}x9", "gpuhosts_gpu_memory_total_bytes": f"{22 * GIB}x9",
    }  # fmt: skip
    dcgm = {
        "DCGM_FI_DEV_GPU_TEMP": "60x9", "DCGM_FI_DEV_POWER_USAGE": "170x9", "DCGM_FI_DEV_GPU_UTIL": "50x9",
        "DCGM_FI_DEV_FB_USED": "1024x9", "DCGM_FI_DEV_FB_TOTAL": f"{22 * 1024}x9",
    }  # fmt: skip
    wanted = {
        "gpuhosts:gpu_temperature_celsius": 60, "gpuhosts:gpu_power_watts": 170, "gpuhosts:gpu_utilization:ratio": 0.5,
        "gpuhosts:gpu_memory_used_bytes": GIB, "gpuhosts:gpu_memory_total_bytes": 22 * GIB,
    }  # fmt: skip
    inputs = [*series("ours", {of(key, gpu="0"): values for key, values in ours.items()}),
              *series("dcgm", {of(key, gpu="0"): values for key, values in dcgm.items()})]  # fmt: skip
    checks = [
        {"expr": record, "eval_time": "5m", "exp_samples": [{"labels": f'{record}{{gpu="0",host="{host}"}}', "value": value} for host in ("dcgm", "ours")]}
        for record, value in wanted.items()
    ]
    checks.append(
        {
            "expr": "gpuhosts:gpu_cards",
            "eval_time": "5m",
            "exp_samples": [{"labels": f'gpuhosts:gpu_cards{{host="{host}"}}', "value": 1} for host in ("dcgm", "ours")],
        }
    )
    document = {"rule_files": [str(path) for path in RULES], "tests": [{"interval": "1m", "input_series": inputs, "promql_expr_test": checks}]}
    (tmp_path / "test.yml").write_text(json.dumps(document), encoding="utf-8")
    promtool(program, "test", "rules", tmp_path / "test.yml")
