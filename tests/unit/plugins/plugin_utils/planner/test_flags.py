from __future__ import annotations

import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import flags as module
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import instance, options
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.flags import flags
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused

EXAMPLE = pathlib.Path(__file__).parents[5] / "inventories" / "example"

# The published run.sh, from --model on.
RUN_SH = """
  --model /model/Qwen3-32B-AWQ --served-model-name coder \
  --tensor-parallel-size 4 --quantization awq --dtype auto \
  --max-model-len 32768 --max-num-batched-tokens 32768 \
  --gpu-memory-utilization 0.96 \
  --block-size 16 \
  --enable-prefix-caching \
  --swap-space 64 \
  --max-num-seqs 64
"""


def instances(path):
    return yaml.safe_load((EXAMPLE / path).read_text(encoding="utf-8"))["vllm_instances"]


def test_the_example_host_gives_the_published_run_sh():
    (coder,) = instances("host_vars/coder01.yml")
    assert flags(coder) == flags(coder, {"gpus": [{}] * 4}, {}) == shlex.split(RUN_SH)
    assert (coder["port"], coder["cpuset_cpus"]) == (8888, "0-55")


@pytest.mark.parametrize("path", ["host_vars/coder01.yml", "group_vars/cards_11gb.yml"])
def test_the_example_fits_and_the_engine_would_parse_it(path):
    models = yaml.safe_load((EXAMPLE / "group_vars" / "gpu_hosts.yml").read_text(encoding="utf-8"))["gpuhosts_models"]
    given = yaml.safe_load((EXAMPLE / path).read_text(encoding="utf-8"))
    assert instance.problems(given["vllm_instances"], len(given["gpuhosts_hardware"]["gpus"])) == []
    for entry in given["vllm_instances"]:
        argv = flags(entry, given["gpuhosts_hardware"], models[entry["model"]])
        assert options.parse("0.8.5", argv)["model"] == "/model/" + entry["model"].split("/")[1]


def test_a_model_without_an_owner_and_a_served_name():
    assert flags({"name": "a", "model": "gpt2", "served_model_name": "b", "profile": "as_given"}) == ["--model", "/model/gpt2", "--served-model-name", "b"]


def test_refused_with_all_problems():
    with pytest.raises(PlanRefused) as refused:
        flags({"name": "a", "model": "o/m", "gpus": [2], "options": {"pip": 2}}, {"gpus": [{}, {}]})
    assert isinstance(refused.value, ValueError)
    assert [problem.code for problem in refused.value.problems] == ["gpus_out_of_range", "unknown_option"]
    assert str(refused.value).count("\n") == 1
    assert str(refused.value).startswith("Instance 'a': gpus names GPU 2, and the last card of the host is GPU 1. Name only")


def test_a_host_whose_cards_are_not_known_limits_nothing():
    given = {"name": "a", "model": "o/m", "gpus": [7], "profile": "as_given"}
    assert flags(given) == flags(given, {}) == flags(given, {"gpus": None})


def test_what_has_to_be_solved_needs_a_host_and_a_model():
    with pytest.raises(PlanRefused, match="the profile throughput needs the host's cards and the model's config.json") as refused:
        flags({"name": "a", "model": "o/m"}, {"gpus": [{}]})
    assert [problem.code for problem in refused.value.problems] == ["nothing_to_plan_with"]


def test_what_a_plan_refuses_has_no_command_line():
    with pytest.raises(PlanRefused) as refused:
        flags({"name": "a", "model": "o/m"}, {"gpus": [{}]}, {"architectures": ["NoSuchModel"]})
    assert {problem.code for problem in refused.value.problems} == {"invalid_compute_capability", "invalid_memory_total_bytes", "unknown_architecture"}


@pytest.mark.parametrize("gpus", [256, {}, "0,1", True])
def test_cards_that_are_no_list_are_refused(gpus):
    with pytest.raises(PlanRefused) as refused:
        flags({"name": "a", "model": "o/m", "profile": "as_given"}, {"gpus": gpus})
    assert [problem.code for problem in refused.value.problems] == ["no_cards"]


def test_the_planner_works_alone_and_without_ansible(tmp_path):
    shutil.copytree(pathlib.Path(module.__file__).parent, tmp_path / "planner", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from planner import options
from planner.flags import flags
assert options.parse("0.8.5", flags({"name": "a", "model": "o/m", "profile": "as_given", "options": {"max_num_seqs": 8}}))["max_num_seqs"] == 8
assert not [name for name in sys.modules if name.startswith("ansible")]
"""
    subprocess.run([sys.executable, "-I", "-c", script, str(tmp_path)], check=True)
