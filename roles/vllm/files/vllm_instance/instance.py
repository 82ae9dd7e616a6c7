# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starting an instance: the container or the process of the rung in force."""

from __future__ import annotations

import contextlib
import os

from . import child, decisions, docker, files, seen, turns
from .host import WARNING, Failed
from .state import Store

# The watchdog may be taking evidence of a hang.
WORK_SECONDS = 300


class Refused(Failed):
    """The instance is not to be started."""


def check_released(definition, state):
    """Raises Refused while the instance is in quarantine."""
    if state["status"] == "quarantined":
        quarantine = state["quarantine"] or {}
        raise Refused("is in quarantine since {} and is not started: {}".format(quarantine.get("time"), quarantine.get("message") or "no reason is recorded"))


@contextlib.contextmanager
def working(host, definition, patience=WORK_SECONDS):
    """Only one process at a time removes and creates the container of an instance that Docker supervises. Yields whether this one may."""
    if not definition.supervised_by_docker:
        yield True
        return
    with files.locked(host.run(definition.name + ".work"), host, patience) as held:
        yield held


def run(host, definition):
    """Start an instance in its turn. Returns for a container that Docker supervises; otherwise this process becomes the engine.

    Raises Refused and Failed.
    """
    with working(host, definition) as held:
        if not held:
            raise Failed("another vllm-instance has been at work on it for %d s: see journalctl -u vllm-watchdog" % WORK_SECONDS)
        start(host, definition)


def start(host, definition):
    """As run, for who holds `working`."""
    check_released(definition, Store(host, definition.name).read())
    turns.take(host, definition)
    with Store(host, definition.name).change() as state:
        # It may have been quarantined, or have got another rung, while it waited.
        check_released(definition, state)
        state["status"] = "running"
    if definition.changed(state):
        remedy = ", with {}".format(" ".join(definition.hang_argv)) if state["hang_remedy"] else ""
        host.say(definition.name, f"starts on {decisions.describe_rung(definition, definition.rung(state))}{remedy}", WARNING)
    if definition.supervised_by_docker:
        create(host, definition, state)
        return
    if definition.runtime == "container":
        _remove_leftover(host, definition)
    command = definition.full_command(state)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise Failed(f"{command[0]} cannot be started: {error.strerror}") from None


def create(host, definition, state):
    """Create and start the container of an instance that Docker supervises, in place of the one there may be. Raises Failed."""
    docker.remove(definition.container)
    seen.write(host, definition.name, None)
    if definition.supervisor == "compose":
        overlay = definition.compose_overlay(state)
        try:
            if overlay is None:
                files.remove(definition.compose_rung)
            else:
                files.write(definition.compose_rung, overlay)
        except OSError as error:
            raise Failed(f"{definition.compose_rung} cannot be written: {error}") from None
    child.output(definition.full_command(state), docker.CREATE_SECONDS)
    turns.note_start(host, definition)


def _remove_leftover(host, definition):
    """A host that lost its power, or a daemon that was killed, leaves a container of that name behind."""
    try:
        docker.remove(definition.container)
    except Failed as problem:
        host.say(definition.name, f"what may be left of its last container could not be removed: {problem}", WARNING)
