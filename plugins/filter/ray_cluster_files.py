# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ray_cluster_files
short_description: What a member of an instance over several hosts has on its disk
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Makes the rules that let the members alone to Ray's ports, the unit that puts them in force, and on a worker the unit that runs Ray.
positional: _input, cluster, name, host, settings
options:
  _input:
    description: The entry of C(vllm_instances).
    type: dict
    required: true
  cluster:
    description: The plan's C(cluster); see P(gpuhosts.inference.vllm_plan#filter).
    type: dict
    required: true
  name:
    description: The member's name in the inventory.
    type: str
    required: true
  host:
    description: The member's C(ansible_facts.gpuhosts).
    type: dict
    required: true
  settings:
    description: What the role C(ray_cluster) adds; see C(__ray_cluster_settings) there.
    type: dict
    required: true
seealso:
  - module: gpuhosts.inference.config_files
"""

EXAMPLES = r"""
- name: Show the files
  ansible.builtin.debug:
    msg: >-
      {{ vllm_instances[0] | gpuhosts.inference.ray_cluster_files(plan.plans.big.cluster, inventory_hostname, ansible_facts.gpuhosts,
                                                                 __ray_cluster_settings) }}
"""

RETURN = r"""
_value:
  description: The text of each file by its path.
  type: dict
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import ray_cluster
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def ray_cluster_files(instance, cluster, name, host, settings):
    """Return the text of each file."""
    return ray_cluster.files(*map(plain, (instance, cluster, name, host, settings)))


class FilterModule:
    """The filter ray_cluster_files."""

    def filters(self):
        return {"ray_cluster_files": ray_cluster_files}
