"""The filters about wheels, as playbooks call them."""

from ansible_collections.gpuhosts.inference.plugins.filter.wheel_artifact import wheel_artifact
from ansible_collections.gpuhosts.inference.plugins.filter.wheel_attempts import wheel_attempts
from ansible_collections.gpuhosts.inference.plugins.filter.wheel_problems import wheel_problems

PACKAGE = {"name": "flash-attn", "version": "1.0.9", "sha256": "7c7e", "archs": ["7.5"]}


def test_a_wheel_that_no_store_has(tmp_path):
    found = wheel_artifact(PACKAGE, "vllm:a", "sha256:1", {"python": "3.12", "torch": "2.6.0", "torch_cuda": "12.4"}, str(tmp_path))
    assert found["state"] == "missing" and found["directory"] == f"{tmp_path}/{found['key']}" and found["wanted"]["cuda"] == "12.4"


def test_an_image_that_is_not_on_the_host_yet(tmp_path):
    assert wheel_artifact(PACKAGE, "vllm:a", None, None, str(tmp_path / "none"))["wanted"]["python"] is None


def test_a_host_that_could_not_be_read():
    assert wheel_attempts({}, "3") == {"jobs": [1], "memory_bytes": 0}


def test_problems_are_plain_mappings(tmp_path):
    want = wheel_artifact(PACKAGE, "vllm:a", None, None, str(tmp_path))["wanted"]
    status = {"metadata": {"name": "flash_attn", "version": "1.0.9", "tags": []}, "python": "3.12", "torch": "2", "cuda": "12.4", "objdump": {}}
    (problem,) = wheel_problems(status, want)
    assert problem["code"] == "code_missing" and set(problem) == {"code", "message", "remedy"}
