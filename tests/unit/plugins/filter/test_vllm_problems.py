from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_problems import FilterModule

vllm_problems = FilterModule().filters()["vllm_problems"]
GOOD = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ"}


def test_no_problem_is_an_empty_list():
    assert vllm_problems([GOOD]) == vllm_problems([GOOD], gpu_count=0) == vllm_problems([]) == []


def test_a_problem_is_a_dict_of_plain_types():
    found = vllm_problems([{**GOOD, "options": {"max_batch_size": 2}}])
    assert found == [
        {
            "code": "unknown_option",
            "message": "Instance 'coder': max_batch_size is not an option of vLLM 0.8.5.",
            "remedy": "Use max_num_seqs, the largest number of sequences in one batch.",
        }
    ]
    assert {type(value) for value in found[0].values()} == {str}


def test_gpu_count_limits_the_indices():
    assert [problem["code"] for problem in vllm_problems([{**GOOD, "gpus": [4]}], gpu_count=4)] == ["gpus_out_of_range"]


def test_what_is_not_a_list_is_a_problem_and_not_a_failure():
    assert [problem["code"] for problem in vllm_problems("coder")] == ["not_a_list"]


@pytest.mark.parametrize("gpu_count", ["4", -1, True, 1.5])
def test_gpu_count_must_be_a_count(gpu_count):
    with pytest.raises(AnsibleFilterError, match="gpu_count must be an integer from 0"):
        vllm_problems([GOOD], gpu_count)
