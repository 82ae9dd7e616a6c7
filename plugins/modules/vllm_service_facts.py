#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_service_facts
short_description: What a host serves, and how that differs from what it should serve
version_added: "0.1.0"
description:
  - Compares every instance of a host with what should run, in one execution, and returns the comparison under C(ansible_facts.gpuhosts_services).
  - Changes nothing.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  services:
    description: What should run, as P(gpuhosts.inference.vllm_services#filter) makes it.
    type: list
    elements: dict
    default: []
    suboptions:
      definition:
        description: What runs.
        type: dict
        required: true
      unit:
        description: The systemd unit.
        type: str
      compose:
        description: The compose file.
        type: str
  environments:
    description: The engine's environment file of each of O(services), by the instance's name. API keys are in it.
    type: dict
    default: {}
  checksums:
    description: SHA-256 of files that should be on the host too, by path. Those that differ are returned.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  facts:
    description: Returns facts.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: gpuhosts.inference.vllm_service
"""

EXAMPLES = r"""
- name: Look at what serves
  gpuhosts.inference.vllm_service_facts:
    services: "{{ __vllm_services }}"

- name: Show what would change
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpuhosts_services.instances | dict2items | rejectattr('value.difference', 'none') }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: always
  type: dict
  contains:
    gpuhosts_services:
      description: The comparison.
      returned: always
      type: dict
      contains:
        instances:
          description: Each wanted or present instance by its name.
          returned: always
          type: dict
          contains:
            difference:
              description:
                - Null when it runs as wanted and was proved. V(new), it is not there. V(changed), another engine runs, or none since the files were
                  written; it has to be started anew. V(updated), only files differ that a running engine need not read. V(unproved), it was
                  started, and nobody saw it answer. V(stopped), it does not run or would not at the next boot. V(quarantined), its watchdog has
                  stopped it. V(unwanted), it is there and not wanted.
              returned: always
              type: str
            generation:
              description: Number of the generation that is installed, or null.
              returned: always
              type: int
            running_generation:
              description: Number of the generation that was started last since the boot, or null.
              returned: always
              type: int
            status:
              description: What is known of the installed generation, C(pending), C(proved) or C(failed), or null.
              returned: always
              type: str
            files:
              description: Paths of the files that differ.
              returned: always
              type: list
              elements: str
            supervisor:
              description: What supervises the engine that is there, or null.
              returned: always
              type: str
            running:
              description: Whether that runs it now.
              returned: always
              type: bool
            state:
              description: What happened to it on the host, as its watchdog keeps it, C(rung), C(hang_remedy), C(status), C(quarantine), C(history).
              returned: always
              type: dict
        outdated_files:
          description: Paths of O(checksums) that are not on the host as given.
          returned: always
          type: list
          elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import vllm_store, vllm_supervisor

ROOT = "/"  # the tests' to move
SERVICE = {
    "definition": {"type": "dict", "required": True},
    "unit": {"type": "str"},
    "compose": {"type": "str"},
}
AT_REST = {"rung": 0, "hang_remedy": False, "status": "running", "quarantine": None, "history": []}


def compare(store, wanted, run):
    """How an instance differs from what is wanted of it (None: nothing)."""
    current = store.current()
    number, running = store.generation(), store.running()
    record = store.record(number) if number else None
    state = dict(AT_REST, **(vllm_store.read_json(os.path.join(store.state, "state.json")) or {}))
    supervisor = vllm_supervisor.Supervisor(current["definition"], run) if current else None
    found = {
        "difference": None,
        "generation": number,
        "running_generation": running,
        "status": (record or {}).get("status"),
        "files": store.differing(wanted) if wanted else [],
        "supervisor": current["definition"]["supervisor"] if current else None,
        "running": supervisor is not None and supervisor.running(),
        "state": state,
    }
    return dict(found, difference=difference(found, store, wanted, current, supervisor))


def difference(found, store, wanted, current, supervisor):
    """The word for it; what needs the most work comes first."""
    if wanted is None:
        return "unwanted"
    if current is None:
        return "new"
    aim = vllm_store.fingerprint(wanted)
    started = store.record(found["running_generation"]) if found["running_generation"] else None
    if vllm_store.fingerprint(current) != aim or (started and started["fingerprint"] != aim):
        return "changed"
    if found["state"]["status"] == "quarantined":
        return "quarantined"
    if not found["running"] or not supervisor.enabled():
        return "stopped"
    if found["files"]:
        return "updated"
    return None if found["status"] == vllm_store.PROVED else "unproved"


def main():
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE},
            # Hidden as a whole: what is hidden within another argument is found again in the log of the module's invocation.
            "environments": {"type": "dict", "default": {}, "no_log": True},
            "checksums": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    environments = module.params["environments"]
    names = [service["definition"]["name"] for service in module.params["services"]]
    wanted = {name: dict(service, environment=environments.get(name, "")) for name, service in zip(names, module.params["services"])}
    instances, outdated = {}, []
    try:
        for name in [*wanted, *(name for name in vllm_store.names(ROOT) if name not in wanted)]:
            instances[name] = compare(vllm_store.Store(name, ROOT), wanted.get(name), module.run_command)
        outdated = [path for path, checksum in sorted(module.params["checksums"].items()) if module.sha256(path) != checksum]
    except vllm_store.StoreError as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=False, ansible_facts={"gpuhosts_services": {"instances": instances, "outdated_files": outdated}})


if __name__ == "__main__":
    main()
