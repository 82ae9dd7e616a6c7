# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd and Docker as supervisors of an instance: what runs now, ending it, starting it again."""

from __future__ import annotations

import contextlib

from . import docker, instance, systemd, turns
from .host import Failed

KILL_SECONDS = 20


class Start:
    """One start of an engine. identity: tells it from every other start of the instance."""

    def __init__(self, identity, log, processes):
        self.identity = identity
        self.log = log
        self.processes = processes


class Unit:
    """An instance whose unit systemd supervises. It starts again what ends, so nothing is started here but by a restart."""

    def __init__(self, host, definition):
        self._host, self._definition = host, definition

    def running(self):
        """The start that is alive, None where none is. Raises Failed where systemd does not answer."""
        shown = systemd.show(self._definition.unit)
        invocation = shown.get("InvocationID")
        if shown.get("ActiveState") != "active" or shown.get("MainPID", "0") == "0" or not invocation:
            return None
        if turns.waiting(self._host, self._definition.name):
            return None
        return Start(invocation, lambda lines: systemd.journal(invocation, lines), lambda: systemd.processes(shown.get("ControlGroup", "")))

    def restart(self):
        """End the engine at once and start it again. Raises Failed."""
        self._replace("restart")

    def stop(self):
        """End the engine at once. Raises Failed."""
        self._replace("stop")

    def _replace(self, verb):
        # First the job: what ends the engine is then known to be asked for, and `exited` does not count it again.
        systemd.control(verb, self._definition.unit, wait=False)
        # A hanging engine hears no SIGTERM, and its requests are lost: nothing is won by the time they would get to end.
        with contextlib.suppress(Failed):
            if self._definition.runtime == "container":
                docker.kill(self._definition.container)
            else:
                systemd.kill(self._definition.unit)


class Container:
    """An instance whose container Docker supervises, alone or by compose."""

    def __init__(self, host, definition):
        self._host, self._definition = host, definition

    def running(self):
        """As Unit.running."""
        found = docker.inspect(self._definition.container)
        return self.start_of(found) if found and found.running and not found.restarting else None

    def start_of(self, found):
        """The start that an inspected container is in."""
        name = self._definition.container
        return Start(f"{found.id} {found.started_at}", lambda lines: docker.log(name, lines, since=found.started_at), list)

    def restart(self):
        """Raises Failed. The container is gone then: the watchdog creates it anew in its turn."""
        docker.remove(self._definition.container)

    def stop(self):
        docker.stop_for_good(self._definition.container, 0)

    def create(self, state):
        """Create the container, if it is its turn. Returns whether it was. Raises Failed."""
        if not turns.take(self._host, self._definition, wait=False):
            return False
        instance.create(self._host, self._definition, state)
        return True


def of(host, definition):
    """The supervisor of an instance."""
    return (Container if definition.supervised_by_docker else Unit)(host, definition)
