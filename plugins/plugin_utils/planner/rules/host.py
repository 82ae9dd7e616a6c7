# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers that mean nothing, the driver, the cards."""

from __future__ import annotations

import re

from .. import lanes
from ..facts import Facts
from ..problem import Problem
from .subject import Subject, listed, of_sizes

# Options that the parser takes any number for, and the least that means something.
LEAST = (
    *((name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "num_scheduler_steps", "max_cudagraph_capture_size")),
    *((name, 0) for name in ("swap_space", "cpu_offload_gb", "kv_offloading_size", "max_seq_len_to_capture")),
)

RULES = Subject()


def value_out_of_range(f: Facts) -> Problem | None:
    """The parser takes any integer; a count below one means nothing."""
    resolved = ("max_model_len", f.max_model_len), ("max_num_batched_tokens", f.max_num_batched_tokens), ("max_num_seqs", f.max_num_seqs)
    wrong = {name: value for name, value in (*resolved, ("block_size", f.block)) if value < 1}
    wrong |= {name: value for name, least in LEAST if (value := f.option(name)) is not None and value < least}
    if not wrong:
        return None
    message = f"{listed(f'{name} is {value}' for name, value in wrong.items())}."
    return Problem("value_out_of_range", message, "Use a positive number, or leave the option out to have the engine's default.")


@RULES.refusal
@of_sizes
def utilization_out_of_range(f: Facts) -> Problem | None:
    """config.py CacheConfig._verify_args refuses more than 1, and lets 0 and negatives through to a KV cache below nothing."""
    value = f.option("gpu_memory_utilization")
    if 0 < value <= 1:
        return None
    message = f"gpu_memory_utilization is {value:g}, and it is a share of the card."
    return Problem("utilization_out_of_range", message, "Use a number above 0 and at most 1, such as 0.9.")


@RULES.refusal
def driver_too_old(f: Facts) -> Problem | None:
    return lanes.driver_problem(f.lane.version, f.driver)


@RULES.warning
def image_wants_newer_driver(f: Facts) -> Problem | None:
    return lanes.image_problem(f.lane.version, f.driver, f.env)


@RULES.refusal
def capability_too_low(f: Facts) -> Problem | None:
    """The wheels have no kernels below 7.0, and the CUDA 13 builds none below 7.5."""
    least = 75 if f.lane.cuda[0] >= 13 else 70
    if f.sm >= least:
        return None
    message = f"The card has compute capability {f.capability}, and vLLM {f.lane.version} has kernels from {least // 10}.{least % 10} on."
    return Problem("capability_too_low", message, "Use another card.")


@RULES.refusal
def ranks_over_cards(f: Facts) -> Problem | None:
    """executor/multiproc_worker_utils: one process for each rank, each with a card of its own."""
    data = f.option("data_parallel_size") or 1
    ranks = f.tp * f.pp * data
    if ranks <= f.cards:
        return None
    parts = f"tensor_parallel_size {f.tp} x pipeline_parallel_size {f.pp}" + (f" x data_parallel_size {data}" if data > 1 else "")
    message = f"{parts} needs {ranks} cards, and the instance has {f.cards}."
    return Problem("ranks_over_cards", message, f"Use at most {f.cards} ranks, or give the instance more cards in its key gpus.")


@RULES.refusal
def device_not_nvidia(f: Facts) -> Problem | None:
    """config.py DeviceConfig takes what it is told; the image has kernels for NVIDIA cards only."""
    device = f.option("device")
    if device in (None, "auto", "cuda"):
        return None
    return Problem("device_not_nvidia", f"device is {device}, and the host's cards are NVIDIA's.", "Remove device.")


@RULES.refusal
def nsight_without_ray(f: Facts) -> Problem | None:
    """config.py ParallelConfig._verify_args."""
    if not f.option("ray_workers_use_nsight") or f.option("distributed_executor_backend") == "ray":
        return None
    return Problem("nsight_without_ray", "ray_workers_use_nsight is true, and the workers do not run with Ray.", "Remove ray_workers_use_nsight.")


@RULES.refusal
def external_launcher(f: Facts) -> Problem | None:
    """executor/uniproc_executor.py ExecutorWithExternalLauncher: torchrun starts every rank, each with its own engine; 0.8.5 wants a seed, too."""
    if f.option("distributed_executor_backend") != "external_launcher":
        return None
    message = "distributed_executor_backend is external_launcher, and nothing here launches the other ranks."
    return Problem("external_launcher", message, "Use mp, or leave it out.")


@RULES.refusal
def one_process_for_many_ranks(f: Facts) -> Problem | None:
    """executor/uniproc_executor.py starts rank 0 and no other, which waits for them; with stages, later engines refuse it themselves."""
    ranks = f.tp * f.pp
    if f.option("distributed_executor_backend") != "uni" or ranks == 1:
        return None
    message = f"distributed_executor_backend is uni, which is one process, and the model is on {ranks} cards, each of which needs its own."
    return Problem("one_process_for_many_ranks", message, "Use mp, or leave it out.")


@RULES.refusal
def cuda_visible_devices_uuid(f: Facts) -> Problem | None:
    """platforms/cuda.py device_id_to_physical_device_id calls int() on each; later engines read UUIDs."""
    value = f.env.get("CUDA_VISIBLE_DEVICES")
    if f.lane.version != "0.8.5" or value is None or re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", value):
        return None
    message = f"CUDA_VISIBLE_DEVICES is {value[:60]!r}, and vLLM {f.lane.version} reads it as integers."
    return Problem("cuda_visible_devices_uuid", message, "Use the instance's key gpus, with the cards' indices.")
