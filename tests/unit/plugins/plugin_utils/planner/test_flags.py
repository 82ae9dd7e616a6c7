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


@pytest.mark.parametrize("path, gpu_count", [("host_vars/coder01.yml", 4), ("group_vars/cards_11gb.yml", 2)])
def test_the_example_has_no_problems_and_the_engine_would_parse_it(path, gpu_count):
    assert instance.problems(instances(path), gpu_count) == []
    for entry in instances(path):
        assert options.parse("0.8.5", flags(entry))["model"] == "/model/" + entry["model"].split("/")[1]


def test_a_model_without_an_owner_and_a_served_name():
    assert flags({"name": "a", "model": "gpt2", "served_model_name": "b"}) == ["--model", "/model/gpt2", "--served-model-name", "b"]


def test_refused_with_all_problems():
    with pytest.raises(PlanRefused) as refused:
        flags({"name": "a", "model": "o/m", "gpus": [2], "options": {"pip": 2}}, {"gpus": [{}, {}]})
    assert isinstance(refused.value, ValueError)
    assert [problem.code for problem in refused.value.problems] == ["gpus_out_of_range", "unknown_option"]
    assert str(refused.value).count("\n") == 1
    assert str(refused.value).startswith("Instance 'a': gpus names GPU 2, and the last card of the host is GPU 1. Name only")


def test_a_host_whose_cards_are_not_known_limits_nothing():
    given = {"name": "a", "model": "o/m", "gpus": [7]}
    assert flags(given) == flags(given, {}) == flags(given, {"gpus": None})


def test_the_planner_works_alone_and_without_ansible(tmp_path):
    shutil.copytree(pathlib.Path(module.__file__).parent, tmp_path / "planner", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from planner import options
from planner.flags import flags
assert options.parse("0.8.5", flags({"name": "a", "model": "o/m", "options": {"max_num_seqs": 8}}))["max_num_seqs"] == 8
assert not [name for name in sys.modules if name.startswith("ansible")]
"""
    subprocess.run([sys.executable, "-I", "-c", script, str(tmp_path)], check=True)
