# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_diagnosis
short_description: Probable causes of what is wrong with a serving host, with their remedies
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Judges what M(gpuhosts.inference.vllm_diagnosis) gathered, and writes it out for a terminal.
  - It never fails because of what it finds. RV(_value.wrong) is for the playbook to act on.
positional: _input, wanted
options:
  _input:
    description: What M(gpuhosts.inference.vllm_diagnosis) returns under C(gathered).
    type: dict
    required: true
  wanted:
    description:
      - What is known of the host, all optional. C(name), its name; C(instances), names that should be on it; C(cards), how many cards it should have.
    type: dict
    default: {}
seealso:
  - module: gpuhosts.inference.vllm_diagnosis
"""

EXAMPLES = r"""
- name: Judge a host
  ansible.builtin.debug:
    msg: "{{ (state.gathered | gpuhosts.inference.vllm_diagnosis({'name': inventory_hostname, 'instances': ['coder']})).text }}"
"""

RETURN = r"""
_value:
  description: The diagnosis.
  type: dict
  contains:
    findings:
      description:
        - Probable causes and what is worth knowing, the most likely first. Each has C(subject) (an instance, or V(host)), C(code), C(message), C(remedy),
          C(weight) (0 to 100; below 40 it explains nothing) and C(line), the line of the log that shows it, or empty.
      type: list
      elements: dict
    states:
      description:
        - Each instance's C(state), V(serves), V(starts), V(stalls), V(hangs), V(unanswered), V(restarts), V(failed), V(stopped), V(quarantined),
          V(absent) or V(unknown), with a C(sentence).
      type: dict
    wrong:
      description: Names of the instances that neither serve nor start.
      type: list
      elements: str
    text:
      description: All of it for a terminal.
      type: str
"""

import dataclasses

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import diagnosis
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def vllm_diagnosis(gathered, wanted=None):
    gathered, wanted = plain(gathered), plain(wanted or {})
    if not isinstance(gathered, dict) or "instances" not in gathered:
        raise AnsibleFilterError("vllm_diagnosis wants what the module gpuhosts.inference.vllm_diagnosis returns under gathered.")
    report = diagnosis.judge(gathered, wanted)
    return {
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "states": {name: {"state": word, "sentence": sentence} for name, (word, sentence) in report.states.items()},
        "wrong": report.wrong,
        "text": diagnosis.text(report, gathered, wanted.get("name") or ""),
    }


class FilterModule:
    """The filter vllm_diagnosis."""

    def filters(self):
        return {"vllm_diagnosis": vllm_diagnosis}
