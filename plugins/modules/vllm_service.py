#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_service
short_description: One instance on its host, from one generation to the next
version_added: "0.1.0"
description:
  - Everything an instance runs by is kept as a numbered generation before it is put in force, so that what served before can be put back.
  - A change is V(switched), then asked for a completion (M(gpuhosts.inference.vllm_ready)), then V(proved) or V(restored).
  - A run that is cut off anywhere leaves files that are whole, and the next run goes on from there.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: The instance.
    type: str
    required: true
  state:
    description:
      - V(switched), O(service) is what runs. When nothing that runs differs, files are written and nothing is restarted. The engine is started and
        not waited for.
      - V(proved), the installed generation has answered.
      - V(restored), O(generation) runs again, or the last one that was proved; the one in force is marked as failed, because of O(why), unless it
        was proved. What happens where there is no such generation, O(without_generation) says.
      - V(absent), the instance is stopped, and nothing of it is left but the model's weights.
    type: str
    choices: [switched, proved, restored, absent]
    required: true
  service:
    description: What should run, as P(gpuhosts.inference.vllm_services#filter) makes it.
    type: dict
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
  environment:
    description: The engine's environment file, part of O(service). An API key is in it.
    type: str
    default: ""
  generation:
    description: The generation to restore.
    type: int
  without_generation:
    description:
      - What O(state=restored) does where no generation can be restored. V(refused), it fails and changes nothing. V(stopped), the instance is stopped.
      - V(stopped) is for who has failed to put a new generation in force. Where that never came so far, and what is installed was proved, that is
        started again.
    type: str
    choices: [refused, stopped]
    default: refused
  why:
    description: Why, kept with the generation.
    type: str
    default: ""
  generations_kept:
    description: How many generations stay on the host.
    type: int
    default: 5
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change. The environment, which holds the API key, is not shown.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: gpuhosts.inference.vllm_service_facts
  - module: gpuhosts.inference.vllm_ready
"""

EXAMPLES = r"""
- name: Put the new configuration in force
  gpuhosts.inference.vllm_service:
    name: coder
    state: switched
    service: "{{ service | dict2items | rejectattr('key', 'equalto', 'environment') | items2dict }}"
    environment: "{{ service.environment }}"

- name: Go back to what served last
  gpuhosts.inference.vllm_service:
    name: coder
    state: restored
    why: it was asked for
"""

RETURN = r"""
generation:
  description: Number of the generation that is in force now, null without one.
  returned: always
  type: int
previous:
  description: Number of the generation that was in force before.
  returned: always
  type: int
restarted:
  description: Whether the engine was started anew.
  returned: always
  type: bool
proved:
  description: Whether what is in force is known to answer. Otherwise it has to be asked, and V(proved) or V(restored).
  returned: success
  type: bool
rung:
  description: Which step of its ladder the host has taken the instance to; 0 is the plan.
  returned: O(state=proved)
  type: int
definition:
  description: The definition in force.
  returned: success
  type: dict
disturbed:
  description: Whether something was stopped or changed before the failure.
  returned: failure
  type: bool
drained:
  description: Requests that were still running when the old engine was told to stop; it had the instance's C(drain_seconds) to end them. Null where
    the engine did not say.
  returned: state=switched and O(state=restored)
  type: int
"""

import contextlib
import json
import os
import socket
import urllib.request

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import vllm_metrics, vllm_store, vllm_supervisor

ROOT = "/"  # the tests' to move
PORT_TAKEN = "port {port} is taken by another program on this host: choose another port for {name}, or stop what listens there. Nothing was changed"


class Refused(Exception):
    """Nothing was changed; the text says why."""


class Disturbed(Exception):
    """The instance was stopped, and could not be started; the text says why."""


def requests_running(url):
    """How many requests the engine works on, None where it does not say."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + "/metrics", timeout=5) as answer:
            found = vllm_metrics.read(answer.read().decode("utf-8", "replace"))
    except (OSError, ValueError):
        return None
    return int(found[vllm_metrics.REQUESTS[0]]) if vllm_metrics.REQUESTS[0] in found else None


def port_is_taken(port):
    """Whether anybody on this host listens on the port."""
    for address in ("127.0.0.1", "::1"):
        try:
            with socket.create_connection((address, port), timeout=2):
                return True
        except OSError:
            continue
    return False


@contextlib.contextmanager
def changing(store):
    """The watchdog only looks while this process changes the instance."""
    path = os.path.join(store.run, f"{store.name}.changing")
    vllm_store.write(path, f"{os.getpid()}\n")
    try:
        yield
    finally:
        os.unlink(path)


def difference(store, before, after):
    """What --diff shows: definitions in the words of a command line, and no secrets."""
    shown = []
    old = {} if before is None else store.files(before)
    for path, (text, dummy) in store.files(after).items():
        texts = [old.get(path, (None, 0))[0], text]
        if texts[0] == texts[1]:
            continue
        if path.endswith("/definition.json"):
            texts = [readable(service["definition"]) if service else None for service in (before, after)]
        elif path.endswith("/environment"):
            texts = ["(not shown)\n" if value else None for value in texts]
        shown.append({"before_header": path, "after_header": path, "before": texts[0] or "", "after": texts[1] or ""})
    return shown


def readable(definition):
    """A definition as lines that can be compared: an option each, then the steps of its ladder, then what else it says."""
    lines = [" ".join(definition["command"])]
    for word in definition["rungs"][0]["argv"]:
        if word.startswith("--") or len(lines) == 1:
            lines.append("  " + word)
        else:
            lines[-1] += " " + word
    for number, rung in enumerate(definition["rungs"][1:], 1):
        lines.append("step {}: {}".format(number, ", ".join("{} {}".format(*change) for change in sorted(rung["changes"].items()))))
    others = ("supervisor", "runtime", "engine_version", "model", "image", "gpus", "expected", "limits")
    return "\n".join(lines + ["{}: {}".format(key, json.dumps(definition.get(key), sort_keys=True)) for key in others]) + "\n"


def replace(store, run, before, after, number):
    """Stop what runs, put another generation in force, and start it; returns how many requests were running. Raises StoreError, Disturbed."""
    drained = None
    staged = store.stage(after, number)
    with changing(store):
        try:
            if before is not None:
                drained = requests_running(before["definition"]["url"])
                old = vllm_supervisor.Supervisor(before["definition"], run)
                old.stop()
                if after["unit"] is None:
                    old.disable()
            store.commit(staged)
            # Steps down and quarantine belong to what ran before.
            if os.path.exists(os.path.join(store.state, "state.json")):
                run([vllm_supervisor.PROGRAM, "reset", store.name, "--no-start"])
            vllm_supervisor.Supervisor(after["definition"], run).start()
        except (OSError, vllm_supervisor.SupervisorError) as error:
            raise Disturbed(str(error))
        finally:
            store.discard(staged)
    return drained


def switched(module, store):
    """Put the wanted service in force."""
    if module.params["service"] is None:
        module.fail_json(msg="state switched needs service.")
    wanted, before = dict(module.params["service"], environment=module.params["environment"]), store.current()
    number, started = store.generation(), store.running()
    record = store.record(started) if started else None
    aim = vllm_store.fingerprint(wanted)
    same = before is not None and vllm_store.fingerprint(before) == aim and (record is None or record["fingerprint"] == aim)
    files = store.differing(wanted)
    definition, run = wanted["definition"], module.run_command
    supervisor = vllm_supervisor.Supervisor(definition, run)
    well = same and supervisor.running() and supervisor.enabled()
    result = {"changed": bool(files) or not well, "generation": number, "previous": number, "restarted": False, "definition": definition}
    result["proved"] = well and (store.record(number) or {}).get("status") == vllm_store.PROVED
    result["diff"] = difference(store, before, wanted)
    if before is None or before["definition"]["port"] != definition["port"]:
        if port_is_taken(definition["port"]):
            raise Refused(PORT_TAKEN.format(port=definition["port"], name=module.params["name"]))
    if module.check_mode or not result["changed"]:
        return result
    if files:
        result["generation"] = store.keep(wanted, vllm_store.PROVED if result["proved"] else vllm_store.PENDING, module.params["why"])
    if well:
        store.commit(store.stage(wanted, result["generation"]))
        if definition["supervisor"] == "systemd":
            run(["systemctl", "daemon-reload"])
        return result
    result["drained"] = replace(store, run, before, wanted, result["generation"] or store.keep(wanted))
    return dict(result, restarted=True)


def restored(module, store):
    """Put an earlier generation in force, or stop the instance where there is none."""
    before, number, asked = store.current(), store.generation(), module.params["generation"]
    record = store.record(number) if number else None
    if asked:
        target = store.record(asked)
    elif record and record["status"] == vllm_store.PROVED and module.params["without_generation"] == "stopped":
        target = record
    else:
        target = store.last_proved((record or {}).get("fingerprint"))
    after = store.kept(target["number"]) if target else None
    if after is None and (asked or module.params["without_generation"] == "refused"):
        what = f"no generation {asked}" if asked else "no other generation that answered"
        known = ", ".join("{number} ({status})".format(**each) for each in store.records()) or "none"
        raise Refused(f"there is {what} on this host, only {known}. Nothing was changed")
    result = {"changed": True, "generation": target["number"] if after else None, "previous": number, "restarted": after is not None}
    result |= {"definition": after["definition"] if after else None, "proved": False}
    if after is not None:
        result["diff"] = difference(store, before, after)
    if module.check_mode:
        return result
    if after is not None:
        result["drained"] = replace(store, module.run_command, before, after, target["number"])
    elif before is not None:
        with changing(store):
            supervisor = vllm_supervisor.Supervisor(before["definition"], module.run_command)
            supervisor.stop()
            supervisor.disable()
    if number and record["status"] != vllm_store.PROVED:
        store.mark(number, vllm_store.FAILED, module.params["why"])
    return result


def proved(module, store):
    """Write down that the generation in force has answered."""
    number = store.generation()
    record = store.record(number) if number else None
    result = {"changed": bool(record) and record["status"] != vllm_store.PROVED, "generation": number, "previous": number, "restarted": False}
    if result["changed"] and not module.check_mode:
        store.mark(number, vllm_store.PROVED, module.params["why"])
        store.prune(module.params["generations_kept"])
    state = vllm_store.read_json(os.path.join(store.state, "state.json")) or {}
    return dict(result, definition=(store.current() or {}).get("definition"), rung=state.get("rung", 0))


def absent(module, store):
    """Stop the instance and remove what is kept of it."""
    before = store.current()
    there = before is not None or os.path.exists(store.state)
    result = {"changed": there, "generation": None, "previous": store.generation(), "restarted": False, "definition": None}
    if not there or module.check_mode:
        return result
    with changing(store):
        supervisor = vllm_supervisor.Supervisor(before["definition"], module.run_command) if before else None
        if supervisor:
            supervisor.stop()
            supervisor.disable()
        store.remove()
        if supervisor:
            supervisor.forget()
    return result


def main():
    service = {
        "definition": {"type": "dict", "required": True},
        "unit": {"type": "str"},
        "compose": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["switched", "proved", "restored", "absent"]},
            "service": {"type": "dict", "options": service},
            # Not within service: what is hidden there is found again in the log of the module's invocation.
            "environment": {"type": "str", "default": "", "no_log": True},
            "generation": {"type": "int"},
            "without_generation": {"type": "str", "choices": ["refused", "stopped"], "default": "refused"},
            "why": {"type": "str", "default": ""},
            "generations_kept": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    act = {"switched": switched, "proved": proved, "restored": restored, "absent": absent}[module.params["state"]]
    try:
        result = act(module, vllm_store.Store(module.params["name"], ROOT))
    except (Refused, vllm_store.StoreError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}.", disturbed=False)
    except (Disturbed, vllm_supervisor.SupervisorError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}.", disturbed=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
