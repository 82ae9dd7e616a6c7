# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process of an engine as its supervisor sees it: a systemd unit, or a container that Docker restarts. Reads only, and cannot hang its caller."""

from __future__ import annotations

import datetime
import json
import time

from ansible.module_utils.common.process import get_bin_path

from ansible_collections.gpuhosts.inference.plugins.module_utils import child

SECONDS = 20
# A start is told in fewer lines than this; an engine that serves may have logged millions since.
START_LINES = 3000


def output(program, *arguments, timeout=SECONDS):
    """What a program prints (standard output and error together), "" where it is not there, fails to start or does not end in time."""
    return _run([program, *arguments], timeout)


def first_lines(lines, program, *arguments, timeout=SECONDS):
    """The first lines that a program prints, without waiting for the rest."""
    return _run([program, *arguments], timeout, ["| head -n", str(lines)])


def _run(command, timeout, behind=()):
    try:
        path = get_bin_path(command[0])
        return child.run(["sh", "-c", " ".join(['"$@" 2>&1', *behind]), "sh", path, *command[1:]], timeout)[1]
    except (ValueError, OSError, child.TimedOut):
        return ""


class Unit:
    """A systemd unit."""

    kind = "unit"
    PROPERTIES = (
        "LoadState",
        "ActiveState",
        "SubState",
        "Result",
        "NRestarts",
        "Job",
        "InvocationID",
        "MainPID",
        "ExecMainStatus",
        "ExecMainCode",
        "ExecMainStartTimestampMonotonic",
    )

    def __init__(self, name):
        self.name = name

    def look(self):
        """The unit's properties by name, {} where systemd does not answer."""
        text = output("systemctl", "show", self.name, "--property=" + ",".join(self.PROPERTIES))
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    @staticmethod
    def restarts(state):
        """How often it has been restarted. systemd counts from 0 again when somebody starts the unit by hand."""
        count = state.get("NRestarts", "")
        return int(count) if count.isdigit() else 0

    @staticmethod
    def exit_status(state):
        """Status of the last main process: negative for a signal, None where none has ended."""
        code, status = state.get("ExecMainCode", ""), state.get("ExecMainStatus", "")
        if not status.isdigit() or code not in ("1", "2", "3"):
            return None
        return int(status) if code == "1" else -int(status)

    @staticmethod
    def running_seconds(state):
        """How long the main process has been running, None where none is."""
        started = state.get("ExecMainStartTimestampMonotonic", "")
        if state.get("MainPID", "0") in ("", "0") or not started.isdigit():
            return None
        return max(0, int(time.clock_gettime(time.CLOCK_MONOTONIC) - int(started) / 1e6))

    @staticmethod
    def trouble(state):
        """(what is wrong, what to do) where the engine will not come up any more by itself, None otherwise."""
        active = state.get("ActiveState")
        if state.get("LoadState") == "not-found":
            return "is not known to systemd on this host", "check the name, or deploy the instance"
        if active == "failed":
            return "has failed (result {})".format(state.get("Result")), "correct what its log names and start it again"
        if active == "inactive" and state.get("Job", "0") in ("", "0"):
            return "is not running and not about to be started", "start it"
        return None

    @staticmethod
    def returns(state):
        """Whether what is in trouble may come back by itself all the same."""
        return False

    def head(self, state, lines=START_LINES):
        """The first lines of the present start's log."""
        return first_lines(lines, "journalctl", *self._matches(state), "--no-pager", "-o", "cat")

    def tail(self, state, lines):
        """The last lines of the present start's log."""
        return output("journalctl", *self._matches(state), "-n", str(lines), "--no-pager", "-o", "cat")

    def history(self, state, lines):
        """The last lines of its log, earlier starts among them."""
        return output("journalctl", "-u", self.name, "-n", str(lines), "--no-pager", "-o", "cat")

    def _matches(self, state):
        invocation = state.get("InvocationID")
        # The engine's own lines, and what systemd says of that start.
        return ("_SYSTEMD_INVOCATION_ID=" + invocation, "+", "INVOCATION_ID=" + invocation) if invocation else ("-u", self.name)


class Container:
    """A container that the Docker Engine itself starts again."""

    kind = "container"
    FORMAT = '{"state": {{json .State}}, "restarts": {{.RestartCount}}}'

    def __init__(self, name):
        self.name = name

    def look(self):
        """C(State) of the container with C(RestartCount) and C(Found); {} where Docker does not answer. Its environment is not asked for."""
        text = output("docker", "inspect", "--type", "container", "--format", self.FORMAT, self.name)
        try:
            found = json.loads(text)
            return dict(found["state"], RestartCount=found["restarts"], Found=True)
        except (ValueError, KeyError, TypeError):
            return {"Found": False} if "no such container" in text.lower() else {}

    @staticmethod
    def restarts(state):
        return int(state.get("RestartCount") or 0)

    @staticmethod
    def exit_status(state):
        if not state.get("FinishedAt") or str(state["FinishedAt"]).startswith("0001-"):
            return None
        return 137 if state.get("OOMKilled") else state.get("ExitCode")

    @staticmethod
    def running_seconds(state):
        if state.get("Status") != "running":
            return None
        try:
            # Docker writes nine digits of a second, Python reads six.
            started = datetime.datetime.fromisoformat(str(state.get("StartedAt"))[:19] + "+00:00")
        except ValueError:
            return None
        return max(0, int((datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()))

    @staticmethod
    def trouble(state):
        if state.get("Found") is False:
            return "is not there", "check the name, or deploy the instance"
        status = state.get("Status")
        if status == "exited":
            return "has ended (status {})".format(state.get("ExitCode")), "correct what its log names and start it again"
        if status in ("dead", "paused", "removing", "created"):
            return f"is {status}", "start it"
        return None

    @staticmethod
    def returns(state):
        return state.get("Found") is False or state.get("Status") in ("created", "removing")

    def head(self, state, lines=START_LINES):
        return self._logs(state, self._since(state), lines)

    def tail(self, state, lines):
        return self._logs(state, [*self._since(state), "--tail", str(lines)])

    def history(self, state, lines):
        return self._logs(state, ["--tail", str(lines)])

    @staticmethod
    def _since(state):
        return ["--since", state["StartedAt"]] if state.get("StartedAt") else []

    def _logs(self, state, which, lines=None):
        # What the client says of a container that is not there is no log.
        if not state.get("Found"):
            return ""
        command = ["docker", "logs", *which, self.name]
        return output(*command) if lines is None else first_lines(lines, *command)
