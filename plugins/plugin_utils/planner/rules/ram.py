# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's RAM: swap and offloading."""

from __future__ import annotations

from ..facts import GIB, Facts
from ..problem import Problem
from .subject import Subject, of_sizes

SWAP_WARNING, SWAP_REFUSAL = 0.4, 0.7  # of RAM: config.py, CacheConfig.verify_with_parallel_config

RULES = Subject()


def _swap(f: Facts) -> float:
    """The RAM that swap takes, in GiB: swap_space is for each card."""
    return (f.option("swap_space") or 0) * f.tp


def _swap_message(f: Facts) -> str:
    share, ram = _swap(f) * GIB / f.memory_bytes, f.memory_bytes / GIB
    return f"swap_space {f.option('swap_space'):g} GiB x {f.tp} cards is {_swap(f):g} GiB, {share:.0%} of {ram:.0f} GiB RAM"


@RULES.refusal
def swap_over_ram(f: Facts) -> Problem | None:
    """config.py CacheConfig.verify_with_parallel_config."""
    if not f.memory_bytes or _swap(f) * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    most = int(SWAP_REFUSAL * f.memory_bytes / GIB / f.tp)
    message = f"{_swap_message(f)}, and vLLM refuses more than {SWAP_REFUSAL:.0%}."
    return Problem("swap_over_ram", message, f"Use swap_space {most} or less; it is for each card.")


@RULES.warning
def swap_share(f: Facts) -> Problem | None:
    """config.py CacheConfig.verify_with_parallel_config."""
    if not f.memory_bytes or not SWAP_WARNING * f.memory_bytes < _swap(f) * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    message = f"{_swap_message(f)}, which is pinned; vLLM warns above {SWAP_WARNING:.0%}."
    return Problem("swap_share", message, f"Use swap_space {int(SWAP_WARNING * f.memory_bytes / GIB / f.tp)} or less; it is for each card.")


@RULES.warning
def swap_unused(f: Facts) -> Problem | None:
    """core/scheduler.py _preempt: a sequence is computed anew unless its group has several, or the mode is swap."""
    if f.given.get("swap_space") in (None, 0) or f.option("preemption_mode") == "swap":
        return None
    if f.core == "V1":
        return Problem("swap_unused", "The V1 engine has no swap: swap_space has no effect.", "Remove swap_space.")
    message = "Swap is used only by requests with several sequences (n, best_of): without preemption_mode: swap others are computed anew."
    return Problem("swap_unused", message, "Set preemption_mode: swap, or swap_space: 0, which frees the RAM that it pins.")


@RULES.refusal
def kv_offloading_over_ram(f: Facts) -> Problem | None:
    size = f.option("kv_offloading_size")
    if not size or not f.memory_bytes or size * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    message = f"kv_offloading_size is {size:g} GiB of {f.memory_bytes / GIB:.0f} GiB RAM, which it pins."
    return Problem("kv_offloading_over_ram", message, f"Use {int(SWAP_REFUSAL * f.memory_bytes / GIB)} or less; it is for all cards of the instance together.")


@RULES.refusal
@of_sizes
def offload_over_ram(f: Facts) -> Problem | None:
    """Weights that go to RAM are pinned there, for each rank."""
    size = f.option("cpu_offload_gb") or 0
    if not size or not f.memory_bytes or size * f.tp * f.pp * GIB < f.memory_bytes:
        return None
    message = f"cpu_offload_gb {size:g} x {f.tp * f.pp} cards is {size * f.tp * f.pp:g} GiB, and the host has {f.memory_bytes / GIB:.0f} GiB RAM."
    return Problem("offload_over_ram", message, "Use a smaller cpu_offload_gb; it is for each card.")
