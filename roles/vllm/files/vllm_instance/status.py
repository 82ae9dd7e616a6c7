# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a person, or a playbook, wants to know of the instances."""

from __future__ import annotations

import collections

from . import decisions, turns
from . import definition as definitions
from .engine import Engine
from .state import Store

HEALTH_SECONDS = 3
EVENTS = 5


def collect(host, names):
    """A list of descriptions, one for each name."""
    return [_describe(host, name) for name in names]


def _describe(host, name):
    state = Store(host, name).read()
    described = {"name": name, "up": False, "definition_error": None}
    described.update({key: state[key] for key in ("status", "rung", "hang_remedy", "quarantine", "counts", "history")})
    try:
        definition = definitions.read(host, name)
    except definitions.Broken as problem:
        return dict(described, definition_error=str(problem))
    rung = definition.rung(state)
    return dict(
        described,
        up=Engine(definition.url).healthy(HEALTH_SECONDS),
        waiting=turns.waiting(host, name),
        supervisor=definition.supervisor,
        runtime=definition.runtime,
        url=definition.url,
        gpus=definition.gpus,
        rung=rung,
        rungs=len(definition.rungs) - 1,
        rung_reason=definition.rungs[rung].get("reason"),
        rung_changes=definition.rungs[rung].get("changes") or {},
        rung_text=decisions.describe_rung(definition, rung),
        kv_tokens_planned=definition.rungs[rung].get("kv_tokens"),
        hang_argv=definition.hang_argv,
    )


def table(described):
    """The descriptions as lines for a person."""
    rows = [("INSTANCE", "UP", "STATUS", "SUPERVISOR", "RUNG", "KV TOKENS", "CARDS")]
    rows += [_row(one) for one in described]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for one in described:
        lines += _details(one)
    return lines


def _row(one):
    if one["definition_error"]:
        return one["name"], "-", "broken", "-", "-", "-", "-"
    up = "yes" if one["up"] else "waits" if one["waiting"] else "no"
    planned = one["kv_tokens_planned"]
    cards = ",".join(map(str, one["gpus"]))
    return one["name"], up, one["status"], one["supervisor"], "%d of %d" % (one["rung"], one["rungs"]), "-" if planned is None else str(planned), cards or "-"


def _details(one):
    lines = []
    if one["definition_error"]:
        lines.append("  " + one["definition_error"])
    else:
        if one["rung"]:
            lines.append("  on {}".format(one["rung_text"]))
        if one["hang_remedy"]:
            lines.append("  with the remedy against hangs: {}".format(" ".join(one["hang_argv"])))
    if one["quarantine"]:
        lines.append("  quarantined {}: {}".format(one["quarantine"].get("time"), one["quarantine"].get("message")))
    # A quarantine has been shown above.
    events = [event for event in one["history"][-EVENTS:] if not one["quarantine"] or event.get("time") != one["quarantine"].get("time")]
    lines += ["  {time} {event} ({reason}): {message}".format_map(collections.defaultdict(str, event)) for event in events]
    return ["", one["name"]] + lines if lines else []
