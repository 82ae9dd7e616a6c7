# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_stop
short_description: Why a rollout may not go on
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Judges the waves that are over.
  - A rollout stops when too many hosts of a wave have failed, and when none of a wave came through. Hosts that were lost on the way do not count as failed.
  - It stops, too, when one of the canaries has not come through.
positional: _input, states, max_fail_percentage
options:
  _input:
    description: The waves that are over, as P(gpuhosts.inference.rollout_waves#filter) returns them.
    type: list
    elements: dict
    required: true
  states:
    description: V(done), V(failed) or V(rolled back) by host. A host without one was lost.
    type: dict
    required: true
  max_fail_percentage:
    description: The percentage of a wave's hosts that may fail.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Know whether the next wave may begin
  ansible.builtin.debug:
    msg: "{{ [{'name': 'canary', 'hosts': ['gpu01']}] | gpuhosts.inference.rollout_stop({'gpu01': 'failed'}) }}"
# => 1 of 1 hosts of canary failed (gpu01), and rollout_max_fail_percentage allows 0 %
"""

RETURN = r"""
_value:
  description: The reason, empty when it may go on.
  type: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


class FilterModule:
    """The filter rollout_stop."""

    def filters(self):
        return {"rollout_stop": lambda begun, states, max_fail_percentage=0: rollout.stop(plain(begun), plain(states), float(max_fail_percentage))}
