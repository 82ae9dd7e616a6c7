from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import judgement, options, start
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import (
    A100,
    LLAMA2_70B_AWQ,
    LOW_MEMORY,
    QWEN3_32B_AWQ,
    VERSIONS,
    article,
    cards,
)

HANG = ["--disable-custom-all-reduce"]


def planned(host=None, config=QWEN3_32B_AWQ, version="0.8.5", **given):
    """A plan of those options alone."""
    instance = {"name": "a", "model": "a/b", "profile": "as_given", "engine_version": version, "options": {"dtype": "half", "max_model_len": 8192, **given}}
    found = plan(instance, host or cards(4), config)
    assert found["verdict"] == "fits", found["refusals"]
    return found


# -- The answer to a hang -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_ranks_that_hang_leave_custom_all_reduce_away(version):
    found = planned(version=version, tensor_parallel_size=4, **({"attention_backend": "TRITON_ATTN"} if version == "0.19.1" else {}))
    assert found["hang_argv"] == HANG
    assert found["argv"] + HANG == found["argv"][:4] + options.render(version, {**found["options"], "disable_custom_all_reduce": True})


@pytest.mark.parametrize("given", [{"gpu_memory_utilization": 0.95, "max_model_len": 2048}, {"pipeline_parallel_size": 2}])
def test_nothing_is_exchanged_within_a_layer(given):
    assert planned(**given)["hang_argv"] == []


@pytest.mark.parametrize("value", [True, False])
def test_what_is_given_stays(value):
    assert planned(tensor_parallel_size=4, disable_custom_all_reduce=value)["hang_argv"] == []


def test_a_refused_plan_has_neither():
    found = plan({**LOW_MEMORY, "profile": "as_given"}, A100, LLAMA2_70B_AWQ)
    assert (found["hang_argv"], found["ready_seconds"]) == ([], None)
    assert (plan(None, None, None)["hang_argv"], plan(None, None, None)["ready_seconds"]) == ([], None)


# -- The time of a start --------------------------------------------------------------------------------------------------------------------


def test_the_article_gets_minutes_for_weights_and_swap():
    found = plan(article(), cards(4), QWEN3_32B_AWQ)
    by_hand = 60 + 60 + 60 + 60 + 19.3e9 / 100e6 + 64 * 1024**3 / 1e9 + 11
    assert found["ready_seconds"] == pytest.approx(by_hand, abs=10) and found["ready_seconds"] % 10 == 0


def test_what_takes_longer():
    eager = planned(tensor_parallel_size=4, enforce_eager=True, swap_space=0)["ready_seconds"]
    graphs = planned(tensor_parallel_size=4, swap_space=0)["ready_seconds"]
    compiled = planned(version="0.33.0", tensor_parallel_size=4)["ready_seconds"]
    one = planned(swap_space=0, gpu_memory_utilization=0.95, max_model_len=2048)["ready_seconds"]
    assert graphs - one == pytest.approx(start.RANKS, abs=10) and graphs - eager == pytest.approx(35, abs=10)
    assert compiled - graphs == pytest.approx(64 * 2, abs=60)


def test_the_disk_holds_the_checkpoint_as_it_is():
    """A 16-bit checkpoint that is quantised while it is loaded is read whole; true sizes count where they are known."""

    def read(config, size=None, **given):
        instance = {"name": "a", "model": "a/b", "profile": "as_given", "options": {"dtype": "half", "max_model_len": 2048, **given}}
        case = judgement.read(instance, cards(4), config, (), size)
        return start.checkpoint_bytes(case, judgement.Judgement(case, instance["options"]))

    wide = {**QWEN3_32B_AWQ, "quantization_config": None}
    assert read(wide, quantization="bitsandbytes") == pytest.approx(65.5e9, rel=0.01)
    assert read(wide, 7 * 10**9, quantization="bitsandbytes") == 7 * 10**9
    assert read(wide, tensor_parallel_size=4) == pytest.approx(65.5e9, rel=0.01)
    assert read(QWEN3_32B_AWQ, cpu_offload_gb=4) == pytest.approx(19.3e9, rel=0.01)
