# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metrics of this program, for the textfile collector of node_exporter."""

from __future__ import annotations

import os
import re

from . import definition as definitions
from . import files
from .host import ERROR
from .state import Store

FAMILIES = {
    "gpuhosts_vllm_up": ("gauge", "Whether /health answered when the watchdog last looked."),
    "gpuhosts_vllm_definition_broken": ("gauge", "Whether the instance's definition cannot be used: it is neither started nor watched."),
    "gpuhosts_vllm_rung": ("gauge", "Rung of the ladder in force: 0 is the plan's first choice."),
    "gpuhosts_vllm_rungs": ("gauge", "Rungs that the plan's ladder has below its first choice."),
    "gpuhosts_vllm_hang_remedy": ("gauge", "Whether the remedy against hangs between cards is in force."),
    "gpuhosts_vllm_quarantined": ("gauge", "Whether the instance was stopped for good after it failed too often."),
    "gpuhosts_vllm_kv_tokens_planned": ("gauge", "Tokens of KV cache that the plan expects at the rung in force."),
    "gpuhosts_vllm_step_downs_total": ("counter", "Rungs that the host took by itself."),
    "gpuhosts_vllm_restarts_total": ("counter", "Restarts after failures, by what was seen."),
}
REASONS = ("crash", "stall", "unanswered", "hang_at_load")
UP = re.compile(r'^gpuhosts_vllm_up\{name="([a-z0-9_-]+)"\} ([01])$', re.MULTILINE)


def write(host, up=None, down=None, said=None):
    """Write the file anew where something has changed, and its time in any case: an old file means that nobody watches.

    up: whether each instance answers, by name; without it what the file says stays true. down: an instance that has just ended.
    said: what was said of it last, which is not said again. Returns what is wrong, None where nothing is.
    """
    before = _read(host)
    up = {name: value == "1" for name, value in UP.findall(before)} if up is None else up
    text = render(host, dict(up, **({down: False} if down else {})))
    try:
        if text != before:
            files.write(host.metrics, text)
        else:
            os.utime(host.metrics)
    except OSError as error:
        problem = f"{host.metrics} cannot be written: {error}"
        if problem != said:
            host.say("metrics", problem, ERROR)
        return problem
    return None


def render(host, up):
    """The text of all families."""
    samples = {family: [] for family in FAMILIES}
    for name in host.names():
        for family, labels, value in _samples(host, name, up.get(name, False)):
            samples[family].append("%s{%s} %d" % (family, ",".join('{}="{}"'.format(*label) for label in [("name", name)] + labels), value))
    lines = []
    for family, (kind, text) in FAMILIES.items():
        lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"] + samples[family]
    return "\n".join(lines) + "\n"


def _samples(host, name, up):
    try:
        definition = definitions.read(host, name)
    except definitions.Broken:
        yield "gpuhosts_vllm_definition_broken", [], 1
        return
    state = Store(host, name).read()
    rung = definition.rung(state)
    yield "gpuhosts_vllm_definition_broken", [], 0
    yield "gpuhosts_vllm_up", [], up
    yield "gpuhosts_vllm_rung", [], rung
    yield "gpuhosts_vllm_rungs", [], len(definition.rungs) - 1
    yield "gpuhosts_vllm_hang_remedy", [], state["hang_remedy"]
    yield "gpuhosts_vllm_quarantined", [], state["status"] == "quarantined"
    planned = definition.rungs[rung].get("kv_tokens")
    if isinstance(planned, (int, float)):
        yield "gpuhosts_vllm_kv_tokens_planned", [], planned
    yield "gpuhosts_vllm_step_downs_total", [], state["counts"]["step_downs"]
    for reason in REASONS:
        yield "gpuhosts_vllm_restarts_total", [("reason", reason)], state["counts"]["restarts"].get(reason, 0)


def _read(host):
    try:
        return host.metrics.read_text(encoding="utf-8")
    except OSError:
        return ""
