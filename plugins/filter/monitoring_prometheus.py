# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_prometheus
short_description: What a Prometheus is told of the fleet
version_added: "0.1.0"
description:
  - Makes the scrape configuration, and the rules that say what the inventory expects, out of the variables of all hosts.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: gpu_hosts, servers, server, settings
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
  servers:
    description: Names of the hosts on which Prometheus runs.
    type: list
    elements: str
    required: true
  server:
    description: The one of them that is configured.
    type: str
    required: true
  settings:
    description: Its C(scrape_seconds), C(port) and C(alertmanagers).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See what Prometheus would scrape
  ansible.builtin.debug:
    msg: "{{ (hostvars | gpuhosts.inference.monitoring_prometheus(groups.gpu_hosts, ['mon01'], 'mon01', settings)).config }}"
  vars:
    settings: {scrape_seconds: 15, port: 9090, alertmanagers: []}
"""

RETURN = r"""
_value:
  description: C(config) and C(rules) as texts in YAML, and C(problems), one sentence for each target that the server cannot reach.
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import monitoring


def monitoring_prometheus(hosts, gpu_hosts, servers, server, settings):
    """Return what a Prometheus is told of the fleet."""
    # A host twice in the inventory's groups is one host.
    wanted = {name: hosts[name] for name in [*gpu_hosts, *(name for name in servers if name not in gpu_hosts)]}
    try:
        return monitoring.prometheus(wanted, gpu_hosts, servers, server, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"monitoring_prometheus: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"monitoring_prometheus": monitoring_prometheus}
