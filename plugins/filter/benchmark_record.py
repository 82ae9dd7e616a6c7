# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_record
short_description: What is kept of a benchmark
version_added: "0.1.0"
description:
  - Brings what was measured in each run to figures, their medians and spread, beside what they depend on, and compares them with a kept record.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: _input, measured, host, settings
options:
  _input:
    description: The plan, as P(gpuhosts.inference.benchmark_plan#filter) makes it.
    type: dict
    required: true
  measured:
    description: What M(gpuhosts.inference.vllm_benchmark) returned for each of the plan's runs, as far as they have come.
    type: list
    elements: dict
    required: true
  host:
    description: The host's GPU facts.
    type: dict
    required: true
  settings:
    description: C(host), its name; C(started); C(reason), why it ended early, or empty; C(baseline), a record or null; C(tolerance).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep it
  ansible.builtin.copy:
    content: "{{ plan | gpuhosts.inference.benchmark_record(measured, ansible_facts.gpuhosts, settings) | to_nice_json }}"
    dest: benchmark.json
    mode: "0644"
  vars:
    settings: {host: coder01, started: '2026-11-28T08:00:00Z', reason: '', baseline: null, tolerance: 0.1}
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description:
    - The record, with C(status) (V(complete) or V(partial)), C(reason), C(scenario), C(sides) with their C(fingerprint), C(runs), C(summary), C(notes), and
      C(comparison).
  type: dict
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import benchmark
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def benchmark_record(plan, measured, host, settings):
    return benchmark.record(plain(plan), plain(measured), plain(host), plain(settings))


class FilterModule:
    """The filter benchmark_record."""

    def filters(self):
        return {"benchmark_record": benchmark_record}
