# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options after the engine has filled in what they leave open, and the refusals that need only config.json.

Sources: vllm/config.py and vllm/engine/arg_utils.py of 0.8.5. Refused here: what the engine rejects before it loads
weights and what a rollout is likely to get wrong. Not judged: quantisation against the checkpoint, and swap space
against the machine's memory, because a simulated host shares the memory of the machine it runs on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

UNCHUNKED_LIMIT = 32768
CHUNKED_BATCHED_TOKENS = 2048
DEFAULT_MAX_NUM_SEQS = 256
DEFAULT_BLOCK_SIZE = 16
DEFAULT_MAX_MODEL_LEN = 2048
GIB = 1024**3


@dataclass(frozen=True)
class Settings:
    """Lengths in tokens, sizes in bytes, `dtype` as torch spells it."""

    model: str
    served_model_names: tuple[str, ...]
    dtype: str
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    gpu_memory_utilization: float
    swap_space_bytes: int
    cpu_offload_bytes: int
    kv_cache_dtype: str
    num_gpu_blocks_override: int | None
    enforce_eager: bool
    max_seq_len_to_capture: int


def resolve(options: dict, config: dict) -> Settings:
    """options: as `planner.options.parse` returns them. config: the checkpoint's config.json. Raises ValueError with vLLM's texts."""
    max_model_len = _max_model_len(options["max_model_len"], config)
    chunked = options["enable_chunked_prefill"]
    if chunked is None:
        chunked = max_model_len > UNCHUNKED_LIMIT
    max_num_seqs = options["max_num_seqs"] or DEFAULT_MAX_NUM_SEQS
    batched = options["max_num_batched_tokens"] or (
        CHUNKED_BATCHED_TOKENS if chunked else max(max_model_len, CHUNKED_BATCHED_TOKENS)
    )
    _check_batch(batched, max_model_len, max_num_seqs, chunked)
    _check_heads(config, options["tensor_parallel_size"])
    names = options["served_model_name"] or [options["model"]]
    return Settings(
        model=options["model"],
        served_model_names=(names,) if isinstance(names, str) else tuple(names),
        dtype=_dtype(options["dtype"], config),
        max_model_len=max_model_len,
        max_num_batched_tokens=batched,
        max_num_seqs=max_num_seqs,
        block_size=options["block_size"] or DEFAULT_BLOCK_SIZE,
        tensor_parallel_size=options["tensor_parallel_size"],
        pipeline_parallel_size=options["pipeline_parallel_size"],
        gpu_memory_utilization=options["gpu_memory_utilization"],
        swap_space_bytes=int(options["swap_space"] * GIB),
        cpu_offload_bytes=int(options["cpu_offload_gb"] * GIB),
        kv_cache_dtype=options["kv_cache_dtype"],
        num_gpu_blocks_override=options["num_gpu_blocks_override"],
        enforce_eager=bool(options["enforce_eager"]),
        max_seq_len_to_capture=min(options["max_seq_len_to_capture"], max_model_len),
    )


def _max_model_len(asked: int | None, config: dict) -> int:
    """_get_and_verify_max_len in vllm/config.py."""
    positions = config.get("max_position_embeddings", DEFAULT_MAX_MODEL_LEN)
    derived = positions
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if scaling and kind not in ("su", "longrope", "llama3"):
        base = scaling["original_max_position_embeddings"] if kind == "yarn" else positions
        derived = base * scaling.get("factor", 1.0)
    if asked is None:
        return int(derived)
    if asked > derived and asked > (config.get("model_max_length") or 0) and os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
        raise ValueError(
            f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
            f"(max_position_embeddings={derived} or model_max_length={config.get('model_max_length')} in model's config.json). "
            "This may lead to incorrect model outputs or CUDA errors. "
            "To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
        )
    return asked


def _check_batch(batched: int, max_model_len: int, max_num_seqs: int, chunked: bool) -> None:
    """SchedulerConfig._verify_args in vllm/config.py."""
    if batched < max_model_len and not chunked:
        raise ValueError(
            f"max_num_batched_tokens ({batched}) is smaller than max_model_len ({max_model_len}). "
            "This effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer "
            "sequences. Please increase max_num_batched_tokens or decrease max_model_len."
        )
    if batched < max_num_seqs:
        raise ValueError(f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({max_num_seqs}).")


def _check_heads(config: dict, tensor_parallel_size: int) -> None:
    """ModelConfig.verify_with_parallel_config in vllm/config.py."""
    heads = config["num_attention_heads"]
    if heads % tensor_parallel_size:
        raise ValueError(
            f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tensor_parallel_size})."
        )


def _dtype(asked: str, config: dict) -> str:
    """_get_and_verify_dtype in vllm/config.py: bfloat16 is not cast on its own, the worker refuses it later."""
    if asked == "auto":
        stored = config.get("torch_dtype") or "float32"
        return "float16" if stored == "float32" else stored
    return {"half": "float16", "float": "float32"}.get(asked, asked)
