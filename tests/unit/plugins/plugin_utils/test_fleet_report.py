"""The state of a fleet as one document."""

import json
import pathlib

from ansible_collections.gpuhosts.inference.plugins.filter.benchmark_plot import benchmark_plot
from ansible_collections.gpuhosts.inference.plugins.filter.fleet_report import fleet_report
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils import test_benchmark
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import QWEN3_32B_AWQ, article, cards
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.test_diagnosis import HOST, OOM, SERVING, merged

LOG = pathlib.Path(__file__).parents[2].joinpath("fixtures/vllm_log/started_2080ti.log").read_text(encoding="utf-8").splitlines()
IMAGES = {"0.8.5": "vllm/vllm-openai@sha256:aa"}
MODEL = {"repo_id": "Qwen/Qwen3-32B-AWQ", "revision": "main", "commit": "c1"}
CODER = merged(
    SERVING,
    {
        "definition": {"engine_version": "0.8.5", "image": {"reference": IMAGES["0.8.5"]}, "model": MODEL},
        "last_start": {"time": "2026-11-27T08:00:00Z", "generation": 2, "rung": 0, "log": LOG},
    },
)
INSTANCE = {**article(), "name": "coder", "profile": "as_given"}
PLAN = plan(INSTANCE, cards(), QWEN3_32B_AWQ)
FACTS = {"os": {"id": "debian", "version_id": "12"}, "driver_version": "570.153.02", "cuda_version": "12.8", "docker": {"version": "26.1.3"}, "gpus": []}
WANTED = {"cards": 2, "driver": "570.153.02", "images": IMAGES, "instances": [INSTANCE]}
ALERT = {
    "labels": {"alertname": "VllmKvCacheFull", "severity": "warning", "host": "gpu01", "name": "coder"},
    "annotations": {"summary": "coder on gpu01: 97% of the KV cache is in use.", "runbook_url": "https://example.org/alerts.md#vllmkvcachefull"},
    "state": "firing",
    "activeAt": "2026-11-28T07:00:00.1Z",
}


def look(coder=None, **more):
    """What was seen on a host; more: other keys of the look."""
    gathered = merged(HOST, {"instances": {"coder": merged(CODER, coder or {})}})
    services = {"coder": {"difference": None}}
    return {"silence": "", "problem": "", "facts": FACTS, "gathered": gathered, "plans": {"coder": PLAN}, "services": services, **more}


def unreached(why):
    return {"silence": why, "problem": "", "facts": {}, "gathered": {}, "plans": {}, "services": {}}


def report(looks, wanted=None, **more):
    """The document, as JSON has it."""
    return json.loads(json.dumps(fleet_report(looks, wanted or dict.fromkeys(looks, WANTED), **more)))


def facts(entry):
    return {fact["label"]: fact["value"] for fact in entry["facts"]}


def figures(document):
    return {figure["label"]: (figure["value"], figure["state"]) for figure in document["summary"]}


def test_a_fleet_that_serves():
    document = report({"gpu01": look(), "gpu02": look()}, title="Lab")
    assert (document["kind"], document["title"], document["alerts"], document["outdated"], document["notes"]) == ("fleet", "Lab", None, [], [])
    assert figures(document) == {
        "hosts": ("2", "plain"), "cards": ("4", "plain"), "instances that serve": ("2 of 2", "good"), "hosts not reached or read": ("0", "good"),
        "hosts out of date": ("0", "good"),
    }  # fmt: skip
    host = document["hosts"][0]
    assert (host["name"], host["state"], host["status"], host["problem"]) == ("gpu01", "good", "coder serves", None)
    assert facts(host) == {"system": "debian 12", "driver": "570.153.02", "CUDA, at most": "12.8", "Docker": "26.1.3"}
    instance = host["instances"][0]
    assert (instance["name"], instance["model"], instance["state"], instance["serves"]) == ("coder", "Qwen/Qwen3-32B-AWQ", "good", True)
    found = facts(instance)
    assert found["engine"] == "vLLM 0.8.5 (V0, XFORMERS)"
    assert (found["KV cache, planned"], found["KV cache, measured"]) == (f"{PLAN['kv']['tokens']:,} tokens", "20,000 tokens")
    assert (found["KV cache in use"], found["requests that run"], found["last start"]) == ("13%", "2", "2026-11-27T08:00:00Z")


def test_planned_memory_is_beside_what_the_engine_measured():
    memory = report({"gpu01": look()})["hosts"][0]["instances"][0]["memory"]
    tightest = min(PLAN["memory"]["per_rank"], key=lambda rank: rank["kv_cache"])
    assert memory["ranks"] == 4
    assert memory["planned"] == {term: tightest[term] for term in memory["planned"]}
    assert round(memory["measured"]["weights"] / 2**30, 2) == 3.85, "as the log has it"
    assert set(memory["measured"]) == set(memory["planned"])


def test_memory_is_not_shown_where_nobody_measured_or_planned_it():
    unmeasured, unplanned = look({"last_start": None}), look(plans={})
    assert report({"a": unmeasured})["hosts"][0]["instances"][0]["memory"]["measured"] is None
    assert report({"a": unplanned})["hosts"][0]["instances"][0]["memory"] is None


def test_hosts_that_need_somebody_come_first_with_the_reason():
    stopped = look({"process": {"trouble": "has failed", "exit_status": 1}, "health": {"status": None, "error": "refused"}, "causes": [OOM], "metrics": {},
                    "listener": None})  # fmt: skip
    document = report({"a": look(), "b": unreached("ssh: no route to host"), "c": stopped, "d": look({"state": {"rung": 1}})})
    assert [(host["name"], host["state"], host["status"]) for host in document["hosts"]] == [
        ("b", "bad", "not reached"), ("c", "bad", "coder does not serve"),
        ("d", "warning", "coder serves, with something to look at"), ("a", "good", "coder serves"),
    ]  # fmt: skip
    hosts = {host["name"]: host for host in document["hosts"]}
    assert hosts["b"]["problem"] == "ssh: no route to host"
    assert [(one["subject"], one["message"], one["state"]) for one in hosts["c"]["findings"]][0] == ("coder", OOM["message"], "bad")
    assert facts(hosts["d"]["instances"][0])["step of the ladder"] == "1: fewer sequences"
    assert figures(document)["instances that serve"] == ("2 of 3", "bad")
    assert figures(document)["hosts not reached or read"] == ("1", "bad")


def test_what_is_only_worth_knowing_is_said_and_leaves_the_host_as_it_is():
    host = report({"gpu01": look({"kv_tokens": 9000})})["hosts"][0]
    assert [(one["state"], one["message"]) for one in host["findings"]] == [("plain", "its KV cache holds 9000 tokens, 55% less than planned")]
    assert host["state"] == "good"


def test_what_is_out_of_date_is_named():
    wanted = {**WANTED, "driver": "570.172.08", "images": {"0.8.5": "vllm/vllm-openai@sha256:bb"}, "instances": [{**INSTANCE, "revision": "c2"}]}
    services = {"coder": {"difference": "changed"}, "old": {"difference": "unwanted"}}
    document = report({"gpu01": look(services=services)}, {"gpu01": wanted})
    assert [(one["host"], one["instance"], one["what"], one["is"], one["wanted"]) for one in document["outdated"]] == [
        ("gpu01", None, "driver", "570.153.02", "570.172.08"),
        ("gpu01", "coder", "image", "vllm/vllm-openai@sha256:aa", "vllm/vllm-openai@sha256:bb"),
        ("gpu01", "coder", "revision", "main", "c2"),
        ("gpu01", "old", "instance", "there", "none in the inventory"),
    ]
    assert figures(document)["hosts out of date"] == ("1", "warning")
    assert document["hosts"][0]["state"] == document["hosts"][0]["instances"][0]["state"] == "warning"


def test_another_configuration_is_out_of_date_also_where_its_parts_are_not_told():
    changed = look(services={"coder": {"difference": "changed"}})
    assert [(one["instance"], one["what"]) for one in report({"gpu01": changed})["outdated"]] == [("coder", "configuration")]
    # Such as one with a wheel, which is not compared.
    assert report({"gpu01": look(services={"coder": {"difference": "unwanted"}})})["outdated"] == []


def test_a_host_whose_plan_is_refused_shows_what_runs():
    document = report({"gpu01": look(problem="coder does not fit: 4.2 GiB are missing.", plans={}, services={})})
    host = document["hosts"][0]
    assert (host["state"], host["problem"]) == ("warning", "coder does not fit: 4.2 GiB are missing.")
    assert host["instances"][0]["status"].startswith("serves: 2 running")


def test_prometheus_gives_alerts_and_speeds():
    speeds = [{"metric": {"host": "gpu01", "name": "coder"}, "value": [0, "57.25"]}, {"metric": {"host": "gone", "name": "x"}, "value": [0, "1"]}]
    pending = {**ALERT, "state": "pending"}
    document = report({"gpu01": look()}, prometheus={"alerts": [ALERT, pending], "speeds": speeds})
    assert [(one["name"], one["host"], one["instance"], one["state"]) for one in document["alerts"]] == [
        ("VllmKvCacheFull", "gpu01", "coder", "warning"), ("VllmKvCacheFull", "gpu01", "coder", "plain"),
    ]  # fmt: skip
    assert facts(document["hosts"][0]["instances"][0])["tokens per second, last two minutes"] == "57.2"
    assert figures(document)["alerts"] == ("1", "warning")
    assert figures(report({"gpu01": look()}, prometheus={"alerts": [], "speeds": []}))["alerts"] == ("0", "good")


def test_a_prometheus_that_cannot_be_asked_is_said():
    document = report({"gpu01": look()}, prometheus={"problem": "connection refused"})
    assert (document["alerts"], document["notes"]) == (None, ["Prometheus was not asked: connection refused"])


def test_the_last_benchmark_of_each_scenario_is_there(tmp_path):
    kept = tmp_path / "gpu01" / "coder" / "short"
    kept.mkdir(parents=True)
    new = {**test_benchmark.record(reason="it was stopped"), "status": "partial"}
    for name, record in (("baseline", test_benchmark.record()), ("20261127T080000Z", test_benchmark.record()), ("20261128T080000Z", new)):
        (kept / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    (kept / "20261128T080000Z.svg").write_text(benchmark_plot(new), encoding="utf-8")
    broken = tmp_path / "gpu01" / "coder" / "chat"
    broken.mkdir()
    (broken / "20261128T080000Z.json").write_text("{", encoding="utf-8")
    document = report({"gpu01": look()}, benchmarks=str(tmp_path))
    (found,) = document["hosts"][0]["instances"][0]["benchmarks"]
    assert (found["scenario"], found["status"]) == ("short", "partial: it was stopped")
    assert found["titles"] == ["", "coder", "article"]
    assert found["rows"][0][0] == "generation throughput"
    assert found["plot"].rstrip().endswith("</svg>")
    assert [note.partition(" cannot be read: ")[0] for note in document["notes"]] == [f"The benchmark {broken / '20261128T080000Z.json'}"]


def test_the_last_rollout_tells_a_speed():
    rollout = {"hosts": [{"name": "gpu01", "status": "done", "instances": [{"name": "coder", "tokens_per_second": 51.5}]}]}
    host = report({"gpu01": look()}, rollout=rollout)["hosts"][0]
    assert facts(host)["last rollout"] == "done"
    assert facts(host["instances"][0])["tokens per second, one request"] == "51.5"
