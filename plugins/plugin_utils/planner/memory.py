# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model needs of every card, and how much KV cache is left: the engine's own accounting, predicted.

    kv_bytes = total * gpu_memory_utilization - (weights + activation + non_torch)      V0: vllm 0.8.5 worker/worker.py
                                                                                          Worker.determine_num_available_blocks
    blocks   = kv_bytes // block_bytes, the smallest of all ranks

V0 charges to the budget what its own process allocates, and neither the CUDA context, nor other processes, nor CUDA graphs, which it captures
afterwards. V1 up to 0.8 charges everything in use on the card (v1/worker/gpu_worker.py GPUWorker.determine_available_memory).

All sizes are bytes, all counts whole numbers. A rank is one card. Ranks of one pipeline stage differ only in the card's total and in the
sampler, which V0 runs on the stage's first rank alone; ranks are ordered as the engine numbers them, stage by stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .activation import activation, layers_peak
from .fitted import FITTED
from .hardware import GIB, Card
from .model import Model
from .nccl import nccl
from .problem import Problem
from .settings import Settings, marlin
from .weights import kv_heads_per_rank, latent_copies, stage_layers, weights

KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1}


@dataclass(frozen=True, slots=True)
class Correction:
    """What a ledger of measured starts teaches about one model on one kind of card: see calibration.py.

    weights and non_torch are added to the prediction, activation multiplies it.
    """

    weights: int = 0
    activation: float = 1.0
    non_torch: int = 0


class Rank(NamedTuple):
    """One card's share, in bytes. kv_cache may be negative: then nothing is left. cuda_graphs lie outside the budget in V0.

    peak names the moment of the profiling run that needs the most: embedding, attention, mlp, experts or sampler.
    """

    total: int
    budget: int
    weights: int
    activation: int
    non_torch: int
    kv_cache: int
    cuda_graphs: int
    blocks: int
    peak: str


class Prediction(NamedTuple):
    """ranks: one for each card. host_bytes: RAM that swap and offloaded weights take, over all ranks. mask: dense_mask of one card.

    parts: into how many the blocks are divided, each with sequences of its own: V0 has as many batches in flight as the pipeline has stages
    (core/scheduler.py Scheduler.__init__, worker/worker.py raise_if_cache_size_invalid).
    """

    ranks: tuple[Rank, ...]
    block_bytes: int
    block_size: int
    blocks: int
    cpu_blocks: int
    host_bytes: int
    max_model_len: int
    mask: int = 0
    parts: int = 1

    @property
    def tokens(self) -> int:
        return self.blocks * self.block_size

    @property
    def longest(self) -> int:
        """Tokens that one sequence can have."""
        return self.blocks // self.parts * self.block_size

    @property
    def max_concurrency(self) -> float:
        return self.tokens / self.max_model_len

    @property
    def bytes_per_token(self) -> int:
        """KV cache of one token on the rank that has the most of it."""
        return self.block_bytes // self.block_size


# -- Prediction ----------------------------------------------------------------------------------------------------------------------------


def non_torch(settings: Settings, sm: int, last: bool = True, root: bool = True) -> int:
    """What the engine's process holds on one card outside torch: kernels and handles, and NCCL where a layer is cut over ranks (nccl.py).

    Engines before 0.6.5 count everything in use on the card (worker.py, vllm pull request 10511), and so does V1 up to 0.8: there the CUDA
    context is in it.
    """
    kind = "non_torch_hopper" if sm // 10 == 9 else "non_torch_volta" if 70 <= sm < 75 else "non_torch"
    if (0, 6, 5) <= settings.release < (0, 7) and kind == "non_torch":
        kind = "non_torch_066"
    size = FITTED[kind] + (FITTED["non_torch_late"] if settings.release >= (0, 12) else 0) + nccl(settings, sm, last, root)
    if settings.release < (0, 6, 5) or settings.core == "V1" and settings.release < (0, 9):
        size += FITTED["context"]
    return size


def dense_mask(model: Model, settings: Settings, sm: int) -> int:
    """What block-sparse attention keeps on cards below 8.0: a mask of all heads, for two positions each of the model's longest context.

    attention/ops/blocksparse_attention/interface.py LocalStridedBlockSparseAttn. 128k positions are the 1024 GiB that t046 logs.
    """
    sparse = model.architecture == "Phi3SmallForCausalLM" and settings.core == "V0" and sm < 80
    return model.heads * model.max_positions**2 * 2 if sparse else 0


def graph_sizes(settings: Settings) -> int:
    """How many batch sizes get a CUDA graph: vllm 0.8.5 config.py VllmConfig._set_cudagraph_sizes. 35 for 256 sequences, 5 for 10."""
    if settings.enforce_eager:
        return 0
    if settings.core == "V0":
        # 1, 2, 4, 8 and every eighth, up to the first that is not smaller than max_num_seqs.
        seqs = min(settings.max_num_seqs, 8192)
        return 3 + -(-seqs // 8) if seqs > 4 else (seqs > 2) + (seqs > 1) + 1
    largest = min(512, settings.max_num_batched_tokens)
    return (largest >= 1) + (largest >= 2) + (largest >= 4) + largest // 8


def cuda_graphs(settings: Settings, layers: int) -> int:
    """The memory that captured graphs take on a rank with that many layers."""
    each = FITTED["graph_layer"] + (FITTED["graph_layer_tp"] if settings.tensor_parallel_size > 1 else 0)
    return graph_sizes(settings) * layers * each


def kv_block_bytes(model: Model, settings: Settings, layers: int) -> int:
    """One block of the KV cache on a rank with that many layers: vllm 0.8.5 worker/cache_engine.py CacheEngine.get_cache_block_size.

    Every layer counts as one of full attention, also where a model has sliding windows. MLA keeps one vector instead of keys and values;
    0.7 pads it to a multiple of 256 bytes.
    """
    element = KV_BYTES.get(settings.kv_cache_dtype, settings.activation_bytes)
    if model.latent and settings.mla:
        width = (model.latent.kv_rank + model.latent.rope_dim) * element
        if settings.release < (0, 8):
            width = -(-width // 256) * 256
        return width * layers * settings.block_size
    if model.latent:
        # config.py ModelConfig.get_head_size; before MLA heads are padded to 256 elements.
        head = 256 if settings.release < (0, 7, 1) else model.latent.nope_dim + model.latent.rope_dim
        return element * layers * settings.block_size * 2 * (model.heads // settings.tensor_parallel_size) * head
    return element * layers * settings.block_size * 2 * kv_heads_per_rank(model, settings.tensor_parallel_size) * model.head_dim


class Kind(NamedTuple):
    """Ranks of a stage that are alike. samples: they run the sampler. mask: dense_mask of the card."""

    total: int
    sm: int
    samples: bool
    non_torch: int
    mask: int


class Stage(NamedTuple):
    """A pipeline stage. weights: of its layers, made: what is made of those after loading, outer: all others. block: of the KV cache.

    kinds: of its ranks. ranks: for each, where its kind stands.
    """

    layers: int
    weights: int
    made: int
    outer: int
    block: int
    kinds: tuple[Kind, ...]
    ranks: tuple[int, ...]


class Outline(NamedTuple):
    """What is the same for all predictions whose settings differ in facts.SIZES alone. block_bytes and mask: the largest of all ranks.

    peaks: what activation.layers_peak has said, by all that it then depends on: batch, offloaded bytes, capability, stage.
    """

    model: Model
    stages: tuple[Stage, ...]
    block_bytes: int
    mask: int
    correction: Correction
    peaks: dict[tuple[int, int, int, int], tuple[int, str]]


def outline(model: Model, cards: tuple[Card, ...], settings: Settings, correction: Correction = Correction()) -> Outline:
    """The ranks as far as no size changes them. The first tensor_parallel_size * pipeline_parallel_size of the cards are used.

    ValueError when there are fewer; whether the model can be cut into so many ranks is for rules.py to say.
    """
    ranks, count = settings.tensor_parallel_size, settings.pipeline_parallel_size
    if len(cards) < ranks * count:
        raise ValueError(f"{ranks} x {count} ranks need as many cards, and there are {len(cards)}.")
    element, stages = settings.activation_bytes, []
    for stage, (first, last) in enumerate(stage_layers(model.layers, count)):
        # Marlin keeps other tensors than the plain kernels of GPTQ alone.
        repacked = model.quant is not None and model.quant.layout == "gptq" and marlin(settings, cards[stage * ranks].sm)
        inner, outer = weights(model, ranks, element, count, stage, repacked, "none")
        made = weights(model, ranks, element, count, stage, repacked, latent_copies(settings))[0] - inner if model.latent else 0
        own = [(card.total_bytes, card.sm, rank == 0 or settings.core == "V1") for rank, card in enumerate(cards[stage * ranks : (stage + 1) * ranks])]
        alike = list(dict.fromkeys(own))
        kinds = tuple(
            Kind(total, sm, samples, max(0, non_torch(settings, sm, stage == count - 1, samples) + correction.non_torch), dense_mask(model, settings, sm))
            for total, sm, samples in alike
        )
        block = kv_block_bytes(model, settings, last - first)
        stages.append(Stage(last - first, inner, made, outer, block, kinds, tuple(map(alike.index, own))))
    largest_mask = max(kind.mask for stage in stages for kind in stage.kinds)
    return Outline(model, tuple(stages), max(stage.block for stage in stages), largest_mask, correction, {})


def sized(known: Outline, settings: Settings) -> Prediction:
    """The memory of every rank, by the outline of settings that differ in facts.SIZES alone."""
    correction, found, offloaded = known.correction, [], 0
    for stage, (layers, inner, made, outer, block, kinds, ranks) in enumerate(known.stages):
        # What is made of offloaded matrices lies where they lie.
        moved = min(settings.cpu_offload_bytes, inner)
        copied = made * moved // max(1, inner)
        offloaded += (moved + copied) * len(ranks)
        held = max(0, inner + made + outer - moved - copied + correction.weights)
        graphs, alike = cuda_graphs(settings, layers), []
        for total, sm, samples, other, mask in kinds:
            key = settings.max_num_batched_tokens, settings.cpu_offload_bytes, sm, stage
            if key not in known.peaks:
                known.peaks[key] = layers_peak(known.model, settings, sm, stage)
            used, name = activation(known.model, settings, sm, stage, samples, known.peaks[key])
            used, budget = int(used * correction.activation), int(total * settings.gpu_memory_utilization)
            left = budget - held - mask - used - other - (graphs if settings.charges_graphs else 0)
            alike.append(Rank(total, budget, held + mask, used, other, left, graphs, max(0, left // block if block else 0), name))
        found += [alike[index] for index in ranks]
    return Prediction(
        ranks=tuple(found),
        block_bytes=known.block_bytes,
        block_size=settings.block_size,
        blocks=min([rank.blocks for rank in found]),
        cpu_blocks=settings.swap_bytes // known.block_bytes,
        host_bytes=settings.swap_bytes * len(found) + offloaded,
        max_model_len=settings.max_model_len,
        mask=known.mask,
        parts=settings.pipeline_parallel_size if settings.core == "V0" else 1,
    )


def predict(model: Model, cards: tuple[Card, ...], settings: Settings, correction: Correction = Correction()) -> Prediction:
    """The memory of every rank, at once."""
    return sized(outline(model, cards, settings, correction), settings)


# -- Judging -------------------------------------------------------------------------------------------------------------------------------

# A start that lacks less than this share of the budget is warned about and not refused: the prediction's own error.
MARGIN = 0.01


def gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def shortfalls(model: Model, settings: Settings, prediction: Prediction) -> tuple[list[Problem], list[Problem]]:
    """(refusals, warnings): what the engine will not start with, each in numbers of the rank that has the least left.

    A refusal leaves MARGIN of the budget for the prediction's own error.
    """
    tightest = [rank.blocks for rank in prediction.ranks].index(prediction.blocks)
    rank = prediction.ranks[tightest]
    room = MARGIN * rank.budget
    refusals, warnings = [], []
    before = rank.weights + rank.non_torch
    if before > rank.total and prediction.mask > rank.total // 2:
        message = (
            f"{model.architecture} makes a mask of {gib(prediction.mask)} for its block-sparse attention where the card is below compute capability 8.0, "
            f"and the card of rank {tightest} has {gib(rank.total)}."
        )
        refusals.append(Problem("weights_over_card", message, "Use cards of compute capability 8.0 or newer, or a model with a shorter context."))
    elif before > rank.total:
        message = f"The weights take {gib(rank.weights)} per rank, and the card of rank {tightest} has {gib(rank.total)}."
        refusals.append(Problem("weights_over_card", message, _more_room(settings, before - rank.budget)))
    elif rank.kv_cache <= 0:
        message = (
            f"The weights take {gib(rank.weights)} per rank, the profiling run {gib(rank.activation)} and the rest {gib(rank.non_torch)}, and the budget "
            f"of rank {tightest} is {gib(rank.budget)} ({settings.gpu_memory_utilization:g} of {gib(rank.total)}): nothing is left for the KV cache."
        )
        problem = Problem("no_room_for_kv_cache", message, _more_room(settings, -rank.kv_cache))
        (refusals if -rank.kv_cache >= room else warnings).append(problem)
    elif prediction.longest < settings.max_model_len and not settings.shrinks_context:
        per_block = rank.kv_cache / max(1, rank.blocks)
        missing = (settings.max_model_len / prediction.block_size * prediction.parts - prediction.blocks) * per_block
        divided = f", divided among the {prediction.parts} batches that are in flight at once" if prediction.parts > 1 else ""
        message = (
            f"One sequence of max_model_len {settings.max_model_len} needs more KV cache than there is: {prediction.tokens} tokens in "
            f"{gib(rank.kv_cache)} on rank {tightest}{divided}."
        )
        remedy = f"Set max_model_len to {prediction.longest} or less, or raise gpu_memory_utilization by {missing / rank.total:.3f}."
        (refusals if missing >= room else warnings).append(Problem("kv_cache_too_small", message, remedy))
    if model.multimodal:
        message = "The model reads pictures, and what its vision tower needs while the engine profiles it is not in the prediction."
        warnings.append(Problem("vision_not_counted", message, "Set limit_mm_per_prompt and max_num_batched_tokens no higher than needed."))
    after = rank.weights + rank.activation + rank.non_torch + max(0, rank.kv_cache) + rank.cuda_graphs
    if not refusals and settings.core == "V0" and after > rank.total:
        message = (
            f"After the KV cache the engine captures CUDA graphs of about {gib(rank.cuda_graphs)}, and gpu_memory_utilization "
            f"{settings.gpu_memory_utilization:g} leaves {gib(rank.total - rank.budget)} for them and the CUDA context."
        )
        warnings.append(Problem("no_room_for_cuda_graphs", message, "Lower gpu_memory_utilization, or set enforce_eager."))
    return refusals, warnings


def _more_room(settings: Settings, missing: int) -> str:
    more = settings.tensor_parallel_size * 2
    return f"Set cpu_offload_gb to {math.ceil((missing + settings.cpu_offload_bytes) / GIB)} or more, or tensor_parallel_size to {more} or more."
