# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From settings to a KV cache: the start-up of the engine process, with its log lines and its ways to fail."""

from __future__ import annotations

import pathlib
import sys
import threading
import time

from . import VERSION, card, checkpoint, faults, logs, ray_executor, sizing
from .card import GIB, MIB
from .settings import Settings

GRAPH_BYTES = 20 * MIB
# A real profiling run takes seconds. This long, so that what was logged before an error is read before it: the error's traceback goes to
# stderr and the log to stdout, and whoever reads both gets them in any order.
FAILS_AFTER_SECONDS = 0.5


def load(settings: Settings, options: dict, config: dict, told: dict, state: pathlib.Path) -> sizing.Memory:
    """Bring the engine up and return one rank's memory.

    told: the faults in force. Raises what the real engine process dies of: RuntimeError (too few cards, no weights),
    ValueError (bfloat16 on this card, KV cache too small), faults.OutOfMemoryError.
    """
    begun = time.monotonic()
    logs.vllm("INFO", "llm_engine.py:240", f"Initializing a V0 LLM engine (v{VERSION}) with config: {_config_text(settings)}")
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    over_ray = options["distributed_executor_backend"] == "ray"
    cards = card.probe(settings.tensor_parallel_size if over_ray else ranks)
    if over_ray:
        ray_executor.start(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    else:
        _check_cards(settings, cards)
    _check_dtype(settings)
    logs.vllm("INFO", "cuda.py:240", "Cannot use FlashAttention-2 backend for Volta and Turing GPUs.")
    logs.vllm("INFO", "cuda.py:289", "Using XFormers backend.")
    if ranks > 1:
        _connect(settings, options, ranks)
    if "hang_at_load" in told:
        threading.Event().wait()

    weight_bytes = _load_weights(settings, told.get("slow_load", 0))
    memory = sizing.memory(settings, config, cards.total_bytes, weight_bytes)
    resolved = options | {"max_num_seqs": settings.max_num_seqs, "max_model_len": settings.max_model_len,
                          "max_num_batched_tokens": settings.max_num_batched_tokens, "block_size": settings.block_size}
    if faults.out_of_memory(told, resolved, state) or memory.weights + memory.activation + memory.non_torch > memory.total:
        time.sleep(FAILS_AFTER_SECONDS)
        raise out_of_memory(memory.total)

    _log_memory(settings, memory)
    sizing.check(settings, memory.gpu_blocks)
    if not settings.enforce_eager:
        _log_graphs(settings)
    took = time.monotonic() - begun
    logs.vllm("INFO", "llm_engine.py:437", f"init engine (profile, create kv cache, warmup model) took {took:.2f} seconds")
    return memory


def out_of_memory(total: int) -> faults.OutOfMemoryError:
    """torch 2.6's error for a full card of `total` bytes."""
    free, unallocated = 45 * MIB, 20 * MIB
    used = total - free
    return faults.OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of {total / GIB:.2f} GiB of which "
        f"{free / MIB:.2f} MiB is free. Including non-PyTorch memory, this process has {used / GIB:.2f} GiB memory in use. "
        f"Of the allocated memory {(used - sizing.NON_TORCH_BYTES) / GIB:.2f} GiB is allocated by PyTorch, and "
        f"{unallocated / MIB:.2f} MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try "
        "setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
        "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def _config_text(settings: Settings) -> str:
    return (
        f"model='{settings.model}', dtype=torch.{settings.dtype}, max_seq_len={settings.max_model_len}, "
        f"tensor_parallel_size={settings.tensor_parallel_size}, pipeline_parallel_size={settings.pipeline_parallel_size}, "
        f"enforce_eager={settings.enforce_eager}, kv_cache_dtype={settings.kv_cache_dtype},  device_config=cuda, "
        f"served_model_name={settings.served_model_names[0]}"
    )


def _check_cards(settings: Settings, cards: card.Cards) -> None:
    """MultiprocessingDistributedExecutor._check_cuda."""
    if cards.count is None:
        return
    if settings.tensor_parallel_size > cards.count:
        raise RuntimeError(
            f"please set tensor_parallel_size ({settings.tensor_parallel_size}) to less than max local gpu count ({cards.count})"
        )
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    if ranks > cards.count:
        raise RuntimeError(f"please ensure that world_size ({ranks}) is less than than max local gpu count ({cards.count})")


def _check_dtype(settings: Settings) -> None:
    """_check_if_gpu_supports_dtype in vllm/worker/worker.py."""
    if settings.dtype == "bfloat16":
        raise ValueError(
            f"Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your {card.NAME} GPU has compute "
            f"capability {card.COMPUTE_CAPABILITY}. You can use float16 instead by explicitly setting the `dtype` flag in CLI, "
            "for example: --dtype=half."
        )


def _connect(settings: Settings, options: dict, ranks: int) -> None:
    logs.vllm("INFO", "utils.py:1055", "Found nccl from library libnccl.so.2")
    logs.vllm("INFO", "pynccl.py:69", "vLLM is using nccl==2.21.5")
    if settings.tensor_parallel_size > 2 and not options["disable_custom_all_reduce"]:
        logs.vllm(
            "WARNING", "custom_all_reduce.py:136",
            "Custom allreduce is disabled because it's not supported on more than two PCIe-only GPUs. To silence this warning, "
            "specify disable_custom_all_reduce=True explicitly.",
        )
    logs.vllm("INFO", "parallel_state.py:1004", f"rank 0 in world size {ranks} is assigned as DP rank 0, PP rank 0, TP rank 0")


def _load_weights(settings: Settings, seconds: float) -> int:
    """Pretend to load the checkpoint in `seconds` and return its bytes."""
    logs.vllm("INFO", "model_runner.py:1108", f"Starting to load model {settings.model}...")
    begun = time.monotonic()
    files = checkpoint.weight_files(settings.model)
    _log_shards(0, len(files))
    for number, dummy in enumerate(files, start=1):
        time.sleep(seconds / len(files))
        _log_shards(number, len(files))
    total = sum(file.stat().st_size for file in files)
    took = time.monotonic() - begun
    per_rank = total / (settings.tensor_parallel_size * settings.pipeline_parallel_size)
    logs.vllm("INFO", "loader.py:458", f"Loading weights took {took:.2f} seconds")
    logs.vllm("INFO", "model_runner.py:1140", f"Model loading took {per_rank / GIB:.4f} GiB and {took:.6f} seconds")
    return total


def _log_shards(number: int, count: int) -> None:
    print(f"Loading safetensors checkpoint shards: {100 * number // count:3d}% Completed | {number}/{count}", file=sys.stderr, flush=True)


def _log_memory(settings: Settings, memory: sizing.Memory) -> None:
    logs.vllm(
        "INFO", "worker.py:287",
        "Memory profiling takes 0.00 seconds\n"
        f"the current vLLM instance can use total_gpu_memory ({memory.total / GIB:.2f}GiB)"
        f" x gpu_memory_utilization ({settings.gpu_memory_utilization:.2f}) = {memory.budget / GIB:.2f}GiB\n"
        f"model weights take {memory.weights / GIB:.2f}GiB; non_torch_memory takes {memory.non_torch / GIB:.2f}GiB;"
        f" PyTorch activation peak memory takes {memory.activation / GIB:.2f}GiB;"
        f" the rest of the memory reserved for KV Cache is {memory.kv_cache / GIB:.2f}GiB.",
    )
    concurrency = memory.gpu_blocks * settings.block_size / settings.max_model_len
    logs.vllm("INFO", "executor_base.py:112", f"# cuda blocks: {memory.gpu_blocks}, # CPU blocks: {memory.cpu_blocks}")
    logs.vllm("INFO", "executor_base.py:117", f"Maximum concurrency for {settings.max_model_len} tokens per request: {concurrency:.2f}x")


def _log_graphs(settings: Settings) -> None:
    """One graph per batch size 1, 2, 4 and every multiple of 8 up to max_num_seqs: 35 at 256, 5 at 10."""
    graphs = 3 + -(-settings.max_num_seqs // 8)
    logs.vllm(
        "INFO", "model_runner.py:1450",
        "Capturing cudagraphs for decoding. This may lead to unexpected consequences if the model is not static. To run the "
        "model in eager mode, set 'enforce_eager=True' or use '--enforce-eager' in the CLI. If out-of-memory error occurs during "
        "cudagraph capture, consider decreasing `gpu_memory_utilization` or switching to eager mode. You can also reduce the "
        "`max_num_seqs` as needed to decrease memory usage.",
    )
    logs.vllm("INFO", "model_runner.py:1592", f"Graph capturing finished in 0 secs, took {graphs * GRAPH_BYTES / GIB:.2f} GiB")
