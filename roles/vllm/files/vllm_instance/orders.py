# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What only a person orders: another rung, and the end of a quarantine."""

from __future__ import annotations

import os

from . import decisions, exposition, instance, systemd
from .host import Failed
from .state import Store, record


def reset(host, definition, rung):
    """Go to a rung, by default the plan's first choice, and restart if that changes what runs. Returns sentences. Raises Failed."""
    _need_root(host, definition, "reset")
    if not 0 <= rung < len(definition.rungs):
        raise Failed("%s has the rungs 0 to %d, and no %d" % (definition.name, len(definition.rungs) - 1, rung))
    with Store(host, definition.name).change() as state:
        before = definition.full_command(state), definition.argv(state)
        was = definition.rung(state)
        state["rung"] = state["base"] = rung
        if rung == 0:
            state["hang_remedy"] = False
        same = before == (definition.full_command(state), definition.argv(state))
        message = (
            f"stays on {decisions.describe_rung(definition, rung)}"
            if same
            else "from rung %d to %s"
            % (
                was,
                decisions.describe_rung(definition, rung),
            )
        )
        record(state, host, "reset", "command", message)
    yield f"{definition.name}: {message}."
    exposition.write(host)
    if state["status"] == "quarantined":
        yield f"It is in quarantine and stays stopped: vllm-instance release {definition.name} starts it."
    elif same:
        yield "What runs does not change: nothing was restarted."
    elif state["status"] == "stopped":
        yield "It is stopped and stays so."
    else:
        _start(host, definition, "restart")
        yield f"Restarted; vllm-instance status {definition.name} shows when it serves."


def release(host, definition):
    """End a quarantine and start the instance. Returns sentences. Raises Failed."""
    _need_root(host, definition, "release")
    with Store(host, definition.name).change() as state:
        quarantine = state["quarantine"]
        if state["status"] == "quarantined":
            state["status"], state["quarantine"] = "running", None
            message = "quarantine of {} ended".format((quarantine or {}).get("time"))
            record(state, host, "release", "command", message)
        else:
            message = None
    if message is None:
        yield f"{definition.name}: is not in quarantine, nothing was done."
        return
    yield f"{definition.name}: {message}, on {decisions.describe_rung(definition, definition.rung(state))}."
    exposition.write(host)
    _start(host, definition, "start")
    yield f"Started; vllm-instance status {definition.name} shows when it serves."


def _start(host, definition, verb):
    if definition.supervised_by_docker:
        instance.run(host, definition)
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
