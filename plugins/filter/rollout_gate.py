# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_gate
short_description: Whether a host passes the gate of a rollout
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Compares what the instances of a host answered to a question that is always the same, and how fast, with what they did when the host was rolled out
    last.
positional: _input, baseline, speed_loss, same_answers
options:
  _input:
    description: The results of M(gpuhosts.inference.vllm_ready) in a loop over the definitions of the host's instances.
    type: list
    elements: dict
    required: true
  baseline:
    description: What RV(_value.measured) was then.
    type: list
    elements: dict
    required: true
  speed_loss:
    description: The share of the tokens per second that may be lost, where the model is the same.
    type: float
    default: 0.2
  same_answers:
    description: Whether the answer has to be the same, where the model and the engine are.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Judge the host
  ansible.builtin.set_fact:
    rollout_gate: "{{ answers.results | gpuhosts.inference.rollout_gate(baseline) }}"
"""

RETURN = r"""
_value:
  description: The judgement.
  type: dict
  contains:
    measured:
      description:
        - A measurement of each instance, with C(name), C(model), C(commit), C(engine_version), C(image), C(kv_tokens_planned), C(kv_tokens),
          C(tokens_per_second) and C(answer_sha256).
      type: list
      elements: dict
    problems:
      description: What speaks against the host, a sentence each.
      type: list
      elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def rollout_gate(asked, baseline, speed_loss=0.2, same_answers=True):
    measured = rollout.measurements(plain(asked))
    return {"measured": measured, "problems": rollout.gate(measured, plain(baseline), float(speed_loss), bool(same_answers))}


class FilterModule:
    """The filter rollout_gate."""

    def filters(self):
        return {"rollout_gate": rollout_gate}
