# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shapes of the ranks: what of a model can be cut how often."""

from __future__ import annotations

from ..facts import Facts
from ..problem import Problem
from .subject import Subject, divisors, listed

RULES = Subject()


@RULES.refusal
def heads_not_divisible(f: Facts) -> Problem | None:
    """config.py ModelConfig.verify_with_parallel_config."""
    if f.model.heads % f.tp == 0:
        return None
    message = f"The model has {f.model.heads} attention heads, which tensor_parallel_size {f.tp} does not divide."
    return Problem("heads_not_divisible", message, f"Use tensor_parallel_size {listed(divisors(f.model.heads, max(f.cards, 1)))}.")


@RULES.refusal
def kv_heads_not_divisible(f: Facts) -> Problem | None:
    """model_executor/models: KV heads are divided among the ranks, or each is repeated on as many ranks."""
    heads = f.model.kv_heads
    if f.model.latent or (heads % f.tp == 0 if heads >= f.tp else f.tp % heads == 0):
        return None
    good = [size for size in range(1, max(f.cards, 1) + 1) if f.model.heads % size == 0 and (heads % size == 0 or (heads < size and size % heads == 0))]
    message = f"The model has {heads} KV heads, which tensor_parallel_size {f.tp} neither divides nor is a multiple of."
    return Problem("kv_heads_not_divisible", message, f"Use tensor_parallel_size {listed(good)}.")


@RULES.refusal
def intermediate_not_divisible(f: Facts) -> Problem | None:
    """distributed/utils.py divide; fused_moe/layer.py asserts the same of the experts."""
    sizes = {"intermediate_size": f.model.intermediate}
    if f.model.experts and not (f.option("enable_expert_parallel") and f.tp > 1):
        sizes = {"moe_intermediate_size": f.model.experts.intermediate}
        if f.model.experts.dense:
            sizes["intermediate_size"] = f.model.intermediate
    elif f.model.experts:
        return None
    wrong = {name: size for name, size in sizes.items() if size % f.tp}
    if not wrong:
        return None
    name, size = next(iter(wrong.items()))
    message = f"The model has {name} {size}, which tensor_parallel_size {f.tp} does not divide."
    return Problem("intermediate_not_divisible", message, f"Use tensor_parallel_size {listed(divisors(size, max(f.cards, 1)))}.")


@RULES.refusal
def expert_parallel_without_experts(f: Facts) -> Problem | None:
    """config.py ModelConfig._verify_with_expert_parallelism."""
    if not f.option("enable_expert_parallel") or f.model.experts:
        return None
    return Problem("expert_parallel_without_experts", f"{f.model.architecture} has no experts to divide among the cards.", "Remove enable_expert_parallel.")


@RULES.refusal
def vocabulary_not_divisible(f: Facts) -> Problem | None:
    """layers/vocab_parallel_embedding.py: the vocabulary is padded to a multiple of 64 and then divided."""
    padded = -(-f.model.vocab // 64) * 64
    if padded % f.tp == 0:
        return None
    message = f"The vocabulary of {f.model.vocab}, padded to {padded}, is not divisible by tensor_parallel_size {f.tp}."
    return Problem("vocabulary_not_divisible", message, f"Use tensor_parallel_size {listed(divisors(padded, max(f.cards, 1)))}.")


@RULES.refusal
def layers_below_stages(f: Facts) -> Problem | None:
    """distributed/utils.py get_pp_indices: every stage has at least one layer."""
    if f.pp <= f.model.layers:
        return None
    message = f"The model has {f.model.layers} layers, fewer than pipeline_parallel_size {f.pp}."
    return Problem("layers_below_stages", message, f"Use pipeline_parallel_size {f.model.layers} or less.")


def _matrices(f: Facts, tp: int) -> list[tuple[str, int, int, int]]:
    """The quantised matrices of a decoder layer as (name, inputs of a rank, outputs of a rank, group of inputs). MLA's own are left out.

    Experts: quantization/moe_wna16.py create_weights halves the group until it divides, down to 32.
    """
    model, group = f.model, f.model.quant.group
    whole = {part for part, layers in model.quant.skipped if layers >= model.layers}
    kv = max(1, model.kv_heads // tp)
    found = []
    if not model.latent and "qkv" not in whole:
        found.append(("qkv_proj", model.hidden, (model.heads // tp + 2 * kv) * model.head_dim, group))
    if not model.latent and "o" not in whole:
        found.append(("o_proj", model.heads * model.head_dim // tp, model.hidden, group))
    if (model.experts is None or model.experts.dense) and "gate_up" not in whole:
        gated = model.family.gated
        found.append(("gate_up_proj" if gated else "up_proj", model.hidden, (2 if gated else 1) * model.intermediate // tp, group))
    if (model.experts is None or model.experts.dense) and "down" not in whole:
        found.append(("down_proj", model.intermediate // tp, model.hidden, group))
    if model.experts and "experts" not in whole:
        inner, least = model.experts.intermediate // (1 if f.option("enable_expert_parallel") else tp), min(group, 32)
        found += [("the experts' gate_up_proj", model.hidden, 2 * inner, least), ("the experts' down_proj", inner, model.hidden, least)]
    return found


def _fits_groups(f: Facts, tp: int) -> bool:
    return f.model.heads % tp == 0 and f.model.intermediate % tp == 0 and not any(inputs % group for dummy, inputs, dummy, group in _matrices(f, tp))


@RULES.refusal
def quantized_input_not_divisible(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py create_weights: a group of inputs shares its scale and cannot lie on two ranks. Fails while loading."""
    quant = f.model.quant
    if quant is None or quant.layout not in ("awq", "gptq", "packed") or not quant.group:
        return None
    for name, inputs, dummy, group in _matrices(f, f.tp):
        if inputs % group:
            good = [tp for tp in range(1, max(f.cards, f.tp) + 1) if _fits_groups(f, tp)]
            message = f"{name} has {inputs} inputs on each of {f.tp} ranks, not a multiple of the quantisation's group size {group}."
            sizes = f"Use tensor_parallel_size {listed(good)}" if good else "Use pipeline_parallel_size for the cards"
            return Problem("quantized_input_not_divisible", message, f"{sizes}, or a checkpoint with a smaller group size.")
    return None


@RULES.refusal
def quantized_output_not_packed(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py create_weights: eight 4-bit outputs, four 8-bit ones, share a 32-bit word. Fails while loading."""
    quant = f.model.quant
    if quant is None or quant.layout not in ("awq", "gptq"):
        return None
    packed = 32 if quant.bits == 3 else 32 // quant.bits
    for name, dummy, outputs, dummy in _matrices(f, f.tp):
        if outputs % packed:
            message = f"{name} has {outputs} outputs on each of {f.tp} ranks, and {packed} of them share a 32-bit word."
            return Problem("quantized_output_not_packed", message, "Use a smaller tensor_parallel_size.")
    return None


@RULES.warning
def kv_heads_replicated(f: Facts) -> Problem | None:
    if f.model.latent or f.tp <= f.model.kv_heads or f.tp % f.model.kv_heads:
        return None
    times = f.tp // f.model.kv_heads
    message = f"Each of the {f.model.kv_heads} KV heads is kept on {times} of the {f.tp} ranks: the cards hold {times} copies of every sequence."
    remedy = f"Use tensor_parallel_size {f.model.kv_heads} and pipeline_parallel_size {times} if the context or the concurrency matters more than latency."
    return Problem("kv_heads_replicated", message, remedy)
