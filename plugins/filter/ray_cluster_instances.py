# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ray_cluster_instances
short_description: The instances that a host is a member of
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Returns the entries of C(vllm_instances) of all heads that name a host in their key C(hosts).
positional: _input, hostvars, hosts
options:
  _input:
    description: The host's name in the inventory.
    type: str
    required: true
  hostvars:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts that may be heads.
    type: list
    elements: str
    required: true
seealso:
  - plugin: gpuhosts.inference.ray_members
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what this host holds together with others
  ansible.builtin.debug:
    msg: "{{ inventory_hostname | gpuhosts.inference.ray_cluster_instances(hostvars, groups['ray_cluster']) | map(attribute='name') }}"
"""

RETURN = r"""
_value:
  description: The instances, in the order of the hosts.
  type: list
  elements: dict
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import ray_cluster
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def ray_cluster_instances(name, hostvars, hosts):
    """Return the instances that the host is a member of."""
    return ray_cluster.instances(str(name), {host: plain(hostvars[host].get("vllm_instances")) for host in hosts if host in hostvars})


class FilterModule:
    """The filter ray_cluster_instances."""

    def filters(self):
        return {"ray_cluster_instances": ray_cluster_instances}
