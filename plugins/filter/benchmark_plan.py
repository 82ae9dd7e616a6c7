# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_plan
short_description: What a benchmark measures, run by run
version_added: "0.1.0"
description:
  - Takes a scenario apart into runs of C(vllm bench serve), each side in turn in every round.
  - It does not fail because of what was asked for. C(problem) is for a task to refuse.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: _input, scenarios, name, instance, against
options:
  _input:
    description: The host's C(vllm_instances).
    type: list
    elements: dict
    required: true
  scenarios:
    description: Scenarios by their name, as in C(benchmark_scenarios).
    type: dict
    required: true
  name:
    description: The scenario.
    type: str
    required: true
  instance:
    description: The instance that is measured. Without it the first one.
    type: str
    default: ""
  against:
    description: What is measured in turn with it, the name of another instance, or a dict of the keys that differ.
    type: raw
    default: ""
  length_scale:
    description: By how much all lengths are multiplied.
    type: float
    default: 1.0
  prompts_per_client:
    description: In place of the scenario's own. 0 leaves that.
    type: int
    default: 0
  rounds:
    description: In place of the scenario's own. 0 leaves that.
    type: int
    default: 0
  plots:
    description: Whether plots are wanted, so that their absence is found before the load.
    type: bool
    default: false
  seed:
    description: Where the runs' seeds begin.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Show what would be run
  ansible.builtin.debug:
    msg: "{{ vllm_instances | gpuhosts.inference.benchmark_plan(benchmark_scenarios, 'chat', 'coder', 'other') }}"
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    problem:
      description: What is wrong, one sentence, or null.
      type: str
    scenario:
      description: The scenario as it is run.
      type: dict
    sides:
      description: What is measured in turn, with C(name), C(instance), and C(instances) of the host where they have to be changed for it.
      type: list
      elements: dict
    runs:
      description: The runs in their order, with C(round), C(side), C(max_concurrency), and the tool's C(options).
      type: list
      elements: dict
"""

import importlib.util

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import benchmark
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def benchmark_plan(instances, scenarios, name, instance="", against="", length_scale=1.0, prompts_per_client=0, rounds=0, plots=False, seed=0):
    try:
        chosen = benchmark.scenario(plain(scenarios), name, length_scale, prompts_per_client=prompts_per_client, rounds=rounds)
        measured_sides = benchmark.sides(plain(instances), instance, plain(against))
    except benchmark.Wrong as wrong:
        return {"problem": str(wrong)}
    if plots and not importlib.util.find_spec("matplotlib"):
        missing = "Plots need matplotlib on the controller: pip install -r requirements-plots.txt, or set benchmark_plots to false."
        return {"problem": missing}
    return {"problem": None, **benchmark.plan(chosen, measured_sides, seed)}


class FilterModule:
    """The filter benchmark_plan."""

    def filters(self):
        return {"benchmark_plan": benchmark_plan}
