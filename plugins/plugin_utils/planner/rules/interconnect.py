# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes between the cards."""

from __future__ import annotations

from ..facts import Facts
from ..problem import Problem
from .subject import Subject, listed

ALL_REDUCE_WORLDS = (2, 4, 6, 8)  # distributed/device_communicators/custom_all_reduce.py

RULES = Subject()


@RULES.warning
def custom_all_reduce_falls_back(f: Facts) -> Problem | None:
    """distributed/device_communicators/custom_all_reduce.py. A hang at the start is reported too (jackypanster/qwen3-32b-awq)."""
    if f.tp == 1 or f.option("disable_custom_all_reduce"):
        return None
    if f.tp not in ALL_REDUCE_WORLDS:
        cause = f"it works with {listed(ALL_REDUCE_WORLDS)} cards, not with {f.tp}"
    elif f.tp > 2 and not f.nvlink:
        cause = f"more than two cards need NVLink between all of them, and {'it is not known here' if f.nvlink is None else 'these have none'}"
    else:
        return None
    message = f"Custom all-reduce falls back to NCCL with a warning: {cause}."
    return Problem("custom_all_reduce_falls_back", message, "Set disable_custom_all_reduce: true, which is the same without the attempt.")
