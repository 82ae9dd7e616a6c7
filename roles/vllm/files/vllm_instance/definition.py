# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the playbook wants of an instance: /etc/vllm/NAME/definition.json."""

from __future__ import annotations

import hashlib
import json

from .host import Failed

SUPERVISORS = ("systemd", "docker", "compose")
RUNTIMES = ("container", "native")
LABEL = "gpuhosts.command"
LIMITS = ("ready_seconds", "drain_seconds", "stall_seconds", "unanswered_seconds", "ladder_steps", "restarts", "restart_window_seconds")


class Broken(Failed):
    """A definition that nothing can be started or watched by."""


class Definition:
    """A definition that was looked through, and what follows from it."""

    def __init__(self, document, directory):
        self.document = document
        self.directory = directory
        self.name = document["name"]
        self.supervisor = document["supervisor"]
        self.runtime = document["runtime"]
        self.url = document["url"]
        self.model = document["served_model_name"]
        self.gpus = document["gpus"]
        self.command = document["command"]
        self.rungs = document["rungs"]
        self.hang_argv = document["hang_argv"]
        self.limits = document["limits"]

    @property
    def unit(self):
        return f"vllm-{self.name}.service"

    @property
    def container(self):
        return f"vllm-{self.name}"

    @property
    def supervised_by_docker(self):
        return self.supervisor != "systemd"

    @property
    def in_host_network(self):
        """Whether the engine listens in the host's network and not in one of its own."""
        return self.runtime == "native" or "--network=host" in self.command

    @property
    def ready_seconds(self):
        return self.limits["ready_seconds"]

    def rung(self, state):
        """Index of the rung in force. A ladder may have become shorter since the state was written."""
        return min(state["rung"], len(self.rungs) - 1)

    def argv(self, state):
        """The engine's own arguments, by the state."""
        argv = list(self.rungs[self.rung(state)]["argv"])
        if state["hang_remedy"] and not set(self.hang_argv) <= set(argv):
            argv += self.hang_argv
        return argv

    def changed(self, state):
        """Whether what runs differs from the plan's first choice."""
        return self.argv(state) != self.rungs[0]["argv"]

    @property
    def compose_rung(self):
        """The file that replaces the engine's arguments in the compose file."""
        return self.directory / "compose.rung.json"

    def full_command(self, state):
        """The whole command, by the state. What it reads must be there: see compose_overlay."""
        if self.supervisor != "compose":
            return self._labelled(state) + self.argv(state)
        overlay = ["--file", str(self.compose_rung)] if self.changed(state) else []
        return list(self.command) + overlay + ["up", "--detach"]

    def identity(self, state):
        """What tells a container of this very command from another one of the same name."""
        return hashlib.sha256(json.dumps([self.command, self.argv(state)]).encode()).hexdigest()

    def _labelled(self, state):
        """The command; a container that a unit is the client of carries its identity, see instance.start."""
        if self.runtime != "container" or self.supervised_by_docker:
            return list(self.command)
        return self.command[:2] + [f"--label={LABEL}={self.identity(state)}"] + self.command[2:]

    def compose_overlay(self, state):
        """Text of the file that goes over the compose file, None where the compose file is as wanted."""
        if not self.changed(state):
            return None
        return json.dumps({"services": {"vllm": {"command": self.argv(state)}}}, indent=1) + "\n"


def read(host, name):
    """The definition of an instance. Raises Broken."""
    path = host.etc(name) / "definition.json"
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except FileNotFoundError:
        raise Broken(f"{path} does not exist: there is no instance {name} on this host, or site.yml has to be run") from None
    except (OSError, ValueError) as error:
        raise Broken(f"{path} cannot be read ({error}): run site.yml again") from None
    problem = _problem(document, name)
    if problem:
        raise Broken(f"{path}: {problem}: run site.yml again")
    return Definition(document, path.parent)


def _problem(document, name):
    """What is wrong with a definition, None where nothing is."""
    if not isinstance(document, dict):
        return "it is no mapping"
    kinds = {"name": str, "supervisor": str, "runtime": str, "served_model_name": str, "url": str, "gpus": list, "hang_argv": list, "limits": dict}
    for key, kind in kinds.items():
        if not isinstance(document.get(key), kind):
            return f"{key} is missing or of the wrong type"
    if document["name"] != name:
        return "it is of {}".format(document["name"])
    if document["supervisor"] not in SUPERVISORS or document["runtime"] not in RUNTIMES:
        return "supervisor {} with runtime {} is not known".format(document["supervisor"], document["runtime"])
    if not _words(document.get("command")) or not document["command"]:
        return "command is no list of words"
    rungs = document.get("rungs")
    if not isinstance(rungs, list) or not rungs or not all(isinstance(rung, dict) and _words(rung.get("argv")) for rung in rungs):
        return "rungs is no list of rungs with an argv"
    if not _words(document["hang_argv"]):
        return "hang_argv is no list of words"
    for limit in LIMITS:
        value = document["limits"].get(limit)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            return f"limits.{limit} is no number"
    return None


def _words(value):
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
