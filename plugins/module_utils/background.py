# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that go on without whoever started them, and how much has come to a directory meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time

RUN = "/run/gpuhosts/commands"  # the tests' to move
DELAY = 0.2
OUTPUT_BYTES = 4096
# $0 is where the exit status goes, at once or not at all.
SHELL = '"$@"; echo $? >"$0.new" && mv "$0.new" "$0"'


class Command:
    """The command of a name: whoever runs it holds its lock, as do all of its processes."""

    def __init__(self, name):
        self.directory = os.path.join(RUN, name)
        self.status, self.output = (os.path.join(self.directory, each) for each in ("status", "output"))
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def lock(self):
        """The descriptor of the lock, None while the command runs."""
        lock = os.open(os.path.join(self.directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    def running(self):
        lock = self.lock()
        if lock is not None:
            os.close(lock)
        return lock is None

    def start(self, argv, stdin):
        """Start it, unless it runs already."""
        lock = self.lock()
        if lock is None:
            return
        if os.path.exists(self.status):
            os.unlink(self.status)
        with open(self.output, "wb") as output:
            child = subprocess.Popen(  # pylint: disable=consider-using-with  # it goes on without this process
                ["sh", "-c", SHELL, self.status, *argv], stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[lock], start_new_session=True, cwd="/"
            )
        os.close(lock)
        try:
            child.stdin.write(stdin.encode())
            child.stdin.close()
        except BrokenPipeError:
            pass

    def wait(self, seconds):
        """Whether it is over within so many seconds."""
        return ended(self.running, seconds, DELAY)

    def exit_status(self):
        try:
            with open(self.status, encoding="ascii") as stream:
                return int(stream.read())
        except (OSError, ValueError):
            return None

    def said(self):
        """The end of what it printed."""
        with open(self.output, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - OUTPUT_BYTES))
            return stream.read().decode("utf-8", "replace").strip()


def ended(running, seconds, delay):
    """Whether running() is False within so many seconds, asked every `delay` of them."""
    began = time.monotonic()
    while running():
        if time.monotonic() - began >= seconds:
            return False
        time.sleep(delay)
    return True


def size(directory):
    """Bytes that a directory's files take on the disk: files that are written in pieces have holes."""
    total = 0
    for parent, unused, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                # It was moved to its place just now.
                continue
    return total
