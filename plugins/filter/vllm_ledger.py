# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_ledger
short_description: A ledger of measured starts with one more start in it
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Reads the memory that an engine measured out of its start-up log, and adds it to the ledger beside what the plan had predicted.
  - Later plans for the same model, kind of card, number of cards and engine version are corrected by it.
  - A start that the ledger has already, and a log that tells nothing of memory, leave the ledger as it is.
positional: _input, log, instance, host, model
options:
  _input:
    description: The ledger, a list, or the path of a JSON file on the controller. A file that is not there is an empty ledger.
    type: raw
    required: true
  log:
    description: What the engine wrote while it started.
    type: str
    required: true
  instance:
    description: The entry of C(vllm_instances).
    type: dict
    required: true
  host:
    description: The host's GPU facts.
    type: dict
    required: true
  model:
    description: The checkpoint's C(config.json).
    type: dict
    required: true
seealso:
  - plugin: gpuhosts.inference.vllm_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Add a start to the ledger
  ansible.builtin.copy:
    content: "{{ 'ledger.json' | gpuhosts.inference.vllm_ledger(engine.stdout, vllm_instances[0], ansible_facts.gpuhosts, config) | to_nice_json }}"
    dest: ledger.json
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The ledger. Sizes are bytes. A term that the log does not tell is null.
  type: list
  elements: dict
  sample:
    - model: Qwen/Qwen3-32B-AWQ
      card: NVIDIA GeForce RTX 2080 Ti
      tensor_parallel_size: 4
      pipeline_parallel_size: 1
      version: 0.8.5
      weights: 4917815214
      predicted: {weights: 4918344192}
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.ledger import read_ledger
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import calibration
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.hardware import read as read_hardware
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import AS_GIVEN, plain
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan


def vllm_ledger(ledger, log, instance, host, model):
    ledger, instance, host, model = read_ledger(plain(ledger)), plain(instance), plain(host), plain(model)
    running = plan(instance, host, model, ledger)
    if running["verdict"] != "fits":
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_ledger: the plan of {instance.get('name')} does not fit, so that no engine can have started by it")
    # What the planner says of the options that run before it has learnt anything: corrections of corrections would not settle.
    bare = {key: value for key, value in instance.items() if key != "objective"}
    predicted = plan({**bare, "profile": AS_GIVEN, "options": running["options"], "env": running["env"]}, host, model)
    entry = calibration.entry(
        str(log),
        predicted if predicted["verdict"] == "fits" else None,
        model=instance["model"],
        card=read_hardware(host).chosen(instance.get("gpus"))[0].name,
        tensor_parallel_size=running["options"].get("tensor_parallel_size") or 1,
        pipeline_parallel_size=running["options"].get("pipeline_parallel_size") or 1,
        version=running["engine"]["version"],
    )
    told = any(entry[term] is not None for term in calibration.TERMS)
    return [*ledger, entry] if told and entry not in ledger else ledger


class FilterModule:
    """The filter vllm_ledger."""

    def filters(self):
        return {"vllm_ledger": vllm_ledger}
