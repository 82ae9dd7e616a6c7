# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_waves
short_description: The waves of a rollout
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Puts the hosts that are due and answer into waves, canaries first.
positional: _input, canaries, batches
options:
  _input:
    description: What P(gpuhosts.inference.rollout_look#filter) returned for each host.
    type: list
    elements: dict
    required: true
  canaries:
    description:
      - Hosts that come first. Without them it is the healthiest host of each kind, by the cards in it.
      - Where all of them are done already, there is no first wave. It is an error when none of them answers.
      - A list, or a text with commas.
    type: raw
    default: []
  batches:
    description:
      - How many hosts make a wave after that, as a number, or as a percentage of the hosts that come after the canaries. The last counts for all
        waves that follow.
      - A list, or a text with commas.
    type: raw
    default: ["100%"]
"""

EXAMPLES = r"""
- name: Decide the waves
  ansible.builtin.set_fact:
    rollout_waves: "{{ looks | gpuhosts.inference.rollout_waves([], [1, '25%']) }}"
# => [{name: canary, hosts: [gpu01]}, {name: wave 1, hosts: [gpu02]}, {name: wave 2, hosts: [gpu03, gpu04]}, ...]
"""

RETURN = r"""
_value:
  description: The waves in their order, each with C(name) and C(hosts).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def rollout_waves(looks, canaries=(), batches=("100%",)):
    try:
        return rollout.waves(plain(looks), words(canaries), words(batches))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def words(value):
    """A list. From the command line it comes as a text, with commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else plain(value)


class FilterModule:
    """The filter rollout_waves."""

    def filters(self):
        return {"rollout_waves": rollout_waves}
