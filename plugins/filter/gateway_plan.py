# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_plan
short_description: What a gateway is told of the fleet
version_added: "0.1.0"
description:
  - Makes models, replicas, and HAProxy's maps of clients, out of the variables of all GPU hosts and the plans that were made of them.
  - The engines' keys are in C(maps). Keys of clients are there as digests only.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: gpu_hosts, gateway, settings
options:
  _input:
    description: The variables of each host, by its name.
    type: dict
    required: true
  gpu_hosts:
    description: Names of the hosts with cards.
    type: list
    elements: str
    required: true
  gateway:
    description: Name of the host that is configured.
    type: str
    required: true
  settings:
    description: What the role C(gateway) adds; see C(__gateway_settings) there.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See which replicas each model has
  ansible.builtin.debug:
    msg: "{{ (hostvars | gpuhosts.inference.gateway_plan(groups.gpu_hosts, 'gw01', __gateway_settings)).models }}"
"""

RETURN = r"""
_value:
  description: >-
    C(models) with their tiers and replicas, C(maps) as texts by name, C(listing), which /v1/models answers, and C(problems), one sentence each.
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import gateway as fleet


def gateway_plan(hosts, gpu_hosts, gateway, settings):
    """Return what a gateway is told of the fleet."""
    try:
        return fleet.plan({name: hosts[name] for name in gpu_hosts}, gateway, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gateway_plan: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"gateway_plan": gateway_plan}
