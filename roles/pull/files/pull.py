"""Converge this host from its own copy of the inventory: run the command line that is given, alone, and write down what came of it.

Started by gpuhosts-pull.service. Whoever changes the host holds a lock on STATE (flock on the directory): this program while its command runs, and for a
run from a controller gpuhosts-hold.service. The kernel frees it when its holder is gone, however it ended.

The arguments: the host's name in the inventory, the directory that the inventory lies in, and the command. Exit status: that of the command, 1 where no
play had the host, 75 where another run has the lock.
"""

import datetime
import fcntl
import json
import os
import re
import subprocess
import sys

STATE = "/var/lib/gpuhosts-pull"
HELD = 75
TASK = re.compile(r"TASK \[(.*)\] \*+$")
RECAP = re.compile(r"(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


def lock():
    """The lock, as a file descriptor; None where another run has it."""
    descriptor = os.open(STATE, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def read(lines, name):
    """(tasks the host did, tasks that changed it, the task that failed last or None), by what Ansible prints; it is printed on. Both are 0 without a recap."""
    task, failed, done, changed = None, None, 0, 0
    for line in lines:
        print(line, end="", flush=True)
        found = TASK.match(line.rstrip())
        task = found.group(1) if found else task
        # One that was rescued is followed by another, or by success.
        if line.startswith("fatal:"):
            failed = task
        found = RECAP.match(line)
        if found and found.group(1) == name:
            done, changed = int(found.group(2)), int(found.group(3))
    return done, changed, failed


def write(record):
    """Keep it whole or not at all; gpu_facts reads it (module_utils/host_files.py)."""
    path = os.path.join(STATE, "last.json")
    with open(path + ".new", "w", encoding="utf-8") as target:
        json.dump(record, target)
    os.replace(path + ".new", path)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(directory):
    """What is checked out there; None where it is no git repository, or there is no git."""
    try:
        return subprocess.run(["git", "-C", directory, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip() or None
    except FileNotFoundError:
        return None


def run(name, directory, command):
    """Run the command and keep what came of it; returns the exit status."""
    record = {"result": "running", "started": now(), "ended": None, "changed": 0, "task": None, "commit": None}
    write(record)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        done, changed, failed = read(process.stdout, name)
    status = process.returncode
    if status == 0 and not done:
        print(f"No play had the host {name}: is that its name in the inventory, and is it one of gpu_hosts?", file=sys.stderr)
        status = 1
    result = "failed" if status else "changed" if changed else "converged"
    write(record | {"result": result, "ended": now(), "changed": changed, "task": failed if status else None, "commit": commit(directory)})
    print(f"{name}: {result}, {changed} tasks changed it", flush=True)
    return status


def main(name, directory, *command):
    # To the end of the program.
    if lock() is None:
        print(
            "Left out: another run has this host, one from a controller while gpuhosts-hold.service is active. The timer starts the next run; "
            "systemctl stop gpuhosts-hold.service gives the host back now.",
            file=sys.stderr,
        )
        return HELD
    return run(name, directory, command)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
