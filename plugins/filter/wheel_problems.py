# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: wheel_problems
short_description: What speaks against using a wheel that was built
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Compares what a build says of its wheel, and what cuobjdump lists in it, with what was wanted. It must hold machine code for the wanted archs and
    for no other, no PTX, and be of the package, the Python, the PyTorch and the CUDA of its key.
positional: _input, wanted
options:
  _input:
    description: C(status) of M(gpuhosts.inference.wheel_build).
    type: dict
    required: true
  wanted:
    description: C(wanted) of P(gpuhosts.inference.wheel_artifact#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse a wheel that is not what was wanted
  ansible.builtin.assert:
    that: built.status | gpuhosts.inference.wheel_problems(artifact.wanted) | length == 0

# => - code: code_unwanted
#      message: The wheel also holds code for sm_80, which nobody asked for.
#      remedy: Add these to flash_attn_wheel_archs, or see build.log on the builder for what nvcc was told.
"""

RETURN = r"""
_value:
  description: The problems. Empty when there are none.
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is, in snake_case.
      type: str
    message:
      description: What is wrong, one sentence.
      type: str
    remedy:
      description: What to do, one sentence.
      type: str
"""

import dataclasses

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def wheel_problems(status, wanted):
    return [dataclasses.asdict(problem) for problem in wheel.problems(plain(status), plain(wanted))]


class FilterModule:
    """The filter wheel_problems."""

    def filters(self):
        return {"wheel_problems": wheel_problems}
