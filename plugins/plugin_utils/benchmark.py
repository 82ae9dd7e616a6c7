# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Benchmarks: which runs a scenario takes, what they come to, and how that compares with a kept one.

A scenario, as in benchmark_scenarios:

    max_concurrency     clients at once: a number, or a list, each of which is measured
    prompts_per_client  how many requests each client sends one after the other
    rounds              how often everything is measured
    random_prefix_len, random_input_len, random_output_len   tokens, as `vllm bench serve` names them: common to all prompts, of each, answered
    any other           option of the tool
    article             {column title: {figure: value}}: what an article says, shown beside
    table               the figures shown, in this order

A record is what is kept of a benchmark, as JSON:

    {host, instance, scenario, started, status: complete|partial, reason: None|text, planned_runs, sides: [{name, fingerprint}],
     runs: [{round, side, max_concurrency, seed, figures}], summary, notes, comparison}

The summary is {side: {concurrency as text: {figure: {median, low, high}}}}; a figure that nobody knows is None.
"""

from __future__ import annotations

import collections.abc
import statistics

LENGTHS = ("random_prefix_len", "random_input_len", "random_output_len")
OWN = ("max_concurrency", "prompts_per_client", "rounds", "article", "table")
# Figure: (what it is called, format, factor of what is shown, +1 where more is better, -1 where less is, 0 where neither counts).
FIGURES = {
    "prompt_throughput": ("prompt throughput", "{:,.0f} tokens/s", 1, 0),
    "output_throughput": ("generation throughput", "{:,.1f} tokens/s", 1, 1),
    "request_throughput": ("requests", "{:,.2f}/s", 1, 1),
    "mean_e2el_ms": ("mean response time", "{:,.2f} s", 0.001, -1),
    "mean_ttft_ms": ("mean time to first token", "{:,.0f} ms", 1, -1),
    "mean_tpot_ms": ("mean time per token", "{:,.1f} ms", 1, -1),
    "kv_cache_usage": ("KV cache in use, at most", "{:.0f} %", 100, 0),
    "prefix_hits": ("prefix cache hits", "{:.0f} %", 100, 0),
    "preemptions": ("preemptions", "{:.0f}", 1, 0),
    "gpu_memory_bytes": ("GPU memory, at most", "{:,.1f} GiB", 2**-30, 0),
    "failed": ("failed requests", "{:.0f}", 1, -1),
}
UNKNOWN = "-"
# Two records with different ones measure different things; what else differs is named beside a regression.
ALIKE = ("scenario", "cards", "model")


class Wrong(ValueError):
    """What was asked for cannot be done; the text says what to do instead."""


# -- What is measured ----------------------------------------------------------------------------------------------------------------------


def scenario(scenarios: collections.abc.Mapping, name: str, length_scale: float = 1, **changes) -> dict:
    """Return the scenario of that name with its name, lengths times length_scale, and the keys of `changes` that are not 0 or None.

    Raises Wrong for a name that does not exist, and for lengths or counts that are no such.
    """
    if name not in scenarios:
        raise Wrong(f"{f'There is no scenario {name}' if name else 'No scenario is named'}: choose one with -e scenario=NAME, {', '.join(scenarios)}.")
    found = {"prompts_per_client": 4, "rounds": 3, "article": {}, "table": list(FIGURES), "random_prefix_len": 0}
    found |= dict(scenarios[name]) | {key: value for key, value in changes.items() if value}
    levels = found.get("max_concurrency")
    found["max_concurrency"] = [int(level) for level in (levels if isinstance(levels, (list, tuple)) else [levels or 0])]
    for key in LENGTHS[1:]:
        if not found.get(key):
            raise Wrong(f"Scenario {name} has no {key}: how many tokens long is that?")
    # What is there stays there: a prefix or an answer of no token at all would be another scenario.
    found |= {key: max(1, round(found[key] * float(length_scale))) for key in LENGTHS if found[key]}
    for key in ("prompts_per_client", "rounds"):
        found[key] = int(found[key])
    if min(found["max_concurrency"] + [found["prompts_per_client"], found["rounds"]]) < 1:
        raise Wrong(f"Scenario {name}: max_concurrency, prompts_per_client and rounds are at least 1.")
    unknown = [figure for figure in found["table"] if figure not in FIGURES]
    if unknown:
        raise Wrong(f"Scenario {name}: {', '.join(unknown)} in its table is none of the figures {', '.join(FIGURES)}.")
    return {"name": name, **found}


def sides(instances, instance: str, against=None) -> list[dict]:
    """Return [{name, instance, instances}]: what is measured in turn, and all instances of the host as they are while it is.

    instances: vllm_instances. instance: the name of the one that is measured, empty for the first. against: None, the name of another, or a mapping
    of keys that differ from the first's; options and env are added to. `instances` is None where nothing has to be changed.
    Raises Wrong.
    """
    by_name = {each["name"]: each for each in instances}
    if not by_name:
        raise Wrong("The host serves nothing: vllm_instances is empty.")
    name = instance or next(iter(by_name))
    for wanted in (name, *([against] if isinstance(against, str) and against else [])):
        if wanted not in by_name:
            raise Wrong(f"{wanted} is not one of the host's instances: {', '.join(by_name)}.")
    first = {"name": name, "instance": name, "instances": None}
    if not against:
        return [first]
    if isinstance(against, str):
        if against == name:
            raise Wrong(f"{name} cannot be compared with itself: name another instance, or the keys that differ.")
        return [first, {"name": against, "instance": against, "instances": None}]
    changed = _changed(by_name[name], against)
    if changed == by_name[name]:
        raise Wrong(f"Nothing of {against} differs from {name} as it is.")
    label = name + " with " + ", ".join(_pairs(against))
    other = [changed if each["name"] == name else each for each in instances]
    return [{**first, "instances": list(instances)}, {"name": label, "instance": name, "instances": other}]


def _changed(given, against) -> dict:
    nested = {key: {**(given.get(key) or {}), **value} for key, value in against.items() if isinstance(value, collections.abc.Mapping)}
    return {**given, **against, **nested}


def _pairs(mapping):
    for key, value in mapping.items():
        yield from _pairs(value) if isinstance(value, collections.abc.Mapping) else [f"{key} {value}"]


def runs(scenario: collections.abc.Mapping, names: list[str], seed: int = 0) -> list[dict]:
    """Return [{round, side, max_concurrency, options}] in their order: in each round each side, so that what drifts meets all alike.

    options: the tool's. Each run has prompts of its own, the same for all sides: an engine that has seen one before would answer it from its cache.
    """
    levels = scenario["max_concurrency"]
    common = {key: value for key, value in scenario.items() if key not in (*OWN, "name")}
    common |= {"dataset_name": "random", "ignore_eos": True, "percentile_metrics": "ttft,tpot,itl,e2el"}
    return [
        {
            "round": number + 1,
            "side": name,
            "max_concurrency": level,
            "options": {
                **common,
                "max_concurrency": level,
                "num_prompts": level * scenario["prompts_per_client"],
                "seed": seed + number * len(levels) + index,
            },
        }
        for number in range(scenario["rounds"])
        for name in names
        for index, level in enumerate(levels)
    ]


def plan(scenario: dict, measured_sides: list[dict], seed: int = 0) -> dict:
    """Return {scenario, sides, runs}: all that a benchmark does."""
    return {"scenario": scenario, "sides": measured_sides, "runs": runs(scenario, [side["name"] for side in measured_sides], seed)}


# -- What it comes to ----------------------------------------------------------------------------------------------------------------------


def figures(measured: collections.abc.Mapping) -> dict:
    """Return {figure: value or None} of what the module vllm_benchmark returned. Milliseconds, bytes, tokens per second, shares from 0 to 1.

    Prompts are as long as the engine counted them, where it tells: what the tool makes of random tokens comes back as another number of them.
    """
    tool, metrics, failed = measured["tool"], measured["metrics"], sum(measured["errors"].values())
    before, after, peak = metrics["before"], metrics["after"], metrics["peak"]

    def grown(*names):
        known = [name for name in names if name in after]
        return after[known[0]] - before.get(known[0], 0) if known else None

    counted, prompts = grown("vllm:request_prompt_tokens_sum"), grown("vllm:request_prompt_tokens_count")
    tokens = counted / prompts * tool["completed"] if counted and prompts else tool["total_input_tokens"]
    queries = grown("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")
    hits = grown("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")
    usage = [peak[name] for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc") if name in peak]
    memory = [used for used in measured["cards"].values() if used]
    return {
        "prompt_throughput": tokens / tool["duration"] if tool["duration"] else None,
        **{key: tool.get(key) for key in ("output_throughput", "request_throughput")},
        # Of no request at all the tool says 0 ms.
        **{key: tool.get(key) if tool["completed"] else None for key in ("mean_e2el_ms", "mean_ttft_ms", "mean_tpot_ms")},
        "kv_cache_usage": usage[0] if usage else None,
        "prefix_hits": hits / queries if queries and hits is not None else after.get("vllm:gpu_prefix_cache_hit_rate"),
        "preemptions": grown("vllm:num_preemptions_total"),
        "gpu_memory_bytes": max(memory) if memory else None,
        "failed": failed,
    }


def summary(done: list) -> dict:
    """Return the summary of a record's runs."""
    found: dict = {}
    for run in done:
        level = found.setdefault(run["side"], {}).setdefault(str(run["max_concurrency"]), {})
        for figure, value in run["figures"].items():
            level.setdefault(figure, []).append(value)
    return {side: {level: {figure: _spread(values) for figure, values in each.items()} for level, each in levels.items()} for side, levels in found.items()}


def _spread(values) -> dict | None:
    known = [value for value in values if value is not None]
    return {"median": statistics.median(known), "low": min(known), "high": max(known)} if known else None


def record(plan: collections.abc.Mapping, measured: list, host: collections.abc.Mapping, settings: collections.abc.Mapping) -> dict:
    """Return the record of a benchmark, whole or as far as it has come.

    plan: what `plan` returned. measured: what the module vllm_benchmark returned for each of the plan's runs so far. host: what gpu_facts returned.
    settings: host (its name), started, reason (why it ended early, or empty), baseline (a record or None), tolerance.
    """
    scenario, names = plan["scenario"], [side["name"] for side in plan["sides"]]
    done, prints = [], {name: [] for name in names}
    for run, found in zip(plan["runs"], measured, strict=False):
        keys = ("round", "side", "max_concurrency")
        done.append({**{key: run[key] for key in keys}, "seed": run["options"]["seed"], "figures": figures(found), "errors": found["errors"]})
        prints[run["side"]].append(fingerprint(scenario, host, found["instance"]))
    result = {
        "host": settings["host"],
        "instance": plan["sides"][0]["instance"],
        "scenario": scenario,
        "started": settings["started"],
        "status": "complete" if len(done) == len(plan["runs"]) else "partial",
        "reason": settings["reason"] or None,
        "planned_runs": len(plan["runs"]),
        "sides": [{"name": name, "fingerprint": found[-1]} for name, found in prints.items() if found],
        "runs": done,
        "summary": summary(done),
    }
    result["notes"] = _notes(prints, measured)
    baseline = settings["baseline"] if result["status"] == "complete" else None
    return {**result, "comparison": compare(result, baseline, float(settings["tolerance"]))}


def _notes(prints: dict, measured: list) -> list[str]:
    """What a reader has to know of the figures."""
    notes = [f"{name} did not stay as it was: {', '.join(_moved(found))}." for name, found in prints.items() if found and found[0] != found[-1]]
    each = [found[-1] for found in prints.values() if found]
    if len(each) > 1 and each[0] == each[1]:
        notes.append("Both sides ran with the same options: what differs was not in force, as where vllm_instances comes from the command line.")
    if measured and not measured[-1]["metrics"]["after"]:
        notes.append("The engine has no vllm: metrics (disable_log_stats is set): KV cache, prefix hits and the prompts' true length are not known.")
    return notes


def _moved(found: list) -> list[str]:
    return [f"{key} was {was}, is {now}" for key in found[0] for was, now in _differing(found[0][key], found[-1][key])]


def fingerprint(scenario: collections.abc.Mapping, host: collections.abc.Mapping, measured: collections.abc.Mapping) -> dict:
    """Return what matters for the figures of one side. host: what gpu_facts returned. measured: `instance` of the module vllm_benchmark."""
    keys = [key for key in scenario if key not in ("article", "table", "rounds")]
    model, image = measured["model"], measured["image"] or {}
    chosen = measured.get("gpus")
    cards = [card for card in host["gpus"] if chosen is None or card["index"] in chosen]
    return {
        "scenario": {key: scenario[key] for key in sorted(keys)},
        "cards": [f"{card['name']}, {(card['memory_total_bytes'] or 0) / 2**30:.0f} GiB" for card in cards],
        "driver": host["driver_version"],
        "engine": measured["engine_version"],
        "image": image.get("id") or image.get("reference"),
        "model": model["repo_id"],
        "revision": model["commit"],
        "options": measured["argv"],
        "environment": measured["environment"],
        "rung": measured["rung"],
    }


# -- Beside a kept one ---------------------------------------------------------------------------------------------------------------------


def compare(record: collections.abc.Mapping, baseline, tolerance: float = 0.1) -> dict:
    """Return {baseline, refused, changed, regressions, improvements}: sentences, but for `baseline`, when that was measured.

    baseline: a complete record, or None. A figure has changed when its median has by more than the tolerance, and no round of one record came into the
    range of the other: noise does neither. What measures another thing is not compared, and `refused` says why.
    """
    found: dict = {"baseline": (baseline or {}).get("started"), "refused": [], "changed": [], "regressions": [], "improvements": []}
    kept = {side["name"]: side for side in (baseline or {}).get("sides", [])}
    for side in record["sides"] if baseline else []:
        name = side["name"]
        if name not in kept:
            found["refused"].append(f"{name} is not in the baseline.")
            continue
        new, old = side["fingerprint"], kept[name]["fingerprint"]
        unlike = [f"{key} was {was}, is {now}" for key in ALIKE for was, now in _differing(old.get(key), new.get(key))]
        if unlike:
            found["refused"].append(f"{name} measures another thing than the baseline: {'; '.join(unlike)}.")
            continue
        found["changed"] += [f"{name}: {key} was {was}, is {now}" for key in new if key not in ALIKE for was, now in _differing(old.get(key), new[key])]
        _judge(found, name, record["summary"].get(name, {}), baseline["summary"].get(name, {}), tolerance)
    return found


def _differing(old, new) -> list[tuple[str, str]]:
    """(old, new) as short texts; of mappings and argument lists only what differs, nothing where they are alike."""
    if old == new:
        return []
    if isinstance(old, collections.abc.Mapping) and isinstance(new, collections.abc.Mapping):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        old, new = ([f"{key} {side.get(key)}" for key in keys] for side in (old, new))
    elif isinstance(old, list) and isinstance(new, list) and sorted(old) != sorted(new):
        old, new = [word for word in old if word not in new] or old, [word for word in new if word not in old] or new
    return [tuple(" ".join(map(str, each)) if isinstance(each, list) else str(each) for each in (old, new))]


def _judge(found: dict, name: str, new, old, tolerance: float) -> None:
    for level, each in new.items():
        for figure, now in each.items():
            was, (title, shown, factor, better) = (old.get(level) or {}).get(figure), FIGURES[figure]
            if not better or not was or not now:
                continue
            change = (now["median"] - was["median"]) * better
            apart = now["low"] > was["high"] or now["high"] < was["low"]
            if apart and abs(change) > tolerance * abs(was["median"]):
                share = f" ({abs(change) / abs(was['median']):.0%} {'better' if change > 0 else 'worse'})" if was["median"] else ""
                text = f"{name}, {level} at once: {title} {shown.format(was['median'] * factor)} -> {shown.format(now['median'] * factor)}{share}"
                found["improvements" if change > 0 else "regressions"].append(text)


# -- In words ------------------------------------------------------------------------------------------------------------------------------


def rows(record: collections.abc.Mapping) -> tuple[list[str], list[list[str]]]:
    """Return (titles, rows) of a record's table: figures of the most clients at once, by side, and the articles' beside."""
    scenario = record["scenario"]
    level, articles = str(max(scenario["max_concurrency"])), scenario["article"]
    titles = ["", *(side["name"] for side in record["sides"]), *articles]
    table = []
    for figure in scenario["table"]:
        title, shown, factor, dummy = FIGURES[figure]
        cells = [_cell((record["summary"].get(side["name"], {}).get(level) or {}).get(figure), shown, factor) for side in record["sides"]]
        cells += [shown.format(article[figure] * factor) if figure in article else UNKNOWN for article in articles.values()]
        table.append([title, *cells])
    return titles, table


def _cell(spread, shown: str, factor: float) -> str:
    if not spread:
        return UNKNOWN
    median, low, high = (shown.format(spread[key] * factor) for key in ("median", "low", "high"))
    return median if low == high else f"{median} ({low.split(' ')[0]} to {high.split(' ')[0]})"


def text(record: collections.abc.Mapping) -> str:
    """Return what is printed at the end."""
    scenario, comparison = record["scenario"], record.get("comparison") or {}
    titles, table = rows(record)
    widths = [max(len(row[index]) for row in [titles, *table]) for index in range(len(titles))]
    lines = [
        f"{record['host']}/{record['instance']}: {scenario['name']}, {max(scenario['max_concurrency'])} at once, "
        f"{scenario['random_prefix_len'] + scenario['random_input_len']} tokens in ({scenario['random_prefix_len']} shared), "
        f"{scenario['random_output_len']} out, median of {scenario['rounds']} rounds (lowest to highest)"
    ]
    lines += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [titles, *table]]
    if record["status"] != "complete":
        lines.append(f"PARTIAL: {len(record['runs'])} of {record['planned_runs']} runs. {record['reason'] or 'It was interrupted.'}")
    lines += record["notes"]
    if comparison.get("baseline"):
        lines.append(f"Compared with the baseline of {comparison['baseline']}:")
        lines += [f"  REGRESSION {each}" for each in comparison["regressions"]]
        lines += [f"  better     {each}" for each in comparison["improvements"]]
        lines += [f"  NOT COMPARED {each} Keep this one as the new baseline with -e benchmark_new_baseline=true." for each in comparison["refused"]]
        if not (comparison["regressions"] or comparison["improvements"] or comparison["refused"]):
            lines.append("  nothing is better or worse beyond the spread")
        lines += [f"  changed    {each}" for each in comparison["changed"]]
    return "\n".join(lines)
