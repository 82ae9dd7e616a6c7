# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_plan
short_description: Whether and how an instance runs on a host
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Turns one entry of C(vllm_instances), the host's hardware and the model's C(config.json) into a plan, with the engine's options and the
    memory that every card will need.
  - Refuses in numbers what cannot start, with the nearest plans that fit, and warns of what starts and is not as expected.
  - It never fails because of what it finds. A verdict of C(refused) is for the playbook to act on.
positional: _input, host, model, ledger, tensor_bytes
options:
  _input:
    description: One entry of C(vllm_instances).
    type: dict
    required: true
  host:
    description:
      - The host's GPU facts, or the same written by hand.
      - Needed of each of its C(gpus) are C(name), C(compute_capability) and C(memory_total_bytes); C(memory_bytes) is the host's RAM.
    type: dict
    required: true
  model:
    description: The checkpoint's C(config.json).
    type: dict
    required: true
  ledger:
    description: Measured starts, which correct the prediction for the same model, card, number of cards and engine.
    type: list
    elements: dict
    default: []
  tensor_bytes:
    description:
      - The true sizes of the checkpoint's tensors, where they are known, in place of the estimate from C(config.json).
      - A mapping of their names to bytes, or their sum as one number, such as C(metadata.total_size) of a safetensors index or the size of a GGUF file.
    type: raw
seealso:
  - plugin: gpuhosts.inference.vllm_flags
    plugin_type: filter
  - plugin: gpuhosts.inference.vllm_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse what does not fit, before any change
  ansible.builtin.assert:
    that: plan.verdict == 'fits'
    fail_msg: "{{ plan.refusals | map(attribute='message') | join(' ') }}"
  vars:
    plan: "{{ vllm_instances[0] | gpuhosts.inference.vllm_plan(gpuhosts_hardware, model_config) }}"

# gpuhosts_hardware:
#   memory_bytes: 549755813888
#   gpus:
#     - {name: NVIDIA GeForce RTX 2080 Ti, compute_capability: "7.5", memory_total_bytes: 23622320128}
#
# vllm_instances:
#   - name: coder
#     model: Qwen/Qwen3-32B-AWQ
#     options: {dtype: half, max_model_len: 8192}
#
# => verdict: refused
#    refusals:
#      - code: no_room_for_kv_cache
#        message: "The weights take 18.14 GiB per rank, the profiling run 1.74 GiB and the rest 0.05 GiB, and the budget of rank 0 is 19.41 GiB
#          (0.9 of 21.57 GiB): nothing is left for the KV cache."
#        remedy: "Nearest plans that fit: set gpu_memory_utilization to 0.92, or tensor_parallel_size to 2 (on 2 such cards), or cpu_offload_gb to 3,
#          or max_model_len to 2048 and max_num_batched_tokens to 2048."
"""

RETURN = r"""
_value:
  description: The plan. Sizes are bytes.
  type: dict
  contains:
    verdict:
      description: C(fits) or C(refused).
      type: str
    refusals:
      description: Why it cannot run. Each has C(code), C(message) and C(remedy).
      type: list
      elements: dict
    warnings:
      description: What runs and is not as one might expect, in the same form.
      type: list
      elements: dict
    engine:
      description: The engine's C(version), its C(core) (C(V0) or C(V1)) and its C(attention) backend.
      type: dict
    options:
      description: The final options of the engine.
      type: dict
    reasons:
      description: Why each option that the profile decided has its value. Empty under C(as_given).
      type: dict
    argv:
      description: What follows C(python3 -m vllm.entrypoints.openai.api_server). Empty when refused.
      type: list
      elements: str
    env:
      description: The engine's environment. Empty when refused.
      type: dict
    hang_argv:
      description:
        - What to append to C(argv), or to a step's, once the cards were seen to hang while they exchange data.
        - Empty with one card, on an engine without the option, where the options name it already, and when refused.
      type: list
      elements: str
    ready_seconds:
      description: The longest that a start may take until the first completion, on a slow host with empty caches. Null when refused.
      type: int
    memory:
      description:
        - C(per_rank) has for each card C(total), C(budget), C(weights), C(activation), C(non_torch), C(kv_cache) and C(cuda_graphs).
        - A negative C(kv_cache) is what is missing.
      type: dict
    kv:
      description: The KV cache as C(bytes_per_token), C(block_size), C(blocks), C(tokens) and C(max_concurrency).
      type: dict
    ladder:
      description: The steps down. Each has C(reason), C(changes), C(options), C(argv) and C(kv), and needs less than the one before.
      type: list
      elements: dict
    cluster:
      description:
        - Of an instance over several hosts, as P(gpuhosts.inference.vllm_host_plan#filter) plans it, C(hosts) and C(link).
        - Each of the hosts has C(name), C(address), C(interface), C(gpus) and its first and last of the C(layers).
        - The link is the slowest between two hosts, with what the pipeline sends over it; null where a bandwidth is not known.
      returned: with the key C(hosts)
      type: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.values import kind_of
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan


def vllm_plan(instance, host, model, ledger=(), tensor_bytes=None):
    for name, value in (("the instance", instance), ("host", host), ("model", model)):
        if not isinstance(value, dict):
            raise AnsibleFilterError(f"gpuhosts.inference.vllm_plan: {name} must be a mapping, not {kind_of(value)}")
    if not isinstance(ledger, (list, tuple)):
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_plan: ledger must be a list, not {kind_of(ledger)}")
    return plan(instance, host, model, ledger, tensor_bytes)


class FilterModule:
    """The filter vllm_plan."""

    def filters(self):
        return {"vllm_plan": vllm_plan}
