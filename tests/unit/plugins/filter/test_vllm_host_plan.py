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


def test_a_config_may_be_a_file_on_the_controller(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"architectures": ["NoSuchModel"]}')
    found = vllm_host_plan([{"name": "chat", "model": "a/b"}], {"gpus": []}, {"a/b": str(path)})
    assert [problem["code"] for problem in found["plans"]["chat"]["refusals"]] == ["no_cards", "unknown_architecture"]


@pytest.mark.parametrize("text", [None, "{"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AnsibleFilterError, match=f"the config.json of a/b cannot be read from {path}"):
        vllm_host_plan([], {}, {"a/b": str(path)})


@pytest.mark.parametrize("arguments, words", [(([], "x", {}), "host must be"), (([], {}, None), "models must be")])
def test_arguments_of_a_wrong_kind(arguments, words):
    with pytest.raises(AnsibleFilterError, match=words):
        vllm_host_plan(*arguments)
