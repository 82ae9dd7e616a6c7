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


@contextlib.contextmanager
def locked(path, host, patience):
    """Hold a lock, waited for at most so many seconds. Yields whether it is held: who does not get it goes on without.

    The kernel gives it back when its holder dies, so a lock that is not to be had means a process that hangs.
    """
    stream = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a", encoding="utf-8")  # pylint: disable=consider-using-with
    except OSError:
        yield False
        return
    with stream:
        yield _acquire(stream, host, host.monotonic() + patience)


def _acquire(stream, host, deadline):
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if host.monotonic() >= deadline:
                return False
        except OSError:
            return False
        host.sleep(POLL_SECONDS)
