# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's options as far as memory depends on them, with every default filled in."""

from __future__ import annotations

import functools
from typing import NamedTuple

from . import options as engine_options
from . import values
from .hardware import GIB, Card
from .model import Model

MOE_CHUNK = 32768  # the engine's own VLLM_FUSED_MOE_CHUNK_SIZE
ACTIVATION_BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "float32": 4, "float": 4}


class Settings(NamedTuple):
    """The engine's options as far as memory depends on them, with every default filled in; `settings` makes them from an option map.

    release: the engine's, (0, 8, 5). core: V0 or V1. attention: XFORMERS, FLASH_ATTN or another backend's name. dtype: the one that runs, never
    auto; activation_bytes: of one number of it. moe_chunk: tokens that one call of the fused experts takes (VLLM_FUSED_MOE_CHUNK_SIZE). nvlink:
    whether the ranks are joined by it. plain_kernels: the option quantization asks for awq or gptq as they are, where the engine would take
    Marlin's kernels. charges_graphs: an estimate of the CUDA graphs is taken from the budget. shrinks_context: max_model_len is "auto", so the
    engine takes less where the cache cannot hold the model's longest context. mla: a model with latent attention is computed on the latent
    vectors, instead of on keys and values made of them.
    """

    release: tuple[int, ...]
    core: str
    attention: str
    dtype: str
    activation_bytes: int
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
    moe_chunk: int = MOE_CHUNK
    nvlink: bool = False
    plain_kernels: bool = False
    charges_graphs: bool = False
    shrinks_context: bool = False
    mla: bool = True


@functools.lru_cache(maxsize=256)
def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (0, 8, 5) for 0.8.5.post1; what is not a number ends it."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def settings(options: dict, model: Model, cards: tuple[Card, ...], version: str, env: dict | None = None, nvlink: bool | None = None, **known) -> Settings:
    """The option map with the engine's own defaults for what it leaves out.

    Sources, vllm 0.8.5: engine/arg_utils.py _set_default_args_v0 and _set_default_args_v1, config.py SchedulerConfig.__post_init__. max_model_len
    may be larger than the model's: rules.py judges that. Options must have passed options.check; dtype half and float are read as torch names.
    known: the fields of `_resolved` where facts.py has resolved them, all of them or none.
    """
    env, known = env or {}, known or _resolved(options, model, cards, version, env or {})
    utilization, swap = (_default(version, name, otherwise) if options.get(name) is None else options[name] for name, otherwise in DEFAULTS)
    v1, chunk = known["core"] == "V1", str(env.get("VLLM_FUSED_MOE_CHUNK_SIZE", ""))
    chunk = int(chunk) if chunk.isascii() and chunk.isdigit() and len(chunk) < 16 else 0
    return Settings(
        release=release(version),
        activation_bytes=ACTIVATION_BYTES[known["dtype"]],
        gpu_memory_utilization=utilization,
        tensor_parallel_size=max(1, options.get("tensor_parallel_size") or 1),
        pipeline_parallel_size=max(1, options.get("pipeline_parallel_size") or 1),
        kv_cache_dtype=options.get("kv_cache_dtype") or "auto",
        swap_bytes=0 if v1 else int(swap * GIB),
        moe_chunk=chunk or MOE_CHUNK,
        nvlink=bool(nvlink),
        mla=_latent(version, env),
        plain_kernels=options.get("quantization") in ("awq", "gptq"),
        # On by default since 0.21, as the engine's own log says; there, but off, since 0.14 (vllm pull request 30515).
        charges_graphs=v1 and env.get("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "1" if release(version) >= (0, 21) else "0") == "1",
        **_sizes(options),
        **known,
    )


def resettled(found: Settings, options: dict, facts) -> Settings:
    """The same for an option map that differs in facts.SIZES alone. facts: what facts.py makes of it."""
    return found._replace(
        max_model_len=facts.max_model_len,
        max_num_batched_tokens=facts.max_num_batched_tokens,
        max_num_seqs=facts.max_num_seqs,
        enable_chunked_prefill=facts.chunked,
        gpu_memory_utilization=facts.option("gpu_memory_utilization"),
        **_sizes(options),
    )


def _sizes(options: dict) -> dict:
    """The fields that one of facts.SIZES alone decides."""
    return {
        "enforce_eager": bool(options.get("enforce_eager")),
        "cpu_offload_bytes": int((options.get("cpu_offload_gb") or 0) * GIB),
        "shrinks_context": options.get("max_model_len") in ("auto", -1, "-1"),
    }


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
            value = values.human_readable_int(value)
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
