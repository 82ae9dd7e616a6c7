# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: model_distributions
short_description: Which host fetches a model from the hub, and which ones get it from that host
version_added: "0.1.0"
description:
  - A host that has a model is its seed, so that a fleet keeps one commit and the hub is not asked. Where none has it, one of those that want it fetches it.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: _input, seeds
options:
  _input:
    description: Host to what M(gpuhosts.inference.model_facts) returned for it.
    type: dict
    required: true
  seeds:
    description: Hosts that are preferred as seeds, in this order.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show who gets what from whom
  ansible.builtin.debug:
    msg: "{{ {'gpu01': models_of_gpu01, 'gpu02': models_of_gpu02} | gpuhosts.inference.model_distributions(['gpu02']) }}"
# => - {repo_id: Qwen/Qwen3-32B-AWQ, revision: main, seed: gpu02, from_hub: true, receivers: [gpu01]}
"""

RETURN = r"""
_value:
  description: An entry for each model and revision that a host lacks.
  type: list
  elements: dict
  contains:
    repo_id:
      description: The model.
      type: str
    revision:
      description: The revision that is wanted.
      type: str
    seed:
      description: The host that has it, or fetches it.
      type: str
    from_hub:
      description: Whether no host has it.
      type: bool
    receivers:
      description: The hosts that get it from the seed.
      type: list
      elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.distribution import distributions
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"model_distributions": lambda found, seeds=(): distributions(plain(found), plain(seeds))}
