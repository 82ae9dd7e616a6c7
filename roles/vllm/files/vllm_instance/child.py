# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Child processes that cannot hang their caller."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess

from .host import Failed

Result = collections.namedtuple("Result", "status output errors")


def run(command, timeout):
    """Result of a command, with its two outputs as text.

    Raises Failed when it cannot be started or is not done after that many seconds. A process stuck in the kernel (a hanging driver) does not die
    even of SIGKILL: it is left behind rather than waited for.
    """
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=dict(os.environ, LC_ALL="C")
        )  # pylint: disable=consider-using-with
    except OSError as error:
        raise Failed(f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        output, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=2)
        raise Failed("{} gave no answer within {:g} s".format(" ".join(command[:2]), timeout)) from None
    return Result(child.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def output(command, timeout):
    """Standard output of a command. Raises Failed also when its status is not 0, with its own last words."""
    result = run(command, timeout)
    if result.status:
        words = (result.errors.strip() or result.output.strip()).splitlines()
        raise Failed("{}: {}".format(" ".join(command[:2]), words[-1].strip() if words else "exit status %d" % result.status))
    return result.output
