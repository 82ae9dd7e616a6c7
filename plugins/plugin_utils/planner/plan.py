# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of an instance on a host: the decision, its reasons and its price."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from . import judgement, ladder, lanes, nearest, solve, start
from . import options as engine_options
from .command import command
from .judgement import Case, Judgement
from .problem import PlanRefused, Problem

TERMS = ("total", "budget", "weights", "activation", "non_torch", "kv_cache", "cuda_graphs")
KV = ("bytes_per_token", "block_size", "blocks", "tokens", "max_concurrency")


def plan(instance, host, model_config, ledger=(), tensor_bytes=None, accounting=None) -> dict:
    """Decide whether and how an instance runs on a host, from plain types to plain types. Nothing that the arguments hold makes it raise.

    instance: one entry of vllm_instances. host: what gpu_facts returns, or gpuhosts_hardware. model_config: the checkpoint's config.json.
    ledger: measured starts, see calibration.py. tensor_bytes: true sizes, see model.read. accounting: a version without a lane whose memory
    accounting takes the place of the engine's own, for logs of such versions (tools/accuracy.py): options and rules stay those of engine_version.

    The profile as_given passes the options on; the others let solve.py choose what the options leave open. Returned are

        verdict    "fits" or "refused"; refusals and warnings: [{code, message, remedy}]
        engine     {version, core, attention}, null where it was not judged
        options    the final option map;  reasons: {option: why}, for those that the profile decided
        argv, env  the engine's, empty when refused
        hang_argv  what to append to argv, or to a step's, once the cards were seen to hang; empty where there is no such answer, and when refused
        ready_seconds  the longest that a start may take until the first completion, see start.py; null when refused
        memory     {per_rank: [{total, budget, weights, activation, non_torch, kv_cache, cuda_graphs}]}, bytes; of a refused plan as it would be,
                   with a negative kv_cache for what is missing, and without ranks where their shape is not defined
        kv         {bytes_per_token, block_size, blocks, tokens, max_concurrency}; max_concurrency counts sequences of max_model_len
        ladder     [{reason, changes, options, argv, kv}], the steps down, each with less than the one before
        lanes      [{verdict, refusals, engine, changes: [{name, change}], kv}], the same instance on every other engine
    """
    try:
        case = judgement.read(instance, host, model_config, ledger, tensor_bytes, accounting)
        solution = solve.solve(case)
    except PlanRefused as refusal:
        return refused(refusal.problems, instance)
    judged, case = solution.judged, solution.judged.case
    refusals = _with_remedies(case, judged)
    fits = not refusals
    return {
        "verdict": "fits" if fits else "refused",
        "refusals": _plain(refusals),
        "warnings": _plain(judged.warnings),
        "engine": _engine(case.version, judged),
        "options": dict(judged.options),
        "reasons": solution.reasons,
        "argv": command(case.instance, judged.options) if fits else [],
        "env": dict(case.instance["env"]) if fits else {},
        "hang_argv": start.hang_argv(case, judged) if fits else [],
        "ready_seconds": start.ready_seconds(case, judged) if fits else None,
        "memory": {"per_rank": _ranks(judged)},
        "kv": _kv(judged),
        "ladder": [_rung(case, rung) for rung in ladder.ladder(case, judged)] if fits else [],
        "lanes": [_lane(case, judged, version) for version in lanes.LANES if version != case.version],
    }


# -- Parts ---------------------------------------------------------------------------------------------------------------------------------


def _kv(judged: Judgement) -> dict:
    """The KV cache in plain types, null where it is not known. A cache that does not fit has 0 blocks."""
    found = judged.prediction
    if found is None:
        return dict.fromkeys(KV)
    return {
        "bytes_per_token": found.bytes_per_token,
        "block_size": found.block_size,
        "blocks": found.blocks,
        "tokens": found.tokens,
        "max_concurrency": round(found.max_concurrency, 2),
    }


def refused(problems: Iterable[Problem], instance) -> dict:
    """The plan of what could not even be read: every key is there."""
    version = instance.get("engine_version", lanes.DEFAULT) if isinstance(instance, dict) else None
    return {
        "verdict": "refused",
        "refusals": _plain(problems),
        "warnings": [],
        "engine": {"version": str(version) if isinstance(version, str) else None, "core": None, "attention": None},
        "options": {},
        "reasons": {},
        "argv": [],
        "env": {},
        "hang_argv": [],
        "ready_seconds": None,
        "memory": {"per_rank": []},
        "kv": dict.fromkeys(KV),
        "ladder": [],
        "lanes": [],
    }


def _with_remedies(case: Case, judged: Judgement) -> list[Problem]:
    """The refusals. Where memory alone is missing, the remedy of the first one names the nearest plans, each of which has been judged."""
    refusals = list(judged.refusals)
    if judged.memory_refusal:
        refusals[0] = dataclasses.replace(refusals[0], remedy=nearest.in_words(case, nearest.nearest(case, judged)))
    return refusals


def _plain(problems: Iterable[Problem]) -> list[dict]:
    return [dict(vars(problem)) for problem in problems]


def _engine(version: str, judged: Judgement) -> dict:
    facts = judged.facts
    return {"version": version, "core": facts.core if facts else None, "attention": facts.attention if facts else None}


def _ranks(judged: Judgement) -> list[dict]:
    ranks = judged.prediction.ranks if judged.prediction else ()
    return [{term: getattr(rank, term) for term in TERMS} for rank in ranks]


def _rung(case: Case, rung: ladder.Rung) -> dict:
    options = dict(rung.judged.options)
    return {"reason": rung.reason, "changes": dict(rung.changes), "options": options, "argv": command(case.instance, options), "kv": _kv(rung.judged)}


def _lane(case: Case, judged: Judgement, version: str) -> dict:
    """The same instance on another engine: what would be written otherwise, and what would come of it."""
    translated = lanes.translate(case.version, version, judged.options, case.instance["env"], engine_options.schema(version), case.sm)
    other = dataclasses.replace(case, instance={**case.instance, "engine_version": version, "env": translated.env}, accounting=None)
    found = Judgement(other, translated.options)
    changes = [*translated.changes, *((name, f'"1" in env, because {reason}') for name, reason in solve.environment(other).items())]
    return {
        "verdict": "fits" if found.fits else "refused",
        "refusals": _plain(found.refusals),
        "engine": _engine(version, found),
        "changes": [{"name": name, "change": change} for name, change in changes],
        "kv": _kv(found),
    }
