"""How many plans one core makes in a second: `make bench-planner`. Nothing here fails for being slow.

Every call gets a host and a model that no call before it had, because that is how the filters run: in a process of their own, with cold caches.
"""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import (
    A100,
    LLAMA2_70B_AWQ,
    LOW_MEMORY,
    QWEN3_32B_AWQ,
    article,
    cards,
)

SOLVED = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ"}
GIVEN = {**article(), "profile": "as_given"}
CASES = {
    "as_given": (GIVEN, cards(), QWEN3_32B_AWQ, "fits"),
    "throughput": ({**SOLVED, "profile": "throughput"}, cards(), QWEN3_32B_AWQ, "fits"),
    "latency": ({**SOLVED, "profile": "latency"}, cards(), QWEN3_32B_AWQ, "fits"),
    "low_memory": ({**SOLVED, "profile": "low_memory"}, cards(), QWEN3_32B_AWQ, "fits"),
    "refused": ({**LOW_MEMORY, "profile": "as_given"}, A100, LLAMA2_70B_AWQ, "refused"),
}
NUMBERS = itertools.count(1)


def another(case):
    """The case on another host with another model: some KiB more memory, some rows less of the vocabulary."""
    instance, host, config, dummy = CASES[case]
    number = next(NUMBERS)
    gpus = [{**gpu, "memory_total_bytes": gpu["memory_total_bytes"] + 4096 * (number % 4096)} for gpu in host["gpus"]]
    return {**instance, "name": f"a{number}"}, {**host, "gpus": gpus}, {**config, "vocab_size": config["vocab_size"] - number % 16384}


@pytest.mark.parametrize("case", CASES)
def test_plans_per_second(benchmark, case):
    found = benchmark.pedantic(plan, setup=lambda: (another(case), {}), rounds=1000, warmup_rounds=50)
    assert found["verdict"] == CASES[case][3]
    assert bool(found["ladder"]) == (found["verdict"] == "fits")
