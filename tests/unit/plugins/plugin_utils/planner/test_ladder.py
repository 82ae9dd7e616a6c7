from __future__ import annotations

import random

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import judgement, options
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.ladder import ladder, needs_less, sizes
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import NAMES, QWEN3_32B_AWQ, cards, config_of

GIVEN = {"tensor_parallel_size": 4, "dtype": "half", "max_model_len": 32768, "max_num_seqs": 64, "gpu_memory_utilization": 0.95}


def case_of(given, host=None, config=None, version="0.8.5"):
    return judgement.read({"name": "a", "model": "a/b", "options": given, "engine_version": version}, host or cards(), config or QWEN3_32B_AWQ)


def test_the_steps_come_in_their_order():
    case = case_of({**GIVEN, "enable_chunked_prefill": True, "max_num_batched_tokens": 2048, "max_num_seqs": 256, "max_seq_len_to_capture": 32768})
    changed = [list(rung.changes) for rung in ladder(case, judgement.Judgement(case, case.instance["options"]))]
    assert changed == [
        ["max_num_seqs"],
        ["max_num_batched_tokens"],
        ["max_model_len", "max_seq_len_to_capture"],
        ["max_num_seqs"],
        ["enforce_eager"],
        ["gpu_memory_utilization"],
        ["gpu_memory_utilization"],
        ["cpu_offload_gb"],
    ]


def test_a_step_that_is_already_taken_is_left_out():
    case = case_of({**GIVEN, "enforce_eager": True, "max_num_seqs": 1})
    changed = {name for rung in ladder(case, judgement.Judgement(case, case.instance["options"])) for name in rung.changes}
    assert not changed & {"enforce_eager", "max_num_seqs"}


def test_a_step_that_does_not_fit_is_left_out():
    tight = {"tensor_parallel_size": 1, "dtype": "half", "max_model_len": 1024, "max_num_seqs": 1, "enforce_eager": True, "gpu_memory_utilization": 0.94}
    case = case_of({**tight, "max_num_batched_tokens": 1024}, cards(1, ram=8))
    judged = judgement.Judgement(case, case.instance["options"])
    assert judged.fits, judged.refusals
    assert all(rung.judged.fits for rung in ladder(case, judged))
    assert judgement.Judgement(case, {**judged.options, "gpu_memory_utilization": 0.8}).memory_refusal


def test_needs_less_compares_every_card():
    case = case_of(GIVEN)
    upper, fewer, same = (sizes(judgement.Judgement(case, {**GIVEN, **changes})) for changes in ({}, {"max_num_seqs": 8}, {}))
    assert needs_less(fewer, upper) and not needs_less(upper, fewer) and not needs_less(same, upper)
    assert not needs_less(sizes(judgement.Judgement(case, {**GIVEN, "tensor_parallel_size": 2})), upper)


@pytest.mark.parametrize("seed", range(4))
def test_each_step_is_a_whole_plan_that_needs_less(seed):
    dice, names, steps = random.Random(seed), NAMES, 0
    for attempt in range(30):
        version, count = dice.choice(options.versions()), dice.choice([1, 2, 4, 8])
        given = {"tensor_parallel_size": count, "dtype": "half", "max_num_seqs": dice.choice([1, 16, 200]), "gpu_memory_utilization": dice.choice([0.7, 0.95])}
        given |= dice.choice([{}, {"max_model_len": 4096}, {"max_model_len": 1500, "enforce_eager": True}])
        case = case_of(given, cards(count, dice.choice([11264, 49140]), dice.choice(["7.5", "8.9"])), config_of(dice.choice(names)), version)
        judged = judgement.Judgement(case, given)
        if not judged.fits:
            continue
        for rung in ladder(case, judged):
            steps += 1
            assert rung.judged.fits and rung.reason
            assert rung.judged.options == {**judged.options, **rung.changes}
            for (need, taken), (more, most) in zip(sizes(rung.judged), sizes(judged), strict=True):
                assert need <= more and taken <= most and (need, taken) != (more, most)
            judged = rung.judged
    assert steps > 20


def test_the_ladder_of_a_plan():
    found = plan({"name": "a", "model": "a/b", "options": GIVEN}, cards(), QWEN3_32B_AWQ)
    assert found["ladder"]
    for rung in found["ladder"]:
        assert set(rung) == {"reason", "changes", "options", "argv", "kv"}
        assert rung["options"].items() >= rung["changes"].items()
        assert options.parse("0.8.5", rung["argv"])["max_num_seqs"] == rung["options"]["max_num_seqs"]
        assert rung["kv"]["tokens"] >= rung["options"]["max_model_len"]
