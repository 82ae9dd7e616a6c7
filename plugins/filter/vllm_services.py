# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_services
short_description: What runs each instance on its host
version_added: "0.1.0"
description:
  - Makes of every entry of C(vllm_instances) and its plan what M(gpuhosts.inference.vllm_service) puts on a host, the definition, and the unit or
    compose file that its supervisor needs. There is no secret in it; see P(gpuhosts.inference.vllm_environments#filter).
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: plans, host, settings
options:
  _input:
    description: The host's C(vllm_instances), without problems.
    type: list
    elements: dict
    required: true
  plans:
    description: The plan of each instance by its name, as P(gpuhosts.inference.vllm_host_plan#filter) returns them. They fit.
    type: dict
    required: true
  host:
    description: The host's C(ansible_facts.gpuhosts).
    type: dict
    required: true
  settings:
    description: What the role C(vllm) adds for all instances; see C(__vllm_settings) there.
    type: dict
    required: true
seealso:
  - module: gpuhosts.inference.vllm_service
"""

EXAMPLES = r"""
- name: Show the units
  ansible.builtin.debug:
    msg: "{{ vllm_instances | gpuhosts.inference.vllm_services(plan.plans, ansible_facts.gpuhosts, __vllm_settings) | map(attribute='unit') }}"
"""

RETURN = r"""
_value:
  description: One entry for each instance, in their order.
  type: list
  elements: dict
  contains:
    definition:
      description: What runs, with every step of the ladder.
      type: dict
    unit:
      description: The systemd unit, null for other supervisors.
      type: str
    compose:
      description: The compose file, null for other supervisors.
      type: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import service
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def vllm_services(instances, plans, host, settings):
    """Return what runs each instance."""
    instances, plans, host, settings = plain(instances), plain(plans), plain(host), plain(settings)
    try:
        return [service.service(instance, plans[instance["name"]], host, settings) for instance in instances]
    except KeyError as error:
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_services: {error} is missing among plans, images or models") from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"vllm_services": vllm_services}
