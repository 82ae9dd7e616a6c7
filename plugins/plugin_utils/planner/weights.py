# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tensors of a model on every rank: their sizes in the engine's order, and what torch's allocator books for them.

All sizes are bytes. File names are those of vllm 0.8.5, vllm/model_executor where no other folder is named.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Iterator

from .model import Model
from .quantization import Quant
from .settings import Settings

MIB = 1024**2


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
    least = min([size for times, sizes in parts for size in sizes if size > MIB], default=0)
    booked, free = 0, []
    for times, sizes in parts:
        small, large = sum([size for size in sizes if size <= MIB]), [size for size in sizes if size > MIB]
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
            booked += sum([_block(size, free, least) for size in large])
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


def rows(model: Model, ranks: int) -> tuple[int, int]:
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
    query, key = rows(model, ranks)
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


def layer_tensors(model: Model, ranks: int, element: int, sparse: bool, expanded: frozenset[str], repacked: bool, copies: str) -> list[int]:
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
            yield high - low, layer_tensors(model, ranks, element, sparse, expanded, repacked, copies)


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
    return sum([times * sum(sizes) for times, sizes in parts])


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
    exact_inner, outer = _sum(parts[1:-1]), _sum([parts[0], parts[-1]])
    if model.quant and model.quant.layout == "bitsandbytes":
        order = [size for times, sizes in parts for size in sizes * times]
        parts = [(1, sorted(order, key=lambda size: isinstance(size, Late)))]
    rounding = allocated(parts) - exact_inner - outer
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
