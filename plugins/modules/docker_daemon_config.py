#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Settings in Docker's daemon.json, merged, judged by the engine, and in force
version_added: "0.1.0"
description:
  - Merges settings into C(daemon.json) and brings the running engine to them. A converged host costs one read of two files.
  - Maps are merged key by key at every depth. A list or any other value of ours takes the place of the one that is there. Settings of others stay.
  - What was set here earlier and is no longer wanted is removed, unless somebody has changed it meanwhile. What each O(owner) has set is kept in
    O(state_path). A value of somebody else that ours once replaced does not come back by itself.
  - Before the file changes, the engine judges the new one (C(dockerd --validate), from 23.0 on) and nothing is changed when it refuses.
  - The engine is reloaded when it can take all that changed without a restart, and restarted otherwise. If it then does not run, or does not take
    the settings, the old file and the engine are brought back and the module fails with the engine's own words. Its judgement beforehand
    misses much of that; engines before 23.0 have none.
  - Interrupted between the file and the engine, the next run finishes.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  config:
    description: The settings, as in C(daemon.json).
    type: dict
    required: true
  owner:
    description: In whose name they are set. Each owner's earlier settings are its own to remove.
    type: str
    required: true
  path:
    description: The engine's configuration file.
    type: path
    default: /etc/docker/daemon.json
  state_path:
    description: Where the owners' settings are remembered.
    type: path
    default: /var/lib/gpuhosts/docker_daemon_config.json
  timeout:
    description: Seconds to wait for a reloaded engine to take the settings.
    type: int
    default: 15
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it. An engine that is not installed yet cannot judge the file then.
    support: full
  diff_mode:
    description: Returns what it would change. User and password in URLs are masked.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
notes:
  - The engine is managed by systemd as C(docker.service).
"""

EXAMPLES = r"""
- name: Rotate the containers' logs
  gpuhosts.inference.docker_daemon_config:
    owner: site
    config:
      log-driver: json-file
      log-opts:
        max-size: 50m
        max-file: "3"

- name: Take our settings back
  gpuhosts.inference.docker_daemon_config:
    owner: site
    config: {}
"""

RETURN = r"""
action:
  description: What the engine had to do, or would in check mode.
  returned: always
  type: str
  sample: none, reload or restart
"""

import json
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import docker_config, docker_socket

UNIT = "docker.service"


class Refused(Exception):
    """The engine does not take the settings; the text says why."""


def text_of(path):
    """The file's text, None without the file."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return None


def read(path):
    """The JSON object in a file, {} without the file or for an empty one. Raises Refused for anything else."""
    try:
        text = text_of(path) or ""
        content = json.loads(text) if text.strip() else {}
    except (OSError, ValueError) as error:
        raise Refused(f"{path} is not valid JSON ({error}): correct or remove it, then run again. Nothing was changed.")
    if not isinstance(content, dict):
        raise Refused(f"{path} is not a JSON object: correct or remove it, then run again. Nothing was changed.")
    return content


def lines(content):
    """As it is written: sorted, because maps merged from two authors have no order of their own."""
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


class Engine:
    """The engine on this host, asked and told through its own program, its socket and systemd."""

    def __init__(self, module, program, socket="/var/run/docker.sock"):
        self.module = module
        self.program = program
        self.socket = socket

    def _systemctl(self, *arguments):
        return self.module.run_command(["systemctl", *arguments])

    def _log(self, since):
        dummy, output, dummy = self.module.run_command(["journalctl", "--unit", UNIT, "--since", f"@{since:.3f}", "--output", "cat", "--no-pager"])
        return output

    def validate(self, content):
        """Raises Refused when the program refuses the settings. An engine that is not there, or before 23.0, does not judge."""
        if self.program is None or "--validate" not in self.module.run_command([self.program, "--help"])[1]:
            return
        handle, path = tempfile.mkstemp(dir=self.module.tmpdir, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            target.write(content)
        status, output, error = self.module.run_command([self.program, "--validate", "--config-file", path])
        os.unlink(path)
        if status:
            raise Refused((error or output).strip().replace(f" with file {path}", ""))

    def running(self):
        """Whether the unit is active."""
        return self._systemctl("is-active", "--quiet", UNIT)[0] == 0

    def restart(self):
        """Raises Refused when it does not come up."""
        since = time.time()
        self._systemctl("reset-failed", UNIT)
        status, dummy, error = self._systemctl("restart", UNIT)
        if status:
            raise Refused(docker_config.refusal(self._log(since)) or error.strip())

    def reload(self, config, timeout):
        """Raises Refused when the engine has not taken the settings in that time; systemctl itself does not tell."""
        since = time.time()
        status, dummy, error = self._systemctl("reload", UNIT)
        if status:
            raise Refused(error.strip())
        while True:
            log = self._log(since)
            if docker_config.reload_failed(log):
                raise Refused(docker_config.refusal(log))
            different = docker_config.differences(config, docker_socket.info(self.socket))
            if not different and "Reloaded configuration" in log:
                return
            if time.time() - since > timeout:
                # With a log level above info an engine says nothing of a success.
                if not different:
                    return
                raise Refused("after {} s it still runs with its old {}".format(timeout, ", ".join(different)))
            time.sleep(0.2)

    def take(self, action, config, timeout):
        """Reload or restart, whichever is needed and possible."""
        if action == "reload" and self.running():
            self.reload(config, timeout)
        else:
            self.restart()


def write(module, path, content, mode):
    """Write the file whole or not at all; an existing file keeps its owner and mode."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    known = os.path.exists(path)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as target:
        target.write(content)
    module.atomic_move(temporary, path)
    if not known:
        os.chmod(path, mode)


def difference(path, before, after):
    """What --diff shows."""
    texts = [docker_config.masked(lines(content)) if content else "" for content in (before, after)]
    return {"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]}


def put_back(module, path, before, engine, action):
    """Undo a change that the engine did not take; returns what came of it, as a sentence."""
    if before is None:
        os.unlink(path)
    else:
        write(module, path, before, 0o644)
    if action == "reload" and engine.running():
        return "The old file is back, and the engine kept running on it."
    try:
        engine.restart()
    except Refused as error:
        return f"The old file is back, but the engine does not start with it either ({error}): see journalctl --unit {UNIT}."
    return "The old file is back, and the engine runs on it."


def apply(module, engine, state):
    """Bring file and engine to the settings; returns the module's result. Raises Refused, with what came of it."""
    path, state_path, timeout = module.params["path"], module.params["state_path"], module.params["timeout"]
    known = state.get("owners", {})
    owners = {name: config for name, config in {**known, module.params["owner"]: module.params["config"]}.items() if config}
    current = read(path)
    merged = docker_config.merge(current, known.get(module.params["owner"], {}), module.params["config"])
    action = max(docker_config.needed(current, merged), state.get("pending", "none"), key=("none", "reload", "restart").index)
    result = {"changed": merged != current or action != "none" or owners != known, "action": action, "diff": difference(path, current, merged)}
    if merged != current:
        try:
            engine.validate(lines(merged))
        except Refused as error:
            raise Refused(f"The Docker Engine refuses the settings for {path}: {error}. Nothing was changed.")
    if module.check_mode or not result["changed"]:
        return result
    before = None
    if merged != current:
        before = text_of(path)
        write(module, state_path, lines({**state, "pending": action}), 0o600)
        write(module, path, lines(merged), 0o644)
    if action != "none" and engine.program is not None:
        try:
            engine.take(action, merged, timeout)
        except Refused as error:
            outcome = "" if merged == current else put_back(module, path, before, engine, action) + " "
            if merged != current:
                write(module, state_path, lines({**state, "pending": "none"}), 0o600)
            raise Refused(f"The Docker Engine does not take the settings in {path}: {error}. {outcome}Correct the setting, then run again.")
    write(module, state_path, lines({"owners": owners, "pending": "none"}), 0o600)
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "required": True},
            "owner": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "state_path": {"type": "path", "default": "/var/lib/gpuhosts/docker_daemon_config.json"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    try:
        state = read(module.params["state_path"])
    except Refused:
        state = {}  # What was ours is forgotten then: it stays.
    try:
        result = apply(module, Engine(module, module.get_bin_path("dockerd")), state)
    except Refused as error:
        module.fail_json(msg=docker_config.masked(str(error)))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
