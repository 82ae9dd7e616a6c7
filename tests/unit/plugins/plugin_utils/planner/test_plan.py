from __future__ import annotations

import copy
import json
import math
import pathlib
import random

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.flags import flags
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import KV, TERMS, plan

GIB = 1024**3
ROOT = pathlib.Path(__file__).parents[5]
SHAPES = json.loads((ROOT / "tests/data/models.json").read_text(encoding="utf-8"))
KEYS = {"verdict", "refusals", "warnings", "engine", "options", "reasons", "argv", "env", "hang_argv", "ready_seconds", "memory", "kv", "ladder", "lanes"}


def config_of(name):
    shape = dict(SHAPES[name])
    return {"architectures": [shape.pop("architecture")], **shape}


QWEN3_32B_AWQ = config_of("Qwen/Qwen3-32B-AWQ")
LLAMA2_70B_AWQ = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}
# The script of the second article, without the flag that no engine has.
LOW_MEMORY = {
    "name": "low",
    "model": "TheBloke/Llama-2-70B-AWQ",
    "profile": "as_given",
    "options": {
        "tensor_parallel_size": 1,
        "dtype": "float16",
        "max_model_len": 2048,
        "max_num_batched_tokens": 512,
        "max_num_seqs": 8,
        "gpu_memory_utilization": 0.45,
        "enable_chunked_prefill": True,
        "enforce_eager": True,
        "quantization": "awq",
        "swap_space": 20,
        "disable_log_stats": True,
    },
}


def cards(count, mib=22528, capability="7.5", name="NVIDIA GeForce RTX 2080 Ti", **more):
    gpus = [{"index": index, "name": name, "compute_capability": capability, "memory_total_bytes": mib << 20, **more} for index in range(count)]
    return {"gpus": gpus, "memory_bytes": 512 * GIB}


def article():
    example = yaml.safe_load((ROOT / "inventories/example/host_vars/coder01.yml").read_text(encoding="utf-8"))
    return example["vllm_instances"][0]


def codes(problems):
    return {problem["code"] for problem in problems}


def test_the_article_keeps_its_command_line_and_fits():
    found = plan(article(), cards(4), QWEN3_32B_AWQ)
    assert set(found) == KEYS
    assert found["verdict"] == "fits" and found["refusals"] == []
    assert found["argv"] == flags(article(), cards(4), QWEN3_32B_AWQ) == flags(article())
    assert found["options"] == article()["options"]
    assert found["engine"] == {"version": "0.8.5", "core": "V0", "attention": "XFORMERS"}
    assert [set(rank) for rank in found["memory"]["per_rank"]] == [set(TERMS)] * 4
    assert found["memory"]["per_rank"][0]["weights"] / GIB == pytest.approx(4.5, rel=0.02)
    assert found["kv"]["bytes_per_token"] == 65536
    assert found["kv"]["tokens"] == found["kv"]["blocks"] * 16 > 200_000
    assert found["kv"]["max_concurrency"] == pytest.approx(found["kv"]["tokens"] / 32768, abs=0.01)


def test_the_article_is_told_of_its_swap_and_its_eager_contexts():
    said = {problem["code"]: problem["message"] for problem in plan(article(), cards(4), QWEN3_32B_AWQ)["warnings"]}
    assert "64 GiB x 4 cards is 256 GiB, 50% of 512 GiB RAM" in said["swap_share"]
    assert "Contexts over 8192 tokens decode without CUDA graphs" in said["decode_without_graphs"]


def test_the_low_memory_article_is_refused_with_what_would_fit():
    host = cards(1, 40960, "8.0", "NVIDIA A100-PCIE-40GB", memory_reserved_bytes=0)
    found = plan(LOW_MEMORY, host, LLAMA2_70B_AWQ)
    assert found["verdict"] == "refused" and found["argv"] == [] and found["ladder"] == []
    (refusal,) = found["refusals"]
    assert refusal["code"] == "no_room_for_kv_cache"
    assert "34.1" in refusal["message"] and "18.00 GiB" in refusal["message"]
    (rank,) = found["memory"]["per_rank"]
    assert rank["weights"] / GIB == pytest.approx(34.1, abs=0.05) and rank["kv_cache"] < 0
    for words in ("gpu_memory_utilization to 0.88", "tensor_parallel_size to 2 (on 2 such cards)", "cpu_offload_gb to 18"):
        assert words in refusal["remedy"]


@pytest.mark.parametrize("changes, count", [({"gpu_memory_utilization": 0.88}, 1), ({"tensor_parallel_size": 2}, 2), ({"cpu_offload_gb": 18}, 1)])
def test_what_a_remedy_names_fits(changes, count):
    host = cards(count, 40960, "8.0", "NVIDIA A100-PCIE-40GB", memory_reserved_bytes=0)
    found = plan({**LOW_MEMORY, "options": {**LOW_MEMORY["options"], **changes}}, host, LLAMA2_70B_AWQ)
    assert found["verdict"] == "fits", found["refusals"]


def test_other_lanes_say_what_they_would_change():
    host = {**cards(4), "driver_version": "570.153.02"}
    newer, newest = plan(article(), host, QWEN3_32B_AWQ)["lanes"]
    assert (newer["engine"]["version"], newest["engine"]["version"]) == ("0.19.1", "0.33.0")
    assert newer["verdict"] == "fits" and newer["kv"]["tokens"] > 0
    changes = {each["name"]: each["change"] for each in newer["changes"]}
    assert set(changes) == {"swap_space", "attention_backend", "quantization", "NVIDIA_DISABLE_REQUIRE"}
    assert "Marlin" in changes["quantization"]
    assert newest["verdict"] == "refused" and codes(newest["refusals"]) == {"driver_too_old"}
    assert plan(article(), {**cards(4), "driver_version": "580.65.06"}, QWEN3_32B_AWQ)["lanes"][1]["verdict"] == "fits"


def test_the_solver_tells_the_runtime_what_the_driver_can_do():
    host, instance = {**cards(4), "driver_version": "570.153.02"}, {"name": "a", "model": "a/b", "engine_version": "0.19.1"}
    found = plan(instance, host, QWEN3_32B_AWQ)
    assert found["env"] == {"NVIDIA_DISABLE_REQUIRE": "1"} and "570.153.02" in found["reasons"]["NVIDIA_DISABLE_REQUIRE"]
    assert codes(found["warnings"]) == set()
    given = plan({**instance, "profile": "as_given", "options": {**found["options"]}}, host, QWEN3_32B_AWQ)
    assert given["env"] == {} and codes(given["warnings"]) == {"image_wants_newer_driver"}


def test_a_plan_is_plain():
    found = plan(article(), cards(4), QWEN3_32B_AWQ)
    assert json.loads(json.dumps(found)) == found


def test_a_ledger_corrects_the_prediction():
    plain = plan(article(), cards(4), QWEN3_32B_AWQ)["memory"]["per_rank"][0]
    entry = {
        "model": "Qwen/Qwen3-32B-AWQ", "card": "NVIDIA GeForce RTX 2080 Ti", "tensor_parallel_size": 4, "pipeline_parallel_size": 1, "version": "0.8.5",
        "weights": plain["weights"] + GIB // 4, "predicted": {"weights": plain["weights"]},
    }  # fmt: skip
    corrected = plan(article(), cards(4), QWEN3_32B_AWQ, [entry])["memory"]["per_rank"][0]
    assert corrected["weights"] == plain["weights"] + GIB // 4


GOOD = {
    "name": "coder",
    "model": "Qwen/Qwen3-32B-AWQ",
    "profile": "as_given",
    "options": {"tensor_parallel_size": 4, "max_model_len": 8192, "dtype": "half"},
}


@pytest.mark.parametrize(
    "instance, host, config, code",
    [
        (None, cards(4), QWEN3_32B_AWQ, "not_a_mapping"),
        ({**GOOD, "options": {"max_batch_size": 2}}, cards(4), QWEN3_32B_AWQ, "unknown_option"),
        ({**GOOD, "gpus": [0, 9]}, cards(4), QWEN3_32B_AWQ, "gpus_out_of_range"),
        (GOOD, None, QWEN3_32B_AWQ, "hardware_not_a_mapping"),
        (GOOD, {"gpus": []}, QWEN3_32B_AWQ, "no_cards"),
        (GOOD, cards(4, -1), QWEN3_32B_AWQ, "invalid_memory_total_bytes"),
        (GOOD, cards(4), None, "model_not_a_mapping"),
        (GOOD, cards(4), {"architectures": ["NoSuchModel"]}, "unknown_architecture"),
        (GOOD, cards(4), {**QWEN3_32B_AWQ, "hidden_size": None}, "missing_model_value"),
        (GOOD, cards(4), {**QWEN3_32B_AWQ, "hidden_size": -5}, "invalid_model_value"),
        (GOOD, cards(2), QWEN3_32B_AWQ, "ranks_over_cards"),
        ({**GOOD, "options": {"tensor_parallel_size": 2**40}}, cards(4), QWEN3_32B_AWQ, "value_out_of_range"),
        ({**GOOD, "options": {"max_model_len": 10**400}}, cards(4), QWEN3_32B_AWQ, "value_out_of_range"),
        ({**GOOD, "options": {"max_model_len": "999999999999999T"}}, cards(4), QWEN3_32B_AWQ, "wrong_type"),
        ({**GOOD, "options": {"max_num_seqs": -1}}, cards(4), QWEN3_32B_AWQ, "value_out_of_range"),
        ({**GOOD, "options": {"gpu_memory_utilization": 0}}, cards(4), QWEN3_32B_AWQ, "utilization_out_of_range"),
        ({**GOOD, "options": {"gpu_memory_utilization": math.nan}}, cards(4), QWEN3_32B_AWQ, "wrong_type"),
        ({**GOOD, "options": {**GOOD["options"], "swap_space": 100}}, cards(4), QWEN3_32B_AWQ, "swap_over_ram"),
        (
            {**GOOD, "options": {**GOOD["options"], "swap_space": 4, "cpu_offload_gb": 4}},
            {**cards(4), "memory_bytes": 24 * GIB},
            QWEN3_32B_AWQ,
            "host_memory_too_small",
        ),
        (GOOD, {"gpus": cards(3)["gpus"] + [{**cards(4)["gpus"][3], "memory_total_bytes": 11264 << 20}]}, QWEN3_32B_AWQ, "unequal_cards"),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(instance, host, config, code):
    found = plan(instance, host, config)
    assert set(found) == KEYS
    assert found["verdict"] == "refused" and found["argv"] == []
    assert code in codes(found["refusals"]), found["refusals"]
    assert all(problem["message"] and problem["remedy"] for problem in found["refusals"])


def nested(levels, within):
    """A mapping in a mapping, so many levels deep."""
    for dummy in range(levels):
        within = {"a": within}
    return within


@pytest.mark.parametrize("levels", [101, 5000])
def test_what_is_nested_without_end_is_refused(levels):
    deep, itself = nested(levels, 1), {}
    itself["a"] = itself
    overrides = {**GOOD, "options": {**GOOD["options"], "hf_overrides": deep}}
    for case in ((overrides, cards(4), QWEN3_32B_AWQ), (GOOD, {**cards(4), "x": deep}, QWEN3_32B_AWQ), (GOOD, cards(4), {**QWEN3_32B_AWQ, "x": itself})):
        assert codes(plan(*case)["refusals"]) == {"nested_too_deep"}
    assert plan(GOOD, cards(4), {**QWEN3_32B_AWQ, "x": nested(90, 1)})["verdict"] == "fits"


def test_cards_that_are_nearly_equal_are_warned_of():
    """22 GB beside 24 GB: a pair that is reported to serve."""
    host = {"gpus": [*cards(3)["gpus"], {**cards(4)["gpus"][3], "name": "NVIDIA TITAN RTX", "memory_total_bytes": 24576 << 20}]}
    found = plan(GOOD, host, QWEN3_32B_AWQ)
    assert found["verdict"] == "fits" and "unequal_cards" in codes(found["warnings"])
    assert "unequal_cards" not in codes(plan(GOOD, cards(4), QWEN3_32B_AWQ)["warnings"])


def test_unequal_cards_may_stand_in_one_host():
    host = {"gpus": [*cards(4)["gpus"], {**cards(5)["gpus"][4], "memory_total_bytes": 11264 << 20}]}
    assert plan({**GOOD, "gpus": [0, 1, 2, 3]}, host, QWEN3_32B_AWQ)["verdict"] == "fits"


def test_every_problem_is_told_at_once():
    found = plan({**GOOD, "port": 0}, {"gpus": []}, {})
    assert codes(found["refusals"]) == {"port_out_of_range", "no_cards", "model_not_a_mapping"}


ODD = (None, 0, -1, 1, 3, 10**30, 10**400, 0.5, -0.5, 1e308, math.nan, math.inf, True, False, "", "x", "half", "32K", [], [1], [None], {}, {"a": 1})


def mutated(value, chance, random):
    """A copy with odd values in it."""
    if random.random() < chance:
        return copy.deepcopy(random.choice(ODD))
    if isinstance(value, dict):
        return {key: mutated(item, chance, random) for key, item in value.items() if random.random() > chance / 2}
    if isinstance(value, list):
        return [mutated(item, chance, random) for item in value]
    return value


@pytest.mark.parametrize("size", ["", "0", "x", "1e3", "9" * 50, "\u00b2", " 8"])
def test_what_is_no_number_in_the_environment_is_passed_over(size):
    moe = config_of("Qwen/Qwen3-30B-A3B-Instruct-2507")
    moe = {**moe, **moe.pop("moe"), "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    given = {**GOOD, "options": {**GOOD["options"], "quantization": "moe_wna16"}, "env": {"VLLM_FUSED_MOE_CHUNK_SIZE": size}}
    assert plan(given, cards(4), moe)["verdict"] == "fits"


@pytest.mark.parametrize("seed", range(8))
def test_no_input_gives_a_traceback(seed):
    dice, names = random.Random(seed), sorted(SHAPES)
    known = [name for name in options.schema("0.8.5") if name not in ("model", "config")]
    for attempt in range(60):
        instance = copy.deepcopy(dice.choice([GOOD, LOW_MEMORY, article()]))
        instance["options"] |= {name: dice.choice(ODD) for name in dice.sample(known, attempt % 3)}
        instance["engine_version"] = dice.choice(options.versions())
        instance["profile"] = dice.choice(["as_given", "as_given", "throughput", "low_memory", "latency"])
        if dice.random() < 0.3:
            instance["objective"] = {"context": dice.choice(ODD), "concurrency": dice.choice(ODD), "max_gpu_memory_gib": dice.choice(ODD)}
        chance = dice.choice([0, 0.02, 0.1])
        host = cards(dice.choice([1, 2, 4, 8]), dice.choice([11264, 22528, 81920]), dice.choice(["7.0", "7.5", "8.0", "9.0"]))
        found = plan(mutated(instance, chance, dice), mutated(host, chance, dice), mutated(config_of(dice.choice(names)), chance, dice), dice.choice(ODD))
        assert set(found) == KEYS and set(found["kv"]) == set(KV)
        assert (found["verdict"] == "refused") == bool(found["refusals"]) == (found["argv"] == [])
