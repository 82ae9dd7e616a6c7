from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_host_plan import FilterModule

vllm_host_plan = FilterModule().filters()["vllm_host_plan"]


def test_a_refusal_is_returned_with_its_text():
    found = vllm_host_plan([{"name": "chat", "model": "a/b"}], {"gpus": []}, {}, name="box")
    assert found["verdict"] == "refused"
    assert [problem["code"] for problem in found["plans"]["chat"]["refusals"]] == ["no_cards", "no_model_config"]
    assert found["text"].startswith("box/chat: a/b on vLLM")


@pytest.mark.parametrize("arguments, words", [(([], "x", {}), "host must be"), (([], {}, None), "models must be")])
def test_arguments_of_a_wrong_kind(arguments, words):
    with pytest.raises(AnsibleFilterError, match=words):
        vllm_host_plan(*arguments)
