# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to make of an engine's end."""

from __future__ import annotations

import signal

from . import decisions, docker, exposition, systemd, turns, vllm_log
from .definition import read
from .host import ERROR, WARNING, Failed
from .state import Store

REFUSED = 78
NOT_YET = 75  # EX_TEMPFAIL
KILLED = 128 + signal.SIGKILL
LOG_LINES = 2000
LATE_LOG_SECONDS = 1


def judge(definition, state, host, log, status):
    """Decide about an end that nobody asked for; returns what was decided. log: text. status: exit status, None where it is not known."""
    try:
        causes, oom = vllm_log.causes(log, status), vllm_log.is_oom(log, status)
    except Exception as error:  # pylint: disable=broad-except
        # An end counts whatever its log looks like: otherwise nothing would bound the restarts.
        causes, oom = [], False
        host.say(definition.name, f"its log cannot be understood ({type(error).__name__}: {error})", ERROR)
    saw = causes[0] if causes else {"message": "its log does not say why", "remedy": None}
    # An error of several lines that the engine told in one: the first says it.
    what = saw["message"].partition("\\n")[0].rstrip(". ")
    # A kernel that kills for want of RAM leaves no trace in the log, and fewer tokens on the card would not help it.
    if oom and status != KILLED:
        return decisions.out_of_memory(definition, state, host, what)
    words = [what]
    if saw.get("remedy"):
        words.append("remedy: {}".format(saw["remedy"].rstrip(". ")))
    if status is not None:
        words.insert(0, f"exit status {status}")
    return decisions.failed(definition, state, host, "crash", "the engine ended by itself: " + ", ".join(words))


def exited(host, name, environment):
    """ExecStopPost of an instance's unit: systemd tells in the environment how it ended. Never raises, for a stop must not fail of it."""
    try:
        turns.over(host, name)
        if environment.get("EXIT_STATUS") not in (str(REFUSED), str(NOT_YET)):
            _exited(host, name, environment)
        exposition.write(host, down=name)
    except Exception as error:  # pylint: disable=broad-except
        host.say(name, f"the end of the engine could not be judged ({type(error).__name__}: {error}): it restarts as it was", ERROR)


def _exited(host, name, environment):
    definition = read(host, name)
    asked = _asked(host, definition, environment)
    if not asked and _goes_on(definition):
        host.say(name, "Docker has dropped its client, not its container: systemd finds it again", WARNING)
        return
    log = "" if asked else _log(host, name, environment.get("INVOCATION_ID"))
    with Store(host, name).change() as state:
        if state["status"] == "quarantined":
            return
        if asked:
            state["status"] = "stopped"
            return
        decided = judge(definition, state, host, log, exit_status(environment))
    host.say(name, decided, ERROR if state["status"] == "quarantined" else WARNING)


def _asked(host, definition, environment):
    """Whether the engine was told to stop. Its status does not say: vLLM ends with 0 also when its engine has died under it."""
    try:
        return systemd.asked_to_stop(definition.unit)
    except Failed as problem:
        host.say(definition.name, f"cannot tell whether the stop was asked for: {problem}", ERROR)
        return environment.get("SERVICE_RESULT") == "success"


def _goes_on(definition):
    """Whether only the client of a container has ended. A Docker that does not answer is the reason rather than the engine."""
    if definition.runtime != "container":
        return False
    try:
        found = docker.inspect(definition.container)
    except Failed:
        return True
    return bool(found and found.running)


def _log(host, name, invocation):
    """What the engine said in this start; "" where it cannot be read. Read again once, for the last lines may come late."""
    if not invocation:
        return ""
    try:
        log = systemd.journal(invocation, LOG_LINES)
        if not vllm_log.causes(log):
            host.sleep(LATE_LOG_SECONDS)
            log = systemd.journal(invocation, LOG_LINES)
        return log
    except Failed as problem:
        host.say(name, f"its log cannot be read: {problem}", ERROR)
        return ""


def exit_status(environment):
    """The exit status as a shell would say it, from what systemd tells; None where it tells nothing usable."""
    if environment.get("SERVICE_RESULT") == "oom-kill":
        return KILLED
    status = environment.get("EXIT_STATUS", "")
    if status.isdigit():
        return int(status)
    number = getattr(signal, "SIG" + status, None)
    return 128 + number if number else None
