# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker as it is asked and told, by its command line."""

from __future__ import annotations

import collections
import json

from . import child
from .host import Failed

SECONDS = 20
REMOVE_SECONDS = 60
CREATE_SECONDS = 180
LOG_SECONDS = 20
STOP_SECONDS = 15

# running and restarting: as Docker says. policy: no, always, ... error: why the last start failed, "" where it did not.
Container = collections.namedtuple("Container", "id status running restarting started_at restarts exit_code error policy labels pid")


def inspect(name):
    """A container, None where there is none. Raises Failed where Docker does not answer."""
    found = child.run(["docker", "inspect", "--type", "container", name], SECONDS)
    if found.status:
        if "no such" in found.errors.lower():
            return None
        raise Failed("docker inspect: %s" % (found.errors.strip() or "exit status %d" % found.status))
    try:
        document = json.loads(found.output)[0]
        state = document["State"]
        return Container(
            document["Id"],
            state["Status"],
            state["Running"],
            state["Restarting"],
            state["StartedAt"],
            document["RestartCount"],
            state["ExitCode"],
            state.get("Error") or "",
            document["HostConfig"]["RestartPolicy"]["Name"],
            (document.get("Config") or {}).get("Labels") or {},
            state.get("Pid"),
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Failed(f"docker inspect gave no usable answer: {error}") from None


def log(name, lines, since=None, until=None):
    """The last lines that a container wrote between two times. Raises Failed."""
    command = ["docker", "logs", "--tail", str(lines)] + (["--since", since] if since else []) + (["--until", until] if until else []) + [name]
    found = child.run(command, LOG_SECONDS)
    if found.status:
        raise Failed(f"docker logs: {found.errors.strip()}")
    # Engines write to both: the order between the two is lost, within each it is kept.
    return found.output + found.errors


def remove(name):
    """Remove a container, whatever it does. Raises Failed."""
    found = child.run(["docker", "rm", "--force", name], REMOVE_SECONDS)
    if found.status and "no such" not in found.errors.lower():
        raise Failed(f"docker rm: {found.errors.strip()}")


def kill(name):
    """End a container at once; nothing where it does not run. Raises Failed where Docker does not answer."""
    child.run(["docker", "kill", name], SECONDS)


def stop(name):
    """Ask a container to stop and wait; nothing where there is none. Raises Failed."""
    found = child.run(["docker", "stop", "--time", str(STOP_SECONDS), name], STOP_SECONDS + SECONDS)
    if found.status and "no such" not in found.errors.lower():
        raise Failed(f"docker stop: {found.errors.strip()}")


def stop_for_good(name, drain):
    """Stop a container so that Docker does not start it again, at a boot neither. Raises Failed."""
    child.output(["docker", "update", "--restart=no", name], SECONDS)
    child.output(["docker", "stop", "--time", str(int(drain)), name], drain + SECONDS)
