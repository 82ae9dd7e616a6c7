# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps down from a plan that fits: what to give up, in which order, when the card turns out to have less than was thought.

A step is on the ladder only when the model of memory says that it needs less than the one before, on every card, and that it still fits.
Two sizes are compared for each card:

    need   what the plan cannot do without: weights + activation + non_torch + cuda_graphs + the KV cache of one sequence of max_model_len
    taken  what it takes: budget + cuda_graphs, because the KV cache fills whatever the budget leaves (V0 captures graphs outside of it)

Neither may rise, and one must fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from . import options as engine_options
from .judgement import Case, Judgement

LEAST_SEQUENCES, LEAST_BATCH, LEAST_CONTEXT = 1, 256, 1024
UTILIZATION_STEP, LEAST_UTILIZATION = 0.05, 0.1
MOST_OFFLOAD_GIB = 4


class Rung(NamedTuple):
    """One step: why it helps, the options that differ from the step before, and the whole plan judged."""

    reason: str
    changes: dict
    judged: Judgement


def sizes(judged: Judgement) -> list[tuple[int, int]]:
    """(need, taken) of every card, in bytes."""
    found = judged.prediction
    blocks = math.ceil(found.max_model_len / found.block_size)
    cache, charged = blocks * found.block_bytes, judged.settings.charges_graphs
    return [
        (rank.weights + rank.activation + rank.non_torch + rank.cuda_graphs + cache, rank.budget + (0 if charged else rank.cuda_graphs))
        for rank in found.ranks
    ]


def needs_less(lower: list[tuple[int, int]], upper: list[tuple[int, int]]) -> bool:
    """Whether the sizes of one plan are less than those of another, on every card."""
    return len(lower) == len(upper) and all(a <= b and c <= d and (a, c) != (b, d) for (a, c), (b, d) in set(zip(lower, upper, strict=True)))


def ladder(case: Case, judged: Judgement) -> list[Rung]:
    """The steps down from a plan that fits, in the order in which a watchdog takes them: what hurts its users least comes first."""
    rungs, before = [], sizes(judged)
    for reason, step in STEPS:
        changes = step(judged)
        if not changes or not changes.keys() <= engine_options.schema(case.version).keys():
            continue
        lower = judged.but(changes)
        if lower.fits and needs_less(after := sizes(lower), before):
            rungs.append(Rung(reason, changes, lower))
            judged, before = lower, after
    return rungs


# -- The steps -----------------------------------------------------------------------------------------------------------------------------


def _fewer_sequences(judged: Judgement) -> dict | None:
    seqs = judged.settings.max_num_seqs
    return {"max_num_seqs": max(LEAST_SEQUENCES, seqs // 2)} if seqs > LEAST_SEQUENCES else None


def _smaller_batch(judged: Judgement) -> dict | None:
    """Half the tokens of a batch. Without chunked prefill a batch holds a whole context, and becomes smaller with it alone."""
    now, seqs = judged.settings.max_num_batched_tokens, judged.settings.max_num_seqs
    least = max(LEAST_BATCH, seqs) if judged.settings.enable_chunked_prefill else max(judged.settings.max_model_len, seqs)
    return {"max_num_batched_tokens": max(least, now // 2)} if now > least else None


def _shorter_context(judged: Judgement) -> dict | None:
    """Half the context, and with it whatever was as large because of it."""
    settings = judged.settings
    length = settings.max_model_len // 2
    if length < LEAST_CONTEXT:
        return None
    changes = {"max_model_len": length}
    if settings.max_num_batched_tokens > length and not settings.enable_chunked_prefill:
        changes["max_num_batched_tokens"] = max(length, settings.max_num_seqs)
    if (captured := judged.options.get("max_seq_len_to_capture")) and captured > length:
        changes["max_seq_len_to_capture"] = length
    return changes


def _eager(judged: Judgement) -> dict | None:
    return None if judged.settings.enforce_eager else {"enforce_eager": True}


def _lower_utilization(judged: Judgement) -> dict | None:
    lower = round(judged.settings.gpu_memory_utilization - UTILIZATION_STEP, 4)
    return {"gpu_memory_utilization": lower} if lower >= LEAST_UTILIZATION else None


def _offload(judged: Judgement) -> dict | None:
    """More weights to RAM: slow, and the last thing to give up."""
    now = judged.settings.cpu_offload_bytes / 1024**3
    return {"cpu_offload_gb": math.floor(now) + MOST_OFFLOAD_GIB}


STEPS: tuple[tuple[str, Callable[[Judgement], dict | None]], ...] = (
    ("fewer sequences at once: less for the sampler and fewer CUDA graphs", _fewer_sequences),
    ("a smaller batch: less for activations", _smaller_batch),
    ("a shorter context: less KV cache for one sequence", _shorter_context),
    ("fewer sequences at once: less for the sampler and fewer CUDA graphs", _fewer_sequences),
    ("no CUDA graphs: slower decoding", _eager),
    ("a smaller share of the card", _lower_utilization),
    ("a smaller share of the card", _lower_utilization),
    ("weights in RAM: much slower", _offload),
)
