# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: model_checkpoint_problems
short_description: Why a checkpoint is not the quantised model that instances ask for
version_added: "0.1.0"
description:
  - Compares the method of quantisation that an instance asks for, or C(config.json) names, with what the checkpoint holds.
  - A mismatch is what an engine ends with as C(KeyError) about C(qweight), after everything was fetched.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: _input, model, config, tensor_kinds
options:
  _input:
    description: The instances, C(vllm_instances).
    type: list
    elements: dict
    required: true
  model:
    description: The model, as the hub names it.
    type: str
    required: true
  config:
    description: Its C(config.json).
    type: dict
    required: true
  tensor_kinds:
    description: The last words of its tensors' names, as M(gpuhosts.inference.model_manifest) returns them.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Refuse a checkpoint that is not what it is taken for
  ansible.builtin.fail:
    msg: "{{ problems | join(' ') }}"
  when: problems | length > 0
  vars:
    problems: "{{ vllm_instances | gpuhosts.inference.model_checkpoint_problems('Qwen/Qwen3-32B-AWQ', hub.config, hub.tensor_kinds) }}"
"""

RETURN = r"""
_value:
  description: The problems, one sentence each.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.distribution import checkpoint_problems
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"model_checkpoint_problems": lambda instances, model, config, kinds=None: checkpoint_problems(plain(instances), model, plain(config), kinds)}
