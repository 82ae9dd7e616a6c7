# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What playbooks/rollout.yml decides: which hosts are due, in which waves, whether a host passes its gate, and when the rollout stops.

A look is what is known of a host before anything is changed: {name, silence, due, healthy, kind, generations, before, fingerprint}.
    silence      why the host could not be read, "" when it was
    due          why something is to be done on it, "" when nothing is
    healthy      whether all that it serves is proved, runs, and runs as planned
    kind         the cards in it, such as "4 x NVIDIA GeForce RTX 2080 Ti": each kind has a canary of its own
    generations  instance -> generation that was in force
    before       what the last report says of the host
    fingerprint  what the host is to be brought to: the collection's own code, and its roles' variables as this host has them
A wave is {name, hosts}. A measurement is what an instance answered to the gate's question:
{name, model, commit, engine_version, image, kv_tokens_planned, kv_tokens, tokens_per_second, answer_sha256}; speeds and sizes are null where unknown.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math

DONE, FAILED, ROLLED_BACK = "done", "failed", "rolled back"
CANARY = "canary"


def fingerprint(code: str, variables: dict) -> str:
    """Return what a host is to be brought to, as a SHA-256. code: that of the collection's files. variables: of its roles, as the host has them."""
    return hashlib.sha256(json.dumps([code, variables], sort_keys=True).encode()).hexdigest()


def look(name: str, facts: dict, silence: str, variables: dict, before: dict, aim: str, everything: bool) -> dict:
    """Return the look at a host. facts: ansible_facts, with gpuhosts and gpuhosts_services. aim: its fingerprint. everything: whether all are due."""
    cards = collections.Counter(card.get("name") or "unknown card" for card in (facts.get("gpuhosts") or {}).get("gpus") or [])
    found = (facts.get("gpuhosts_services") or {}).get("instances") or {}
    # What an instance must look like is for the preflight to say.
    names = [instance["name"] for instance in variables.get("vllm_instances") or [] if isinstance(instance, dict) and "name" in instance]
    wrong = [word for word in (_wrong(each, found.get(each)) for each in names) if word]
    if everything:
        due = "all hosts were asked for"
    elif before.get("fingerprint") != aim:
        due = "its inventory or the collection has changed" if before.get("fingerprint") else "it was never rolled out to its end"
    else:
        # Whatever a rollback or another run has brought since.
        rolled_out = before.get("generations") or {}
        others = [f"{each} is not what was rolled out" for each in names if each in found and found[each]["generation"] != rolled_out.get(each)]
        due = "; ".join(wrong or others)
    return {
        "name": name,
        "silence": silence,
        "due": due,
        "healthy": bool(found) and not any(_wrong(each, found[each]) or found[each]["state"]["rung"] for each in found),
        "kind": ", ".join(f"{count} x {card}" for card, count in sorted(cards.items())),
        "generations": {each: found[each]["generation"] for each in found},
        "before": before,
        "fingerprint": aim,
    }


def _wrong(name: str, found: dict | None) -> str:
    """Why an instance cannot count as rolled out, "" when it can."""
    if not found or not found["generation"]:
        return f"{name} is not there"
    if found["state"]["status"] == "quarantined":
        return f"{name} is in quarantine"
    if not found["running"]:
        return f"{name} does not run"
    return "" if found["status"] == "proved" else f"{name} was never seen to answer"


def waves(looks: list[dict], canaries: list[str], batches: list) -> list[dict]:
    """Return the waves of the hosts that are due and answer, in their order: the canaries, then batches, the last size again and again.

    canaries: names; without them, and where none of them is due, the healthiest host of each kind. batches: hosts of a wave, as a number or as a
    percentage of all that come after the canaries ("25%"). ValueError for a batch that is neither, and for canaries none of which can be asked.
    """
    due = [one for one in looks if one["due"] and not one["silence"]]
    chosen = [one["name"] for one in due if one["name"] in canaries]
    known = {one["name"]: one for one in looks}
    if canaries and due and not chosen and not any(name in known and not known[name]["silence"] for name in canaries):
        raise ValueError(f"None of rollout_canaries ({', '.join(canaries)}) is among the hosts of this run and answers: name another, or none.")
    if not chosen:
        first = {}
        # Sorting is stable: the first of the inventory among equals. A bare host shows less than one that serves, and more than one that is ill.
        for one in sorted(due, key=lambda one: 0 if one["healthy"] else 2 if one["generations"] else 1):
            first.setdefault(one["kind"], one["name"])
        chosen = [one["name"] for one in due if one["name"] in first.values()]
    rest = [one["name"] for one in due if one["name"] not in chosen]
    sizes = [_size(batch, len(rest)) for batch in batches or ["100%"]]
    found = [{"name": CANARY, "hosts": chosen}] if chosen else []
    for number in range(1, len(rest) + 1):
        if not rest:
            break
        size = sizes[min(number, len(sizes)) - 1]
        found.append({"name": f"wave {number}", "hosts": rest[:size]})
        rest = rest[size:]
    return found


def _size(batch, hosts: int) -> int:
    """Hosts in a batch, at least one."""
    text = str(batch).strip()
    number = text.removesuffix("%").strip()
    if not number.isdecimal() or int(number) < 1 or (text.endswith("%") and int(number) > 100):
        raise ValueError(f"rollout_batches has {batch!r}: write a number of hosts, such as 5, or a percentage of them, such as 25%.")
    return max(1, math.ceil(hosts * int(number) / 100)) if text.endswith("%") else int(number)


def stop(begun: list[dict], states: dict[str, str], max_fail_percentage: float) -> str:
    """Return why no further wave may begin, "" when one may.

    begun: waves that are over. states: host -> DONE, FAILED or ROLLED_BACK; a host without one was lost on the way. Lost hosts do not count as failed,
    for they say nothing about what is rolled out, but somebody has to have come through. Every canary has to: each stands for hosts of its kind.
    """
    for wave in begun:
        hosts = wave["hosts"]
        failed = [host for host in hosts if states.get(host) in (FAILED, ROLLED_BACK)]
        if len(failed) * 100 > max_fail_percentage * len(hosts):
            allowed = f"rollout_max_fail_percentage allows {max_fail_percentage:g} %"
            return f"{len(failed)} of {len(hosts)} hosts of {wave['name']} failed ({', '.join(failed)}), and {allowed}"
        others = [host for host in hosts if states.get(host) != DONE]
        if len(others) == len(hosts):
            return f"no host of {wave['name']} came through ({', '.join(hosts)})"
        if wave["name"] == CANARY and others:
            return f"not every canary came through ({', '.join(others)} did not)"
    return ""


def measurements(asked: list[dict]) -> list[dict]:
    """Return the measurements in what a loop of vllm_ready over definitions has registered as its results; what was skipped is left out."""
    found = []
    for result in asked:
        if result.get("skipped"):
            continue
        definition, tokens, seconds = result[result["ansible_loop_var"]], (result.get("usage") or {}).get("completion_tokens"), result.get("completion_seconds")
        found.append(
            {
                "name": definition["name"],
                "model": definition["model"]["repo_id"],
                "commit": definition["model"]["commit"],
                "engine_version": result.get("version") or definition["engine_version"],
                "image": (definition["image"] or {}).get("reference"),
                "kv_tokens_planned": definition["expected"]["kv_tokens"],
                "kv_tokens": result.get("kv_tokens"),
                "tokens_per_second": round(tokens / seconds, 1) if tokens and seconds else None,
                "answer_sha256": hashlib.sha256(result["answer"].encode()).hexdigest(),
            }
        )
    return found


def gate(measured: list[dict], baseline: list[dict], speed_loss: float, same_answers: bool) -> list[str]:
    """Return what speaks against a host, a sentence each. baseline: what it measured when it was rolled out last.

    Speeds are compared where the model is the same, answers where model and engine are. speed_loss: the share of the speed that may be lost.
    """
    problems = []
    earlier = {one["name"]: one for one in baseline}
    for now in measured:
        then = earlier.get(now["name"])
        if then is None or (then["model"], then["commit"]) != (now["model"], now["commit"]):
            continue
        if then["tokens_per_second"] and now["tokens_per_second"] and now["tokens_per_second"] < then["tokens_per_second"] * (1 - speed_loss):
            problems.append(
                f"{now['name']} writes {now['tokens_per_second']:g} tokens per second, and wrote {then['tokens_per_second']:g} before: more than the "
                f"{speed_loss:.0%} that rollout_speed_loss allows are lost."
            )
        if same_answers and then["engine_version"] == now["engine_version"] and then["answer_sha256"] != now["answer_sha256"]:
            problems.append(
                f"{now['name']} answers the same question differently than before, with the same model and engine. If that is meant to be, "
                "set rollout_same_answers to false."
            )
    return problems
