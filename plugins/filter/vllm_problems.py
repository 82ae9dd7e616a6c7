# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_problems
short_description: What is wrong with the vllm_instances of a host
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Checks a host's whole C(vllm_instances), as far as that is possible without its GPUs and without the model.
  - Keys, types, names and ports; cards that two instances would share; secrets where everyone could read them; and every engine option
    against the options of that very engine version.
  - It never fails because of what it finds. A list that is not empty is for C(ansible.builtin.assert) to refuse.
positional: _input, gpu_count
options:
  _input:
    description: The host's C(vllm_instances). Anything but a list is itself a problem.
    type: raw
    required: true
  gpu_count:
    description: The number of cards in the host. Without it the indices in C(gpus) have no upper limit.
    type: int
seealso:
  - plugin: gpuhosts.inference.vllm_flags
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse what cannot work, before any change
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | map(attribute='message') | zip(problems | map(attribute='remedy')) | map('join', ' ') | join('\n') }}"
  vars:
    problems: "{{ vllm_instances | gpuhosts.inference.vllm_problems(gpu_count=4) }}"

# vllm_instances:
#   - name: coder
#     model: Qwen/Qwen3-32B-AWQ
#     options: {max_batch_size: 2}
#
# => - code: unknown_option
#      message: "Instance 'coder': max_batch_size is not an option of vLLM 0.8.5."
#      remedy: Use max_num_seqs, the largest number of sequences in one batch.
"""

RETURN = r"""
_value:
  description: The problems, first those of each instance in its order, then those between instances. Empty when there are none.
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is, in snake_case.
      type: str
    message:
      description: What is wrong and where, one sentence.
      type: str
    remedy:
      description: What to do, one sentence.
      type: str
"""

import dataclasses

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain, problems
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.values import is_int


def vllm_problems(instances, gpu_count=None):
    if gpu_count is not None and not (is_int(gpu_count) and gpu_count >= 0):
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_problems: gpu_count must be an integer from 0, not {gpu_count!r}")
    return [dataclasses.asdict(problem) for problem in problems(plain(instances), gpu_count)]


class FilterModule:
    """The filter vllm_problems."""

    def filters(self):
        return {"vllm_problems": vllm_problems}
