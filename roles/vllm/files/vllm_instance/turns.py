# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Instances that share a card start one after another: an engine measures the card's free memory while it starts.

/run/vllm/NAME.start says that an instance waits for its turn, or starts, and since when. It goes when the engine serves or has ended.
"""

from __future__ import annotations

import json
import os

from . import child, files
from .engine import Engine
from .host import WARNING, Failed

LOCK_SECONDS = 30
POLL_SECONDS = 1
HEALTH_SECONDS = 2
DOCKER_SECONDS = 10


def take(host, definition, wait=True):
    """Wait until no other instance starts on this one's cards, then note that this one does. Returns whether it is its turn.

    The process that calls this becomes the engine (systemd), or creates its container. Without `wait` a turn that is not there yet is not waited for.
    """
    told = None
    while True:
        with files.locked(host.run("turns.lock"), host, LOCK_SECONDS) as held:
            if not held:
                host.say(definition.name, "turns.lock in /run/vllm cannot be had: starting without waiting for others", WARNING)
            others = blockers(host, definition) if held else []
            if not others:
                _mark(host, definition, "starting", os.getpid())
            elif wait and told is None:
                _mark(host, definition, "waiting", os.getpid())
        if not others:
            return True
        if not wait:
            return False
        if others != told:
            host.say(definition.name, "waits for {}, which is starting on the same cards".format(" and ".join(others)))
            told = others
        host.sleep(POLL_SECONDS)


def blockers(host, definition):
    """Names of the other instances that are starting on this one's cards."""
    return [name for name in host.names() if name != definition.name and _starting(host, name, set(definition.gpus))]


def started(host, name):
    """Since when (seconds of the monotonic clock) an instance has been starting: None where it is not, or waits for its turn."""
    mark = _read(host, name)
    return mark["since"] if mark and mark["phase"] == "starting" else None


def waiting(host, name):
    """Whether an instance waits for its turn."""
    mark = _read(host, name)
    return bool(mark and mark["phase"] == "waiting" and _alive(mark))


def over(host, name):
    """The instance serves, or has ended. Raises nothing: a mark that stays is over by itself after ready_seconds."""
    try:
        files.remove(_path(host, name))
    except OSError as error:
        host.say(name, f"{_path(host, name)} cannot be removed: {error}", WARNING)


def note_start(host, definition):
    """Note a start that nobody announced, such as one by Docker itself, or one that has got its container."""
    _mark(host, definition, "starting", None)


def _starting(host, name, cards):
    mark = _read(host, name)
    if not mark or mark["phase"] != "starting" or not cards & set(mark["gpus"]):
        return False
    if host.monotonic() - mark["since"] > mark["ready_seconds"] or not _alive(mark):
        return False
    return not Engine(mark["url"]).healthy(HEALTH_SECONDS)


def _mark(host, definition, phase, pid):
    path = _path(host, definition.name)
    document = {
        "phase": phase,
        "since": host.monotonic(),
        "ready_seconds": definition.ready_seconds,
        "gpus": definition.gpus,
        "url": definition.url,
        "container": definition.container if definition.supervised_by_docker else None,
        "pid": pid,
        "born": _born(pid),
    }
    try:
        files.write(path, json.dumps(document) + "\n")
    except OSError as error:
        host.say(definition.name, f"{path} cannot be written ({error}): others do not wait for this start", WARNING)


def _read(host, name):
    try:
        with open(_path(host, name), encoding="utf-8") as stream:
            mark = json.load(stream)
        return mark if {"phase", "since", "ready_seconds", "gpus", "url", "container", "pid", "born"} <= set(mark) else None
    except (OSError, ValueError, TypeError):
        return None


def _path(host, name):
    return host.run(name + ".start")


def _alive(mark):
    """Whether the process, or the container, that a mark is of is still there. A Docker that does not answer says nothing about it."""
    if mark["pid"] is not None:
        return mark["born"] is not None and _born(mark["pid"]) == mark["born"]
    if mark["container"] is None:
        return True
    try:
        found = child.run(["docker", "inspect", "--format", "{{.State.Status}}", mark["container"]], DOCKER_SECONDS)
    except Failed:
        return True
    if found.status:
        return "no such" not in found.errors.lower()
    return found.output.strip() in ("created", "running", "restarting")


def _born(pid):
    """When a process began, in ticks since the boot: with its number it is the process and no later one. None where there is none."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        # One that has ended and was not fetched yet is there no more.
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, TypeError, ValueError, IndexError):
        return None
