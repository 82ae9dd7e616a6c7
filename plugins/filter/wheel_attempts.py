# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: wheel_attempts
short_description: How many compilers may run at once on a host
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Decides by cores and memory how a build shares a host with what serves on it, and what is tried after a try that ran out of memory.
positional: _input, gib_per_job
options:
  _input:
    description: C(ansible_facts.gpuhosts) of the host, of which C(cpus) and C(memory_bytes) count.
    type: dict
    required: true
  gib_per_job:
    description: What one compiler takes, in GiB.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ {'cpus': 16, 'memory_bytes': 17179869184} | gpuhosts.inference.wheel_attempts(4) }}"

# => {jobs: [3, 1], memory_bytes: 12884901888}
"""

RETURN = r"""
_value:
  description: What the build may take.
  type: dict
  contains:
    jobs:
      description: Compilers at once, the first try first.
      type: list
      elements: int
    memory_bytes:
      description: Limit of the container. 0 is none, where the host's memory is not known.
      type: int
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def wheel_attempts(host, gib_per_job):
    host = plain(host)
    return wheel.attempts(host.get("cpus"), host.get("memory_bytes"), float(gib_per_job))


class FilterModule:
    """The filter wheel_attempts."""

    def filters(self):
        return {"wheel_attempts": wheel_attempts}
