#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_diagnosis
short_description: The state of a serving host, for a diagnosis
version_added: "0.1.0"
description:
  - Gathers in one call what explains why an instance does not serve. That is cards, driver, Xids, disks, memory and Docker, and of every instance its
    definition, its unit or container, what happened to it, its generations, its answers and its log.
  - Says nothing about causes beyond those that an engine's log names. P(gpuhosts.inference.vllm_diagnosis#filter) judges what it returns.
  - Changes nothing, and does not fail because something is missing, broken or hangs. What could not be read is said in RV(gathered.problems).
  - Reads no environment file, where the API keys are, and masks keys and tokens in what it returns.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  instances:
    description:
      - Names of the instances that should be on the host, and for each the address where the host itself asks it.
      - Instances that are on the host are looked at in any case, and the address in their definition counts more.
    type: dict
    default: {}
  paths:
    description: Paths whose file systems are looked at too, such as that of the models.
    type: list
    elements: path
    default: []
  log_lines:
    description: How many lines of each instance's log are returned.
    type: int
    default: 20
  timeout:
    description: Seconds to wait for each answer of C(nvidia-smi), Docker and an engine.
    type: int
    default: 10
  stall_seconds:
    description:
      - How long an engine that works on requests is watched for a new token. It is not watched at all when no request runs, and no longer than to
        the first token.
      - A long prompt has no token for as long as it is read.
    type: int
    default: 20
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
notes:
  - Run it as root. Other users may not read Docker's socket, the kernel log or the journal.
seealso:
  - plugin: gpuhosts.inference.vllm_diagnosis
    plugin_type: filter
  - module: gpuhosts.inference.gpu_facts
"""

EXAMPLES = r"""
- name: Gather the host's state
  gpuhosts.inference.vllm_diagnosis:
    instances:
      coder: http://127.0.0.1:8888
    paths: [/home/llm/model]
  register: state

- name: Show what it means
  ansible.builtin.debug:
    msg: "{{ (state.gathered | gpuhosts.inference.vllm_diagnosis({'name': inventory_hostname})).text }}"
"""

RETURN = r"""
gathered:
  description: The host's state.
  returned: always
  type: dict
  contains:
    cards:
      description:
        - How C(nvidia-smi) answers (C(state)), the cards with their use, those that only the PCI bus has (C(lost)), and the processes on them.
      returned: always
      type: dict
    driver:
      description: Versions of the loaded and the installed module and of the container description, and why a reboot is waited for.
      returned: always
      type: dict
    xids:
      description: The driver's reports of card errors since boot, as M(gpuhosts.inference.gpu_facts) returns them.
      returned: always
      type: list
      elements: dict
    killed:
      description: Processes that the kernel killed for want of memory since boot, each C(pid), C(program) and C(seconds_since_boot).
      returned: always
      type: list
      elements: dict
    memory:
      description: C(total_bytes), C(available_bytes) and C(swap_free_bytes) of the host.
      returned: always
      type: dict
    docker:
      description: The engine's C(version), null where it does not answer, and the C(problem) then.
      returned: always
      type: dict
    file_systems:
      description: For each path its file system's C(free_bytes), C(total_bytes), C(free_inodes) and C(mount_point).
      returned: always
      type: dict
    watchdog:
      description: State of the unit C(vllm-watchdog.service), null where it is not installed.
      returned: always
      type: str
    instances:
      description:
        - For each instance C(definition), C(state), C(process) (its unit or container), C(health), C(metrics), C(progress), C(causes), C(kv_tokens),
          C(generations), C(evidence), C(listener) (who has its port) and the last lines of its C(log).
      returned: always
      type: dict
    uptime_seconds:
      description: How long the host has been running.
      returned: always
      type: int
    problems:
      description: What could not be read, one sentence each.
      returned: always
      type: list
      elements: str
"""

import glob
import json
import os
import re
import time
from urllib.error import HTTPError, URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import (
    docker_socket,
    engine_process,
    gpu_cards,
    host_files,
    listeners,
    nvidia_driver,
    nvidia_smi,
    nvidia_xid,
    vllm_log,
    vllm_metrics,
)

ROOT = "/"  # the tests' to move
CONFIG = "etc/vllm"
STATE = "var/lib/vllm"
RUN = "run/vllm"
UNITS = "etc/systemd/system"
WATCHDOG = "vllm-watchdog.service"
CAUSE_LINES = 2000
LATEST = 5
# Of a definition: neither the command nor the engine's arguments.
DEFINITION = ("supervisor", "runtime", "engine_version", "served_model_name", "url", "port", "model", "image", "gpus", "expected", "limits")
METRICS = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    "generated_tokens": ("vllm:generation_tokens_total",),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
}
_KILLED = re.compile(r"[Oo]ut of memory: Killed process (\d+) \(([^)]*)\)")


class Gathering:
    """What is found, with a sentence for whatever cannot be read: one broken part hides no other."""

    def __init__(self):
        self.problems = []

    def part(self, what, read, *arguments, otherwise=None):
        """read(*arguments), or `otherwise` and a problem."""
        try:
            return read(*arguments)
        except Exception as error:  # pylint: disable=broad-except
            self.problems.append("{} could not be read: {}".format(what, str(error) or type(error).__name__))
            return otherwise


# -- The host ------------------------------------------------------------------------------------------------------------------------------


def read_cards(program, timeout, problems, root):
    smi = gpu_cards.Smi(program, timeout, problems)
    source, cards, lost, driver = gpu_cards.read_gpus(smi, root, problems)
    processes = []
    if smi.state == "answers" and source == "nvidia-smi":
        # Fields that a card does not have are no problem of the host.
        asked = gpu_cards.Smi(program, timeout, [])
        usage = nvidia_smi.parse_usage(asked.ask("usage") or "")
        processes = nvidia_smi.parse_processes(asked.ask("processes") or "")
        for card in cards:
            card.update(usage.get(card["index"], {}))
    return {"state": smi.state, "source": source, "gpus": cards, "lost": lost, "processes": processes, "driver_version": driver}


def read_driver(smi_driver, modinfo, timeout, root):
    kernel = os.uname().release
    running = host_files.running_driver(root) or smi_driver
    module_file = host_files.nvidia_module(kernel, root)
    module_version = nvidia_driver.module_version(modinfo, module_file or None, timeout)
    return {
        "running": running,
        "module_installed": None if module_file is None else bool(module_file),
        "module_version": module_version,
        "cdi_version": host_files.cdi_driver_version(root),
        "nouveau_loaded": host_files.nouveau_loaded(root),
        "secure_boot": host_files.secure_boot(root),
        "reboot_reasons": host_files.reboot_reasons(kernel, root) + nvidia_driver.reboot_reasons(running, module_version),
    }


def read_killed(records):
    found = []
    for record in records:
        head, unused, message = record.partition(";")
        match = _KILLED.search(message)
        if match:
            stamp = head.split(",")[2:3]
            seconds = int(stamp[0]) // 1000000 if stamp and stamp[0].isdigit() else None
            found.append({"pid": int(match.group(1)), "program": match.group(2), "seconds_since_boot": seconds})
    return found


def read_memory(root):
    pairs = dict(re.findall(r"(?m)^(\w+):\s*(\d+) kB", host_files.read_text(root, "proc/meminfo") or ""))
    keys = {"total_bytes": "MemTotal", "available_bytes": "MemAvailable", "swap_total_bytes": "SwapTotal", "swap_free_bytes": "SwapFree"}
    return {name: int(pairs[key]) * 1024 if key in pairs else None for name, key in keys.items()}


def read_docker(timeout, root):
    described, problem = docker_socket.describe(os.path.join(root, "var/run/docker.sock"), timeout=timeout)
    configured = host_files.daemon_config(root)[0].get("data-root")
    data_root = configured if isinstance(configured, str) and configured.startswith("/") else "/var/lib/docker"
    return {"version": described["version"], "problem": problem, "data_root": data_root}


# -- Instances -----------------------------------------------------------------------------------------------------------------------------


def names_on(root):
    """Instances that have a definition or a unit here."""
    found = {path.split("/")[-2] for path in glob.glob(os.path.join(root, CONFIG, "*", "definition.json"))}
    units = (os.path.basename(path) for path in glob.glob(os.path.join(root, UNITS, "vllm-*.service")))
    return found | {unit[len("vllm-") : -len(".service")] for unit in units if unit != WATCHDOG}


def read_json(root, name):
    """(object, None), (None, None) where there is no such file, (None, why) for one that cannot be used."""
    if not os.path.lexists(os.path.join(root, name)):
        return None, None
    text = host_files.read_text(root, name)
    if text is None:
        return None, f"/{name} cannot be read"
    try:
        document = json.loads(text)
    except ValueError as error:
        return None, f"/{name} is not valid JSON: {error}"
    return (document, None) if isinstance(document, dict) else (None, f"/{name} is not a JSON object")


def read_definition(root, name):
    """What an instance is by its definition: the keys of DEFINITION, and the ladder without command lines."""
    document, problem = read_json(root, f"{CONFIG}/{name}/definition.json")
    if document is None:
        return None, problem
    kept = {key: document.get(key) for key in DEFINITION}
    rungs = document.get("rungs") if isinstance(document.get("rungs"), list) else []
    kept["rungs"] = [{key: rung.get(key) for key in ("reason", "changes", "kv_tokens")} for rung in rungs if isinstance(rung, dict)]
    return kept, None


def read_generations(root, name):
    """The last generations' records, oldest first, and the number of the installed one."""
    records = []
    for path in glob.glob(os.path.join(root, STATE, name, "generations", "*", "generation.json")):
        record = read_json(root, os.path.relpath(path, root))[0]
        if record:
            records.append(record)
    records.sort(key=lambda record: record.get("number") or 0)
    installed = (host_files.read_text(root, f"{CONFIG}/{name}/generation") or "").strip()
    return {"installed": int(installed) if installed.isdigit() else None, "latest": records[-LATEST:]}


def read_last_start(root, name):
    """When which rung of which generation last reached health, and what the engine said of its memory."""
    lines = (host_files.read_text(root, f"{STATE}/{name}/starts.jsonl") or "").strip().splitlines()
    try:
        start = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return None
    return {key: start.get(key) for key in ("time", "generation", "rung", "log")} if isinstance(start, dict) and start else None


def ask(url, path, timeout):
    """(status, text, error) of a GET; status is None where nothing answered."""
    try:
        answer = open_url(url + path, timeout=timeout, use_proxy=False, use_netrc=False, follow_redirects="none", http_agent="gpuhosts.inference")
        return answer.getcode(), answer.read().decode("utf-8", "replace"), None
    except HTTPError as error:
        return error.code, "", None
    except URLError as error:
        return None, "", str(error.reason)
    except Exception as error:  # pylint: disable=broad-except
        return None, "", str(error) or type(error).__name__


def parse_metrics(text):
    """The engine's figures, sums over its models; {} where it shows none."""
    found = vllm_metrics.read(text)
    return {key: found[name] for key, names in METRICS.items() for name in names if name in found}


def read_answers(url, timeout):
    """(health, metrics) of an engine."""
    status, unused, error = ask(url, "/health", timeout)
    health = {"status": status, "error": error}
    return health, parse_metrics(ask(url, "/metrics", timeout)[1]) if status is not None else {}


def watch_tokens(url, metrics, seconds, timeout):
    """Seconds for which no token came while requests ran, 0 as soon as one does. Adds what is seen last to metrics."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(min(1, seconds))
        later = parse_metrics(ask(url, "/metrics", timeout)[1])
        if not later:
            continue
        moved = any(later.get(key) != metrics.get(key) for key in ("generated_tokens", "prompt_tokens"))
        metrics.update(later)
        if moved or not later.get("running"):
            return 0
    return round(time.monotonic() - began)


def read_instance(gathering, name, given, params, docker_answers):
    """Everything about one instance."""
    root = ROOT
    definition, broken = gathering.part(f"the definition of {name}", read_definition, root, name, otherwise=(None, None))
    state = read_json(root, f"{RUN}/{name}.state.json")[0] or read_json(root, f"{STATE}/{name}/state.json")[0]
    url = str((definition or {}).get("url") or given or "").rstrip("/") or None
    found = {
        "definition": definition,
        "definition_error": broken,
        "state": state,
        "url": url,
        "generations": gathering.part(f"the generations of {name}", read_generations, root, name),
        "last_start": read_last_start(root, name),
        "evidence": [path.rstrip("/") for path in sorted(glob.glob(os.path.join(root, STATE, name, "evidence", "*/")))][-LATEST:],
        "process": None,
        "progress": None,
        "causes": [],
        "kv_tokens": None,
        "log": [],
        "health": None,
        "metrics": {},
        "stalled_seconds": 0,
        "listener": None,
    }
    gathering.part(f"the process of {name}", _add_process, found, name, definition, params, docker_answers)
    if url:
        found["health"], found["metrics"] = read_answers(url, params["timeout"])
        if found["metrics"].get("running") and found["health"]["status"] == 200:
            found["stalled_seconds"] = watch_tokens(url, found["metrics"], params["stall_seconds"], params["timeout"])
        port = re.search(r":(\d+)$", url)
        if port:
            found["listener"] = gathering.part(f"who listens on port {port[1]}", listeners.who, [int(port[1])], root, otherwise={}).get(int(port[1]))
    return found


def _add_process(found, name, definition, params, docker_answers):
    has_unit = os.path.lexists(os.path.join(ROOT, UNITS, f"vllm-{name}.service"))
    if has_unit or not definition or definition.get("supervisor") == "systemd":
        process = engine_process.Unit(f"vllm-{name}.service")
    elif docker_answers:
        process = engine_process.Container(f"vllm-{name}")
    else:
        return
    state = process.look()
    trouble = process.trouble(state) if state else None
    found["process"] = {
        "kind": process.kind,
        "name": process.name,
        "state": state,
        "trouble": trouble[0] if trouble else None,
        "restarts": process.restarts(state),
        "exit_status": process.exit_status(state),
        "running_seconds": process.running_seconds(state),
    }
    status = process.exit_status(state) if trouble else None
    text = process.tail(state, CAUSE_LINES)
    causes = vllm_log.causes(text, status)
    if not text or (not causes and (trouble or found["process"]["restarts"])):
        # A start that has only just begun, after others that failed.
        text = process.history(state, CAUSE_LINES)
        causes = vllm_log.causes(text, status)
    lines = params["log_lines"]
    found.update(progress=vllm_log.progress(text), causes=causes, log=text.splitlines()[-lines:] if lines > 0 else [])
    found["kv_tokens"] = vllm_log.kv_tokens(process.head(state))


# -- All of it -----------------------------------------------------------------------------------------------------------------------------


def gather(params, programs):
    gathering = Gathering()
    root, timeout = ROOT, params["timeout"]
    nothing = {"state": "missing", "source": "sysfs", "gpus": [], "lost": [], "processes": [], "driver_version": None}
    cards = gathering.part("the cards", read_cards, programs["nvidia-smi"], timeout, gathering.problems, root, otherwise=nothing)
    docker = gathering.part("Docker", read_docker, timeout, root, otherwise={"version": None, "problem": None, "data_root": "/var/lib/docker"})
    records = gathering.part("the kernel log", nvidia_xid.read_records, os.path.join(root, "dev/kmsg"), otherwise=[])
    systems = {}
    for path in dict.fromkeys(["/", docker["data_root"], "/var/lib/vllm", "/dev/shm", *params["paths"]]):
        systems[path] = gathering.part(f"the file system of {path}", host_files.file_system, path)
    given = params["instances"]
    names = sorted(gathering.part("the instances", names_on, root, otherwise=set()) | set(given))
    watchdog = None
    if os.path.lexists(os.path.join(root, UNITS, WATCHDOG)):
        watchdog = engine_process.Unit(WATCHDOG).look().get("ActiveState")
    uptime = re.match(r"(\d+)", host_files.read_text(root, "proc/uptime") or "")
    return {
        "cards": cards,
        "driver": gathering.part("the driver", read_driver, cards["driver_version"], programs["modinfo"], timeout, root, otherwise={}),
        "xids": nvidia_xid.parse_records(records)[-50:],
        "killed": read_killed(records),
        "memory": gathering.part("the memory", read_memory, root, otherwise={}),
        "docker": docker,
        "file_systems": systems,
        "watchdog": watchdog,
        "instances": {name: read_instance(gathering, name, given.get(name), params, bool(docker["version"])) for name in names},
        "uptime_seconds": int(uptime.group(1)) if uptime else None,
        "problems": gathering.problems,
    }


def without_secrets(value):
    """The same with keys and tokens masked in every text."""
    if isinstance(value, str):
        return vllm_log.masked(value)
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return value


def main():
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "dict", "default": {}},
            "paths": {"type": "list", "elements": "path", "default": []},
            "log_lines": {"type": "int", "default": 20},
            "timeout": {"type": "int", "default": 10},
            "stall_seconds": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    programs = {name: module.get_bin_path(name) for name in ("nvidia-smi", "modinfo")}
    module.exit_json(changed=False, gathered=without_secrets(gather(module.params, programs)))


if __name__ == "__main__":
    main()
