from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import host_plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import cards

NAME = "Qwen/Qwen3-0.6B"
MODELS = {
    NAME: {
        "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
}  # fmt: skip
AMPERE = cards(1, 40960, "8.0", name="NVIDIA A100-PCIE-40GB")


def sharing(*shares, host=None, gpus=(0,), **keys):
    """The plans of instances a, b, ... that share cards, each with that share of them."""
    given = [
        {
            "name": "abc"[number], "model": NAME, "gpus": list(gpus), "port": 8000 + number, "profile": "as_given", **keys,
            "options": {"dtype": "half", "max_num_seqs": 8, "max_model_len": 8192, **({"gpu_memory_utilization": share} if share else {})},
        }
        for number, share in enumerate(shares)
    ]  # fmt: skip
    return host_plan(given, host or cards(2), MODELS)


def codes(found):
    return [problem["code"] for problem in found["problems"]]


@pytest.mark.parametrize("shares", [(0.45, 0.5), (0.75, 0.2), (0.3, 0.3, 0.3)])
def test_shares_that_leave_room_for_every_context(shares):
    found = sharing(*shares)
    assert (found["verdict"], found["problems"]) == ("fits", [])
    assert len(found["plans"]) == len(shares)


def test_a_solved_instance_keeps_to_its_share():
    assert sharing(0.45, 0.45, profile="throughput")["verdict"] == "fits"


def test_shares_that_leave_no_room_for_contexts_and_graphs():
    found = sharing(0.5, 0.49)
    (problem,) = found["problems"]
    assert found["verdict"] == "refused" and problem["code"] == "shared_card_too_small"
    assert (
        problem["message"].startswith("Instance 'a' and instance 'b' share GPU 0, and take 21.96 GiB of the 21.57 GiB of GPU 0: a 11.09, b")
        and "0.28 GiB of CUDA" in problem["message"]
    )
    assert "by 0.02 in all" in problem["remedy"]
    assert sharing(0.48, 0.48)["verdict"] == "fits"


def test_shares_of_more_than_a_card():
    found = sharing(0.6, 0.5, gpus=(0, 1))
    (problem,) = found["problems"]
    assert problem["code"] == "shared_card_overcommitted"
    assert problem["message"] == "Instance 'a' and instance 'b' share GPU 0, 1, and take 0.6 + 0.5 of it."


@pytest.mark.parametrize("shares", [(None, 0.4), (0.4, None), (None, None)])
def test_without_a_share_of_each_the_refusal_stays(shares):
    (problem,) = sharing(*shares)["problems"]
    assert problem["code"] == "overlapping_gpus" and "give each of them the option gpu_memory_utilization" in problem["remedy"]


def test_every_card_is_looked_at():
    """a has one rank, on the first of its two cards; b has the second card, so nothing meets."""
    options = {"dtype": "half", "max_num_seqs": 8, "max_model_len": 8192}
    a = {"name": "a", "model": NAME, "gpus": [0, 1], "profile": "as_given", "options": {**options, "gpu_memory_utilization": 0.78}}
    b = {"name": "b", "model": NAME, "gpus": [1], "port": 8001, "profile": "as_given", "options": {**options, "gpu_memory_utilization": 0.2}}
    assert host_plan([a, b], cards(2), MODELS)["verdict"] == "fits"
    both = {**a, "options": {**a["options"], "tensor_parallel_size": 2}}
    assert codes(host_plan([both, b], cards(2), MODELS)) == ["shared_card_too_small"]


def test_an_engine_that_charges_others_shares_with_nobody():
    (problem,) = sharing(0.45, 0.45, host=AMPERE)["problems"]
    assert problem["code"] == "shared_card_charged" and "V1 engine of vLLM 0.8.5" in problem["message"]
    assert sharing(0.45, 0.45, host=AMPERE, env={"VLLM_USE_V1": "0"})["verdict"] == "fits"
    assert sharing(0.45, 0.45, host=AMPERE, engine_version="0.19.1")["verdict"] == "fits"


def test_graphs_within_the_budget_are_counted_once():
    """0.33.0 takes CUDA graphs from the budget: it and the contexts are all that the shares need."""
    assert sharing(0.49, 0.49, host=AMPERE, engine_version="0.33.0")["verdict"] == "fits"
    assert codes(sharing(0.5, 0.49, host=AMPERE, engine_version="0.33.0")) == ["shared_card_too_small"]


def test_ram_that_no_host_has_is_refused_by_each_plan_and_by_nothing_else():
    """It was too large for a share of it."""
    found = sharing(0.3, 0.3, host={**cards(2), "memory_bytes": 10**400})
    assert found["problems"] == []
    assert all("invalid_memory_bytes" in [problem["code"] for problem in each["refusals"]] for each in found["plans"].values())
