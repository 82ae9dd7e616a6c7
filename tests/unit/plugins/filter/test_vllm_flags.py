from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_flags import FilterModule

vllm_flags = FilterModule().filters()["vllm_flags"]
GOOD = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ", "profile": "as_given", "options": {"max_num_seqs": 64}}


def test_the_command_line_comes_back_in_plain_types():
    argv = vllm_flags(GOOD, {"gpus": [{}]})
    assert argv == vllm_flags(GOOD) == ["--model", "/model/Qwen3-32B-AWQ", "--served-model-name", "coder", "--max-num-seqs", "64"]
    assert [type(argv), *{type(word) for word in argv}] == [list, str]


def test_a_refusal_has_every_message_and_remedy():
    with pytest.raises(AnsibleFilterError) as refused:
        vllm_flags({**GOOD, "port": 0, "options": {"max_batch_size": 2}})
    for words in ("the port 0 does not exist", "Use a port", "max_batch_size is not an option", "Use max_num_seqs"):
        assert words in str(refused.value)


@pytest.mark.parametrize("arguments, name", [(("x",), "the instance"), ((None,), "the instance"), ((GOOD, "x"), "host"), ((GOOD, {}, [1]), "model")])
def test_arguments_that_are_not_mappings(arguments, name):
    with pytest.raises(AnsibleFilterError, match=f"{name} must be a mapping"):
        vllm_flags(*arguments)
