# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cards that the engine sees."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

MIB = 1024**2
GIB = 1024**3

# A modded 22 GB RTX 2080 Ti as torch.cuda.mem_get_info reports it.
NAME = "NVIDIA GeForce RTX 2080 Ti"
COMPUTE_CAPABILITY = "7.5"
DEFAULT_TOTAL_BYTES = int(21.48 * GIB)


@dataclass(frozen=True)
class Cards:
    """count: visible cards, None where nothing tells (then any number is believed). total_bytes: of the smallest card used."""

    count: int | None
    total_bytes: int


def probe(ranks: int) -> Cards:
    """Ask nvidia-smi where a runtime has injected it; otherwise assume enough cards of the default size.

    ranks: how many cards the engine will use. Raises RuntimeError when nvidia-smi is there and fails: an engine whose
    driver does not answer does not start either.
    """
    if shutil.which("nvidia-smi") is None:
        return Cards(None, DEFAULT_TOTAL_BYTES)
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.total,memory.reserved", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=False, timeout=60,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"nvidia-smi failed with exit status {answer.returncode}: {answer.stderr.strip() or answer.stdout.strip()}")
    totals = visible([_usable_bytes(line) for line in answer.stdout.splitlines() if line.strip()])
    return Cards(len(totals), min(totals[:ranks], default=0))


def visible(totals: list[int]) -> list[int]:
    """Apply CUDA_VISIBLE_DEVICES (integers only, as vLLM 0.8.5 reads it; the first unknown index ends the list)."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return totals
    result = []
    for index in filter(None, chosen.split(",")):
        if int(index) not in range(len(totals)):
            break
        result.append(totals[int(index)])
    return result


def _usable_bytes(line: str) -> int:
    """One CSV line `total, reserved` in MiB. The driver's reserved memory is invisible to the engine."""
    total, reserved = (field.strip() for field in line.split(","))
    return (int(total) - int(reserved)) * MIB
