# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All instances of a host, planned together and written out for people."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap

from . import cluster, together
from . import instance as contract
from .plan import plan
from .problem import PlanRefused, Problem

GIB = 1024**3
BAR, WIDTH = 48, 72
# The parts of a card in the order of the bar, and their letters.
PARTS = (("weights", "W"), ("activation", "A"), ("non_torch", "N"), ("kv_cache", "K"), ("cuda_graphs", "G"))


def host_plan(instances, host, models, ledger=(), name: str = "", members=None) -> dict:
    """The plans of a host's whole vllm_instances, as plain types: {verdict, problems, plans: {instance: plan}, text}.

    models: hub id -> config.json. problems are those between instances, [{code, message, remedy}]: ports and names that two of them share, cards
    that have no room for all that share them, and swap that does not fit the RAM together. verdict is "refused" when there is such a problem or one
    of the plans is refused. name: the host's. members: the hosts that instances with the key hosts name, see cluster.py.
    """
    try:
        instances, host, models = (contract.plain(part) for part in (instances, host, models))
    except PlanRefused as refused:
        problems = [dataclasses.asdict(problem) for problem in refused.problems]
        return {"verdict": "refused", "problems": problems, "plans": {}, "text": "\n".join(_problems("refused", problems))}
    instances = [] if instances is None else instances
    listed = instances if isinstance(instances, list) else []
    plans, made, parts = {}, [], []
    for number, given in enumerate(listed, 1):
        label = str(given.get("name") or number) if isinstance(given, dict) else str(number)
        label = label if label not in plans else f"{label} ({number})"
        found = _one(given, host, models, ledger, name, members)
        plans[label] = found
        made.append(found)
        parts.append(text(found, given, f"{name}/{label}" if name else label))
    problems = [dataclasses.asdict(problem) for problem in together.problems(instances, host, made)]
    refused = problems or any(found["verdict"] == "refused" for found in made)
    if not listed:
        parts.append(f"{name or 'The host'}: no instance is asked for.")
    parts += _problems("refused", problems)
    return {"verdict": "refused" if refused else "fits", "problems": problems, "plans": plans, "text": "\n".join(parts)}


def text(found: dict, given, title: str = "") -> str:
    """A plan as a table for a terminal: asked, decided and why, memory of every card, KV cache, start, steps down, warnings, refusals."""
    given = given if isinstance(given, dict) else {}
    engine, lines = found["engine"], []
    what = f"vLLM {engine['version']}" + (f", {engine['core']}, {engine['attention']}" if engine["core"] else "")
    lines.append(f"{title}: {given.get('model')} on {what}: {found['verdict'].upper()}")
    lines.append(_row("asked", f"profile {given.get('profile') or contract.KEYS['profile'].default}"))
    for key in ("objective", "options"):
        lines += [_row("", f"{key}: {_words(given[key])}")] if isinstance(given.get(key), dict) and given[key] else []
    for label, (name, reason) in zip(itertools.chain(["decided"], itertools.repeat("")), found["reasons"].items(), strict=False):
        lines.append(_row(label, f"{name} {_word(found['options'].get(name, found['env'].get(name)))}: {reason}"))
    lines += [_row(label, words) for label, words in cluster.rows(found)]
    lines += _memory(found["memory"]["per_rank"])
    if (kv := found["kv"])["tokens"] is not None:
        each = f"{kv['bytes_per_token'] / 1024:g} KiB per token and card"
        lines.append(_row("KV cache", f"{kv['tokens']} tokens ({kv['blocks']} blocks of {kv['block_size']}, {each})"))
        lines.append(_row("", f"{kv['max_concurrency']:g} sequences of the longest context at once"))
    if found["ready_seconds"] is not None:
        lines.append(_row("start", f"may take up to {found['ready_seconds']} s until the first completion"))
    for number, rung in enumerate(found["ladder"], 1):
        lines.append(_row("steps down" if number == 1 else "", f"{number}. {_words(rung['changes'])}: {rung['reason']}"))
    for label, other in zip(itertools.chain(["other lanes"], itertools.repeat("")), found["lanes"], strict=False):
        changes = [] if other["refusals"] else other["changes"]
        lines += [_row(label, _lane(other)), *(_row("", f"- {each['name']}: {each['change']}") for each in changes)]
    return "\n".join([*lines, *_problems("warning", found["warnings"]), *_problems("refused", found["refusals"])])


# -- Parts ---------------------------------------------------------------------------------------------------------------------------------


def _one(given, host, models: dict, ledger, name: str, members) -> dict:
    """The plan of one instance; a model without a config.json is named."""
    model = given.get("model") if isinstance(given, dict) else None
    config = models.get(model) if isinstance(model, str) else None
    several = isinstance(given, dict) and given.get("hosts")
    found = cluster.plan(given, members, config, ledger, name=name) if several else plan(given, host, config, ledger)
    if isinstance(model, str) and config is None:
        missing = Problem("no_model_config", f"The config.json of {model} is not among the models.", "Give it under the model's hub id.")
        found["refusals"] = [dataclasses.asdict(missing) if each["code"] == "model_not_a_mapping" else each for each in found["refusals"]]
    return found


def _row(label: str, words: str) -> str:
    """A labelled paragraph; a label that is empty continues the one above."""
    return textwrap.fill(words, WIDTH, initial_indent=f"  {label:<11} ", subsequent_indent=" " * 14, break_long_words=False, break_on_hyphens=False)


def _word(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(mapping: dict) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in mapping.items())


def _lane(other: dict) -> str:
    """What becomes of the instance on another engine, in one line."""
    engine, tokens = other["engine"], other["kv"]["tokens"]
    if other["refusals"]:
        return f"vLLM {engine['version']}: refused. {other['refusals'][0]['message']} {other['refusals'][0]['remedy']}"
    return f"vLLM {engine['version']}, {engine['core']}, {engine['attention']}: fits, {tokens} tokens of KV cache"


def _problems(label: str, problems: list[dict]) -> list[str]:
    return [_row(label, f"{problem['code']}: {problem['message']} {problem['remedy']}") for problem in problems]


def _memory(ranks: list[dict]) -> list[str]:
    """One bar for each kind of card, alike ones together: # of the card's memory as the engine sees it, in the parts of PARTS."""
    lines, first = [], 0
    for rank, group in itertools.groupby(ranks, key=lambda rank: tuple(rank.values())):
        count, values = len(list(group)), dict(zip(ranks[0], rank, strict=True))
        which = f"rank {first}" if count == 1 else f"ranks {first}-{first + count - 1}"
        free = values["total"] - sum(max(0, values[part]) for part, letter in PARTS)
        sizes = ", ".join(f"{letter} {part} {values[part] / GIB:.2f}" for part, letter in PARTS)
        lines.append(_row("memory" if not first else "", f"{which}, {values['total'] / GIB:.2f} GiB, budget {values['budget'] / GIB:.2f}"))
        lines += [_row("", f"[{_bar(values)}]"), _row("", f"{sizes}, free {free / GIB:.2f} GiB")]
        first += count
    return lines


def _bar(values: dict) -> str:
    """The card as BAR letters; what goes beyond it is cut off, and marked."""
    drawn, end = "", 0
    for part, letter in PARTS:
        end += max(0, values[part])
        # One letter over the bar is enough to see that it is too long: a part can be a million cards.
        drawn += letter * (min(round(end / values["total"] * BAR), BAR + 1) - len(drawn))
    return drawn.ljust(BAR, ".") if len(drawn) <= BAR else drawn[: BAR - 1] + ">"
