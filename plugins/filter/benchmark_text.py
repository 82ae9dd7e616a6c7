# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_text
short_description: The table of a benchmark
version_added: "0.1.0"
description:
  - A record's figures beside the article's, what a reader has to know of them, and what is better or worse than the baseline.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  _input:
    description: The record, as P(gpuhosts.inference.benchmark_record#filter) makes it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show a kept benchmark
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', 'baseline.json') | from_json | gpuhosts.inference.benchmark_text }}"
"""

RETURN = r"""
_value:
  description: The text, of several lines.
  type: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import benchmark


class FilterModule:
    """The filter benchmark_text."""

    def filters(self):
        return {"benchmark_text": benchmark.text}
