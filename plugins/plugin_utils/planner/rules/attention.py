# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Attention: the engine core, the backend, and the kernels that it has for a model."""

from __future__ import annotations

from collections.abc import Mapping

from .. import lanes, values
from ..facts import Facts, forced_backend, v1_obstacles
from ..instance import WHEEL_STRATEGIES
from ..problem import Problem
from .subject import Subject, listed, of_sizes

XFORMERS_HEADS = (32, 64, 80, 96, 112, 120, 128, 192, 256)  # attention/ops/paged_attn.py
XFORMERS_BLOCKS = (8, 16, 32)  # csrc/attention, the block sizes that are compiled

RULES = Subject()


@RULES.refusal
def v1_not_available(f: Facts) -> Problem | None:
    """engine/arg_utils.py _raise_or_fallback: with VLLM_USE_V1=1 the engine raises instead of falling back."""
    if f.env.get("VLLM_USE_V1") != "1" or set(f.lane.core.values()) == {"V1"}:
        return None
    found = next(v1_obstacles(f.option, f.env, f.model, f.dtype, f.sm), None)
    if found is None:
        return None
    message = f"VLLM_USE_V1=1 is refused because of {found}."
    return Problem("v1_not_available", message, "Remove VLLM_USE_V1 from env: the engine then falls back to V0.")


@RULES.refusal
def attention_backend_refused(f: Facts) -> Problem | None:
    """platforms/cuda.py get_attn_backend_cls raises for a backend that is not for this card."""
    forced, name = forced_backend(f.lane, f.option, f.env), "attention_backend" if f.lane.ignored_env else "VLLM_ATTENTION_BACKEND"
    if not forced or forced.upper() == "CUSTOM":
        return None
    least, good = f.lane.backends.get(forced.upper()), lanes.at(f.lane.attention, f.sm)
    wanted = (lanes.at(f.lane.wants, f.sm) or {}).get("attention_backend")
    usable = wanted or good
    if least is None:
        message = f"{name} is {forced}, which vLLM {f.lane.version} does not have for these cards."
    elif f.sm < least:
        message = f"{name} is {forced}, which needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    elif wanted and forced.upper() == good:
        message = f"{name} is {forced}, whose kernels are broken on compute capability {f.capability} (flashinfer issue 3620)."
    elif "MLA" in forced.upper() and not f.mla:
        message = f"{name} is {forced}, which is for latent attention, and {f.model.architecture} is run without it."
    else:
        return None
    return Problem("attention_backend_refused", message, f"Use {usable}{'' if wanted else ', which the engine picks by itself: leave it out'}.")


@RULES.refusal
def latent_attention_needs_flash(f: Facts) -> Problem | None:
    """attention/backends/mla/common.py, v1's mla/prefill: prompts go through FlashAttention 2, which refuses a card below 8.0."""
    if not f.mla or f.sm >= 80:
        return None
    message = f"{f.model.architecture} computes prompts in its latent attention with FlashAttention 2, which needs compute capability 8.0: the card has "
    return Problem("latent_attention_needs_flash", f"{message}{f.capability}.", 'Set VLLM_MLA_DISABLE: "1" in env, which takes a larger KV cache.')


@RULES.refusal
def flash_attn_breaks_vision(f: Facts) -> Problem | None:
    """models/qwen2_vl.py imports flash_attn 2's names for its vision tower when FLASH_ATTN is forced; flash-attn 1.0.9 does not have them."""
    vision = f.model.architecture.startswith(("Qwen2VL", "Qwen2_5_VL"))
    if f.lane.version != "0.8.5" or f.sm >= 80 or not vision or f.env.get("VLLM_ATTENTION_BACKEND") != "FLASH_ATTN":
        return None
    message = f"VLLM_ATTENTION_BACKEND=FLASH_ATTN makes the vision tower of {f.model.architecture} import flash-attn 2, which needs compute capability 8.0."
    return Problem("flash_attn_breaks_vision", message, "Remove VLLM_ATTENTION_BACKEND from env.")


@RULES.warning
def flash_attn_without_effect(f: Facts) -> Problem | None:
    """No text model of 0.8.5 imports flash_attn; models/vision.py get_vit_attn_backend takes it from compute capability 8.0 on, and 2.1 at least."""
    if f.strategy not in WHEEL_STRATEGIES or (f.model.multimodal and f.sm >= 80):
        return None
    reason = f"vision towers use xFormers on compute capability {f.capability}" if f.model.multimodal else "text models never import flash_attn"
    message = f"The attention_strategy {f.strategy} changes nothing for {f.model.architecture}: in vLLM {f.lane.version} {reason}."
    return Problem("flash_attn_without_effect", message, "Remove attention_strategy, unless code of your own in the image imports the package.")


@RULES.warning
def attention_backend_ignored(f: Facts) -> Problem | None:
    forced = f.env.get("VLLM_ATTENTION_BACKEND")
    if f.lane.ignored_env or forced != "FLASH_ATTN" or f.attention == "FLASH_ATTN" or f.mla:
        return None
    message = f"VLLM_ATTENTION_BACKEND is FLASH_ATTN, and the engine uses {f.attention} all the same: FlashAttention 2 needs compute capability 8.0."
    return Problem("attention_backend_ignored", message, "Remove VLLM_ATTENTION_BACKEND from env.")


@RULES.warning
def engine_picks_broken_attention(f: Facts) -> Problem | None:
    """Reported on T4: the server starts and the first request crashes (trietnguyeminh/Submission---EXACT--IJCNN, 0.22.1)."""
    wanted = (lanes.at(f.lane.wants, f.sm) or {}).get("attention_backend")
    if not wanted or forced_backend(f.lane, f.option, f.env) or f.attention == wanted or f.mla:
        return None
    message = f"By itself vLLM {f.lane.version} picks {f.attention} on compute capability {f.capability}, where its kernels can crash at the first request."
    return Problem("engine_picks_broken_attention", message, f"Set attention_backend: {wanted}.")


@RULES.warning
def env_ignored(f: Facts) -> Problem | None:
    for name, remedy in f.lane.ignored_env.items():
        if name in f.env:
            return Problem("env_ignored", f"vLLM {f.lane.version} does not read {name}.", remedy)
    return None


@RULES.refusal
def head_size_without_kernel(f: Facts) -> Problem | None:
    """attention/ops/paged_attn.py; v1/attention/backends/triton_attn.py takes 32 and more."""
    head = f.model.head_dim
    if f.model.latent or (head in XFORMERS_HEADS if f.attention == "XFORMERS" else head >= 32):
        return None
    sizes = listed(XFORMERS_HEADS) if f.attention == "XFORMERS" else "32 and more"
    message = f"The model's heads have {head} elements, and {f.attention} has kernels for {sizes}."
    return Problem("head_size_without_kernel", message, "Use another model.")


@RULES.refusal
def block_size_without_kernel(f: Facts) -> Problem | None:
    """csrc/attention/paged_attention_v1.cu compiles 8, 16 and 32; the others take multiples of 16."""
    if f.mla or (f.block in XFORMERS_BLOCKS if f.attention == "XFORMERS" else f.block % 16 == 0):
        return None
    sizes = listed(XFORMERS_BLOCKS) if f.attention == "XFORMERS" else "multiples of 16"
    return Problem("block_size_without_kernel", f"block_size is {f.block}, and {f.attention} has kernels for {sizes}.", "Use block_size: 16.")


@RULES.refusal
@of_sizes
def prefill_kernel_does_not_compile(f: Facts) -> Problem | None:
    """attention/ops/prefix_prefill.py, compiled for 7.5: its tiles are fixed, and a card has 64 KiB of shared memory there."""
    if f.core != "V0" or f.attention != "XFORMERS" or f.sm >= 80 or f.mla or not (f.prefix or f.chunked):
        return None
    kind = str(f.option("kv_cache_dtype"))
    if f.model.head_dim > 128:
        cause = f"heads of {f.model.head_dim} elements need more than its 64 KiB of shared memory"
    elif f.dtype == "float32":
        cause = "float32 needs more than its 64 KiB of shared memory"
    elif f.block < 16:
        cause = f"block_size {f.block} is below the 16 that it computes with"
    elif kind in ("fp8", "fp8_e4m3"):
        cause = f"kv_cache_dtype {kind} cannot be converted there"
    else:
        return None
    causes = [name for name, on in (("enable_prefix_caching", f.prefix), ("enable_chunked_prefill", f.chunked)) if on]
    message = f"{' and '.join(causes)} use a Triton kernel that compute capability {f.capability} cannot run: {cause}."
    remedies = f"Set {', '.join(f'{name}: false' for name in causes)}"
    other = {"block_size": ", or block_size: 16", "kv_cache_dtype": ", or kv_cache_dtype: fp8_e5m2"}.get(cause.split()[0], "")
    return Problem("prefill_kernel_does_not_compile", message, f"{remedies}{other}.")


@RULES.refusal
def triton_tile_too_large(f: Facts) -> Problem | None:
    """Reported on two Quadro RTX 6000: 98304 bytes of shared memory asked of 65536, heads of 512 elements (vllm issue 57712, 0.26.0)."""
    head = max(f.model.head_dim, _int(f.config, "global_head_dim"))
    if f.core != "V1" or f.attention != "TRITON_ATTN" or f.sm >= 80 or head < 512:
        return None
    message = f"Heads of {head} elements need 96 KiB of shared memory in {f.attention}, and compute capability {f.capability} has 64 KiB."
    return Problem("triton_tile_too_large", message, "Use another model for this card.")


@RULES.warning
def triton_tile_unproven(f: Facts) -> Problem | None:
    """A T4 with 64 KiB of shared memory was asked for 81920 bytes by another model (vllm issue 36802)."""
    if f.core != "V1" or f.attention != "TRITON_ATTN" or f.sm >= 80 or not 128 < f.model.head_dim < 512:
        return None
    message = f"{f.attention} with heads of {f.model.head_dim} elements is not proved within the 64 KiB of shared memory of compute capability {f.capability}."
    return Problem("triton_tile_unproven", message, "Prove it with a real request before relying on it.")


def _int(config: Mapping, key: str) -> int:
    nested = config.get("text_config")
    value = config.get(key) or (nested.get(key) if isinstance(nested, dict) else None)
    return value if values.is_int(value) else 0
