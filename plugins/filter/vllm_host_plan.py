# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_host_plan
short_description: The plans of all instances of a host, and their text
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Makes the plan of every entry of C(vllm_instances), judges the entries together, and writes all of it out for a terminal.
  - It never fails because of what it finds in an instance, a host or a model. A verdict of C(refused) is for the playbook to act on.
positional: _input, host, models, ledger, name, members
options:
  _input:
    description: The host's C(vllm_instances). Anything but a list is itself a problem.
    type: raw
    required: true
  host:
    description: The host's GPU facts, or the same written by hand; see P(gpuhosts.inference.vllm_plan#filter).
    type: dict
    required: true
  models:
    description: The C(config.json) of every model by its hub id, as a mapping or as the path of a file on the controller.
    type: dict
    required: true
  ledger:
    description:
      - Measured starts, which correct the predictions; see P(gpuhosts.inference.vllm_ledger#filter).
      - A list, or the path of a JSON file on the controller. A file that is not there is an empty ledger.
    type: raw
    default: []
  name:
    description: The host's name, for the text.
    type: str
    default: ""
  members:
    description: The hosts that entries with the key C(hosts) name; see P(gpuhosts.inference.ray_members#filter).
    type: dict
    default: {}
seealso:
  - plugin: gpuhosts.inference.vllm_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what a host would serve
  ansible.builtin.debug:
    msg: "{{ (vllm_instances | gpuhosts.inference.vllm_host_plan(gpuhosts_hardware, gpuhosts_models)).text }}"
"""

RETURN = r"""
_value:
  description: The verdict and what it rests on.
  type: dict
  contains:
    verdict:
      description: C(refused) when there is a problem between instances or one of the plans is refused, C(fits) otherwise.
      type: str
    problems:
      description: What is wrong between instances. Each has C(code), C(message) and C(remedy).
      type: list
      elements: dict
    plans:
      description: The plan of each instance by its name; see P(gpuhosts.inference.vllm_plan#filter).
      type: dict
    text:
      description: All of it as a table for a terminal.
      type: str
"""

import json

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.ledger import read_ledger
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.values import kind_of
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import host_plan


def vllm_host_plan(instances, host, models, ledger=(), name="", members=None):
    for label, value in (("host", host), ("models", models)):
        if not isinstance(value, dict):
            raise AnsibleFilterError(f"gpuhosts.inference.vllm_host_plan: {label} must be a mapping, not {kind_of(value)}")
    configs = {model: read_config(model, config) if isinstance(config, str) else config for model, config in plain(models).items()}
    return host_plan(instances, host, configs, read_ledger(plain(ledger)), str(name), members)


def read_config(model, path):
    """The config.json in a file on the controller."""
    try:
        with open(path, encoding="utf-8") as source:
            return json.load(source)
    except (OSError, ValueError) as error:
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_host_plan: the config.json of {model} cannot be read from {path}: {error}") from error


class FilterModule:
    """The filter vllm_host_plan."""

    def filters(self):
        return {"vllm_host_plan": vllm_host_plan}
