# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_look
short_description: Whether a host is due in a rollout
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Compares what a host was brought to by the last rollout with what it is to be brought to now, and looks at what serves there.
  - What it is to be brought to is known by a fingerprint of this collection's roles and plugins, and of their variables as the host has them.
positional: _input, name, variables, before, silence, everything
options:
  _input:
    description: The host's C(ansible_facts).
    type: dict
    required: true
  name:
    description: The host.
    type: str
    required: true
  variables:
    description: The variables of the collection's roles by their names.
    type: dict
    required: true
  before:
    description: What the last report says of the host.
    type: dict
    required: true
  silence:
    description: Why the host could not be read; empty when it was.
    type: str
    default: ""
  everything:
    description: Whether every host is due.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Know whether the host is due
  ansible.builtin.set_fact:
    rollout_look: "{{ ansible_facts | gpuhosts.inference.rollout_look(inventory_hostname, {'vllm_instances': vllm_instances}, {}) }}"
"""

RETURN = r"""
_value:
  description: The host's C(name), C(silence), C(due), C(healthy), C(kind), C(generations), C(before) and C(fingerprint).
  type: dict
"""

import functools
import hashlib
import pathlib

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain

COLLECTION = pathlib.Path(__file__).parents[2]


def rollout_look(facts, name, variables, before, silence="", everything=False):
    variables = plain(variables)
    return rollout.look(str(name), plain(facts), str(silence), variables, plain(before), rollout.fingerprint(code(), variables), bool(everything))


@functools.lru_cache
def code():
    """SHA-256 of the files that hosts are converged by."""
    found = hashlib.sha256()
    for top in ("roles", "plugins"):
        for path in sorted((COLLECTION / top).rglob("*")):
            if path.is_file() and path.suffix != ".pyc" and "lab" not in path.relative_to(COLLECTION).parts[:2]:
                found.update(f"{path.relative_to(COLLECTION)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


class FilterModule:
    """The filter rollout_look."""

    def filters(self):
        return {"rollout_look": rollout_look}
