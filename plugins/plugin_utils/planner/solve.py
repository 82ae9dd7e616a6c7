# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Choosing what an instance leaves open: how many cards share the model, how long its context is, how many sequences run at once.

    throughput   many sequences, the model's whole context, as much of the card as is safe
    latency      the same with few sequences and small batches, so that nobody waits for another's prompt
    low_memory   short context, few sequences, no CUDA graphs, and then the smallest share of the card that holds them; weights go to RAM last

An option that the user gives is never changed; every choice is made around it, and the whole is judged by the same rules as any plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import lanes, memory, options
from .facts import SIZES, Facts
from .judgement import MEMORY_CODES, Case, Judgement
from .model import Model
from .problem import Problem
from .settings import Settings

GIB = memory.GIB
# Kept free of the budget and the CUDA graphs: the CUDA context (0.28 to 0.47 GiB, see fitted.py) and what fragments.
SPARE_BYTES = GIB // 2
HIGHEST_UTILIZATION = 0.95
SWAP_SHARE = 0.4  # of RAM: above it the engine warns
OFFLOADED_CONTEXT = 2048  # with weights in RAM a long context costs more offload
CAPTURED = 8192  # the engine's own max_seq_len_to_capture
# Other choices of the option quantization, or none, are tried only where one of these refuses the engine's own.
QUANTIZATION_CODES = frozenset({"quantization_capability", "quantization_not_in_engine", "gptq_picks_bitblas", "quantized_experts_need_wna16"})


@dataclass(frozen=True, slots=True)
class Profile:
    """sequences: the most at once. batch: tokens of one step with chunked prefill. typical: tokens of a sequence for which the cache has room
    on average. context: the longest that is tried without an objective, None for the model's own."""

    sequences: int
    batch: int
    typical: int
    context: int | None = None
    frugal: bool = False


PROFILES = {
    "throughput": Profile(sequences=256, batch=4096, typical=2048),
    "latency": Profile(sequences=16, batch=2048, typical=2048),
    "low_memory": Profile(sequences=8, batch=512, typical=1024, context=8192, frugal=True),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """What a solved plan must reach. context: tokens of one sequence. concurrency: whole contexts in the KV cache at once.

    max_gpu_memory_gib: of one card, with the CUDA graphs and SPARE_BYTES.
    """

    context: int | None = None
    concurrency: int | None = None
    max_gpu_memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """The options of an instance, judged, of a case with its environment; for each option and variable that was chosen, why it has its value."""

    judged: Judgement
    reasons: dict[str, str]


def solve(case: Case) -> Solution:
    """What an instance leaves open, chosen. The profile as_given chooses nothing.

    What fits nowhere for sure is returned as it was tried first, with its refusals, or with the warning that it may just fit.
    """
    profile = PROFILES.get(case.instance["profile"])
    if profile is None:
        return Solution(Judgement(case, case.instance["options"]), {})
    chosen = environment(case)
    if chosen:
        case = dataclasses.replace(case, instance={**case.instance, "env": {**case.instance["env"], **dict.fromkeys(chosen, "1")}})
    judged, reasons = _options(case, profile)
    return Solution(judged, {**reasons, **chosen})


def environment(case: Case) -> dict[str, str]:
    """The variables that the engine's image needs on this host, each with its reason; all of them are switches, with the value "1"."""
    if lanes.image_problem(case.version, case.host.driver_version, case.instance["env"]) is None:
        return {}
    return {lanes.DISABLE_REQUIRE: f"the image asks for a newer CUDA than driver {case.host.driver_version} names, although it runs there"}


def _options(case: Case, profile: Profile) -> tuple[Judgement, dict[str, str]]:
    """The options, judged, and the reasons of those that were chosen: the first shape of ranks in which everything surely fits."""
    objective = Objective(**(case.instance["objective"] or {}))
    first = None
    for draft in _shapes(case):
        judged = _sized(draft, profile, objective)
        if judged.sure:
            return judged, draft.reasons
        first = first or (judged, dict(draft.reasons))
        if profile.frugal and (judged.fits or judged.memory_refusal):
            judged = _offloaded(draft, profile, objective)
            if judged.sure:
                return judged, draft.reasons
    if first is None:
        draft = _base(case, 1, 1)
        first = (draft.judge(), draft.reasons)
    return first


# -- A draft -------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Draft:
    """Options in the making: what the user gave, and what was chosen around it with its reason.

    judged: the options as they are now, where that was asked for. base: the same with none of facts.SIZES chosen yet, once all others are.
    """

    case: Case
    chosen: dict = field(default_factory=dict)
    reasons: dict = field(default_factory=dict)
    judged: Judgement | None = None
    base: Judgement | None = None

    def __post_init__(self):
        self.given = {name: value for name, value in self.case.instance["options"].items() if value is not None}
        self.schema = options.schema(self.case.version)

    def set(self, name: str, value, reason: str) -> None:
        """Choose a value, unless the user did or this engine does not have the option. None takes a choice back."""
        if name in self.given or name not in self.schema:
            return
        self.judged = None
        self.chosen.pop(name, None)
        self.reasons.pop(name, None)
        if value is not None:
            self.chosen[name], self.reasons[name] = value, reason

    def size(self, name: str, value: int, reason: str) -> int:
        """Choose one of facts.SIZES. Returned is what holds: the value, or the user's own."""
        self.set(name, value, reason)
        return value if name in self.chosen else getattr(self.base.settings, name)

    def judge(self) -> Judgement:
        """The options judged."""
        if self.judged is None and self.base:
            self.judged = self.base.but({name: value for name, value in self.chosen.items() if name in SIZES})
        elif self.judged is None:
            self.judged = Judgement(self.case, {**self.given, **self.chosen})
        return self.judged


def _shapes(case: Case) -> Iterator[Draft]:
    """Drafts by the number of cards, most first, and of these those with the most tensor parallelism, as far as the rules allow."""
    seen = []
    for ranks in range(len(case.cards), 0, -1):
        for tensor in (size for size in range(ranks, 0, -1) if ranks % size == 0):
            draft = _base(case, tensor, ranks // tensor)
            if draft.chosen in seen:
                continue
            seen.append(dict(draft.chosen))
            draft.base = draft.judge()
            if draft.base.codes <= MEMORY_CODES | {"batched_tokens_below_context", "context_over_model"}:
                yield draft
                break


def _base(case: Case, tensor: int, stages: int) -> Draft:
    """What does not depend on the memory: the split, the number format, the kernels."""
    draft, lane, capability = Draft(case), lanes.lane(case.version), f"{case.sm // 10}.{case.sm % 10}"
    shared = f"{tensor} of the instance's {len(case.cards)} cards share every layer" if tensor > 1 else "every layer is on one card"
    draft.set("tensor_parallel_size", tensor, shared)
    if stages > 1:
        draft.set("pipeline_parallel_size", stages, f"the layers are divided into {stages} stages, because they cannot be cut {tensor * stages} times")
    if case.sm < 80:
        draft.set("dtype", "half", f"compute capability {capability} has no bfloat16")
        if draft.judge().breaks({"float16_refused_by_model"}):
            draft.set("dtype", None, "")
    for name, value in (lanes.at(lane.wants, case.sm) or {}).items():
        draft.set(name, value, f"what the engine picks by itself does not work on compute capability {capability}")
    if case.model.quant and draft.judge().breaks(QUANTIZATION_CODES):
        for method in lane.checkpoint.get(case.model.quant.method, ()):
            draft.set("quantization", method, f"the engine's own choice for this checkpoint does not run on compute capability {capability}")
            if not draft.judge().breaks(QUANTIZATION_CODES | {"quantization_mismatch", "dtype_not_for_quantization"}):
                break
            draft.set("quantization", None, "")
    judged = draft.judge()
    if judged.facts is not None and judged.facts.core == "V0":
        _v0(draft, judged)
    if judged.breaks({"custom_all_reduce_falls_back"}):
        draft.set("disable_custom_all_reduce", True, "it would fall back to NCCL on these cards, after an attempt")
    return draft


def _v0(draft: Draft, judged: Judgement) -> None:
    """What the V0 engine does not choose well by itself."""
    shape = draft.case.model
    draft.set("block_size", 16, "the smallest block that all of the engine's kernels take")
    simple = not (shape.multimodal or shape.latent or shape.sliding_window or judged.facts.option("enable_lora") or judged.facts.pools)
    draft.set("enable_chunked_prefill", simple, "long prompts are computed in pieces, which leaves memory to the KV cache" if simple else "not for this model")
    draft.set("enable_prefix_caching", simple, "prompts that begin alike are computed once" if simple else "not for this model")
    if not judged.facts.option("disable_log_stats"):
        draft.set("show_hidden_metrics_for_version", "0.7", "the engine hides its swap and prefix cache metrics otherwise")
    ram, ranks = draft.case.host.memory_bytes, judged.facts.tp * judged.facts.pp
    if ram and 4 * GIB * ranks > SWAP_SHARE * ram:
        draft.set("swap_space", int(SWAP_SHARE * ram / GIB / ranks), f"the engine's 4 GiB for each card would take more than {SWAP_SHARE:.0%} of the RAM")
    if draft.judge().breaks({"prefill_kernel_does_not_compile"}):
        for name in ("enable_chunked_prefill", "enable_prefix_caching"):
            draft.set(name, False, "its kernel does not run on these cards with this model")


# -- Sizes ---------------------------------------------------------------------------------------------------------------------------------


def _sized(draft: Draft, profile: Profile, objective: Objective) -> Judgement:
    """Choose context, sequences, batch and share of the card for a draft, and judge it against the objective."""
    if profile.frugal:
        draft.set("enforce_eager", True, "CUDA graphs take memory")
    least, lengths = objective.concurrency or 1, _lengths(draft.base.facts, profile, objective)
    length = lengths[0]

    def holds(length: int, count: int) -> bool:
        _set_sizes(draft, profile, objective, length, count)
        return _holds(draft.judge(), _tokens(profile, length, count, least))

    # Where the longest context has room with the most sequences that can be, less need not be tried.
    if not holds(length, _counts(profile, length, least, _most_tokens(draft.base))[0]):
        if not any(holds(length, least) for length in lengths):
            return _unmet(draft.judge(), objective)
        length = _longer(draft, profile, objective, lengths[0])
        # More sequences leave no more room.
        if not any(holds(length, count) for count in _counts(profile, length, least, draft.judge().prediction.tokens)):
            _set_sizes(draft, profile, objective, length, least)
    if profile.frugal:
        _shrink(draft, _tokens(profile, length, draft.judge().settings.max_num_seqs, least), length * least)
    return _unmet(draft.judge(), objective)


def _tokens(profile: Profile, length: int, count: int, least: int) -> int:
    """Tokens that the KV cache shall hold: the objective's contexts in full, and the typical part of every sequence."""
    return max(length * least, count * min(profile.typical, length))


def _lengths(facts: Facts, profile: Profile, objective: Objective) -> list[int]:
    """The contexts to try, longest first: the user's or the objective's alone, otherwise the model's own and shorter ones."""
    if "max_model_len" in facts.given:
        return [facts.max_model_len]
    if objective.context:
        return [objective.context]
    longest = min(facts.derived, profile.context or facts.derived)
    return [longest, *(2**power for power in range(20, 9, -1) if 2**power < longest)]


def _most_tokens(base: Judgement) -> float:
    """What no sizes leave more room for: the KV cache, if all of the card's largest share but the weights and what is not torch's were for it."""
    found, share = base.prediction, max(HIGHEST_UTILIZATION, base.settings.gpu_memory_utilization)
    return max(rank.total * share - rank.weights - rank.non_torch for rank in found.ranks) / found.block_bytes * found.block_size


def _counts(profile: Profile, length: int, least: int, room: float) -> list[int]:
    """Numbers of sequences to try, most first: those that a KV cache of so many tokens may hold, and the least."""
    counts = [count for count in sorted({profile.sequences, *(2**power for power in range(11))}, reverse=True) if least < count <= profile.sequences]
    return [*(count for count in counts if _tokens(profile, length, count, least) <= room), least]


def _set_sizes(draft: Draft, profile: Profile, objective: Objective, length: int, count: int) -> None:
    """A context and a number of sequences, with all that follows from them."""
    settings = draft.base.settings
    length = draft.size("max_model_len", length, _length_reason(profile, objective, length))
    asked = count == objective.concurrency
    # Not fewer than the user has run at the same time.
    count = max(count, draft.base.facts.option("max_num_active_seqs") or 0)
    count = draft.size("max_num_seqs", count, "the objective's concurrency" if asked else f"at about {profile.typical} tokens each they share the KV cache")
    batch, reason = max(length, count), "a prompt is computed in one step"
    if settings.enable_chunked_prefill:
        batch, reason = max(min(profile.batch, length * count), count), "tokens of one step; more would take memory from the KV cache"
    batch, eager = draft.size("max_num_batched_tokens", batch, reason), draft.chosen.get("enforce_eager", settings.enforce_eager)
    long = settings.core == "V0" and length > CAPTURED and not eager
    draft.set("max_seq_len_to_capture", length if long else None, "longer contexts would decode without CUDA graphs")
    settings = settings._replace(max_num_seqs=count, max_num_batched_tokens=batch, enforce_eager=eager)
    draft.set("gpu_memory_utilization", _utilization(draft.case, settings, objective), _utilization_reason(objective))


def _length_reason(profile: Profile, objective: Objective, length: int) -> str:
    if length == objective.context:
        return "the objective's context"
    modest = profile.frugal and length in (profile.context, OFFLOADED_CONTEXT)
    return "a modest context, without an objective" if modest else "the longest for which the model and the cards' memory suffice"


def _utilization_reason(objective: Objective) -> str:
    return "the objective's memory less CUDA graphs and context" if objective.max_gpu_memory_gib else "leaves room for CUDA graphs and the CUDA context"


def _utilization(case: Case, settings: Settings, objective: Objective) -> float:
    """The largest share, in whole percent, that leaves room for the CUDA graphs and SPARE_BYTES, on the smallest card."""
    outside, total = _outside(case.model, settings), case.smallest
    most = min(HIGHEST_UTILIZATION, 1 - outside / total)
    if objective.max_gpu_memory_gib:
        most = min(most, (objective.max_gpu_memory_gib * GIB - outside) / total)
    return max(1, math.floor(most * 100 + 1e-9)) / 100


def _outside(model: Model, settings: Settings) -> int:
    """Bytes of a card beyond the budget."""
    largest_stage = math.ceil(model.layers / settings.pipeline_parallel_size)
    graphs = 0 if settings.charges_graphs else memory.cuda_graphs(settings, largest_stage)
    return graphs + SPARE_BYTES


def _holds(judged: Judgement, tokens: int) -> bool:
    """Whether the plan is sure to fit, with a KV cache of so many tokens."""
    return judged.prediction is not None and judged.prediction.tokens >= tokens and judged.sure


def _longer(draft: Draft, profile: Profile, objective: Objective, most: int) -> int:
    """Between two powers of two: the context that the cache of the shorter one holds, in multiples of 1024. The one chosen is returned."""
    judged, least = draft.judge(), objective.concurrency or 1
    now = judged.settings.max_model_len
    longer = min(most, min(judged.prediction.longest, judged.prediction.tokens // least) // 1024 * 1024)
    if longer > now:
        _set_sizes(draft, profile, objective, longer, least)
        if _holds(draft.judge(), longer * least):
            return longer
        _set_sizes(draft, profile, objective, now, least)
    return now


def _shrink(draft: Draft, tokens: int, least: int) -> None:
    """The smallest share of the card that still holds so many tokens; or the least of them, where the largest share does not."""
    if "gpu_memory_utilization" not in draft.chosen:
        return
    judged = draft.judge()
    tokens, now = tokens if _holds(judged, tokens) else least, round(draft.chosen["gpu_memory_utilization"] * 100)
    # Below it there are certainly fewer blocks: a block is larger than kv_cache / (blocks + 1).
    found = judged.prediction
    blocks = math.ceil(tokens / found.block_size)
    low = max((rank.budget - rank.kv_cache + blocks * rank.kv_cache / (rank.blocks + 1)) / rank.total for rank in found.ranks)
    shares = range(max(1, math.ceil(low * 100 - 1e-6)), now)
    for share in [*shares, now]:
        draft.set("gpu_memory_utilization", share / 100, f"the smallest share that holds {tokens} tokens")
        if _holds(draft.judge(), tokens):
            break


def _offloaded(draft: Draft, profile: Profile, objective: Objective) -> Judgement:
    """Put the fewest whole GiB of each card's weights into RAM that make room for a context of OFFLOADED_CONTEXT, or the objective's."""
    lengths, least = _lengths(draft.base.facts, profile, objective), objective.concurrency or 1
    length = lengths[0] if len(lengths) == 1 else min(OFFLOADED_CONTEXT, lengths[0])
    _set_sizes(draft, profile, objective, length, max(least, profile.sequences))
    weights = max(rank.weights for rank in draft.judge().prediction.ranks)
    for size in range(1, math.ceil(weights / GIB) + 1):
        draft.set("cpu_offload_gb", size, "the weights do not fit the card otherwise; every step reads them from RAM")
        if _holds(draft.judge(), length * least):
            break
    return _unmet(draft.judge(), objective)


# -- Objectives ----------------------------------------------------------------------------------------------------------------------------


def _unmet(judged: Judgement, objective: Objective) -> Judgement:
    """The same judgement, refused where it fits and misses the objective, be it because of what the user's own options say."""
    if not judged.fits:
        return judged
    found, refusals = judged.prediction, []
    length, least = judged.settings.max_model_len, objective.concurrency or 1
    if objective.context and length < objective.context:
        refusals.append(f"max_model_len is {length}, and the objective's context {objective.context}")
    if (objective.context or objective.concurrency) and found.tokens < (objective.context or length) * least:
        refusals.append(f"The KV cache holds {found.tokens} tokens, and {least} x {objective.context or length} are asked for")
    if judged.settings.max_num_seqs < least:
        refusals.append(f"max_num_seqs is {judged.settings.max_num_seqs}, and the objective's concurrency {least}")
    taken = max(rank.budget for rank in found.ranks) + _outside(judged.case.model, judged.settings)
    if objective.max_gpu_memory_gib and taken > objective.max_gpu_memory_gib * GIB:
        refusals.append(f"A card needs {memory.gib(taken)} with the CUDA context, and the objective allows {objective.max_gpu_memory_gib:g} GiB")
    remedy = "Ask for less, use more cards, or remove the options that stand against it."
    if not refusals:
        return judged
    return dataclasses.replace(judged, unmet=tuple(Problem("objective_not_met", f"{message}.", remedy) for message in refusals))
