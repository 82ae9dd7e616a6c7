# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of a fleet as one document: what playbooks/report.yml keeps as JSON, and what its page is drawn from. Plain types throughout.

kind          "fleet"; the document of a rollout (rollout_report.py) has the same keys
generated     when, UTC, as 2026-11-28T08:00:00Z
title         one line
summary       [{label, value, state}]: the figures at the top. state is good, warning, bad or plain, here and everywhere below
hosts         [{name, state, status, problem, facts, cards, findings, instances}]
  status      in words
  problem     why not everything is known of the host, or null: it was not reached, its plan is refused
  facts       [{label, value}]: system, driver, CUDA, Docker; what is not known is left out
  cards       [{index, name, memory_total_bytes, memory_used_bytes, temperature_celsius}], null where it is not known
  findings    [{subject, message, remedy, state}]: what the diagnosis says, the most likely cause first. subject: an instance, or "host"
  instances   [{name, model, serves, state, status, facts, memory, benchmarks}]
    status    in words: "serves", "quarantined: the watchdog has given it up"
    facts     [{label, value}]: engine, image, revision, port, KV cache, tokens per second; what is not known is left out
    memory    null, or {ranks, planned, measured}, of the card with the least KV cache: {total, weights, activation, non_torch, kv_cache, cuda_graphs}
              in bytes. measured is what the engine said at its last start, null where it said nothing; ranks: how many cards are planned alike
    benchmarks [{scenario, time, status, titles, rows, plot}]: the last of each scenario. rows: cells below titles. plot: an SVG, or null
outdated      [{host, instance, what, is, wanted}]: what differs from the inventory. instance may be null
alerts        [{name, host, instance, state, since, summary, runbook}], null where no Prometheus was asked
notes         sentences about what could not be gathered
"""

from __future__ import annotations

import collections

from . import benchmark, diagnosis
from .planner import calibration, lanes

TERMS = ("weights", "activation", "non_torch", "kv_cache", "cuda_graphs")
SPEED = "gpuhosts:generation_tokens:rate2m"
_WORST = ("bad", "warning", "plain", "good")
# What vllm_service_facts calls a difference, as (what, is, wanted).
_DIFFERENCES = {
    "new": ("instance", "not there", "serving"),
    "changed": ("configuration", "another one runs", "what site.yml would start"),
    "updated": ("files", "older ones", "those of this collection"),
    "unwanted": ("instance", "there", "none in the inventory"),
}


def host(name: str, look: dict, wanted: dict, before: dict) -> dict:
    """Return {host, outdated}: the host's entry in the document, and what is out of date on it.

    look: silence (why the host could not be read, or ""), problem (why it has no plan, or ""), facts (what gpu_facts returned), gathered (what
    vllm_diagnosis did), plans (instance -> plan), services (instance -> what vllm_service_facts returned); each may be empty.
    wanted: cards (how many, or 0), driver (its version), images (engine version -> reference), instances (vllm_instances).
    before: what the last rollout's report says of the host, {} without one.
    """
    facts, gathered = look["facts"], look["gathered"]
    instances = {one["name"]: one for one in wanted["instances"] if isinstance(one, dict) and "name" in one}
    entry = {
        "name": name,
        "problem": look["silence"] or look["problem"] or None,
        "facts": _host_facts(facts, before),
        "cards": [_card(card) for card in (gathered.get("cards") or facts).get("gpus") or []],
        "findings": [],
        "instances": [],
    }
    if not gathered:
        entry |= {"state": "bad", "status": "not reached" if look["silence"] else "not read"}
        return {"host": entry, "outdated": []}
    judged = diagnosis.judge(gathered, {"name": name, "instances": list(instances), "cards": wanted["cards"]})
    outdated = _outdated(name, look, wanted, instances)
    behind = {one["instance"] for one in outdated}
    entry["findings"] = [_finding(each, judged.wrong) for each in judged.findings]
    entry["instances"] = [
        _instance(each, found, judged, look["plans"].get(each) or {}, instances.get(each), before, each in behind)
        for each, found in gathered["instances"].items()
    ]
    # What is only worth knowing does not make a host worse.
    states = [one["state"] for one in entry["findings"] if one["state"] != "plain"] + [one["state"] for one in entry["instances"]]
    states.append("warning" if outdated or look["problem"] else "good")
    entry["state"] = next(state for state in _WORST if state in states)
    entry["status"] = _status(entry["state"], judged)
    return {"host": entry, "outdated": outdated}


def document(looked: list[dict], benchmarks: dict, prometheus: dict | None, notes: list[str], title: str, time: str) -> dict:
    """Return the document.

    looked: what `host` returned, of all hosts. benchmarks: (host, instance) -> [(record, SVG or None)], the last of each scenario. prometheus:
    {alerts, speeds}, the answers of its API to /api/v1/alerts and to a query of SPEED, or None. time: 2026-11-28T08:00:00Z.
    """
    hosts, outdated = [one["host"] for one in looked], [each for one in looked for each in one["outdated"]]
    speeds = {(sample["metric"].get("host"), sample["metric"].get("name")): float(sample["value"][1]) for sample in (prometheus or {}).get("speeds", [])}
    for entry in hosts:
        for one in entry["instances"]:
            one["benchmarks"] = [_benchmark(record, plot) for record, plot in benchmarks.get((entry["name"], one["name"]), [])]
            if (entry["name"], one["name"]) in speeds:
                one["facts"].append(_fact("tokens per second, last two minutes", f"{speeds[entry['name'], one['name']]:,.1f}"))
    alerts = None if prometheus is None else [_alert(one) for one in prometheus["alerts"]]
    return {
        "kind": "fleet",
        "generated": time,
        "title": title,
        "summary": _summary(hosts, outdated, alerts),
        # Whoever looks at the page looks for what is wrong.
        "hosts": sorted(hosts, key=lambda entry: (_WORST.index(entry["state"]), entry["name"])),
        "outdated": outdated,
        "alerts": alerts,
        "notes": notes,
    }


# -- A host --------------------------------------------------------------------------------------------------------------------------------


def _host_facts(facts: dict, before: dict) -> list[dict]:
    system, docker = facts.get("os") or {}, facts.get("docker") or {}
    values = {
        "system": " ".join(filter(None, (system.get("id"), system.get("version_id")))),
        "kernel": facts.get("kernel"),
        "driver": facts.get("driver_version"),
        "CUDA, at most": facts.get("cuda_version"),
        "Docker": docker.get("version"),
        "memory": _gib(facts.get("memory_bytes")),
        "last rollout": before.get("status"),
    }
    return [_fact(label, value) for label, value in values.items() if value]


def _card(card: dict) -> dict:
    return {key: card.get(key) for key in ("index", "name", "memory_total_bytes", "memory_used_bytes", "temperature_celsius")}


def _finding(found: diagnosis.Finding, wrong: list[str]) -> dict:
    serious = found.weight >= diagnosis.WARNING
    return {
        "subject": found.subject,
        "message": found.message,
        "remedy": found.remedy,
        "state": ("bad" if wrong else "warning") if serious else "plain",
    }


def _status(state: str, judged: diagnosis.Report) -> str:
    if judged.wrong:
        return f"{', '.join(judged.wrong)} {'does' if len(judged.wrong) == 1 else 'do'} not serve"
    named = collections.defaultdict(list)
    for name, (word, dummy) in judged.states.items():
        named[word].append(name)
    words = "; ".join(f"{', '.join(names)} {word if len(names) == 1 else word.removesuffix('s')}" for word, names in named.items()) or "serves nothing"
    return words if state in ("good", "plain") else f"{words}, with something to look at"


def _outdated(name: str, look: dict, wanted: dict, instances: dict) -> list[dict]:
    """What differs from the inventory. What an instance differs in is named where it can be, and otherwise only that it does."""
    found, running = [], look["facts"].get("driver_version")
    if running and wanted["driver"] and running != wanted["driver"]:
        found.append({"instance": None, "what": "driver", "is": running, "wanted": wanted["driver"]})
    for each, one in instances.items():
        there = (look["gathered"]["instances"].get(each) or {}).get("definition") or {}
        if not there:
            continue
        version = str(one.get("engine_version") or lanes.DEFAULT)
        image, model = (there.get("image") or {}).get("reference"), there.get("model") or {}
        for what, actual, aim in (
            ("engine", there.get("engine_version"), version),
            ("image", image, wanted["images"].get(version) if image else None),
            ("model", model.get("repo_id"), one.get("model")),
            ("revision", model.get("revision"), one.get("revision")),
        ):
            if aim and actual != aim:
                found.append({"instance": each, "what": what, "is": str(actual), "wanted": str(aim)})
    named = {one["instance"] for one in found}
    for each, service in look["services"].items():
        word = service.get("difference")
        # An instance that could not be compared looks unwanted.
        if word in _DIFFERENCES and each not in named and (word == "unwanted") == (each not in instances):
            what, actual, aim = _DIFFERENCES[word]
            found.append({"instance": each, "what": what, "is": actual, "wanted": aim})
    return [{"host": name, **one} for one in found]


# -- An instance ---------------------------------------------------------------------------------------------------------------------------


def _instance(name: str, found: dict, judged: diagnosis.Report, plan: dict, wanted: dict | None, before: dict, behind: bool) -> dict:
    definition, (word, sentence) = found.get("definition") or {}, judged.states[name]
    rung = (found.get("state") or {}).get("rung") or 0
    state = "bad" if name in judged.wrong else "warning" if rung or behind or wanted is None else "good" if word == "serves" else "plain"
    return {
        "name": name,
        "model": (definition.get("model") or wanted or {}).get("repo_id") or (wanted or {}).get("model"),
        "serves": word == "serves",
        "state": state,
        "status": f"{word}: {sentence}",
        "facts": _instance_facts(found, definition, plan, rung, _measured(before, name)),
        "memory": _memory(plan, (found.get("last_start") or {}).get("log") or []),
        "benchmarks": [],
    }


def _measured(before: dict, name: str) -> dict:
    return next((one for one in before.get("instances") or [] if one.get("name") == name), {})


def _instance_facts(found: dict, definition: dict, plan: dict, rung: int, measured: dict) -> list[dict]:
    engine, metrics, rungs = plan.get("engine") or {}, found.get("metrics") or {}, definition.get("rungs") or []
    kv = plan.get("kv") or {}
    detail = ", ".join(filter(None, (engine.get("core"), engine.get("attention")))) if engine.get("version") == definition.get("engine_version") else ""
    step = f"{rung}: {rungs[rung].get('reason')}" if 0 < rung < len(rungs) else str(rung) if rung else None
    speed = measured.get("tokens_per_second")
    values = {
        "engine": f"vLLM {definition['engine_version']}{f' ({detail})' if detail else ''}" if definition.get("engine_version") else None,
        "image": (definition.get("image") or {}).get("reference"),
        "revision": (definition.get("model") or {}).get("commit") or (definition.get("model") or {}).get("revision"),
        "port": definition.get("port"),
        "cards": ", ".join(map(str, definition.get("gpus") or [])),
        "step of the ladder": step,
        "KV cache, planned": _tokens(kv.get("tokens") or (definition.get("expected") or {}).get("kv_tokens")),
        "KV cache, measured": _tokens(found.get("kv_tokens")),
        "KV cache in use": f"{metrics['kv_usage']:.0%}" if "kv_usage" in metrics else None,
        "requests that run": f"{metrics['running']:.0f}" if "running" in metrics else None,
        "requests that wait": f"{metrics['waiting']:.0f}" if "waiting" in metrics else None,
        "sequences of full length": f"{kv['max_concurrency']:.1f}" if kv.get("max_concurrency") else None,
        "last start": (found.get("last_start") or {}).get("time"),
        "tokens per second, one request": f"{speed:,.1f}" if speed else None,
    }
    return [_fact(label, value) for label, value in values.items() if value is not None and value != ""]


def _memory(plan: dict, log: list[str]) -> dict | None:
    ranks = (plan.get("memory") or {}).get("per_rank") or []
    if not ranks or any(term is None for rank in ranks for term in rank.values()):
        return None
    tightest = min(ranks, key=lambda rank: rank["kv_cache"])
    found = calibration.parse("\n".join(log))
    measured = {term: found[term] for term in ("total", *TERMS)}
    return {
        "ranks": len(ranks),
        "planned": {term: tightest[term] for term in ("total", *TERMS)},
        "measured": measured if None not in (measured["weights"], measured["kv_cache"]) else None,
    }


def _benchmark(record: dict, plot: str | None) -> dict:
    titles, rows = benchmark.rows(record)
    partial = f"partial: {record['reason'] or 'it was interrupted'}" if record["status"] != "complete" else "complete"
    regressions = (record.get("comparison") or {}).get("regressions") or []
    return {
        "scenario": record["scenario"]["name"],
        "time": record["started"],
        "status": "; ".join([partial, *(f"regression: {each}" for each in regressions)]),
        "titles": titles,
        "rows": rows,
        "plot": plot,
    }


# -- All of them ---------------------------------------------------------------------------------------------------------------------------


def _alert(one: dict) -> dict:
    labels, notes = one.get("labels") or {}, one.get("annotations") or {}
    return {
        "name": labels.get("alertname", ""),
        "host": labels.get("host"),
        "instance": labels.get("name"),
        "state": "plain" if one.get("state") != "firing" else "bad" if labels.get("severity") == "critical" else "warning",
        "since": one.get("activeAt"),
        "summary": notes.get("summary", ""),
        "runbook": notes.get("runbook_url"),
    }


def _summary(hosts: list[dict], outdated: list[dict], alerts: list[dict] | None) -> list[dict]:
    instances = [one for entry in hosts for one in entry["instances"]]
    silent = sum(not entry["instances"] and entry["state"] == "bad" for entry in hosts)
    serving = sum(one["serves"] for one in instances)
    cards = sum(len(entry["cards"]) for entry in hosts)
    behind = len({one["host"] for one in outdated})
    found = [
        _figure("hosts", str(len(hosts)), "plain"),
        _figure("cards", str(cards), "plain"),
        _figure("instances that serve", f"{serving} of {len(instances)}", "good" if serving == len(instances) else "bad"),
        _figure("hosts not reached or read", str(silent), "bad" if silent else "good"),
        _figure("hosts out of date", str(behind), "warning" if behind else "good"),
    ]
    if alerts is not None:
        firing = [one for one in alerts if one["state"] != "plain"]
        worst = next((state for state in _WORST if any(one["state"] == state for one in firing)), "good")
        found.append(_figure("alerts", str(len(firing)), worst))
    return found


def _figure(label: str, value: str, state: str) -> dict:
    return {"label": label, "value": value, "state": state}


def _fact(label: str, value) -> dict:
    return {"label": label, "value": str(value)}


def _tokens(count) -> str | None:
    return None if count is None else f"{count:,} tokens"


def _gib(size) -> str | None:
    return None if size is None else f"{size / 2**30:,.0f} GiB"
