# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: gpu_clock_problems
short_description: What speaks against locking the clocks of a host's cards
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Checks wanted clock ranges against what the cards can. C(nvidia-smi) itself exits with 0 where a card cannot.
positional: _input
options:
  _input:
    description: The cards, C(ansible_facts.gpuhosts.gpus).
    type: list
    elements: dict
    required: true
  graphics:
    description: Lowest and highest graphics clock in MHz.
    type: list
    elements: int
  memory:
    description: Lowest and highest memory clock in MHz.
    type: list
    elements: int
seealso:
  - plugin: gpuhosts.inference.gpu_power_limits
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Ask whether an RTX 2080 Ti can lock its memory clocks
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpuhosts.gpus | gpuhosts.inference.gpu_clock_problems(memory=[405, 7000]) }}"

# => ["GPU 0 (NVIDIA GeForce RTX 2080 Ti) cannot lock its memory clocks, which Ampere and newer cards can: leave them unset."]
"""

RETURN = r"""
_value:
  description: The problems, a sentence each. Empty when there are none.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.power import clock_problems


def gpu_clock_problems(cards, graphics=None, memory=None):
    try:
        return clock_problems(cards, graphics, memory)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"gpuhosts.inference.gpu_clock_problems wants the cards as gpu_facts returns them: {error!r}") from error


class FilterModule:
    """The filter gpu_clock_problems."""

    def filters(self):
        return {"gpu_clock_problems": gpu_clock_problems}
