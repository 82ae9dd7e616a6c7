# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happened to an instance on this host: /var/lib/vllm/NAME/state.json.

A state is a dict with the keys of EMPTY. `base` is the rung that a person chose last: the host's own steps count from there. `failures` are the
restarts, [time, reason] each, that count for the bound. `counts` only grow. `history` holds the last events: {time, event, reason, rung, message}.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os

from . import files
from .host import ERROR, WARNING

EMPTY = {
    "rung": 0,
    "hang_remedy": False,
    "status": "stopped",
    "quarantine": None,
    "history": [],
    "base": 0,
    "failures": [],
    "counts": {"step_downs": 0, "restarts": {}},
}
STATUSES = ("running", "stopped", "quarantined")
HISTORY = 50
LOCK_SECONDS = 10


class Store:
    """The state of one instance on disk. Nothing here raises: a state that cannot be kept must not stop an engine.

    Where the disk takes nothing, the state goes to /run until it does.
    """

    def __init__(self, host, name):
        self._host, self._name = host, name
        self.path = host.lib(name) / "state.json"
        self.spare = host.run(name + ".state.json")

    def read(self):
        """The state; the empty one where there is none or where it cannot be read."""
        for path in (self.spare, self.path):
            try:
                with open(path, encoding="utf-8") as stream:
                    return _checked(json.load(stream))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._say(f"{path} cannot be read ({error}): going on as if nothing had happened, from rung 0", ERROR)
                self._put_aside(path)
        return copy.deepcopy(EMPTY)

    @contextlib.contextmanager
    def change(self):
        """Yields the state, and writes what has become of it. Others that change it wait meanwhile."""
        with files.locked(self._host.run(self._name + ".lock"), self._host, LOCK_SECONDS) as held:
            if not held:
                self._say(f"{self._name}.lock in /run/vllm cannot be had: going on without", WARNING)
            state = self.read()
            before = copy.deepcopy(state)
            yield state
            if state != before:
                self._write(state)

    def _write(self, state):
        del state["history"][:-HISTORY]
        text = json.dumps(state, indent=1) + "\n"
        try:
            files.write(self.path, text)
            files.remove(self.spare)
        except OSError as error:
            self._say(f"{self.path} cannot be written ({error}): kept in {self.spare} until the next boot, make room", ERROR)
            try:
                files.write(self.spare, text)
            except OSError as another:
                self._say(f"{self.spare} cannot be written either ({another}): what happened is forgotten", ERROR)

    def _put_aside(self, path):
        """Keep what could not be read for who wants to know."""
        with contextlib.suppress(OSError):
            os.replace(path, str(path) + ".broken")

    def _say(self, text, priority):
        self._host.say(self._name, text, priority)


def _checked(document):
    """The document with every key of EMPTY. Raises ValueError, TypeError, KeyError or AttributeError for one that is no state."""
    state = dict(copy.deepcopy(EMPTY), **document)
    for key in ("rung", "base"):
        if isinstance(state[key], bool) or not isinstance(state[key], int) or state[key] < 0:
            raise ValueError(f"{key} is {state[key]!r}")
    if state["status"] not in STATUSES:
        raise ValueError("status is {!r}".format(state["status"]))
    if state["quarantine"] is not None and not isinstance(state["quarantine"], dict):
        raise ValueError("quarantine is {!r}".format(state["quarantine"]))
    if not isinstance(state["history"], list) or not all(isinstance(event, dict) for event in state["history"]):
        raise ValueError("history is no list of events")
    state["failures"] = [[str(when), str(reason)] for when, reason in state["failures"]]
    state["counts"] = {"step_downs": int(state["counts"]["step_downs"]), "restarts": dict(state["counts"]["restarts"])}
    return state


def record(state, host, event, reason, message):
    """Add an event to the history, at the rung that is in force now."""
    state["history"].append({"time": host.timestamp(), "event": event, "reason": reason, "rung": state["rung"], "message": message})
