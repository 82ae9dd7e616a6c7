# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_sources
short_description: The addresses that a host still has to fetch something from
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Compares a host's facts with what it is to become, and names the repositories, registries and hubs that have what is missing.
positional: _input, wanted
options:
  _input:
    description: What M(gpuhosts.inference.gpu_facts) returns under C(gpuhosts).
    type: dict
    required: true
  wanted:
    description: What the host is to become. The keys are those of C(sources) in C(plugins/plugin_utils/preflight.py), all optional.
    type: dict
    required: true
seealso:
  - plugin: gpuhosts.inference.preflight_problems
    plugin_type: filter
  - module: gpuhosts.inference.reachability_info
"""

EXAMPLES = r"""
- name: Ask the mirrors
  gpuhosts.inference.reachability_info:
    urls: "{{ ansible_facts.gpuhosts | gpuhosts.inference.preflight_sources({'driver_version': '570.153.02', 'cuda_repository': repository}) }}"
"""

RETURN = r"""
_value:
  description: The addresses. Empty on a host that has everything.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.preflight import sources


class FilterModule:
    """The filter preflight_sources."""

    def filters(self):
        return {"preflight_sources": lambda facts, wanted: sources(plain(facts), plain(wanted))}
