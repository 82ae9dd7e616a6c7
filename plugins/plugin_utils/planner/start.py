# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a plan starts: the time that it may take, and what answers a start that hangs."""

from __future__ import annotations

import math

from . import options
from .judgement import Case, Judgement
from .memory import graph_sizes
from .model import Model
from .settings import Settings
from .weights import parameter_bytes

# Seconds of a start on a slow host, whose page cache and caches of compiled kernels are empty: a limit to wait for, not an estimate. What is
# called seen is from public logs of 0.8 and later.
PROCESS = 60  # container, Python, torch, the engine's modules, tokenizer: 16 to 40 seen
RANKS = 60  # processes of the other ranks, NCCL, and the look at which cards reach each other: 60 seen with 8 cards
DISK = 100 * 10**6  # bytes per second of a hard disk, or of a share on a network of 1 Gbit/s; all ranks read the same files at the same time
PINNED = 10**9  # bytes per second at which a rank fills and pins RAM for swap: half of what one core clears
PROFILING = 60  # the largest batch once, with Triton's kernels compiled before it
COMPILED_LAYER = 2  # torch.compile in V1: 35 of 28 layers, 70 of 80 seen
GRAPH = 1  # 17 to 60 for 67 graphs, 25 for 35 seen
COMPLETION = 60  # the first one loads kernels that profiling did not: 30 to 60 seen


def ready_seconds(case: Case, judged: Judgement) -> int | None:
    """How long the engine may take from its start to its first completion, in tens of seconds; None where the shape of a rank is not defined."""
    settings = judged.settings
    if settings is None:
        return None
    seconds = PROCESS + checkpoint_bytes(case, judged) / DISK + settings.swap_bytes / PINNED + PROFILING + COMPLETION
    seconds += RANKS if settings.tensor_parallel_size * settings.pipeline_parallel_size > 1 else 0
    seconds += compiled_layers(case.model, settings) * COMPILED_LAYER + graph_sizes(settings) * GRAPH
    return math.ceil(seconds / 10) * 10


def checkpoint_bytes(case: Case, judged: Judgement) -> int:
    """What is read from the disk: what lies on the cards and what was moved to RAM, or all of a checkpoint that is quantised while it is read."""
    settings, found = judged.settings, judged.prediction
    if judged.facts.model is not case.model:
        return sum(size for name, size in case.model.tensor_bytes) or parameter_bytes(case.model, copies="none")
    return sum(rank.weights + settings.cpu_offload_bytes for rank in found.ranks)


def compiled_layers(model: Model, settings: Settings) -> int:
    """The layers that torch.compile goes through: V1's only, and none where graphs are not wanted either."""
    return model.layers if settings.core == "V1" and not settings.enforce_eager else 0


def hang_argv(case: Case, judged: Judgement) -> list[str]:
    """What to append to the engine's arguments once its cards were seen to hang: without custom all-reduce NCCL does all exchange between them.

    Empty with one rank per layer, on an engine without the option, and where the plan's options name it: what is given, even false, stays.
    """
    name = "disable_custom_all_reduce"
    if judged.facts is None or judged.facts.tp == 1 or judged.options.get(name) is not None or name not in options.schema(case.version):
        return []
    return options.render(case.version, {name: True})
