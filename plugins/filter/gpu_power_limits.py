# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: gpu_power_limits
short_description: The power limit of each card, from limits and a budget for the host
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Decides the power limit of each card, in watts.
  - O(by_card) goes before O(limit). What both leave of O(budget) is divided over the other cards in equal shares of whole watts, each within
    its card's own range; what a card cannot take is shared by the rest. A card that nothing is said about gets its default.
  - It never fails because of what it finds. Problems are for C(ansible.builtin.fail) to show.
positional: _input
options:
  _input:
    description: The cards, C(ansible_facts.gpuhosts.gpus).
    type: list
    elements: dict
    required: true
  limit:
    description: Watts for every card.
    type: int
  by_card:
    description: Watts for single cards, by index or uuid.
    type: dict
    default: {}
  budget:
    description: Watts that the cards may draw together.
    type: int
seealso:
  - plugin: gpuhosts.inference.gpu_clock_problems
    plugin_type: filter
"""

EXAMPLES = r"""
# Four RTX 2080 Ti, 100 to 280 W each
- name: Divide 800 W, of which the first card gets 250 W
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpuhosts.gpus | gpuhosts.inference.gpu_power_limits(by_card={0: 250}, budget=800) }}"

# => limits: {GPU-6a0c...: 250, GPU-9d1f...: 183, GPU-b2e7...: 183, GPU-f00d...: 183}
#    changes: ["GPU 1: 250 W to 183 W", "GPU 2: 250 W to 183 W", "GPU 3: 250 W to 183 W"]
#    problems: []
"""

RETURN = r"""
_value:
  description: The decision.
  type: dict
  contains:
    limits:
      description: For each card's uuid, watts. Empty when there are problems. A card whose power the driver does not manage is not in it.
      type: dict
    changes:
      description: A sentence for each card whose limit is another now.
      type: list
      elements: str
    problems:
      description: What cannot be, a sentence each.
      type: list
      elements: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.power import power_limits


def gpu_power_limits(cards, limit=None, by_card=None, budget=None):
    try:
        return power_limits(cards, limit, by_card, budget)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(
            f"gpuhosts.inference.gpu_power_limits wants the cards as gpu_facts returns them, and by_card as a mapping: {error!r}"
        ) from error


class FilterModule:
    """The filter gpu_power_limits."""

    def filters(self):
        return {"gpu_power_limits": gpu_power_limits}
