# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What became of a rollout: one document, which the next rollout reads as well, and its text for a terminal.

The page of playbooks/report.yml can be drawn from it: it has the keys of fleet_report.py, with kind "rollout", and what is not known there is empty.

It has besides, of a host, `status` (a word of STATES), `fingerprint` (what it was brought to; null for one whose wave did not end well), `baseline`
(what it measured then) and `generations` (of its instances then), and of an instance the keys of a measurement (rollout.py), with `rung`.
"""

from __future__ import annotations

from . import rollout

CONVERGED, UNREACHABLE, WAITING = "converged", "unreachable", "waiting"
# What each means for whoever looks at the page.
STATES = {CONVERGED: "good", rollout.DONE: "good", WAITING: "plain", rollout.FAILED: "bad", rollout.ROLLED_BACK: "bad", UNREACHABLE: "bad"}


def outcome(look: dict, result: dict, lost: bool, begun: bool, stopped: str) -> tuple[str, str]:
    """Return (word of STATES, reason) of a host.

    result: {state, reason}, empty where it has none. lost: whether it fell silent on the way. begun: whether its wave is under way.
    """
    if look["silence"]:
        return UNREACHABLE, look["silence"]
    if result:
        return result["state"], result["reason"]
    if lost:
        return UNREACHABLE, "it answered at first, and not any more when its wave was under way"
    if begun:
        return WAITING, "its wave had begun when this was written"
    return (WAITING, stopped or look["due"]) if look["due"] else (CONVERGED, "")


def document(looks: list[dict], results: list[dict], lost: list[str], begun: list[str], before: dict, stopped: str, time: str) -> dict:
    """Return the report.

    looks: of each host of this run. results: {name, state, reason, measured, rungs, generations} of those whose wave is over, rungs: instance -> rung. lost:
    hosts that fell silent on the way. begun: hosts whose wave is under way: until it is over nothing is known of them. before: the last report, {}
    without one; what it says of hosts that are not part of this run stays. time: 2026-11-28T08:00:00Z.
    """
    found = {one["name"]: one for one in before.get("hosts", [])}
    by_name = {one["name"]: one for one in results}
    words = {}
    for look in looks:
        name = look["name"]
        entry = _host(look, by_name.get(name, {}), name in lost, name in begun, stopped)
        found[entry["name"]], words[entry["name"]] = entry, entry["status"]
    counts = [(word, list(words.values()).count(word)) for word in STATES]
    return {
        "kind": "rollout",
        "generated": time,
        "title": f"Rollout to {len(words)} hosts",
        "summary": [{"label": word, "value": str(count), "state": STATES[word]} for word, count in counts if count],
        "hosts": list(found.values()),
        "outdated": [],
        "alerts": None,
        "notes": [f"Stopped: {stopped}."] if stopped else [],
    }


def _host(look: dict, result: dict, lost: bool, begun: bool, stopped: str) -> dict:
    before = look["before"]
    word, reason = outcome(look, result, lost, begun, stopped)
    measured = result.get("measured") or before.get("baseline", [])
    done = word in (rollout.DONE, CONVERGED)
    # Its wave has not begun, or will not.
    untouched = word == WAITING and not begun or look["silence"]
    return {
        "name": look["name"],
        "state": STATES[word],
        "status": word,
        "problem": reason or None,
        "facts": [],
        "cards": [],
        "findings": [],
        "fingerprint": look["fingerprint"] if done else before.get("fingerprint") if untouched else None,
        "generations": result.get("generations", look["generations"]) if done else before.get("generations", {}),
        # A host that fails is held to what it could do before, also the next time.
        "baseline": measured if done else before.get("baseline", []),
        "instances": [_instance(one, (result.get("rungs") or {}).get(one["name"], 0), word) for one in measured],
    }


def _instance(measured: dict, rung: int, word: str) -> dict:
    values = {
        "engine": measured["engine_version"],
        "image": measured["image"],
        "KV cache, planned": _tokens(measured["kv_tokens_planned"]),
        "KV cache, measured": _tokens(measured["kv_tokens"]),
        "tokens per second": measured["tokens_per_second"],
    }
    return measured | {
        "state": "warning" if rung and STATES[word] == "good" else STATES[word],
        "status": f"runs on rung {rung} of its ladder" if rung else word,
        "rung": rung,
        "facts": [{"label": label, "value": str(value)} for label, value in values.items() if value is not None],
        "serves": STATES[word] == "good",
        "memory": None,
        "benchmarks": [],
    }


def _tokens(count) -> str | None:
    return None if count is None else f"{count} tokens"


def text(report: dict, names: list[str]) -> str:
    """Return the report for a terminal: a line for each of these hosts and instances, aligned, then what went wrong."""
    rows = [("HOST", "STATE", "INSTANCE", "VLLM", "KV PLANNED", "KV MEASURED", "TOKENS/S", "RUNG")]
    hosts = [host for host in report["hosts"] if host["name"] in names]
    for host in hosts:
        for number, one in enumerate(host["instances"] or [{}]):
            cells = (one.get(key) for key in ("name", "engine_version", "kv_tokens_planned", "kv_tokens", "tokens_per_second", "rung"))
            head = ("", "") if number else (host["name"], host["status"])
            rows.append((*head, *("-" if cell is None else str(cell) for cell in cells)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{host['name']} {host['status']}: {host['problem']}" for host in hosts if host["problem"]]
    return "\n".join([*lines, *report["notes"], ", ".join(f"{one['value']} {one['label']}" for one in report["summary"])])
