# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The size of the KV cache per rank, computed as the V0 engine arrives at it.

Source: Worker.determine_num_available_blocks and raise_if_cache_size_invalid in vllm/worker/worker.py, and
CacheEngine.get_cache_block_size in vllm/worker/cache_engine.py, 0.8.5. The engine measures its activation peak; here it is
the upper estimate from tensor lifetimes: the MLP over the longest batch, or the sampler over the largest number of
sequences. All sizes are bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .card import GIB
from .settings import Settings

# CUDA context and NCCL buffers that appear after the baseline snapshot: 0.18 to 0.20 GiB logged on four 2080 Ti.
NON_TORCH_BYTES = int(0.2 * GIB)
# Logits, probabilities, sorted copies and indices of the top-k/top-p sampler, per sequence and vocabulary entry.
SAMPLER_BYTES = 37


@dataclass(frozen=True)
class Memory:
    """One rank's memory, and the blocks of KV cache that it leaves."""

    total: int
    budget: int
    weights: int
    activation: int
    non_torch: int
    kv_cache: int
    gpu_blocks: int
    cpu_blocks: int


def memory(settings: Settings, config: dict, card_bytes: int, weight_bytes: int) -> Memory:
    """card_bytes: what the engine sees of one card. weight_bytes: of the whole checkpoint. kv_cache is negative when nothing fits."""
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    budget = int(card_bytes * settings.gpu_memory_utilization)
    weights = max(0, weight_bytes // ranks - settings.cpu_offload_bytes)
    activation = activation_bytes(settings, config)
    kv_cache = budget - weights - activation - NON_TORCH_BYTES
    block = block_bytes(settings, config)
    return Memory(
        total=card_bytes, budget=budget, weights=weights, activation=activation, non_torch=NON_TORCH_BYTES, kv_cache=kv_cache,
        gpu_blocks=settings.num_gpu_blocks_override or max(0, kv_cache // block),
        cpu_blocks=settings.swap_space_bytes // block,
    )


def activation_bytes(settings: Settings, config: dict) -> int:
    """max(T*2*(4h + 3I/tp), 37*S*V): T batched tokens, h hidden size, I intermediate size, S sequences, V vocabulary."""
    per_token = 2 * (4 * config["hidden_size"] + 3 * config["intermediate_size"] // settings.tensor_parallel_size)
    return max(settings.max_num_batched_tokens * per_token, SAMPLER_BYTES * settings.max_num_seqs * config["vocab_size"])


def block_bytes(settings: Settings, config: dict) -> int:
    """Bytes of one KV block on one rank: keys and values of `block_size` tokens over the rank's layers and heads."""
    heads = config["num_attention_heads"]
    kv_heads = max(1, (config.get("num_key_value_heads") or heads) // settings.tensor_parallel_size)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    layers = math.ceil(config["num_hidden_layers"] / settings.pipeline_parallel_size)
    return _element_bytes(settings) * layers * settings.block_size * 2 * kv_heads * head_dim


def check(settings: Settings, gpu_blocks: int) -> None:
    """Refuse a cache that cannot hold one sequence, with vLLM's texts (raise_if_cache_size_invalid). Raises ValueError."""
    if gpu_blocks <= 0:
        raise ValueError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."
        )
    tokens = settings.block_size * (gpu_blocks // settings.pipeline_parallel_size)
    if settings.max_model_len > tokens:
        raise ValueError(
            f"The model's max seq len ({settings.max_model_len}) is larger than the maximum number of tokens that can be "
            f"stored in KV cache ({tokens}). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
            "initializing the engine."
        )


def _element_bytes(settings: Settings) -> int:
    if settings.kv_cache_dtype.startswith("fp8"):
        return 1
    return 4 if settings.dtype == "float32" else 2
