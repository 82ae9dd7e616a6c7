"""The filters of preflight: what is read on the controller, and what becomes of files that cannot be."""

import json

from ansible_collections.gpuhosts.inference.plugins.filter.preflight_problems import FilterModule as Problems
from ansible_collections.gpuhosts.inference.plugins.filter.preflight_sources import FilterModule as Sources

preflight_problems = Problems().filters()["preflight_problems"]
preflight_sources = Sources().filters()["preflight_sources"]


def test_roles_are_known_and_the_result_is_plain():
    found = preflight_problems(None, {"name": "gpu01", "silence": "down", "variables": ["vllm_instnces"]})
    assert [problem["code"] for problem in found["problems"]] == ["host_silent", "unknown_variable"]
    assert json.loads(json.dumps(found)) == found


def test_files_that_cannot_be_read_are_problems(tmp_path):
    (tmp_path / "ledger.json").write_text("{")
    found = preflight_problems({}, {"silence": "down", "configs": {"a/b": str(tmp_path / "none.json")}, "ledger": str(tmp_path / "ledger.json")})
    assert [problem["code"] for problem in found["problems"]] == ["unreadable_model_config", "unreadable_ledger", "host_silent"]
    assert "none.json" in found["problems"][0]["message"]


def test_a_host_without_wants_fetches_nothing():
    packages = {"cuda-toolkit-12-8": "12.8.1-1", "nvidia-container-toolkit": "1.17.8-1"}
    facts = {"driver_version": "570", "packages": packages, "docker": {"version": "26"}}
    wanted = {"driver_version": "570", "cuda_toolkit_version": "12.8.1", "container_toolkit_version": "1.17.8"}
    assert preflight_sources(facts, wanted) == []
