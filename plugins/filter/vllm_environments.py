# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_environments
short_description: The environment file of each instance
version_added: "0.1.0"
description:
  - What the engines read from their environment, as C(docker run --env-file) and systemd's C(EnvironmentFile) take it. It holds the API key.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: plans, api_key
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
  api_key:
    description: C(vllm_api_key). Empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Put an instance in force
  gpuhosts.inference.vllm_service:
    name: coder
    state: switched
    service: "{{ service }}"
    environment: "{{ (vllm_instances | gpuhosts.inference.vllm_environments(plan.plans, vllm_api_key)).coder }}"
"""

RETURN = r"""
_value:
  description: The file's text by the instance's name.
  type: dict
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import service
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def vllm_environments(instances, plans, api_key=""):
    """Return the environment file of each instance by its name."""
    instances, plans = plain(instances), plain(plans)
    return {instance["name"]: service.environment(instance, plans[instance["name"]], str(api_key)) for instance in instances}


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"vllm_environments": vllm_environments}
