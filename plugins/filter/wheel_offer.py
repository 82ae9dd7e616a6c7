# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: wheel_offer
short_description: The wheel that a store behind a URL offers
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Reads the manifest that a store of wheels answered with, and trusts no name and no checksum in it that could not be one.
positional: _input, wanted
options:
  _input:
    description: What the store answered.
    type: str
    required: true
  wanted:
    description: C(wanted) of P(gpuhosts.inference.wheel_artifact#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Where the wheel lies in the site's store
  ansible.builtin.debug:
    msg: "{{ 'https://wheels.example/' ~ offer.key ~ '/' ~ offer.wheel }}"
  vars:
    offer: "{{ answer.content | gpuhosts.inference.wheel_offer(artifact.wanted) }}"
"""

RETURN = r"""
_value:
  description: The wheel, or null where that is not the manifest of a wheel that is wanted.
  type: dict
  contains:
    key:
      description: Name of the wheel's directory.
      type: str
    wheel:
      description: Its file name.
      type: str
    sha256:
      description: Its checksum.
      type: str
    manifest:
      description: The whole manifest.
      type: dict
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def wheel_offer(text, wanted):
    return wheel.offered(str(text), plain(wanted))


class FilterModule:
    """The filter wheel_offer."""

    def filters(self):
        return {"wheel_offer": wheel_offer}
