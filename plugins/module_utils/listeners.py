# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who listens on a TCP port of this host, by /proc alone: ss is not on every host."""

from __future__ import annotations

import os
import re

from ansible_collections.gpuhosts.inference.plugins.module_utils import host_files

_LISTENS = "0A"
_UNIT = re.compile(r"(?m)/([^/\n]+\.service)\b")


def who(ports, root="/"):
    """{port: {pid, program, unit}} of those of the ports that somebody listens on; what cannot be seen (another user's process) is None."""
    wanted = set(ports)
    inodes = {}
    for name in ("proc/net/tcp", "proc/net/tcp6"):
        for line in (host_files.read_text(root, name) or "").splitlines()[1:]:
            cells = line.split()
            if len(cells) > 9 and cells[3] == _LISTENS:
                port = int(cells[1].rpartition(":")[2], 16)
                if port in wanted:
                    inodes.setdefault(cells[9], port)
    found = {port: {"pid": None, "program": None, "unit": None} for port in inodes.values()}
    for pid, port in _holders(inodes, root):
        unit = _UNIT.findall(host_files.read_text(root, f"proc/{pid}/cgroup") or "")
        found[port] = {"pid": int(pid), "program": (host_files.read_text(root, f"proc/{pid}/comm") or "").strip() or None, "unit": unit[-1] if unit else None}
    return found


def _holders(inodes, root):
    """(process, port) of every process that has one of the sockets open."""
    if not inodes:
        return
    for pid in filter(str.isdigit, os.listdir(os.path.join(root, "proc"))):
        directory = os.path.join(root, "proc", pid, "fd")
        for entry in _entries(directory):
            link = _target(os.path.join(directory, entry))
            inode = link[8:-1] if link.startswith("socket:[") else None
            if inode in inodes:
                yield pid, inodes[inode]


def _entries(directory):
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _target(path):
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""
