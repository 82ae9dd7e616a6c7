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

import bisect
import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import options as engine_options
from .hardware import GIB, Card
from .model import Model, Quant
from .problem import Problem

MIB = 1024**2

# Every constant that was fitted, with the cases of tests/data/memory_logs.json that it rests on. Everything else is read in the code.
FITTED = {
    # Kernels, cuBLAS handles and the like in the engine's own process; measured minus what torch holds. T4 0.05 (t008 t025 t026 t027 t028
    # t040), A10 0.05 (a004 a005), L40S 0.08 (a009), RTX 4060 0.03 (i001).
    "non_torch": int(0.05 * GIB),
    # The same on a V100, 0.07 to 0.09 (t004 t032 t034).
    "non_torch_volta": int(0.08 * GIB),
    # The same in 0.6.5 and 0.6.6: T4 0.11 (h007), A100 0.10 (h015) and 0.26 (a015).
    "non_torch_066": int(0.10 * GIB),
    # The same on an H100, 0.07 to 0.14 (v007 p002 p004 p008), and what engines from 0.12 on add to it: 0.25 in all (q001 q006 q008 q012).
    "non_torch_hopper": int(0.12 * GIB),
    "non_torch_late": int(0.12 * GIB),
    # NCCL's buffers and communicators where cards talk over PCIe, whatever their number: 4 x RTX 2080 Ti 0.20 in all (t001 t022 t023).
    "nccl_pcie": int(0.15 * GIB),
    # The same for each doubling of the ranks over NVLink or NVSwitch on 8.0 and newer: 2 ranks 0.74 (v017), 4 ranks 1.39 (a016), 8 ranks
    # 2.10 (a013) and 2.15 (a011), all V0.
    "nccl_nvlink": int(0.67 * GIB),
    # The CUDA context, which engines before 0.6.5 and V1 up to 0.8 charge: in all RTX 3090 0.35 (i004 i005), H200 0.73 (h010), others 0.15 (h011)
    # and 0.47 (t011).
    "context": int(0.28 * GIB),
    # A captured CUDA graph of one decoder layer for one batch size: 160 to 240 KiB (t026 t040 a004 t008 a015).
    "graph_layer": 200 * 1024,
    # What a graph needs more where ranks exchange partial sums: 0.63 GiB for 35 graphs of 36 layers (t022 t023), 1.03 for 67 of 48 (v003).
    "graph_layer_tp": 340 * 1024,
}

# The sampler of V1 from 0.12 on, bytes for each sequence and entry of the vocabulary: q001 q003 q006 q008 q010 q012.
V1_LATE_SAMPLER = 14.0

ACTIVATION_BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "float32": 4, "float": 4}
KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1}

# The smallest number of tokens for which the AWQ kernel first expands the whole matrix: layers/quantization/awq.py AWQLinearMethod.apply.
AWQ_DEQUANTIZE_TOKENS = 256
# Up to so many experts for a token their outputs are added up by a kernel of the engine's own: csrc/moe/moe_align_sum_kernels.cu moe_sum.
MOE_SUM_EXPERTS = 4
# Fewer sequences are sorted in another way, which needs more: torch 2.6 aten/src/ATen/native/cuda/SortStable.cu.
SEGMENTED_SORT_SEQUENCES = 128
# The most tokens of one picture, for models that read pictures: V0 profiles no more prompts than such pictures fit into the batch. From
# get_max_image_tokens of the model classes in vllm 0.8.5, for the shapes that these models are published in.
PICTURE_TOKENS = {
    "Gemma3ForConditionalGeneration": 256,
    "InternVLChatModel": 3328,
    "LlavaForConditionalGeneration": 576,
    "LlavaNextForConditionalGeneration": 2880,
    "Mistral3ForConditionalGeneration": 3080,
    "PixtralForConditionalGeneration": 4160,
    "Qwen2VLForConditionalGeneration": 16384,
    "Qwen2_5_VLForConditionalGeneration": 16384,
    "Qwen3VLForConditionalGeneration": 16384,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's options as far as memory depends on them, with every default filled in; `settings` makes them from an option map.

    core: V0 or V1. attention: XFORMERS, FLASH_ATTN or another backend's name. dtype: the one that runs, never auto. moe_chunk: tokens that one
    call of the fused experts takes (VLLM_FUSED_MOE_CHUNK_SIZE). nvlink: whether the ranks are joined by it. plain_kernels: the option quantization
    asks for awq or gptq as they are, where the engine would take Marlin's kernels. charges_graphs: an estimate of the CUDA graphs is taken from
    the budget. shrinks_context: max_model_len is "auto", so the engine takes less where the cache cannot hold the model's longest context. mla: a
    model with latent attention is computed on the latent vectors, instead of on keys and values made of them.
    """

    version: str
    core: str
    attention: str
    dtype: str
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    block_size: int = 16
    kv_cache_dtype: str = "auto"
    enforce_eager: bool = False
    enable_chunked_prefill: bool = False
    cpu_offload_bytes: int = 0
    swap_bytes: int = 0
    moe_chunk: int = 32768
    nvlink: bool = False
    plain_kernels: bool = False
    charges_graphs: bool = False
    shrinks_context: bool = False
    mla: bool = True

    @property
    def release(self) -> tuple[int, ...]:
        return release(self.version)

    @property
    def activation_bytes(self) -> int:
        return ACTIVATION_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Correction:
    """What a ledger of measured starts teaches about one model on one kind of card: see calibration.py.

    weights and non_torch are added to the prediction, activation multiplies it.
    """

    weights: int = 0
    activation: float = 1.0
    non_torch: int = 0


@dataclass(frozen=True, slots=True)
class Rank:
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


@dataclass(frozen=True, slots=True)
class Prediction:
    """ranks: one for each card. host_bytes: RAM that swap and offloaded weights take, over all ranks. mask: dense_mask of one card."""

    ranks: tuple[Rank, ...]
    block_bytes: int
    block_size: int
    blocks: int
    cpu_blocks: int
    host_bytes: int
    max_model_len: int
    mask: int = 0

    @property
    def tokens(self) -> int:
        return self.blocks * self.block_size

    @property
    def max_concurrency(self) -> float:
        return self.tokens / self.max_model_len

    @property
    def bytes_per_token(self) -> int:
        """KV cache of one token on the rank that has the most of it."""
        return self.block_bytes // self.block_size


@functools.lru_cache(maxsize=256)
def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (0, 8, 5) for 0.8.5.post1; what is not a number ends it."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


# -- The engine's defaults -----------------------------------------------------------------------------------------------------------------


def settings(options: dict, model: Model, cards: tuple[Card, ...], version: str, env: dict | None = None, nvlink: bool | None = None, **known) -> Settings:
    """The option map with the engine's own defaults for what it leaves out.

    Sources, vllm 0.8.5: engine/arg_utils.py _set_default_args_v0 and _set_default_args_v1, config.py SchedulerConfig.__post_init__. max_model_len
    may be larger than the model's: rules.py judges that. Options must have passed options.check; dtype half and float are read as torch names.
    known: the fields of `_resolved` where facts.py has resolved them, all of them or none.
    """
    env, known = env or {}, known or _resolved(options, model, cards, version, env or {})
    utilization, swap = (_default(version, name, otherwise) if options.get(name) is None else options[name] for name, otherwise in DEFAULTS)
    chunk, v1 = str(env.get("VLLM_FUSED_MOE_CHUNK_SIZE", "")), known["core"] == "V1"
    return Settings(
        version=version,
        gpu_memory_utilization=utilization,
        tensor_parallel_size=max(1, options.get("tensor_parallel_size") or 1),
        pipeline_parallel_size=max(1, options.get("pipeline_parallel_size") or 1),
        kv_cache_dtype=options.get("kv_cache_dtype") or "auto",
        enforce_eager=bool(options.get("enforce_eager")),
        cpu_offload_bytes=int((options.get("cpu_offload_gb") or 0) * GIB),
        swap_bytes=0 if v1 else int(swap * GIB),
        moe_chunk=int(chunk) if chunk.isdigit() and int(chunk) else 32768,
        nvlink=bool(nvlink),
        mla=_latent(version, env),
        shrinks_context=options.get("max_model_len") in ("auto", -1, "-1"),
        plain_kernels=options.get("quantization") in ("awq", "gptq"),
        # On by default since 0.21, as the engine's own log says; there, but off, since 0.14 (vllm pull request 30515).
        charges_graphs=v1 and env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "1" if release(version) >= (0, 21) else "0") == "1",
        **known,
    )


def _resolved(options: dict, model: Model, cards: tuple[Card, ...], version: str, env: dict) -> dict:
    """The fields of Settings that one option decides together with others, the model or the cards."""
    now = release(version)
    sm = min(card.sm for card in cards)
    core = "V0" if now < (0, 8) or now < (0, 10) and (sm < 80 or env.get("VLLM_USE_V1") == "0") else "V1"
    max_model_len = _count(options.get("max_model_len")) or model.max_length
    seqs, tokens = options.get("max_num_seqs"), _count(options.get("max_num_batched_tokens"))
    chunked = options.get("enable_chunked_prefill")
    if core == "V1":
        names = [card.name.lower() for card in cards]
        large = min(card.total_bytes for card in cards) >= 70 * GIB and not (now >= (0, 9) and any("a100" in name for name in names))
        if now < (0, 8, 3):
            # 0.8.2 goes by the cards' names, and by nothing for the sequences.
            large = all("h100" in name or "h200" in name for name in names)
        seqs = seqs or (1024 if large or now < (0, 8, 3) else 256)
        tokens = tokens or (8192 if large else 2048)
        chunked = True if chunked is None else chunked
    else:
        seqs = seqs or 256
        if chunked is None:
            windowed = model.sliding_window is not None and not model.interleaved_window
            # Engines before 0.8 take chunks for MLA too, and turn them off again without another look at the batch (0.7.2 config.py).
            latent = model.latent and _latent(version, env) and now >= (0, 8)
            chunked = max_model_len > 32768 and not (model.multimodal or latent or windowed or options.get("enable_lora"))
        if tokens is None:
            tokens = (2048 if now >= (0, 7) else 512) if chunked else max(max_model_len, 2048)
            tokens = max(tokens, 5120) if model.multimodal and now >= (0, 8) else tokens
    dtype = options.get("dtype") or "auto"
    if dtype == "auto":
        # torch_dtype float32 is run in half: vllm 0.8.5 config.py _get_and_verify_dtype. No card below 8.0 has bfloat16.
        dtype = "float16" if model.dtype == "float32" or sm < 80 else model.dtype
    attention = env.get("VLLM_ATTENTION_BACKEND") or options.get("attention_backend")
    if not attention:
        attention = "FLASH_ATTN" if sm >= 80 and dtype != "float32" else "XFORMERS" if core == "V0" else "TRITON_ATTN"
    return {
        "core": core,
        "attention": str(attention),
        "dtype": dtype,
        "max_model_len": max_model_len,
        "max_num_batched_tokens": tokens,
        "max_num_seqs": seqs,
        "block_size": options.get("block_size") or 16,
        "enable_chunked_prefill": bool(chunked),
    }


def _latent(version: str, env: dict) -> bool:
    """Whether latent attention keeps the latent vectors: since 0.7.1 (vllm pull request 12601), unless it is turned off."""
    return release(version) >= (0, 7, 1) and env.get("VLLM_MLA_DISABLE", "0") == "0"


# Options whose default the schema of the version tells, and the default of a version without one.
DEFAULTS = (("gpu_memory_utilization", 0.9), ("swap_space", 4))


def _count(value) -> int | None:
    """A number of tokens as the engine's parser reads it: "32K" is 32768. None for nothing, and for "auto" and -1, which is as many as fit."""
    if isinstance(value, str):
        try:
            value = engine_options.human_readable_int(value)
        except ValueError:
            return None
    return value if value and value > 0 else None


def _default(version: str, name: str, otherwise):
    """The default of an option in the schema of that version; of a version without a schema, the one given."""
    if version not in engine_options.versions():
        return otherwise
    return engine_options.schema(version).get(name, {}).get("default", otherwise)


def marlin(settings: Settings, sm: int) -> bool:
    """Whether 4- and 8-bit matrices run as Marlin: from 8.0 on, and from 7.5 on in the lane of 0.19.1 and later."""
    return not settings.plain_kernels and sm >= (75 if settings.release >= (0, 19) else 80)


# -- Weights -------------------------------------------------------------------------------------------------------------------------------


class Late(int):
    """The size of a tensor that is made while the checkpoint is loaded, when all parameters are there: bitsandbytes' scales."""


def allocated(parts: Iterable[tuple[int, Iterable[int]]]) -> int:
    """What torch's allocator books for tensors made in that order and all kept: c10/cuda/CUDACachingAllocator.cpp.

    parts: (how many times over, the sizes of the tensors). Sizes are rounded up to 512 bytes. Above 1 MiB a tensor takes the smallest free block
    that holds it, or a new segment of 20 MiB, from 10 MiB on one of its own in steps of 2 MiB. It keeps all of a block of which no more than
    1 MiB would be left.
    """
    parts = [(times, [-(-size // 512) * 512 for size in sizes]) for times, sizes in parts]
    # A free block that holds none of the tensors is never looked at again.
    least = min((size for times, sizes in parts for size in sizes if size > MIB), default=0)
    booked, free = 0, []
    for times, sizes in parts:
        small, large = sum(size for size in sizes if size <= MIB), [size for size in sizes if size > MIB]
        booked += times * small
        seen = {}
        while times:
            if (first := seen.get(tuple(free))) is not None:
                # The free blocks are as they were before: what was booked since then is booked over and over.
                rounds, times = divmod(times, first[0] - times)
                booked += rounds * (booked - first[1])
                seen.clear()
                continue
            seen[tuple(free)] = times, booked
            booked += sum(_block(size, free, least) for size in large)
            times -= 1
    return booked


def _block(size: int, free: list[int], least: int) -> int:
    """What a tensor above 1 MiB takes; what is left of a block is put among the free ones, which are sorted."""
    position = bisect.bisect_left(free, size)
    if position < len(free):
        block = free.pop(position)
    else:
        block = 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
    if block - size <= MIB:
        return block
    if block - size >= least:
        bisect.insort(free, block - size)
    return size


def linear(
    quant: Quant | None, inputs: int, outputs: int, element: int, shards: tuple[int, ...] = (), full_inputs: int | None = None, repacked: bool = False
) -> tuple[int, ...]:
    """The sizes of the tensors of one matrix as one rank holds it, without bias.

    inputs and outputs are the rank's own, full_inputs the whole layer's (act-order scales of a row-parallel matrix are not cut). shards: the
    outputs of the checkpoint's matrices that are joined in it. repacked: it runs as Marlin, which needs no zero points of a symmetric matrix.
    Sources in vllm 0.8.5 model_executor/layers/quantization: create_weights of awq.py, gptq.py, bitsandbytes.py, fp8.py and
    compressed_tensors/schemes, kernels/mixed_precision/marlin.py; model_loader/loader.py for the nested scales of bitsandbytes.
    """
    area = inputs * outputs
    if quant is None:
        return (area * element,)
    group = quant.group or inputs
    if quant.layout == "awq":
        return area // 2, area // group // 2, area // group * 2
    if quant.layout == "gptq":
        groups = (full_inputs or inputs) // quant.group if quant.group and quant.act_order else inputs // group
        if repacked:
            return area * quant.bits // 8, groups * outputs * 2, *(inputs * 4,) * (2 if quant.act_order else 0)
        return area * quant.bits // 8, groups * outputs * quant.bits // 8, groups * outputs * 2, inputs * 4
    if quant.layout == "packed":
        zeros = area // group * quant.bits // 8 if quant.zeros else 0
        return area * quant.bits // 8, area // group * 2, zeros, inputs * 4 if quant.act_order else 0
    if quant.layout == "bitsandbytes":
        if quant.bits == 8:
            return area, outputs * 4
        # Scales: one for each 64 weights of a shard and a table of 16 floats. Nested: in one byte each, and a float for each 256 of these.
        sizes = [area // 2]
        for shard in shards or (outputs,):
            scales = -(-inputs * shard // 64)
            sizes += (Late(scales), Late(-(-scales // 256) * 4), Late(64), Late(1024)) if quant.nested else (Late(scales * 4), Late(64))
        return tuple(sizes)
    if quant.layout == "fp8":
        if quant.block:
            return area, -(-outputs // quant.block[0]) * -(-inputs // quant.block[1]) * 4
        return area, outputs * 4
    if quant.layout == "int8":
        return area, outputs * 4
    if quant.layout == "mxfp4":
        return area // 2, area // 32
    return (int(area * quant.bits_per_weight / 8),)


@functools.lru_cache(maxsize=256)
def stage_layers(layers: int, stages: int) -> tuple[tuple[int, int], ...]:
    """The first and the last layer (exclusive) of each pipeline stage: vllm 0.8.5 distributed/utils.py get_pp_indices."""
    counts = [layers // stages] * stages
    for position in range(2, layers % stages + 2):
        counts[-position] += 1
    ends = [sum(counts[: stage + 1]) for stage in range(stages)]
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def padded_vocabulary(model: Model, ranks: int) -> int:
    """One rank's rows of the embedding: layers/vocab_parallel_embedding.py pads the vocabulary to a multiple of 64 and cuts it."""
    return -(-(-(-model.vocab // 64) * 64) // ranks)


def kv_heads_per_rank(model: Model, ranks: int) -> int:
    """KV heads are replicated when there are more ranks than heads: config.py ModelConfig.get_num_kv_heads."""
    return max(1, model.kv_heads // ranks)


def _rows(model: Model, ranks: int) -> tuple[int, int]:
    """(elements of all queries, elements of all keys) of one token on one rank."""
    return model.heads // ranks * model.head_dim, kv_heads_per_rank(model, ranks) * model.head_dim


def latent_copies(settings: Settings) -> str:
    """What the engine makes of the matrices of latent attention after loading: nothing, expanded ones, or products of them beside those.

    attention/backends/mla/common.py (0.8.5) and mla/utils.py (0.7.3) process_weights_after_loading.
    """
    return "none" if not settings.mla else "absorbed" if settings.release < (0, 8) else "expanded"


def _latent_copies(model: Model, ranks: int, element: int, quant: Quant | None, copies: str) -> Iterator[int]:
    """The sizes of those tensors of one layer. Both copy kv_b_proj only where it is quantised; products stay in fp8 where the layers are."""
    latent, heads = model.latent, model.heads // ranks
    if quant and copies != "none":
        yield latent.kv_rank * heads * (latent.nope_dim + latent.v_dim) * element
    if copies == "absorbed":
        queries = latent.q_rank or model.hidden
        yield queries * heads * latent.rope_dim * element
        products = quant if quant and quant.layout == "fp8" else None
        yield from linear(products, queries, heads * latent.kv_rank, element)
        yield from linear(products, heads * latent.kv_rank, model.hidden, element)


def _attention_tensors(model: Model, ranks: int, element: int, part, linear, copies: str) -> Iterator[int]:
    """part("qkv") is the layout of that part, None for 16 bit. linear is the function of that name with repacked bound."""
    hidden, latent = model.hidden, model.latent
    if latent:
        heads, qk, quant = model.heads // ranks, latent.nope_dim + latent.rope_dim, part("qkv")
        if latent.q_rank:
            yield from linear(quant, hidden, latent.q_rank, element)
            yield latent.q_rank * element
        yield from linear(quant, latent.q_rank or hidden, heads * qk, element)
        yield from linear(quant, hidden, latent.kv_rank + latent.rope_dim, element)
        yield latent.kv_rank * element
        yield from linear(quant, latent.kv_rank, heads * (latent.nope_dim + latent.v_dim), element)
        yield from linear(part("o"), heads * latent.v_dim, hidden, element, full_inputs=model.heads * latent.v_dim)
        yield from _latent_copies(model, ranks, element, quant, copies)
        return
    query, key = _rows(model, ranks)
    yield from linear(part("qkv"), hidden, query + 2 * key, element, shards=(query, key, key))
    yield from linear(part("o"), query, hidden, element, full_inputs=model.heads * model.head_dim)
    if model.qkv_bias:
        yield (query + 2 * key) * element
    if model.o_bias:
        yield hidden * element
    if model.family.qk_norm:
        yield from (model.head_dim * element,) * 2 if model.family.qk_norm == "head" else (model.heads * model.head_dim * element,) * 2


def _mlp_tensors(model: Model, ranks: int, element: int, part, linear, width: int) -> Iterator[int]:
    first = 2 * width if model.family.gated else width
    yield from linear(part("gate_up"), model.hidden, first // ranks, element, shards=(width // ranks,) * (2 if model.family.gated else 1))
    yield from linear(part("down"), width // ranks, model.hidden, element, full_inputs=width)
    if model.mlp_bias:
        yield first // ranks * element
        yield model.hidden * element


def _expert_tensors(model: Model, ranks: int, element: int, part, linear) -> Iterator[int]:
    """layers/fused_moe/layer.py FusedMoE: all experts of a layer in two tensors, cut along their width, and the scales likewise."""
    experts = model.experts
    width, quant = experts.intermediate // ranks, part("experts")
    for inputs, outputs in ((model.hidden, 2 * width), (width, model.hidden)):
        yield from (size * experts.count for size in linear(quant, inputs, outputs, element))
    yield model.hidden * experts.count * element
    if experts.correction_bias:
        yield experts.count * 4
    if experts.shared_intermediate:
        yield from _mlp_tensors(model, ranks, element, part, linear, experts.shared_intermediate)
    if experts.shared_gate:
        yield model.hidden * element


def _layer_tensors(model: Model, ranks: int, element: int, sparse: bool, expanded: frozenset[str], repacked: bool, copies: str) -> list[int]:
    """The sizes of one decoder layer's tensors on one rank. expanded: the parts that this layer keeps in 16 bit."""

    def part(name: str) -> Quant | None:
        return None if name in expanded else model.quant

    bound = functools.partial(linear, repacked=repacked)
    sizes = list(_attention_tensors(model, ranks, element, part, bound, copies))
    if sparse:
        sizes += _expert_tensors(model, ranks, element, part, bound)
    else:
        sizes += _mlp_tensors(model, ranks, element, part, bound, model.intermediate)
    return sizes + [model.hidden * element] * (model.family.norms * (2 if model.family.norm_bias else 1))


def _layers(model: Model, ranks: int, element: int, first: int, last: int, repacked: bool, copies: str) -> Iterator[tuple[int, list[int]]]:
    """(how many, tensor sizes) for each kind of layer in that range. Parts left in 16 bit are spread evenly over the stages, rounded up."""
    dense = sum(first <= index < last for index in model.experts.dense) if model.experts else last - first
    skipped = dict(model.quant.skipped) if model.quant else {}
    for count, sparse in ((dense, False), (last - first - dense, True)):
        if not count:
            continue
        # Layers in steps: those that keep most in 16 bit first, then those that keep less.
        shares = {part: min(count, -(-number * count // model.layers)) for part, number in skipped.items()}
        steps = sorted({*shares.values(), 0, count})
        for low, high in zip(steps, steps[1:], strict=False):
            expanded = frozenset(part for part, share in shares.items() if share >= high)
            yield high - low, _layer_tensors(model, ranks, element, sparse, expanded, repacked, copies)


def _table(model: Model, ranks: int, element: int) -> tuple[int, ...]:
    """The embedding, or the head, on one rank. They are quantised in a GGUF file only."""
    quant = model.quant if model.quant and model.quant.layout == "gguf" else None
    return linear(quant, model.hidden, padded_vocabulary(model, ranks), element)


def _tensors(model: Model, ranks: int, element: int, stages: int, stage: int, repacked: bool, copies: str) -> list[tuple[int, list[int]]]:
    """(how many times over, tensor sizes) of one rank, in the order in which the engine makes them. The first is before the layers, the last after."""
    first, last = stage_layers(model.layers, stages)[stage]
    before, after = [], []
    if stage == 0 or stage == stages - 1 and model.tied:
        before += _table(model, ranks, element)
    if stage == 0 and model.vision_parameters:
        # As many equal tensors as a tower has, give or take: the allocator's rounding is not known any better.
        before += [model.vision_parameters // ranks * element // 128] * 128
    if stage == 0 and not model.family.rope:
        before.append((model.max_positions + 2) * model.hidden * element)
    if model.family.rope:
        before.append(rotary_bytes(model, element))
    if stage == stages - 1:
        after.append(model.hidden * element * (2 if model.family.norm_bias else 1))
        if not model.tied:
            after += _table(model, ranks, element)
            if model.architecture == "PhiForCausalLM":
                after.append(padded_vocabulary(model, ranks) * element)
    return [(1, before), *_layers(model, ranks, element, first, last, repacked, copies), (1, after)]


def _sum(parts: Iterable[tuple[int, list[int]]]) -> int:
    return sum(times * sum(sizes) for times, sizes in parts)


@functools.lru_cache(maxsize=512)
def parameter_bytes(model: Model, ranks: int = 1, element: int = 2, stages: int = 1, stage: int = 0, repacked: bool = False, copies: str = "expanded") -> int:
    """The exact sum of one rank's parameters, before the allocator rounds them: equal to the engine's model classes byte for byte.

    The rotary table is a buffer and not in it.
    """
    return _sum(_tensors(model, ranks, element, stages, stage, repacked, copies)) - rotary_bytes(model, element)


def rotary_bytes(model: Model, element: int = 2) -> int:
    """The rotary table, of which a rank has one for all layers: layers/rotary_embedding.py get_rope."""
    return model.rope_positions * model.rotary_dim * element if model.family.rope else 0


@functools.lru_cache(maxsize=512)
def weights(
    model: Model, ranks: int = 1, element: int = 2, stages: int = 1, stage: int = 0, repacked: bool = False, copies: str = "expanded"
) -> tuple[int, int]:
    """(decoder layers, the rest): what the engine logs as the model's weights, split so that offloading can take from the layers.

    Where the checkpoint's true sizes are known the estimate is scaled to them, the decoder layers and the rest each for itself.
    """
    parts = _tensors(model, ranks, element, stages, stage, repacked, copies)
    exact_inner, exact = _sum(parts[1:-1]), _sum(parts)
    if model.quant and model.quant.layout == "bitsandbytes":
        order = [size for times, sizes in parts for size in sizes * times]
        parts = [(1, sorted(order, key=lambda size: isinstance(size, Late)))]
    rounding = allocated(parts) - exact
    outer = exact - exact_inner
    if model.tensor_bytes:
        exact_inner, outer = _scaled(model, element, exact_inner, outer)
    return exact_inner + rounding, outer


def _scaled(model: Model, element: int, inner: int, outer: int) -> tuple[int, int]:
    """One rank's (decoder layers, the rest) in proportion to the checkpoint's true sizes. The rotary table is in no checkpoint."""
    rotary = rotary_bytes(model, element)
    parts = _tensors(model, 1, element, 1, 0, False, "none")
    whole_inner, whole_outer = _sum(parts[1:-1]), _sum([parts[0], parts[-1]]) - rotary
    names = dict(model.tensor_bytes)
    if "" in names:
        return int(inner * max(0, names[""] - whole_outer) / whole_inner), outer
    held = {name: size for name, size in names.items() if not (model.tied and name.startswith(("lm_head", "output.")))}
    true_inner = sum(size for name, size in held.items() if any(mark in f".{name}" for mark in (".layers.", ".h.", ".blk.")) and "vis" not in name)
    true_outer = sum(held.values()) - true_inner
    return int(inner * true_inner / whole_inner), int((outer - rotary) * true_outer / whole_outer) + rotary


# -- Activation ----------------------------------------------------------------------------------------------------------------------------


def cublas_workspace(sm: int) -> int:
    """The workspace that torch gives cuBLAS at its first product and never takes back: torch 2.6 aten/src/ATen/cuda/CublasHandlePool.cpp."""
    return 32 * MIB if sm // 10 == 9 else 2 * 4096 * 1024 + 8 * 16 * 1024


def _product(quant: Quant | None, inputs: int, outputs: int, sm: int, settings: Settings, shards: tuple[int, ...]) -> tuple[int, int]:
    """(bytes for each token, bytes in all) that a product with a quantised matrix needs beside its input and its output.

    awq.py: the whole matrix in 16 bit from 256 tokens on; csrc/quantization/gptq/q_gemm.cu: always. Marlin expands nothing.
    bitsandbytes.py _apply_4bit_weight: one shard's matrix and output, and everything in bfloat16 besides. gguf.py: the input in 8 bit, or each
    shard's output before they are joined. fp8 and int8: the input in 8 bit.
    """
    if quant is None:
        return 0, 0
    if quant.layout in ("awq", "gptq") and not marlin(settings, sm):
        expands = quant.layout == "gptq" or settings.max_num_batched_tokens >= AWQ_DEQUANTIZE_TOKENS
        return 0, inputs * outputs * 2 if expands else 0
    if quant.layout == "bitsandbytes":
        largest = max(shards)
        copied = inputs * 2 if settings.dtype != "bfloat16" else 0
        after = outputs * 2 if copied else 0
        return copied + max(largest * 2, after), inputs * largest * 2 if largest * 2 >= after else 0
    if quant.layout == "gguf":
        return max(outputs * 2 if len(shards) > 1 else 0, -(-inputs // 512) * 512 * 36 // 32), 0
    if quant.layout in ("fp8", "int8") and sm >= 89 or quant.layout == "int8":
        return inputs, 0
    return 0, 0


class _Peak:
    """The largest of several moments, each so many bytes for a token and so many in all."""

    def __init__(self, tokens: int):
        self.tokens, self.bytes, self.name, self.brought = tokens, 0, "embedding", 0

    def at(self, name: str, per_token: float, fixed: int = 0) -> None:
        """brought: the weights of an offloaded layer that are on the card for that moment."""
        size = int(self.tokens * per_token) + fixed + self.brought
        if size > self.bytes:
            self.bytes, self.name = size, name


def sampler_bytes_per_entry(settings: Settings, element: int = 2) -> float:
    """Bytes that sampling needs for each sequence and entry of the vocabulary, at the moment of the sort that top-p needs.

    vllm 0.8.5 layers/sampler.py Sampler.forward and _apply_top_k_top_p; torch 2.6 SortStable.cu. Alive are the logits as the head made them
    (2), the same in float32 (4), and the sort's values (4) and indices (8). From 128 sequences on cub sorts by segments and needs the
    unsorted indices (8) and a second set of keys and values (12): 38. Below, everything is sorted at once with (segment, index) pairs, twice
    (16), and the sorted keys (4) beside the second set (12): 50. One sequence alone is sorted as it is: 38.
    """
    if settings.core == "V1" and settings.release >= (0, 12):
        return V1_LATE_SAMPLER
    small = 1 < settings.max_num_seqs < SEGMENTED_SORT_SEQUENCES
    logits = 4 if element == 4 else element + 4
    return logits + 4 + 8 + (32 if small else 20)


def sampler(model: Model, settings: Settings) -> int:
    """The sampler's share on the rank that runs it, without the hidden states.

    A small sort gets its indices in one piece: with one sequence they are counted once. Models that read pictures are profiled with fewer
    prompts: worker/model_runner.py GPUModelRunnerBase._dummy_run.
    """
    return int(_sequences(model, settings) * model.vocab * sampler_bytes_per_entry(settings, settings.activation_bytes))


def _sequences(model: Model, settings: Settings) -> int:
    pictures = PICTURE_TOKENS.get(model.architecture)
    if settings.core == "V0" and pictures:
        return max(1, min(settings.max_num_seqs, settings.max_num_batched_tokens // pictures))
    return settings.max_num_seqs


def activation(model: Model, settings: Settings, sm: int, stage: int = 0, samples: bool = True) -> tuple[int, str]:
    """(the peak of the profiling run in bytes, the moment it falls into) on a rank of that stage. samples: whether the rank runs the sampler.

    vllm 0.8.5 worker/model_runner.py GPUModelRunnerBase._dummy_run: max_num_seqs prompts of max_num_batched_tokens tokens in all, without a
    cache, sampled with top-k and top-p. Moments are added up from the lifetimes of the tensors in the model classes' forward functions.
    """
    size, name = _layers_peak(model, settings, sm, stage)
    if stage == settings.pipeline_parallel_size - 1:
        # The hidden states of all tokens are alive, and so are those that the stage was handed.
        held = model.hidden * settings.activation_bytes * settings.max_num_batched_tokens * (2 if stage else 1)
        last = settings.max_num_seqs * padded_vocabulary(model, settings.tensor_parallel_size) * settings.activation_bytes
        if samples:
            last = max(last, sampler(model, settings))
        if held + last > size:
            size, name = held + last, "sampler"
    # Token numbers, positions and slots are 64-bit numbers.
    return size + settings.max_num_batched_tokens * 24 + cublas_workspace(sm), name


@functools.lru_cache(maxsize=1024)
def _layers_peak(model: Model, settings: Settings, sm: int, stage: int) -> tuple[int, str]:
    """The largest moment of the embedding and of the decoder layers."""
    element, ranks = settings.activation_bytes, settings.tensor_parallel_size
    peak = _Peak(settings.max_num_batched_tokens)
    hidden = model.hidden * element
    # A later stage keeps the hidden states that it was handed; partial sums of several ranks are added into a new tensor.
    handed = hidden if stage else 0
    reduced = hidden if ranks > 1 else 0
    peak.at("embedding", handed + 2 * hidden + reduced + 8)
    kinds = (False,) if not model.experts else (True, False) if model.experts.dense else (True,)
    for sparse in kinds:
        if settings.core == "V0" and settings.cpu_offload_bytes:
            # models/utils.py maybe_offload_to_cpu: V0 brings an offloaded layer back for as long as it runs.
            layer = sum(_layer_tensors(model, ranks, element, sparse, frozenset(), marlin(settings, sm), "none"))
            peak.brought = min(layer, settings.cpu_offload_bytes)
        _attention_moments(peak, model, settings, sm, handed, reduced)
        if sparse:
            _expert_moments(peak, model, settings, sm, handed, reduced)
        else:
            _mlp_moments(peak, model, settings, sm, _alive_in_mlp(model) * hidden + handed, reduced, model.intermediate)
    return peak.bytes, peak.name


def _alive_in_mlp(model: Model) -> int:
    """How many tensors of the hidden size are alive while a layer's MLP runs, its own output not counted.

    fused: the caller's last output, the residual, the attention's output. copies: the caller's two, and the layer's own two.
    sequential: the caller's, the residual, the normed one. parallel: the residual, the normed one, the attention's output.
    """
    return {"copies": 4, "chatglm": 4}.get(model.family.layer, 3)


def _attention_moments(peak: _Peak, model: Model, settings: Settings, sm: int, handed: int, reduced: int) -> None:
    """attention/layer.py, attention/backends/xformers.py and flash_attn.py, models/qwen3.py, attention/backends/mla/common.py."""
    element, ranks, quant = settings.activation_bytes, settings.tensor_parallel_size, model.quant
    hidden = model.hidden * element
    base = handed + {"fused": 2, "copies": 4}.get(model.family.layer, 2) * hidden
    if model.latent:
        latent, heads = model.latent, model.heads // ranks
        qk = latent.nope_dim + latent.rope_dim
        held = latent.q_rank + 2 * latent.kv_rank + latent.rope_dim + heads * (qk + latent.nope_dim + latent.v_dim + qk)
        peak.at("attention", base + (held + 2 * heads * qk) * element)
        peak.at("attention", base + (held + heads * (qk + latent.v_dim)) * element + hidden + reduced)
        return
    query, key = (count * element for count in _rows(model, ranks))
    joined = query + 2 * key
    extra, fixed = _product(quant, model.hidden, joined // element, sm, settings, (query // element, key // element, key // element))
    peak.at("attention", base + joined + extra, fixed)
    held = base + joined
    if model.family.qk_norm:
        # RMSNorm.forward_native keeps the queries in float32 while it makes their squares, or their product and its 16-bit copy.
        peak.at("attention", held + query * 4 // element + query * (4 + element) // element)
        held += query + key
    if settings.attention == "XFORMERS":
        # The kernel's own output, the heads of grouped queries stacked anew, and the copy into the backend's output.
        copies = query * (3 if model.kv_heads != model.heads else 2)
        peak.at("attention", held + copies + (query * 4 // element if model.head_dim > 128 else 0))
    else:
        peak.at("attention", held + query + model.heads // ranks * 4)
    extra, fixed = _product(quant, query // element, model.hidden, sm, settings, (model.hidden,))
    peak.at("attention", held + query + hidden + max(reduced, extra), fixed)


def _mlp_moments(peak: _Peak, model: Model, settings: Settings, sm: int, base: int, reduced: int, width: int) -> None:
    """MLP.forward of the model classes: two products with the activation function between them. base: what is alive around it."""
    element, quant = settings.activation_bytes, model.quant
    width //= settings.tensor_parallel_size
    inner, outer = width * element, model.hidden * element
    first = 2 * inner if model.family.gated else inner
    shards = (width, width) if model.family.gated else (width,)
    extra, fixed = _product(quant, model.hidden, first // element, sm, settings, shards)
    peak.at("mlp", base + first + extra, fixed)
    if model.family.layer == "sequential":
        base -= outer  # the input is overwritten by the first product
    peak.at("mlp", base + first + inner)
    held = base + inner + (first if model.family.holds_gate_up else 0)
    extra, fixed = _product(quant, width, model.hidden, sm, settings, (model.hidden,))
    peak.at("mlp", held + outer + extra, fixed)
    peak.at("mlp", held + outer + reduced)


def _expert_moments(peak: _Peak, model: Model, settings: Settings, sm: int, handed: int, reduced: int) -> None:
    """layers/fused_moe/fused_moe.py fused_experts_impl and the blocks of mixtral.py, qwen2_moe.py, qwen3_moe.py, deepseek_v2.py.

    Up to moe_chunk tokens at a time; the first and the last product share their memory from 0.8 on (vllm pull request 13625).
    """
    experts, element = model.experts, settings.activation_bytes
    hidden = model.hidden * element
    base = handed + _alive_in_mlp(model) * hidden
    width = experts.intermediate // settings.tensor_parallel_size
    chunk = min(settings.max_num_batched_tokens, settings.moe_chunk)
    outer, middle = max(2 * width, model.hidden), width
    if settings.release < (0, 8):
        outer = 2 * width + model.hidden
    work = chunk * experts.top_k * (outer + middle) * element
    # The input in 8 bit while it is multiplied. Where more than MOE_SUM_EXPERTS outputs of a token are added up, torch does it, in float32 and
    # beside the output if the outputs are 2 GiB or more: torch 2.6 aten/src/ATen/native/cuda/Reduce.cuh gpu_reduce_kernel.
    outputs = chunk * experts.top_k * model.hidden * element
    narrow = chunk * max(model.hidden, experts.top_k * width) if model.quant and model.quant.layout in ("fp8", "int8") else 0
    summed = chunk * model.hidden * 4 if experts.top_k > MOE_SUM_EXPERTS and element == 2 and outputs >= 2**31 else 0
    work += max(narrow, summed)
    if experts.shared_intermediate:
        _mlp_moments(peak, model, settings, sm, base, 0, experts.shared_intermediate)
        base += hidden
    # Logits of the router as they are and in float32 while the best are chosen; then weights and numbers of the chosen, and their order.
    peak.at("experts", base + experts.count * (element + 4) + experts.top_k * 12)
    peak.at("experts", base + experts.count * element + experts.top_k * 12, work)
    scaled = hidden if experts.shared_intermediate else 0
    peak.at("experts", base + experts.count * element + experts.top_k * 8 + scaled + reduced)


# -- The rest ------------------------------------------------------------------------------------------------------------------------------


def non_torch(settings: Settings, sm: int) -> int:
    """What the engine's process holds on one card outside torch: kernels and handles, and NCCL where a layer is cut over ranks.

    Engines before 0.6.5 count everything in use on the card (worker.py, vllm pull request 10511), and so does V1 up to 0.8: there the CUDA
    context is in it.
    """
    kind = "non_torch_hopper" if sm // 10 == 9 else "non_torch_volta" if 70 <= sm < 75 else "non_torch"
    if (0, 6, 5) <= settings.release < (0, 7) and kind == "non_torch":
        kind = "non_torch_066"
    size = FITTED[kind] + (FITTED["non_torch_late"] if settings.release >= (0, 12) else 0)
    if settings.tensor_parallel_size > 1:
        size += int(FITTED["nccl_nvlink"] * math.log2(settings.tensor_parallel_size)) if settings.nvlink and sm >= 80 else FITTED["nccl_pcie"]
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


def predict(model: Model, cards: tuple[Card, ...], settings: Settings, correction: Correction = Correction()) -> Prediction:
    """The memory of every rank. The first tensor_parallel_size * pipeline_parallel_size of the cards are used.

    ValueError when there are fewer; whether the model can be cut into so many ranks is for rules.py to say.
    """
    ranks, stages = settings.tensor_parallel_size, settings.pipeline_parallel_size
    if len(cards) < ranks * stages:
        raise ValueError(f"{ranks} x {stages} ranks need as many cards, and there are {len(cards)}.")
    element, spans = settings.activation_bytes, stage_layers(model.layers, stages)
    blocks = [kv_block_bytes(model, settings, last - first) for first, last in spans]
    block_bytes = max(blocks)
    found, offloaded = [], 0
    for stage, (first, last) in enumerate(spans):
        repacked = marlin(settings, cards[stage * ranks].sm)
        inner, outer = weights(model, ranks, element, stages, stage, repacked, "none")
        made = weights(model, ranks, element, stages, stage, repacked, latent_copies(settings))[0] - inner if model.latent else 0
        # What is made of offloaded matrices lies where they lie.
        moved = min(settings.cpu_offload_bytes, inner)
        copied = made * moved // max(1, inner)
        offloaded += (moved + copied) * ranks
        held = max(0, inner + made + outer - moved - copied + correction.weights)
        block, graphs = blocks[stage], cuda_graphs(settings, last - first)
        alike = {}
        for rank in range(ranks):
            card, samples = cards[stage * ranks + rank], rank == 0 or settings.core == "V1"
            if same := alike.get((card.total_bytes, card.sm, samples)):
                found.append(same)
                continue
            used, name = activation(model, settings, card.sm, stage, samples)
            used, other = int(used * correction.activation), max(0, non_torch(settings, card.sm) + correction.non_torch)
            budget = int(card.total_bytes * settings.gpu_memory_utilization)
            loaded = held + dense_mask(model, settings, card.sm)
            left = budget - loaded - used - other - (graphs if settings.charges_graphs else 0)
            found.append(Rank(card.total_bytes, budget, loaded, used, other, left, graphs, max(0, left // block if block else 0), name))
            alike[card.total_bytes, card.sm, samples] = found[-1]
    return Prediction(
        ranks=tuple(found),
        block_bytes=block_bytes,
        block_size=settings.block_size,
        blocks=min(rank.blocks for rank in found),
        cpu_blocks=settings.swap_bytes // block_bytes,
        host_bytes=settings.swap_bytes * ranks * stages + offloaded,
        max_model_len=settings.max_model_len,
        mask=max(dense_mask(model, settings, card.sm) for card in cards[: ranks * stages]),
    )


# -- Judging -------------------------------------------------------------------------------------------------------------------------------

# A start that lacks less than this share of the budget is warned about and not refused: the prediction's own error.
MARGIN = 0.01


def gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def shortfalls(model: Model, settings: Settings, prediction: Prediction) -> tuple[list[Problem], list[Problem]]:
    """(refusals, warnings): what the engine will not start with, each in numbers of the rank that has the least left.

    A refusal leaves MARGIN of the budget for the prediction's own error.
    """
    tightest = min(range(len(prediction.ranks)), key=lambda index: prediction.ranks[index].blocks)
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
    elif prediction.tokens < settings.max_model_len and not settings.shrinks_context:
        per_block = rank.kv_cache / max(1, rank.blocks)
        missing = (settings.max_model_len / prediction.block_size - prediction.blocks) * per_block
        message = (
            f"One sequence of max_model_len {settings.max_model_len} needs more KV cache than there is: {prediction.tokens} tokens in "
            f"{gib(rank.kv_cache)} on rank {tightest}."
        )
        remedy = f"Set max_model_len to {prediction.tokens} or less, or raise gpu_memory_utilization by {missing / rank.total:.3f}."
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
