#!/usr/bin/python
# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: watched_command
short_description: Runs a command that takes long, and shows how far it has come
version_added: "0.1.0"
description:
  - Starts a command on its own and waits for its end. Meanwhile the playbook shows how much has come to a directory, and what the command says.
  - The command outlives the run that started it. A run that finds it running starts no second one, and waits for it.
  - Its standard input is in no file, no argument list and no log.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: What is done, such as V(fetch-qwen-qwen3-32b-awq). One command of a name runs at a time.
    type: str
    required: true
  argv:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
  stdin:
    description: What it reads from standard input.
    type: str
    default: ""
  directory:
    description: The directory whose growth is its progress. It need not exist.
    type: path
    required: true
  total_bytes:
    description: How large that directory is when the command is done. V(0) is unknown.
    type: int
    default: 0
  patience:
    description:
      - Seconds after which the module returns all the same. The action plugin of the same name calls it again until the command is over, and waits longer
        each time, up to a minute.
    type: int
    default: 10
  resume:
    description: Whether the command was started by an earlier call.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Fetch a large file
  gpuhosts.inference.watched_command:
    name: fetch-model
    argv: [curl, --silent, --show-error, --fail, --output, /srv/model/weights, https://example.org/weights]
    directory: /srv/model
    total_bytes: 19326730240
"""

RETURN = r"""
rc:
  description: Exit status of the command, null where it was killed together with what waited for it.
  returned: when it is over
  type: int
output:
  description: The end of what it printed.
  returned: always
  type: str
bytes:
  description: What lies in O(directory).
  returned: always
  type: int
resume:
  description: Whether the command still runs.
  returned: always
  type: bool
"""

import fcntl
import os
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

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
        began = time.monotonic()
        while self.running():
            if time.monotonic() - began >= seconds:
                return False
            time.sleep(DELAY)
        return True

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


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "stdin": {"type": "str", "default": "", "no_log": True},
            "directory": {"type": "path", "required": True},
            "total_bytes": {"type": "int", "default": 0},
            "patience": {"type": "int", "default": 10},
            "resume": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=True, resume=False, output="", bytes=size(given["directory"]))
    command = Command(given["name"])
    if not given["resume"]:
        command.start(given["argv"], given["stdin"])
    over = command.wait(given["patience"])
    found = {"output": command.said(), "bytes": size(given["directory"])}
    if not over:
        module.exit_json(changed=True, resume=True, **found)
    status = command.exit_status()
    if status != 0:
        why = [f"{given['name']} was ended before it was done: run again."] if status is None else []
        message = " ".join([*why, *filter(None, [found["output"]])]) or f"{given['name']} ended with status {status}, and said nothing."
        module.fail_json(msg=message, rc=status, resume=False, **found)
    module.exit_json(changed=True, rc=0, resume=False, **found)


if __name__ == "__main__":
    main()
