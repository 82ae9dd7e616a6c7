# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quantised checkpoints: which method runs on which card and engine."""

from __future__ import annotations

from .. import lanes
from ..facts import Facts, marlin_takes, quantization_that_runs, stored_for, symmetric_gptq
from ..problem import Problem
from .subject import Subject, listed

# Methods that quantise 16-bit weights while loading them. Every other wants its settings from the checkpoint.
AT_LOAD = frozenset({"bitsandbytes", "experts_int8", "fp8", "gguf", "humming", "mxfp4", "mxfp8", "ptpc_fp8"})

RULES = Subject()


@RULES.refusal
def quantization_not_in_engine(f: Facts) -> Problem | None:
    if f.quantization is None or f.quantization in f.lane.quantization:
        return None
    others = [lane.version for lane in lanes.LANES.values() if f.quantization in lane.quantization and f.sm >= lane.quantization[f.quantization]]
    message = f"vLLM {f.lane.version} has no quantisation {f.quantization} for NVIDIA cards."
    where = f"Use the engine {listed(others)}, or" if others else "Use"
    return Problem("quantization_not_in_engine", message, f"{where} a checkpoint in another format, such as awq or gptq.")


@RULES.refusal
def quantization_capability(f: Facts) -> Problem | None:
    """config.py VllmConfig._get_quantization_config compares get_min_capability with the card; moe_wna16.py asks the same of AWQ checkpoints."""
    method = "awq" if f.quantization == "moe_wna16" and f.model.quant and f.model.quant.method == "awq" else f.quantization
    least = f.lane.quantization.get(method) if method else None
    if least is None or f.sm >= least:
        return None
    plain = {"awq_marlin": "awq", "gptq_marlin": "gptq", "marlin": "gptq"}.get(method)
    others = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.quantization.get(method, 1000)]
    ways = [f"quantization: {plain}"] if plain and f.sm >= f.lane.quantization.get(plain, 1000) else []
    ways += [f"the engine {listed(others)}"] if others else []
    ways += [] if plain and ways else ["a checkpoint in another format, such as awq or gptq"]
    message = f"The quantisation {method} needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    return Problem("quantization_capability", message, f"Use {' or '.join(ways)}.")


@RULES.refusal
def compressed_tensors_scheme(f: Facts) -> Problem | None:
    """quantization/compressed_tensors: each scheme has a capability of its own, checked while loading."""
    quant = f.model.quant
    least = f.lane.schemes.get(quant.layout) if quant and quant.method == "compressed-tensors" else None
    if least is None or f.sm >= least:
        return None
    others = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.schemes[quant.layout]]
    what = {"packed": f"{quant.bits}-bit weights", "fp8": "fp8 weights", "int8": "int8 weights"}[quant.layout]
    message = f"compressed-tensors with {what} needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    engine = f" or the engine {listed(others)}" if others else ""
    return Problem("compressed_tensors_scheme", message, f"Use a checkpoint whose quant_method is awq or gptq{engine}.")


@RULES.refusal
def quantization_mismatch(f: Facts) -> Problem | None:
    """config.py ModelConfig._verify_quantization: the option names another method than config.json."""
    asked, quant = f.given.get("quantization"), f.model.quant
    if asked is None:
        return None
    asked = asked.lower()
    if quant is None:
        if asked in AT_LOAD:
            return None
        message = f"quantization is {asked}, and config.json has no quantization_config: the checkpoint is not quantised."
        return Problem("quantization_mismatch", message, f"Remove quantization, or use a checkpoint in {asked.partition('_')[0]}.")
    accepted = f.lane.checkpoint.get(quant.method, (quant.method,))
    if asked in accepted and (lacking := _lacking(f, asked)):
        remedy = "Use a checkpoint without desc_act." if f.model.experts and quant.act_order else "Remove quantization."
        return Problem("quantization_mismatch", f"quantization is {asked}, which takes {lacking}, and this checkpoint is another.", remedy)
    if asked in accepted:
        return None
    usable = [method for method in accepted if f.sm >= f.lane.quantization.get(method, 1000) and method != "gptq_bitblas"]
    message = f"quantization is {asked}, and config.json says {quant.method}."
    return Problem("quantization_mismatch", message, f"Remove quantization, or use {listed(usable) or quant.method}.")


def _lacking(f: Facts, asked: str) -> str:
    """What the method takes, where this checkpoint is not that; empty where it is. override_quantization_method of quantization/*.py."""
    quant = f.model.quant
    if asked == "moe_wna16" and (quant.act_order or quant.bits not in (4, 8)):
        return "4 or 8 bits without desc_act"
    if asked == "gptq_marlin_24" and stored_for(f.config) != asked:
        return "the checkpoint_format marlin_24"
    if asked == "gptq_bitblas" and not symmetric_gptq(f.model, f.config):
        return "symmetric checkpoints of 4 or 8 bits whose config.json says sym and desc_act"
    # Version 0.33.0 makes its own method of these, whatever the checkpoint.
    marlin = asked == "marlin" or asked == f"{quant.method}_marlin"
    if marlin and f.lane.version != "0.33.0" and stored_for(f.config) != asked and not marlin_takes(f.model, f.config):
        return "groups of 32, 64 or 128 weights, or one group, and of gptq what is symmetric, of awq what has zero points"
    return ""


@RULES.refusal
def gptq_picks_bitblas(f: Facts) -> Problem | None:
    """quantization/gptq_bitblas.py takes every symmetric checkpoint below 8.0, and the image has no bitblas to import."""
    if f.quantization != "gptq_bitblas" or f.model.quant is None or f.model.quant.method != "gptq":
        return None
    message = f"This symmetric GPTQ checkpoint makes vLLM {f.lane.version} choose gptq_bitblas on compute capability {f.capability}, which cannot be imported."
    if f.model.experts is None:
        return Problem("gptq_picks_bitblas", message, "Set quantization: gptq.")
    remedy = "Use a checkpoint without desc_act." if f.model.quant.act_order else "Set quantization: moe_wna16."
    return Problem("gptq_picks_bitblas", message, remedy)


@RULES.refusal
def act_order_not_in_engine(f: Facts) -> Problem | None:
    """vllm 0.33.0 quantization/utils/gptq_utils.py normalize_and_validate_gptq_desc_act, and compressed_tensors.py for its actorder."""
    quant = f.model.quant
    if f.lane.version != "0.33.0" or quant is None or not quant.act_order or (quant.method == "gptq" and not quant.group):
        return None
    others = [lane.version for lane in lanes.LANES.values() if lane.version != "0.33.0" and f.sm >= lane.quantization.get(quant.method, 1000)]
    message = f"The checkpoint's inputs are ordered by activation (desc_act, actorder), which vLLM {f.lane.version} no longer reads."
    engine = f"Use the engine {listed(others)}, or" if others else "Use"
    return Problem("act_order_not_in_engine", message, f"{engine} a checkpoint without it.")


@RULES.refusal
def gptq_not_symmetric(f: Facts) -> Problem | None:
    """vllm 0.33.0 quantization/auto_gptq.py, TYPE_MAP: symmetric with 4 or 8 bits."""
    if f.quantization != "auto_gptq" or f.model.quant is None or symmetric_gptq(f.model, f.config):
        return None
    others = [lane.version for lane in lanes.LANES.values() if "auto_gptq" not in lane.quantization]
    remedy = f"Use the engine {listed(others)}, or a symmetric checkpoint."
    message = f"The {f.quantization} kernels take symmetric checkpoints of 4 or 8 bits whose config.json says sym and desc_act, and this one is not."
    return Problem("gptq_not_symmetric", message, remedy)


@RULES.refusal
def quantized_experts_need_wna16(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py get_quant_method know linear layers only; fused_moe/layer.py asserts that experts have a method."""
    if f.lane.version != "0.8.5" or f.model.experts is None or f.quantization not in ("awq", "gptq"):
        return None
    if f.model.quant is None or f.model.quant.act_order:
        message = f"The {f.quantization} kernels of vLLM {f.lane.version} have none for a mixture of experts, and its moe_wna16 takes no act-order checkpoint."
        return Problem("quantized_experts_need_wna16", message, "Use a checkpoint without desc_act.")
    message = f"The {f.quantization} kernels of vLLM {f.lane.version} have none for a mixture of experts."
    return Problem("quantized_experts_need_wna16", message, "Set quantization: moe_wna16.")


@RULES.warning
def awq_not_optimized(f: Facts) -> Problem | None:
    """vLLM prints it itself (config.py: "not fully optimized yet. The speed can be slower than non-quantized models").

    Reported on 2080 Ti: GPTQ faster than AWQ (QwenLM/Qwen3-VL issue 719), 3.9 tokens/s with awq against 30.5 with Marlin kernels for a 70B
    model on four cards (redlinedtm-jpg/vllm-v100-2080ti-recipes).
    """
    if f.quantization != "awq" or f.lane.version != "0.8.5" or f.sm >= 80:
        return None
    newer = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.quantization["awq_marlin"] and lanes.runs_on(lane.version, f.driver)]
    message = f"Below compute capability 8.0 vLLM {f.lane.version} runs AWQ with its plain kernels, which can be slower than 16-bit weights."
    engine = f"Use the engine {newer[0]}, whose Marlin kernels run on this card, or" if newer else "Use"
    return Problem("awq_not_optimized", message, f"{engine} a GPTQ checkpoint; where it has to be AWQ, more memory for the KV cache is what it gains.")


@RULES.warning
def marlin_left_aside(f: Facts) -> Problem | None:
    """quantization/awq_marlin.py and gptq_marlin.py override_quantization_method say so in the log."""
    asked = f.given.get("quantization")
    if asked not in ("awq", "gptq") or f.quantization != asked or f.model.quant is None or f.model.experts:
        return None
    if quantization_that_runs(f.lane, None, f.model, f.config, f.sm) != f"{asked}_marlin":
        return None
    message = f"quantization: {asked} keeps the engine from its Marlin kernels, which this card runs and which are faster."
    return Problem("marlin_left_aside", message, "Remove quantization.")


@RULES.warning
def eight_bit_runs_eagerly(f: Facts) -> Problem | None:
    """config.py ModelConfig._verify_bnb_config."""
    quant = f.model.quant
    if f.quantization != "bitsandbytes" or quant is None or quant.bits != 8 or f.option("enforce_eager"):
        return None
    return Problem("eight_bit_runs_eagerly", "bitsandbytes with 8 bits runs without CUDA graphs.", "Use a 4-bit checkpoint if speed matters.")
