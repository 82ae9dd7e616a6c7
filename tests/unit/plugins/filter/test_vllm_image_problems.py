"""The door to plugin_utils/image_proof.py."""

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_image_problems import vllm_image_problems

HOST = {"driver_version": "570.153.02", "gpus": [{"index": 0, "compute_capability": "7.5"}]}
CPU_BUILD = {"vllm": "0.8.5", "torch_cuda": None, "extensions": {}}


def test_problems_are_plain_mappings():
    found = vllm_image_problems([{"name": "a", "model": "b"}], HOST, {"0.8.5": "vllm:a"}, {"vllm:a": CPU_BUILD})
    assert [set(problem) for problem in found] == [{"code", "message", "remedy"}]
    assert found[0]["code"] == "no_cuda_code"


def test_an_engine_without_an_image_is_the_callers_fault():
    with pytest.raises(AnsibleFilterError, match=r"wants instances that vllm_problems has passed: KeyError\('0.19.1'\)"):
        vllm_image_problems([{"name": "a", "model": "b", "engine_version": "0.19.1"}], HOST, {"0.8.5": "vllm:a"}, {})
