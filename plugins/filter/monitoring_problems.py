# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_problems
short_description: What is wrong with the settings of a host's exporters
version_added: "0.1.0"
description:
  - Refuses an exporter that would answer everybody, addresses that are none, and a DCGM exporter without a digest.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: settings
options:
  _input:
    description: The host's name.
    type: str
    required: true
  settings:
    description: Its C(listen_address), C(allowed_addresses), C(gpu_exporter) and C(dcgm_image).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse what cannot work
  ansible.builtin.fail:
    msg: "{{ problems | join(' ') }}"
  vars:
    settings: {listen_address: 0.0.0.0, allowed_addresses: [], gpu_exporter: textfile, dcgm_image: ''}
    problems: "{{ inventory_hostname | gpuhosts.inference.monitoring_problems(settings) }}"
  when: problems | length > 0
"""

RETURN = r"""
_value:
  description: One sentence for each problem.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import monitoring


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"monitoring_problems": monitoring.exporter_problems}
