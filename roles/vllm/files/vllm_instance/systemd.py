# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd as it is asked and told: units, jobs, the journal, and the watchdog's own signs of life."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket

from . import child
from .host import Failed

SECONDS = 10
JOURNAL_SECONDS = 20
OWN = "vllm-instance: "


def show(unit):
    """Some properties of a unit. Raises Failed."""
    text = child.output(["systemctl", "show", unit, "--property=ActiveState,SubState,MainPID,InvocationID,ControlGroup"], SECONDS)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def asked_to_stop(unit):
    """Whether systemd is stopping a unit because somebody told it to: a stop, a restart, a shutdown. Raises Failed."""
    lines = child.output(["systemctl", "list-jobs", "--no-legend", "--no-pager", "--plain", unit], SECONDS).splitlines()
    return any(len(words) > 2 and words[1] == unit and words[2] in ("stop", "restart", "try-restart") for words in map(str.split, lines))


def journal(invocation, lines):
    """The last lines of one start of a unit, without what this program said itself. Raises Failed."""
    # The engine's last words may still be on their way.
    child.run(["journalctl", "--sync"], SECONDS)
    command = ["journalctl", "--quiet", "--no-pager", "--all", "--output=cat", "--lines=%d" % lines, "_SYSTEMD_INVOCATION_ID=" + invocation]
    text = child.output(command, JOURNAL_SECONDS)
    return "\n".join(line for line in text.splitlines() if not line.startswith(OWN))


def control(verb, unit, wait, seconds=SECONDS):
    """systemctl start, stop, restart, reset-failed, ... a unit. Raises Failed."""
    child.output(["systemctl", verb] + ([] if wait else ["--no-block"]) + [unit], seconds)


def kill(unit):
    """SIGKILL for all processes of a unit. Raises Failed."""
    child.output(["systemctl", "kill", "--signal=SIGKILL", unit], SECONDS)


def processes(control_group):
    """Numbers of the processes in a unit's control group. Raises Failed."""
    pids = set()
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd"):
        for path in pathlib.Path(root + control_group).glob("**/cgroup.procs") if control_group else ():
            with contextlib.suppress(OSError):
                pids.update(map(int, path.read_text(encoding="ascii").split()))
    if not pids:
        raise Failed("the unit's processes cannot be found")
    return sorted(pids)


def notify(text):
    """Tell systemd about this service: READY=1, WATCHDOG=1, STATUS=... Does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            # Without a sign of life systemd starts this service again, which is what it is for.
            return
