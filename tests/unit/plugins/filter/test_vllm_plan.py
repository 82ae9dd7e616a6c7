from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_plan import FilterModule

vllm_plan = FilterModule().filters()["vllm_plan"]
HOST = {"gpus": [{"name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 22 * 1024**3}]}
MODEL = {
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
GOOD = {"name": "draft", "model": "Qwen/Qwen3-0.6B", "options": {"dtype": "half", "max_num_seqs": 8, "max_model_len": 8192}}


class Tagged(str):
    """A string as Ansible hands it over: a subclass."""


def kinds(value):
    """The types of a value and of everything in it."""
    if isinstance(value, dict):
        return {dict}.union(*(kinds(item) for pair in value.items() for item in pair))
    return {list}.union(*map(kinds, value)) if isinstance(value, list) else {type(value)}


def test_a_plan_comes_back_in_plain_types():
    found = vllm_plan({**GOOD, "name": Tagged("draft"), "env": {Tagged("A"): Tagged("b")}}, HOST, MODEL)
    assert found["verdict"] == "fits", found["refusals"]
    assert found["env"] == {"A": "b"}
    assert kinds(found) <= {dict, list, str, int, float, bool, type(None)}


def test_a_refusal_is_returned_not_raised():
    found = vllm_plan({**GOOD, "profile": "as_given", "options": {}}, HOST, MODEL)
    assert found["verdict"] == "refused"
    assert "bfloat16_unsupported" in [problem["code"] for problem in found["refusals"]]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("x", HOST, MODEL), "the instance must be a mapping, not a string"),
        ((GOOD, None, MODEL), "host must be a mapping, not null"),
        ((GOOD, HOST, [1]), "model must be a mapping, not a list"),
        ((GOOD, HOST, MODEL, "x"), "ledger must be a list, not a string"),
    ],
)
def test_arguments_of_a_wrong_kind(arguments, words):
    with pytest.raises(AnsibleFilterError, match=words):
        vllm_plan(*arguments)


def test_true_sizes_replace_the_estimate():
    estimated, true = (vllm_plan(GOOD, HOST, MODEL, [], size)["memory"]["per_rank"][0]["weights"] for size in (None, 2 * 1024**3))
    assert estimated < 1.3 * 1024**3 and true == pytest.approx(2 * 1024**3, rel=0.01)
    assert vllm_plan(GOOD, HOST, MODEL, [], "many")["refusals"][0]["code"] == "invalid_tensor_bytes"
