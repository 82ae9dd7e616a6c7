# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_problems
short_description: What stands in the way of a host
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Judges a host's variables, its facts and its plan, all at once.
  - It never fails because of what it finds. Problems are for the playbook to act on.
positional: _input, wanted
options:
  _input:
    description: What M(gpuhosts.inference.gpu_facts) returns under C(gpuhosts). Null for a host that gave no answer.
    type: dict
    required: true
  wanted:
    description:
      - What the host is to become, and what else is known of it.
      - The keys are those of C(judge) in C(plugins/plugin_utils/preflight.py), all optional. C(roles) is known here.
    type: dict
    required: true
seealso:
  - plugin: gpuhosts.inference.vllm_problems
    plugin_type: filter
  - plugin: gpuhosts.inference.vllm_host_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Judge a host
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpuhosts | gpuhosts.inference.preflight_problems({'instances': vllm_instances, 'hardware': gpuhosts_hardware}) }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    problems:
      description: What stands in the way. Each has C(code), C(message) and C(remedy).
      type: list
      elements: dict
    warnings:
      description: What does not, and is worth knowing, in the same form.
      type: list
      elements: dict
    plan:
      description: What P(gpuhosts.inference.vllm_host_plan#filter) returns. Null where no plan could be made.
      type: dict
"""

import dataclasses

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.filter.vllm_host_plan import read_config
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import preflight
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.ledger import read_ledger
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import Problem
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.role_variables import role_variables


def preflight_problems(facts, wanted):
    facts, wanted = plain(facts), plain(wanted)
    unread, configs, ledger = [], {}, []
    for model, config in (wanted.get("configs") or {}).items():
        try:
            configs[model] = read_config(model, config) if isinstance(config, str) else config
        except AnsibleFilterError as error:
            unread.append(Problem("unreadable_model_config", f"gpuhosts_models: {error}.", "Correct the path, or remove the entry."))
    try:
        ledger = read_ledger(wanted.get("ledger") or [])
    except AnsibleFilterError as error:
        unread.append(Problem("unreadable_ledger", f"gpuhosts_ledger: {error}", "A fleet without measured starts needs no ledger."))
    report = preflight.judge(facts or None, {**wanted, "configs": configs, "ledger": ledger, "roles": role_variables()})
    return {
        "problems": [dataclasses.asdict(problem) for problem in (*unread, *report.problems)],
        "warnings": [dataclasses.asdict(problem) for problem in report.warnings],
        "plan": report.plan,
    }


class FilterModule:
    """The filter preflight_problems."""

    def filters(self):
        return {"preflight_problems": preflight_problems}
