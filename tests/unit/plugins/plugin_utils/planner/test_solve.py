from __future__ import annotations

import random

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options, solve
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.solve import PROFILES, SPARE_BYTES
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import (
    A100,
    GIB,
    LLAMA2_70B_AWQ,
    NAMES,
    QWEN3_32B_AWQ,
    cards,
    config_of,
)


def solved(profile, host, config, given=None, objective=None, **more):
    instance = {"name": "a", "model": "a/b", "profile": profile, "options": given or {}, **more}
    return plan({**instance, "objective": objective} if objective else instance, host, config)


def codes(found):
    return [problem["code"] for problem in found["refusals"]]


def warned(found):
    return {problem["code"] for problem in found["warnings"]}


def test_the_articles_host_gets_at_least_what_the_article_has():
    found = solved("throughput", cards(4), QWEN3_32B_AWQ)
    article = plan(
        {
            "name": "a",
            "model": "a/b",
            "profile": "as_given",
            "options": {"tensor_parallel_size": 4, "max_model_len": 32768, "max_num_batched_tokens": 32768, "gpu_memory_utilization": 0.96, "max_num_seqs": 64},
        },
        cards(4),
        QWEN3_32B_AWQ,
    )
    assert found["verdict"] == article["verdict"] == "fits"
    assert found["options"]["max_model_len"] >= 32768
    assert found["kv"]["tokens"] >= article["kv"]["tokens"]
    assert found["options"]["tensor_parallel_size"] == 4 and found["options"]["dtype"] == "half"
    assert not warned(found) & {"decode_without_graphs", "swap_share", "no_room_for_cuda_graphs", "custom_all_reduce_falls_back"}
    assert set(found["reasons"]) == set(found["options"])


def test_the_intent_of_the_low_memory_article():
    found = solved("low_memory", A100, LLAMA2_70B_AWQ, objective={"max_gpu_memory_gib": 19})
    assert found["verdict"] == "fits", found["refusals"]
    assert found["options"]["cpu_offload_gb"] == 17 and found["options"]["enforce_eager"] is True
    (rank,) = found["memory"]["per_rank"]
    assert rank["budget"] + SPARE_BYTES <= 19 * GIB
    assert found["kv"]["tokens"] >= found["options"]["max_model_len"] == 2048


def test_low_memory_takes_less_than_throughput():
    much, little = (solved(profile, cards(4), QWEN3_32B_AWQ) for profile in ("throughput", "low_memory"))
    assert little["memory"]["per_rank"][0]["budget"] < much["memory"]["per_rank"][0]["budget"] / 2
    assert "cpu_offload_gb" not in little["options"]


def test_latency_has_few_sequences():
    found = solved("latency", cards(4), QWEN3_32B_AWQ)
    assert found["options"]["max_num_seqs"] == 16
    assert found["options"]["max_num_batched_tokens"] < solved("throughput", cards(4), QWEN3_32B_AWQ)["options"]["max_num_batched_tokens"]


@pytest.mark.parametrize(
    "objective", [{"context": 16384}, {"context": 16384, "concurrency": 8}, {"concurrency": 40}, {"max_gpu_memory_gib": 12}, {"max_gpu_memory_gib": 9.5}]
)
@pytest.mark.parametrize("profile", PROFILES)
def test_an_objective_is_met(profile, objective):
    found = solved(profile, cards(4), QWEN3_32B_AWQ, objective=objective)
    assert found["verdict"] == "fits", found["refusals"]
    chosen, many = found["options"], objective.get("concurrency", 1)
    assert chosen["max_model_len"] >= objective.get("context", 1)
    assert found["kv"]["tokens"] >= many * chosen["max_model_len"] and chosen["max_num_seqs"] >= many
    taken = max(rank["budget"] + rank["cuda_graphs"] for rank in found["memory"]["per_rank"])
    assert taken + SPARE_BYTES <= objective.get("max_gpu_memory_gib", 22) * GIB


@pytest.mark.parametrize(
    "objective, given, words",
    [
        ({"context": 32768, "concurrency": 20}, {}, "20 x 32768 are asked for"),
        ({"context": 16384}, {"max_model_len": 8192}, "max_model_len is 8192"),
        ({"concurrency": 8}, {"max_num_seqs": 4, "max_model_len": 1024}, "max_num_seqs is 4"),
        ({"max_gpu_memory_gib": 10}, {"gpu_memory_utilization": 0.9}, "the objective allows 10 GiB"),
    ],
)
def test_an_objective_that_is_missed_is_refused(objective, given, words):
    found = solved("throughput", cards(4), QWEN3_32B_AWQ, given, objective)
    assert codes(found)[0] == "objective_not_met"
    assert words in " ".join(problem["message"] for problem in found["refusals"])


def test_the_users_options_win_and_are_checked():
    given = {"tensor_parallel_size": 2, "max_model_len": "16K", "max_num_seqs": 5, "gpu_memory_utilization": 0.8, "block_size": 32}
    found = solved("throughput", cards(4), QWEN3_32B_AWQ, given)
    assert found["verdict"] == "fits" and found["options"].items() >= given.items()
    assert not set(given) & set(found["reasons"])
    assert "heads_not_divisible" in codes(solved("throughput", cards(4), QWEN3_32B_AWQ, {"tensor_parallel_size": 3}))
    assert codes(solved("throughput", cards(4), QWEN3_32B_AWQ, {"max_batch_size": 2})) == ["unknown_option"]
    assert codes(solved("throughput", cards(4), QWEN3_32B_AWQ, {"max_model_len": 50000})) == ["context_over_model"]


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_as_many_sequences_as_the_user_runs_at_once(share):
    given = {"max_num_active_seqs": 16, "gpu_memory_utilization": share}
    found = solved("throughput", cards(1), config_of("Qwen/Qwen2.5-7B-Instruct"), given, engine_version="0.33.0")
    assert found["verdict"] == "fits", found["refusals"]
    assert found["options"]["max_num_seqs"] >= 16


@pytest.mark.parametrize("changes", [{}, {"profile": "latency"}, {"objective": {"concurrency": 3}}, {"options": {"gpu_memory_utilization": 1.0}}])
@pytest.mark.parametrize("mib", [11264, 15360, 22528])
def test_what_bounds_leave_out_would_not_fit(monkeypatch, mib, changes):
    """The same is chosen where nothing is known beforehand and every number of sequences is tried."""
    arguments = {"name": "a", "model": "a/b", **changes}, cards(2, mib=mib), config_of("Qwen/Qwen2.5-7B-Instruct")
    known = plan(*arguments)
    monkeypatch.setattr(solve, "_most_tokens", lambda base: float("inf"))
    assert plan(*arguments) == known


def test_a_small_card_gets_a_shorter_context():
    found = solved("throughput", cards(1, 11264), config_of("Qwen/Qwen3-4B"))
    assert found["verdict"] == "fits", found["refusals"]
    assert 1024 <= found["options"]["max_model_len"] < 40960
    assert found["options"]["max_model_len"] <= found["kv"]["tokens"]


def test_three_cards_that_heads_cannot_be_cut_for():
    found = solved("throughput", cards(3), QWEN3_32B_AWQ)
    assert found["verdict"] == "fits"
    assert (found["options"]["tensor_parallel_size"], found["options"].get("pipeline_parallel_size")) == (1, 3)


def test_little_ram_gets_less_swap():
    found = solved("throughput", cards(4, ram=32), QWEN3_32B_AWQ)
    assert found["options"]["swap_space"] == 3 and "swap_share" not in warned(found)


def test_what_v0_hides_is_shown():
    """Swap and prefix hits are metrics that 0.8.5 shows to this very string; who gives all options keeps the command line as it is."""
    found = solved("throughput", cards(4), QWEN3_32B_AWQ)
    assert found["argv"][found["argv"].index("--show-hidden-metrics-for-version") + 1] == "0.7"
    assert "metrics_hidden" not in warned(found)
    assert "--show-hidden-metrics-for-version" not in solved("as_given", cards(4), QWEN3_32B_AWQ, {"tensor_parallel_size": 4})["argv"]
    assert "--show-hidden-metrics-for-version" not in solved("throughput", cards(4), QWEN3_32B_AWQ, {"disable_log_stats": True})["argv"]
    assert "--show-hidden-metrics-for-version" not in solved("throughput", A100, QWEN3_32B_AWQ)["argv"]
    assert "--show-hidden-metrics-for-version" not in solved("throughput", cards(4), QWEN3_32B_AWQ, engine_version="0.19.1")["argv"]


def test_gptq_is_told_its_kernel():
    config = {**QWEN3_32B_AWQ, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}}
    assert solved("throughput", cards(4), config)["options"]["quantization"] == "gptq"


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "as_given"])
def test_vectors_are_made_of_whole_prompts(profile):
    """0.8.5 refuses chunks for pooling; of a prompt that begins with cached blocks the hidden states are missing."""
    found = solved(profile, cards(4), QWEN3_32B_AWQ, {"task": "embed"})
    assert found["verdict"] == "fits"
    assert found["options"]["enable_chunked_prefill"] is False and found["options"]["enable_prefix_caching"] is False


def test_adapters_are_not_offloaded():
    """0.8.5 refused what low_memory and the ladder had made of it."""
    found = solved("low_memory", cards(1, ram=512), QWEN3_32B_AWQ, {"enable_lora": True})
    assert found["verdict"] == "fits" and not found["options"].get("cpu_offload_gb")
    assert found["ladder"] and not [step for step in found["ladder"] if "--cpu-offload-gb" in step["argv"]]


@pytest.mark.parametrize("version", options.versions())
def test_every_engine_gets_options_of_its_own(version):
    found = solved("throughput", cards(4), QWEN3_32B_AWQ, engine_version=version)
    assert found["verdict"] == "fits"
    assert options.check(version, found["options"]) == []
    assert ("max_seq_len_to_capture" in found["options"]) == (version == "0.8.5")
    assert found["options"].get("attention_backend") == ("TRITON_ATTN" if version == "0.19.1" else None)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_solved_fits_and_keeps_what_was_given(seed):
    dice, names, fitting = random.Random(seed), NAMES, 0
    for attempt in range(40):
        host = cards(dice.choice([1, 2, 3, 4, 8]), dice.choice([11264, 22528, 49140]), dice.choice(["7.5", "8.0", "8.9"]), dice.choice([32, 256]))
        given = {name: value for name, value in (("max_num_seqs", 7), ("max_model_len", 3000), ("enforce_eager", True)) if dice.random() < 0.2}
        found = solved(dice.choice(list(PROFILES)), host, config_of(dice.choice(names)), given, engine_version=dice.choice(options.versions()))
        assert found["options"].items() >= given.items()
        if found["verdict"] == "fits" and not warned(found) & {"no_room_for_kv_cache", "kv_cache_too_small"}:
            fitting += 1
            assert found["kv"]["tokens"] >= found["options"]["max_model_len"]
            assert options.parse(found["engine"]["version"], found["argv"])["max_model_len"] == found["options"]["max_model_len"]
            assert "no_room_for_cuda_graphs" not in warned(found)
    assert fitting > 10
