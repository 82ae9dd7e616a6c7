# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nearest plans that fit where one lacks memory: single changes of its options, each of which has been judged."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Iterator

from . import memory
from .judgement import MEMORY_CODES, ROOM_CODES, Case, Judgement

HIGHEST_UTILIZATION = 0.95


def nearest(case: Case, judged: Judgement) -> list[dict]:
    """Single changes of the options, each of which makes a plan that lacks only memory fit; every one has been judged.

    A change of tensor_parallel_size may need more cards of the same kind than the instance has.
    """
    found = []
    for changes in (_utilization(judged), _ranks(case, judged), _offload(judged), *_less(judged)):
        if changes:
            found.append(changes)
    return found


def in_words(case: Case, changes: list[dict]) -> str:
    """The changes as a remedy: "Set cpu_offload_gb to 17, or tensor_parallel_size to 2 (on 2 such cards)."."""
    if not changes:
        return "Use more or larger cards, or a smaller checkpoint: no single change of the options makes it fit."
    words = []
    for change in changes:
        parts = []
        for name, value in change.items():
            ranks = value * (case.instance["options"].get("pipeline_parallel_size") or 1)
            more = f" (on {ranks} such cards)" if name == "tensor_parallel_size" and ranks > len(case.cards) else ""
            parts.append(f"{name} to {value:g}{more}" if isinstance(value, float) else f"{name} to {value}{more}")
        words.append(" and ".join(parts))
    return f"Nearest plans that fit: set {', or '.join(words)}."


def _utilization(judged: Judgement) -> dict | None:
    """The lowest share of the card, in whole percent: first one that has room for any KV cache, then, found by halving, for enough of it.

    They are two questions, because a plan that only the margin lets fit comes before plans whose KV cache is too small.
    """
    shares = [value / 100 for value in range(math.floor(judged.settings.gpu_memory_utilization * 100) + 1, round(HIGHEST_UTILIZATION * 100) + 1)]
    # What is taken before the KV cache does not depend on the share, so that a smaller one leaves no room for certain.
    least = min((rank.budget - rank.kv_cache) / rank.total for rank in judged.prediction.ranks) / (1 + memory.MARGIN)

    @functools.cache
    def tried(share: float) -> Judgement:
        return judged.but({"gpu_memory_utilization": share})

    start = next((index for index, share in enumerate(shares) if share > least and not ROOM_CODES & tried(share).codes), len(shares))
    if start < len(shares) and not tried(shares[start]).fits:
        start = bisect.bisect_left(shares, True, start, key=lambda share: tried(share).fits)
    return {"gpu_memory_utilization": shares[start]} if start < len(shares) else None


def _ranks(case: Case, judged: Judgement) -> dict | None:
    """The next sizes of tensor parallelism, on cards like the first where the instance has too few."""
    for size in (2, 4, 8, 16):
        if size <= judged.facts.tp:
            continue
        missing = size * judged.facts.pp - len(case.cards)
        wider = dataclasses.replace(case, cards=(*case.cards, *[case.cards[0]] * missing)) if missing > 0 else case
        changes = {"tensor_parallel_size": size}
        if Judgement(wider, {**judged.options, **changes}).fits:
            return changes
    return None


def _offload(judged: Judgement) -> dict | None:
    """The fewest whole GiB of weights per card that go to RAM; found by halving, because more offload never needs more of the card."""
    ranks, now = judged.prediction.ranks, judged.settings.cpu_offload_bytes
    low = math.floor(now / memory.GIB)
    high = low + math.ceil(max(rank.weights for rank in ranks) / memory.GIB)
    # So many bytes are too few for certain: offload moves no more than its own size, but for what latent attention makes of it.
    missing = 0 if judged.facts.model.latent else now + min(-rank.kv_cache - memory.MARGIN * rank.budget for rank in ranks)
    found = None
    while high - low > 1:
        middle = (low + high) // 2
        if middle * memory.GIB < missing or MEMORY_CODES & (tried := judged.but({"cpu_offload_gb": middle})).codes:
            low = middle
        else:
            high, found = middle, tried
    found = found or judged.but({"cpu_offload_gb": high})
    return {"cpu_offload_gb": high} if found.fits else None


def _less(judged: Judgement) -> Iterator[dict]:
    """A shorter context, a smaller batch, fewer sequences. None of them helps where the weights alone take more than the budget."""
    if all(rank.weights + rank.non_torch >= (1 + memory.MARGIN) * rank.budget for rank in judged.prediction.ranks):
        return
    tokens, block = judged.prediction.longest, judged.prediction.block_size
    if tokens >= 2 * block:
        yield from _first(judged, [{"max_model_len": tokens // 1024 * 1024 if tokens >= 1024 else tokens}])
    lengths = [2**power for power in range(15, 8, -1) if 2**power < judged.settings.max_model_len]
    if tokens < 2 * block:
        yield from _first(judged, [{"max_model_len": length, "max_num_batched_tokens": max(length, judged.settings.max_num_seqs)} for length in lengths])
    seqs = [2**power for power in range(7, -1, -1) if 2**power < judged.settings.max_num_seqs]
    yield from _first(judged, [{"max_num_seqs": count} for count in seqs])


def _first(judged: Judgement, candidates: list[dict]) -> Iterator[dict]:
    for changes in candidates:
        if judged.but(changes).fits:
            yield changes
            return
