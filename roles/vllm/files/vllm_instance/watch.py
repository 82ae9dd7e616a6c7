# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The watchdog: one loop over all instances."""

from __future__ import annotations

import signal
import threading

from . import exposition, systemd
from .watched import Watched

# A look waits for engines, drivers and Docker, each for a bounded time. One that is not done after this long never will be.
STUCK_SECONDS = 900
ROUND_SECONDS = 30


class Watch:
    """Looks at every instance that has a definition, each in a thread of its own: one that hangs does not hide the others."""

    def __init__(self, host):
        self._host = host
        self._watched = {}
        self._looking = {}
        self._up = {}
        self._unwritten = None

    def round(self, patience=ROUND_SECONDS):
        """Look at all, wait for them so long (seconds), and write the metrics. Returns whether no look is stuck."""
        names = self._host.names()
        for name in [name for name in self._watched if name not in names]:
            del self._watched[name]
        for name in names:
            if name not in self._looking:
                watched = self._watched.setdefault(name, Watched(self._host, name))
                thread = threading.Thread(target=self._look, args=(name, watched), daemon=True)
                self._looking[name] = (thread, self._host.monotonic())
                thread.start()
        deadline = self._host.monotonic() + patience
        for name, (thread, dummy) in list(self._looking.items()):
            thread.join(max(0.0, deadline - self._host.monotonic()))
            if not thread.is_alive():
                del self._looking[name]
        self._unwritten = exposition.write(self._host, up=dict(self._up), said=self._unwritten)
        return all(self._host.monotonic() - since < STUCK_SECONDS for dummy, since in self._looking.values())

    def _look(self, name, watched):
        self._up[name] = watched.look()


def watch(host, interval):
    """Look every so many seconds until SIGTERM."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *given: done.set())
    watched = Watch(host)
    systemd.notify("READY=1\nSTATUS=watching %s" % (", ".join(host.names()) or "no instance yet"))
    while not done.is_set():
        if watched.round():
            systemd.notify("WATCHDOG=1\nSTATUS=watching %s" % (", ".join(host.names()) or "no instance yet"))
        done.wait(interval)
    systemd.notify("STOPPING=1")
