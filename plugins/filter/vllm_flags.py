# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_flags
short_description: The engine's command line for one instance
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Turns one entry of C(vllm_instances) into what follows C(python3 -m vllm.entrypoints.openai.api_server).
  - The options keep the order in which they are written. Nothing is added to them under the profile C(as_given).
  - Fails, with every problem and its remedy, when the entry is not valid; see P(gpuhosts.inference.vllm_problems#filter).
positional: _input, host, model
options:
  _input:
    description: One entry of C(vllm_instances).
    type: dict
    required: true
  host:
    description:
      - The host's GPU facts. The number of its C(gpus) is the upper limit of the indices in the entry's C(gpus).
      - Without it the indices have no upper limit.
    type: dict
  model:
    description: The checkpoint's C(config.json). The profile C(as_given) does not read it.
    type: dict
seealso:
  - plugin: gpuhosts.inference.vllm_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the command line of every instance
  ansible.builtin.debug:
    msg: "{{ item | gpuhosts.inference.vllm_flags | join(' ') }}"
  loop: "{{ vllm_instances }}"
  loop_control:
    label: "{{ item.name }}"

# vllm_instances:
#   - name: coder
#     model: Qwen/Qwen3-32B-AWQ
#     options: {tensor_parallel_size: 4, max_model_len: 32768, enable_prefix_caching: true}
#
# => --model /model/Qwen3-32B-AWQ --served-model-name coder --tensor-parallel-size 4 --max-model-len 32768 --enable-prefix-caching
"""

RETURN = r"""
_value:
  description:
    - The words of the command line, unquoted, one item for each.
    - The model is the directory C(/model/NAME), where C(NAME) is the last part of its hub id.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.flags import flags
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.values import kind_of
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused


def vllm_flags(instance, host=None, model=None):
    for name, value in (("the instance", instance), ("host", host or {}), ("model", model or {})):
        if not isinstance(value, dict):
            raise AnsibleFilterError(f"gpuhosts.inference.vllm_flags: {name} must be a mapping, not {kind_of(value)}")
    try:
        return flags(plain(instance), plain(host), plain(model))
    except PlanRefused as refused:
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_flags: the instance is refused:\n{refused}") from refused


class FilterModule:
    """The filter vllm_flags."""

    def filters(self):
        return {"vllm_flags": vllm_flags}
