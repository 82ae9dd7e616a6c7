# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Child processes that cannot hang their caller."""

from __future__ import annotations

import os
import signal
import subprocess


class TimedOut(Exception):
    """The command was still running at its time limit and was killed."""


def run(command, timeout):
    """Run a command in its own process group; returns (exit status, stdout, stderr).

    Raises TimedOut after C(timeout) seconds and OSError when the command cannot be started. A process stuck in the kernel (a hanging GPU driver)
    does not die even of SIGKILL: it is left behind rather than waited for.
    """
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=environment
    )
    try:
        stdout, stderr = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        try:
            child.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            pass
        raise TimedOut(f"no answer within {timeout} s")
    return child.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
