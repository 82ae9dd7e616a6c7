# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Letting an engine's requests end before it is stopped.

The engine does not do it: vLLM 0.8.5 ends its engine process on SIGTERM, and then waits for answers that will never come until it is killed. So new
connections are refused in the container's own network, where the rule goes with the container, and the stop waits until no connection is left.
"""

from __future__ import annotations

from . import child, docker
from .host import WARNING, Failed

ENGINE_PORT = 8000  # inside of every container
SECONDS = 10
POLL_SECONDS = 0.5
ESTABLISHED = "01"
DOOR = ["iptables", "--wait", "--insert", "INPUT", "--protocol", "tcp", "--dport", str(ENGINE_PORT), "--syn", "--jump", "REJECT", "--reject-with", "tcp-reset"]


def drain(host, definition):
    """Wait until the engine has no connection left, at most limits.drain_seconds. Raises nothing: a stop must not fail of it."""
    shared = definition.in_host_network
    try:
        process = "self" if shared else _process(definition)
    except Failed as problem:
        host.say(definition.name, f"its requests are not waited for: {problem}", WARNING)
        return
    if process is None:
        return
    port = definition.document["port"] if shared else ENGINE_PORT
    if not shared:
        _close(host, definition, process)
    end = host.monotonic() + definition.limits["drain_seconds"]
    while connections(host, process, port):
        if host.monotonic() >= end:
            host.say(definition.name, f"{connections(host, process, port)} connections are cut after {definition.limits['drain_seconds']} s", WARNING)
            return
        host.sleep(POLL_SECONDS)


def connections(host, process, port):
    """How many connections are open at a port, in the network that a process sees. An idle one is closed by the engine after 5 s."""
    found = 0
    for table in ("tcp", "tcp6"):
        try:
            lines = (host.root / f"proc/{process}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            found += int(words[1].rpartition(":")[2], 16) == port and words[3] == ESTABLISHED
    return found


def _process(definition):
    """The container's first process, None where it does not run. Raises Failed."""
    found = docker.inspect(definition.container)
    return found.pid if found and found.running else None


def _close(host, definition, process):
    """Refuse new connections. Without it those that come meanwhile are waited for too, and may be cut."""
    try:
        child.output(["nsenter", "--target", str(process), "--net", *DOOR], SECONDS)
    except Failed as problem:
        host.say(definition.name, f"new requests cannot be refused while it drains: {problem}", WARNING)
