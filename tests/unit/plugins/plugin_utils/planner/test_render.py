from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import BAR, host_plan

GIB = 1024**3
NAME = "Qwen/Qwen3-0.6B"
MODELS = {
    NAME: {
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
}
OPTIONS = {"dtype": "half", "max_num_seqs": 8, "max_model_len": 8192}


def host(count=2, ram=64):
    card = {"name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 22 * GIB}
    return {"gpus": [dict(card) for number in range(count)], "memory_bytes": ram * GIB}


def instance(name, gpu, port, **more):
    return {"name": name, "model": NAME, "gpus": [gpu], "port": port, "options": {**OPTIONS, **more}}


def codes(found):
    return [problem["code"] for problem in found["problems"]]


def test_two_instances_that_share_nothing():
    found = host_plan([instance("a", 0, 8000), instance("b", 1, 8001)], host(), MODELS, name="box")
    assert (found["verdict"], found["problems"], list(found["plans"])) == ("fits", [], ["a", "b"])
    assert f"box/a: {NAME} on vLLM 0.8.5, V0, XFORMERS: FITS" in found["text"]
    drawn = [line.strip() for line in found["text"].splitlines() if line.strip().startswith("[W")]
    assert [len(line) for line in drawn] == [BAR + 2] * 2
    assert f"{found['plans']['a']['kv']['tokens']} tokens" in found["text"]
    assert f"start       may take up to {found['plans']['a']['ready_seconds']} s" in found["text"]


def test_two_instances_that_share_a_card_and_a_port():
    found = host_plan([instance("a", 0, 8000), instance("b", 0, 8000)], host(), MODELS)
    assert found["verdict"] == "refused" and codes(found) == ["duplicate_port", "overlapping_gpus"]
    assert [each["verdict"] for each in found["plans"].values()] == ["fits", "fits"]
    assert "refused     duplicate_port" in found["text"]


def test_swap_that_fits_for_each_and_not_for_both():
    both = [instance("a", 0, 8000, swap_space=30), instance("b", 1, 8001, swap_space=30)]
    found = host_plan(both, host(ram=64), MODELS)
    assert codes(found) == ["swap_over_ram_together"]
    assert "60 GiB, 94% of 64 GiB RAM" in found["problems"][0]["message"]
    assert host_plan(both, host(ram=128), MODELS)["verdict"] == "fits"


def test_a_refusal_is_written_out():
    found = host_plan([instance("a", 0, 8000, max_model_len=50000)], host(), MODELS)
    assert found["verdict"] == "refused"
    assert "REFUSED" in found["text"] and "refused     context_over_model: max_model_len is 50000" in found["text"]


def test_the_bar_of_a_part_that_is_a_million_cards_is_as_long_as_any_other():
    """It took the memory of the machine that drew it."""
    found = host_plan([instance("a", 0, 8000, max_num_batched_tokens=10**12)], host(), MODELS)
    assert max(map(len, found["text"].splitlines())) < 2000 and f"{'A' * 9}>]" in found["text"]


@pytest.mark.parametrize(
    "instances, hardware, models",
    [
        (None, None, None),
        ("x", {}, {}),
        ([None, 3, {}], host(), {}),
        ([{"name": "a", "model": NAME}], host(), {}),
        ([], {}, {}),
        ([{"name": []}], 7, []),
        ([{"name": "a (3)"}, {"name": "a"}, {"name": "a"}], host(), {}),
    ],
)
def test_what_is_malformed_is_written_out_too(instances, hardware, models):
    found = host_plan(instances, hardware, models if isinstance(models, dict) else {})
    assert found["text"] and set(found) == {"verdict", "problems", "plans", "text"}
    assert found["verdict"] == ("refused" if instances else "fits")
