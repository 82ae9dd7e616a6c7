# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Number formats: of the computation and of the KV cache."""

from __future__ import annotations

from .. import lanes
from ..facts import Facts
from ..problem import Problem
from .subject import Subject

FLOAT32_QUANTIZATION = frozenset({"bitsandbytes", "gguf", "torchao"})

RULES = Subject()


@RULES.refusal
def bfloat16_unsupported(f: Facts) -> Problem | None:
    """platforms/cuda.py check_if_supports_dtype, in the worker. 0.8.5 never casts by itself."""
    if f.dtype != "bfloat16" or f.sm >= 80:
        return None
    whose = "dtype is bfloat16" if f.option("dtype") == "bfloat16" else "the checkpoint is bfloat16 and dtype is auto"
    message = f"Bfloat16 needs compute capability 8.0, and the card has {f.capability}: {whose}."
    return Problem("bfloat16_unsupported", message, "Set dtype: half.")


@RULES.refusal
def dtype_not_for_quantization(f: Facts) -> Problem | None:
    """config.py VllmConfig._get_quantization_config compares get_supported_act_dtypes."""
    if f.quantization is None or f.quantization not in f.lane.quantization or f.dtype == "float16":
        return None
    if f.quantization not in f.lane.half_only and (f.dtype == "bfloat16" or f.quantization in FLOAT32_QUANTIZATION):
        return None
    message = f"The quantisation {f.quantization} of vLLM {f.lane.version} computes in float16, and the engine would use {f.dtype}."
    return Problem("dtype_not_for_quantization", message, "Set dtype: half.")


@RULES.refusal
def float16_refused_by_model(f: Facts) -> Problem | None:
    """vllm 0.19.1 and 0.33.0 config/model.py _check_valid_dtype."""
    kind = f.config.get("model_type")
    if f.lane.version == "0.8.5" or f.dtype != "float16" or kind not in lanes.NOT_IN_HALF:
        return None
    remedy = "Set dtype: bfloat16." if f.sm >= 80 else "Use another model, or dtype: float32 where twice the memory is there."
    return Problem("float16_refused_by_model", f"vLLM {f.lane.version} refuses float16 for the model type {kind}, whose activations overflow it.", remedy)


@RULES.warning
def float16_overflows(f: Facts) -> Problem | None:
    """0.8.5 lets such a model run in float16; later engines refuse it for numerical instability."""
    kind = f.config.get("model_type")
    if f.lane.version != "0.8.5" or f.dtype != "float16" or kind not in lanes.NOT_IN_HALF:
        return None
    message = f"Activations of the model type {kind} can leave the range of float16, and later engines refuse it: answers may be empty or wrong."
    return Problem("float16_overflows", message, "Prove it with your own prompts, or use another model.")


@RULES.warning
def float32_by_itself(f: Facts) -> Problem | None:
    """vllm 0.19.1 and 0.33.0 config/model.py _resolve_auto_dtype: neither bfloat16 nor float16 is left."""
    if f.option("dtype") != "auto" or f.dtype != "float32" or f.model.dtype == "float32":
        return None
    message = f"The model is {f.model.dtype}, which the card cannot compute, and refuses float16: the engine takes float32, with twice the memory."
    return Problem("float32_by_itself", message, "Use another model for this card.")


@RULES.refusal
def kv_cache_dtype_unsupported(f: Facts) -> Problem | None:
    """Triton has no conversion to fp8_e4m3 below 8.9 (vllm 0.33.0 v1/attention/backends/triton_attn.py says so; 0.19.1 fails to compile)."""
    kind = str(f.option("kv_cache_dtype"))
    if f.attention.startswith("TRITON") and f.core == "V1" and f.sm < 89 and kind.startswith("fp8"):
        message = f"kv_cache_dtype {kind} needs compute capability 8.9 with {f.attention}, and the card has {f.capability}."
        return Problem("kv_cache_dtype_unsupported", message, "Leave kv_cache_dtype out.")
    if kind == "bfloat16" and f.sm < 80:
        message = f"kv_cache_dtype bfloat16 needs compute capability 8.0, and the card has {f.capability}."
        return Problem("kv_cache_dtype_unsupported", message, "Leave kv_cache_dtype out.")
    if f.lane.version == "0.33.0" and kind in ("float16", "bfloat16") and kind != f.dtype:
        # config/vllm.py _reject_mismatched_float_kv_cache
        message = f"kv_cache_dtype is {kind} and dtype {f.dtype}, and vLLM {f.lane.version} has no 16-bit cache in another format than the model's."
        return Problem("kv_cache_dtype_unsupported", message, "Leave kv_cache_dtype out.")
    return None
