# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ray_cluster_problems
short_description: Why the members of an instance cannot start together
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Compares what the role C(ray_cluster) has found on every member of an instance, and names those that have another image or model than the head, or
    were not looked at.
positional: _input, hostvars
options:
  _input:
    description: The entry of C(vllm_instances).
    type: dict
    required: true
  hostvars:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
seealso:
  - plugin: gpuhosts.inference.ray_members
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show how the members differ
  ansible.builtin.debug:
    msg: "{{ vllm_instances[0] | gpuhosts.inference.ray_cluster_problems(hostvars) }}"
"""

RETURN = r"""
_value:
  description: One sentence or more for each problem, with what to do. Empty where all members are alike.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import ray_cluster
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain

FOUND = "__ray_cluster_member"


def ray_cluster_problems(instance, hostvars):
    """Return what stands in the way of a start, in words."""
    found = {name: plain(hostvars[name][FOUND]) for name in instance["hosts"] if name in hostvars and FOUND in hostvars[name]}
    return [f"{problem.message} {problem.remedy}" for problem in ray_cluster.problems(plain(instance), found)]


class FilterModule:
    """The filter ray_cluster_problems."""

    def filters(self):
        return {"ray_cluster_problems": ray_cluster_problems}
