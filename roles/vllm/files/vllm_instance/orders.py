# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What only a person orders: another rung, and the end of a quarantine."""

from __future__ import annotations

import contextlib
import os

from . import decisions, drain, exposition, instance, systemd
from .host import Failed
from .state import Store, record


def reset(host, definition, rung, tell=print, start=True):
    """Go to a rung, by default the plan's first choice, and restart if that changes what runs. tell: hears what is done. Raises Failed.

    start: false for who has replaced what runs and starts it: a quarantine ends with what was in it.
    """
    _need_root(host, definition, "reset")
    if not 0 <= rung < len(definition.rungs):
        raise Failed(f"{definition.name} has the rungs 0 to {len(definition.rungs) - 1}, and no {rung}")
    with _working(host, definition):
        with Store(host, definition.name).change() as state:
            before = definition.argv(state)
            was = definition.rung(state)
            state["rung"] = state["base"] = rung
            state["failures"] = []
            if rung == 0:
                state["hang_remedy"] = False
            same = before == definition.argv(state)
            wanted = decisions.describe_rung(definition, rung)
            message = f"stays on {wanted}" if same else f"from rung {was} to {wanted}"
            if not start:
                state["status"], state["quarantine"] = "running", None
            record(state, host, "reset", "command" if start else "change", message)
        tell(f"{definition.name}: {message}.")
        exposition.write(host)
        if not start:
            return
        if state["status"] == "quarantined":
            tell(f"It is in quarantine and stays stopped: vllm-instance release {definition.name} starts it.")
        elif same:
            tell("What runs does not change: nothing was restarted.")
        elif state["status"] == "stopped":
            tell("It is stopped and stays so.")
        else:
            _start(host, definition, "restart")
            tell(f"Restarted; vllm-instance status {definition.name} shows when it serves.")


def release(host, definition, tell=print):
    """End a quarantine and start the instance. tell: hears what is done. Raises Failed."""
    _need_root(host, definition, "release")
    with _working(host, definition):
        with Store(host, definition.name).change() as state:
            since = (state["quarantine"] or {}).get("time")
            quarantined = state["status"] == "quarantined"
            if quarantined:
                state["status"], state["quarantine"], state["failures"] = "running", None, []
                record(state, host, "release", "command", f"quarantine of {since} ended")
        if not quarantined:
            tell(f"{definition.name}: is not in quarantine, nothing was done.")
            return
        tell(f"{definition.name}: quarantine of {since} ended, on {decisions.describe_rung(definition, definition.rung(state))}.")
        exposition.write(host)
        _start(host, definition, "start")
        tell(f"Started; vllm-instance status {definition.name} shows when it serves.")


@contextlib.contextmanager
def _working(host, definition):
    with instance.working(host, definition) as held:
        if not held:
            raise Failed("the watchdog is at work on it: try again in a minute")
        yield


def _start(host, definition, verb):
    if definition.supervised_by_docker:
        if verb == "restart":
            drain.drain(host, definition)
        instance.start(host, definition)
        return
    # A unit that was refused too often is not started before this.
    systemd.control("reset-failed", definition.unit, wait=True)
    systemd.control(verb, definition.unit, wait=True, seconds=definition.limits["drain_seconds"] + 120)


def _need_root(host, definition, order):
    """Who may not write the state, or tell systemd and Docker, learns it before anything is done."""
    directory = host.lib(definition.name)
    owner = directory.stat().st_uid if directory.exists() else 0
    if os.geteuid() not in (0, owner):
        raise Failed(f"only root may do this: sudo vllm-instance {order} {definition.name}")
