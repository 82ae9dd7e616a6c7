# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that survive a power cut, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os

POLL_SECONDS = 0.05


def write(path, text, mode=0o644):
    """Replace a file, whole or not at all, also when the power fails. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".%s.%d" % (path.name, os.getpid()))
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove(path):
    """Remove a file that may not be there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class locked:  # pylint: disable=invalid-name
    """Hold a lock, waited for at most so many seconds. Gives whether it is held: who does not get it goes on without.

    The kernel gives it back when its holder dies, so a lock that is not to be had means a process that hangs.
    """

    def __init__(self, path, host, patience):
        self._path, self._host, self._patience = path, host, patience
        self._stream = None

    def __enter__(self):
        deadline = self._host.monotonic() + self._patience
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = open(self._path, "a", encoding="utf-8")  # pylint: disable=consider-using-with
            while True:
                try:
                    fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    if self._host.monotonic() >= deadline:
                        return False
                self._host.sleep(POLL_SECONDS)
        except OSError:
            return False

    def __exit__(self, *given):
        if self._stream:
            self._stream.close()
