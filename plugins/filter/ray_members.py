# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ray_members
short_description: What the inventory knows of the hosts that instances share
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Collects what the planner has to know of every host that an entry of C(vllm_instances) names in its key C(hosts).
  - A host that is not in the inventory is left out, for the planner to name.
positional: _input, hostvars
options:
  _input:
    description: The host's C(vllm_instances), whatever their form.
    type: raw
    required: true
  hostvars:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
seealso:
  - plugin: gpuhosts.inference.vllm_host_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show which cards an instance of several hosts has
  ansible.builtin.debug:
    msg: "{{ vllm_instances | gpuhosts.inference.ray_members(hostvars) }}"
"""

RETURN = r"""
_value:
  description:
    - What each host has, by its name in the inventory. Empty where no instance has the key C(hosts).
    - Each has C(hardware), the cards as P(gpuhosts.inference.vllm_plan#filter) reads them, as found on the host or as C(gpuhosts_hardware) has them;
      C(address), C(interface), C(bandwidth_gbit), C(allow_public) and C(port) of its C(ray_cluster_) variables; and C(instances), its own C(vllm_instances).
  type: dict
"""

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.cluster import DEFAULT_PORT

SETTINGS = ("address", "interface", "bandwidth_gbit")
HARDWARE = ("gpus", "memory_bytes", "cpus", "nvlink", "driver_version")


def ray_members(instances, hostvars):
    """Return what each host of the instances has."""
    listed = [given.get("hosts") for given in instances if isinstance(given, dict)] if isinstance(instances, list) else []
    names = dict.fromkeys(name for hosts in listed if isinstance(hosts, list) for name in hosts if isinstance(name, str))
    return {name: member(hostvars[name]) for name in names if name in hostvars}


def member(variables):
    """What one host has."""
    facts = (variables.get("ansible_facts") or {}).get("gpuhosts") or {}
    cards = facts.get("gpus") or []
    known = cards and all(card.get("memory_total_bytes") for card in cards)
    return {
        "hardware": {name: facts.get(name) for name in HARDWARE} if known else variables.get("gpuhosts_hardware"),
        **{name: variables.get(f"ray_cluster_{name}") for name in SETTINGS},
        "allow_public": boolean(variables.get("ray_cluster_allow_public", False), strict=False),
        "port": variables.get("ray_cluster_port", DEFAULT_PORT),
        "instances": variables.get("vllm_instances") or [],
    }


class FilterModule:
    """The filter ray_members."""

    def filters(self):
        return {"ray_members": ray_members}
