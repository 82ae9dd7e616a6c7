# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Learning from measured starts: the engine's start-up log as a ledger entry, and a ledger as a correction of the prediction.

A ledger is a list of entries. An entry is a dict with the keys of KEYS: what was started (model, card, tensor_parallel_size,
pipeline_parallel_size, version), what the engine logged in bytes (total, budget, weights, non_torch, activation, kv_cache, cuda_graphs) and in
counts (gpu_blocks, cpu_blocks, kv_tokens), and under predicted the same terms as the plan had them. A term that the log does not have is null.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable

from .hardware import GIB
from .instance import plain
from .memory import Correction, Rank

IDENTITY = ("model", "card", "tensor_parallel_size", "pipeline_parallel_size", "version")
TERMS = ("total", "budget", "weights", "non_torch", "activation", "kv_cache", "cuda_graphs")
COUNTS = ("gpu_blocks", "cpu_blocks", "kv_tokens")
KEYS = (*IDENTITY, "core", *TERMS, *COUNTS, "predicted")

# A measured term is believed only this near to the predicted one: what lies further off is another model or a broken log.
MOST_WEIGHTS, MOST_ACTIVATION, MOST_NON_TORCH = 0.25, 3.0, 4 * GIB

NUMBER = r"(-?\d+(?:\.\d+)?)"
SIZE = rf"{NUMBER} ?(GiB|GB|MiB)"  # the engine writes GB where it means GiB

# The line that a term is found in, in the words of the versions named.
PATTERNS = {
    # V0 from 0.6.5 on, in one record of several lines.
    "total": rf"total_gpu_memory \({SIZE}\)",
    "budget": rf"gpu_memory_utilization \({NUMBER}\) = {SIZE}",
    "weights": rf"model weights take {SIZE}",
    "non_torch": rf"non_torch_memory takes {SIZE}",
    "activation": rf"PyTorch activation peak memory takes {SIZE}",
    "kv_cache": rf"reserved for KV Cache is {SIZE}",
    # V0 0.6.4, all in one line.
    "total_064": rf"total_gpu_memory={SIZE}",
    "non_torch_064": rf"non_torch_memory={SIZE}",
    "peak_064": rf"peak_torch_memory={SIZE}",
    "kv_cache_064": rf"kv_cache_size={SIZE}",
    # Any version, while loading: "Loading model weights took", "Model loading took 7.1 GiB memory and 12.3 seconds".
    "loaded": rf"(?:Loading model weights took|[Mm]odel loading took) {SIZE}",
    # V1.
    "available": rf"Available KV cache memory: {SIZE}",
    "v1_actual": rf"Actual usage is {SIZE} for weights?, {SIZE} for peak activation, {SIZE} for non-torch memory, and {SIZE} for CUDAGraph memory",
    "v1_free": rf"Free memory on device \({NUMBER}/{SIZE}\)",
    # Graphs, blocks and tokens.
    "cuda_graphs": rf"Graph capturing finished in .*?took {SIZE}",
    "gpu_blocks": r"# (?:GPU|cuda|CUDA) blocks: ([\d,]+)",
    "cpu_blocks": r"# CPU blocks: ([\d,]+)",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "version": r"(?:LLM engine|vLLM API server version|vLLM API server version:?) \(?v?(\d+\.\d+\.\d+(?:\.?(?:post|rc|dev)\d+)?)",
}
PATTERNS = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def parse(text: str) -> dict:
    """The terms that a start-up log tells: the keys core, version, TERMS and COUNTS, null where the log is silent.

    Lines may end in \\r, and carry colours. With several ranks in one log every term is that of the rank with the least KV cache, since that
    one sets the blocks; a log of several starts tells the last. Sizes are as exact as the log, which prints two decimals of a GiB.
    """
    text = COLOUR.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    text = text[_last_start(text) :]
    entry = dict.fromkeys((*TERMS, *COUNTS, "core", "version"))
    for key in COUNTS:
        if match := PATTERNS[key].search(text):
            entry[key] = int(match[1].replace(",", ""))
    # The version stands in the lines above the last record of sizes too.
    if versions := PATTERNS["version"].findall(text):
        entry["version"] = versions[-1]
    loaded = _sizes("loaded", text)
    if match := _last(PATTERNS["v1_actual"], text):
        entry["core"] = "V1"
        for position, key in ((1, "weights"), (3, "activation"), (5, "non_torch"), (7, "cuda_graphs")):
            entry[key] = _bytes(match[position], match[position + 1])
    if match := PATTERNS["v1_free"].search(text):
        entry["total"] = _bytes(match[2], match[3])
    if available := _sizes("available", text):
        entry |= {"core": "V1", "kv_cache": min(available)}
    record = _record(text)
    if record:
        entry |= {"core": "V0", **record}
    if entry["weights"] is None and loaded:
        entry["weights"] = max(loaded)
    if "peak_064" in entry:
        peak = entry.pop("peak_064")
        entry["activation"] = peak - entry["weights"] if entry["weights"] is not None else None
    if graphs := _sizes("cuda_graphs", text):
        entry["cuda_graphs"] = graphs[0]
    return entry


def entry(text: str, plan: dict | None = None, **identity) -> dict:
    """A ledger entry: what the log tells, what was started (the keys of IDENTITY), and what the plan had predicted for its tightest rank."""
    found = parse(text)
    named = {key: identity[key] if identity.get(key) is not None else found.get(key) for key in IDENTITY}
    predicted = None
    if plan is not None:
        rank = min(plan["memory"]["per_rank"], key=lambda rank: rank["kv_cache"])
        predicted = {term: rank[term] for term in TERMS} | {"gpu_blocks": plan["kv"]["blocks"]}
    return {**dict.fromkeys(KEYS), **found, **named, "predicted": predicted}


def correction(ledger, model: str, card: str, tensor_parallel_size: int, version: str) -> Correction:
    """What the ledger's entries for that model, card, number of ranks and engine version teach.

    Entries without predicted terms, entries of other starts and malformed ones are passed over. Of several entries the median counts: the
    difference of weights and of non-torch memory, and the ratio of activation, which grows with the batch that was profiled.
    """
    if not ledger:
        return Correction()
    weights, activation, non_torch = [], [], []
    for measured, predicted in _matching(ledger, (model, card, tensor_parallel_size, version)):
        if _both(measured, predicted, "weights") and abs(measured["weights"] - predicted["weights"]) <= MOST_WEIGHTS * predicted["weights"]:
            weights.append(measured["weights"] - predicted["weights"])
        if _both(measured, predicted, "activation") and 1 / MOST_ACTIVATION <= measured["activation"] / predicted["activation"] <= MOST_ACTIVATION:
            activation.append(measured["activation"] / predicted["activation"])
        if _both(measured, predicted, "non_torch") and abs(measured["non_torch"] - predicted["non_torch"]) <= MOST_NON_TORCH:
            non_torch.append(measured["non_torch"] - predicted["non_torch"])
    return Correction(
        weights=int(statistics.median(weights)) if weights else 0,
        activation=float(statistics.median(activation)) if activation else 1.0,
        non_torch=int(statistics.median(non_torch)) if non_torch else 0,
    )


def measured_beside(entry: dict, rank: Rank) -> list[tuple[str, int | None, int]]:
    """(term, measured, predicted) for a report, in the order of TERMS."""
    return [(term, entry.get(term), getattr(rank, term)) for term in TERMS]


# -- Parts ---------------------------------------------------------------------------------------------------------------------------------


def _last_start(text: str) -> int:
    """Where the last start in the log begins: the API server says its version once for each start."""
    starts = [match.start() for match in re.finditer(r"vLLM API server version", text)]
    return starts[-1] if starts else 0


def _record(text: str) -> dict:
    """The V0 record of the rank with the least KV cache: the terms that stand between one line of totals and the next."""
    records = []
    starts = [match.start() for match in re.finditer(r"total_gpu_memory \(|total_gpu_memory=", text)]
    for start, end in itertools.pairwise([*starts, len(text)]):
        part, terms = text[start:end], {}
        for key in ("total", "weights", "non_torch", "activation", "kv_cache"):
            if match := PATTERNS[key].search(part):
                terms[key] = _bytes(match[1], match[2])
        for key in ("total", "non_torch", "peak", "kv_cache"):
            if match := PATTERNS[f"{key}_064"].search(part):
                terms[key if key != "peak" else "peak_064"] = _bytes(match[1], match[2])
        if match := PATTERNS["budget"].search(part):
            terms["budget"] = _bytes(match[2], match[3])
        records.append(terms)
    return min(records, key=lambda terms: terms.get("kv_cache", float("inf")), default={})


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    """The last match: V1 logs one for each rank, and they are alike."""
    return next(reversed(list(pattern.finditer(text))), None)


def _sizes(name: str, text: str) -> list[int]:
    return [_bytes(match[1], match[2]) for match in PATTERNS[name].finditer(text)]


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * (1024**2 if unit == "MiB" else GIB))


def _matching(ledger, wanted: tuple) -> Iterable[tuple[dict, dict]]:
    if not isinstance(ledger, (list, tuple)):
        return
    for item in plain(list(ledger)):
        if not isinstance(item, dict) or not isinstance(item.get("predicted"), dict):
            continue
        if tuple(item.get(key) for key in ("model", "card", "tensor_parallel_size", "version")) == wanted:
            yield item, item["predicted"]


def _both(measured: dict, predicted: dict, term: str) -> bool:
    """Whether both have the term as a positive number."""
    values = (measured.get(term), predicted.get(term))
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in values)
