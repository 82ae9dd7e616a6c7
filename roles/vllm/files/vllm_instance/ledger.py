# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starts that came to serve, with what the engine said of its memory: /var/lib/vllm/NAME/starts.jsonl.

A line is {time, generation, rung, hang_remedy, start, log}. `start` tells one start from another; `generation` is what /etc/vllm/NAME/generation says.
"""

from __future__ import annotations

import json
import os

from . import vllm_log


def last(host, name):
    """`start` of the last line that is whole, None where there is none."""
    try:
        with open(_path(host, name), encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return json.loads(line)["start"]
        except (ValueError, KeyError, TypeError):
            # The power may have failed within a line.
            continue
    return None


def append(host, definition, state, start, log):
    """Add a start. log: the engine's whole log. Raises OSError."""
    entry = {
        "time": host.timestamp(),
        "generation": generation(host, definition.name),
        "rung": definition.rung(state),
        "hang_remedy": state["hang_remedy"],
        "start": start,
        "log": vllm_log.memory_lines(log),
    }
    path = _path(host, definition.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json.dumps(entry).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def generation(host, name):
    """Number of the generation that runs, None where nobody wrote it."""
    try:
        return int((host.etc(name) / "generation").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _path(host, name):
    return host.lib(name) / "starts.jsonl"
