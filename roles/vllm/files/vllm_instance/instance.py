# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starting an instance: the container or the process of the rung in force."""

from __future__ import annotations

import contextlib
import os

from . import child, decisions, docker, drain, files, seen, turns
from .definition import LABEL
from .host import WARNING, Failed
from .state import Store

# The watchdog may be taking evidence of a hang.
WORK_SECONDS = 300
# An engine of Docker's own that is just starting.
DOCKER_SECONDS = 60
POLL_SECONDS = 2


class Refused(Failed):
    """The instance is not to be started."""


class NotYet(Failed):
    """The instance cannot be started now, through no fault of its own."""


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

    Raises Refused, NotYet and Failed.
    """
    with working(host, definition) as held:
        if not held:
            raise Failed("another vllm-instance has been at work on it for %d s: see journalctl -u vllm-watchdog" % WORK_SECONDS)
        start(host, definition)


def start(host, definition):
    """As run, for who holds `working`."""
    state = Store(host, definition.name).read()
    check_released(definition, state)
    if definition.runtime == "container" and not definition.supervised_by_docker:
        _adopt(host, definition, state)
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
        _note_running(host, definition)
        return
    if definition.runtime == "container":
        _remove_leftover(host, definition)
    _note_running(host, definition)
    _become(definition.full_command(state))


def _become(command):
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise Failed(f"{command[0]} cannot be started: {error.strerror}") from None


def _note_running(host, definition):
    """Which generation was started: the next run of site.yml sees by it whether files were written that no engine has read."""
    try:
        files.write(host.run(definition.name + ".running"), (definition.directory / "generation").read_text(encoding="utf-8"))
    except OSError as error:
        host.say(definition.name, f"the generation that runs cannot be noted ({error}): the next run of site.yml may start it once more", WARNING)


def _adopt(host, definition, state):
    """Become the client of a container that outlived its last one: with live-restore engines go on while Docker restarts. Raises NotYet."""
    found = _container(host, definition)
    if not found or not found.running or found.labels.get(LABEL) != definition.identity(state):
        return
    host.say(definition.name, "its container has gone on meanwhile and is kept")
    _become(["docker", "attach", "--no-stdin", definition.container])


def _container(host, definition):
    """The instance's container, None where there is none; a Docker that is just starting is waited for. Raises NotYet."""
    end = host.monotonic() + DOCKER_SECONDS
    while True:
        try:
            return docker.inspect(definition.container)
        except Failed as problem:
            if host.monotonic() >= end:
                raise NotYet(f"Docker does not answer ({problem}): see journalctl --unit docker. It is tried again") from None
        host.sleep(POLL_SECONDS)


def stop(host, definition, environment):
    """Let the requests end, and stop: ExecStop of an instance's unit, and the playbook for what Docker supervises. Raises Failed.

    Where a unit's client has ended by itself (systemd names no MAINPID then), its container may have gone on, and is left alone.
    """
    if definition.supervised_by_docker:
        with Store(host, definition.name).change() as state:
            state["status"] = "stopped"
    elif not environment.get("MAINPID"):
        return
    drain.drain(host, definition)
    if definition.runtime == "container":
        docker.stop(definition.container)


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
