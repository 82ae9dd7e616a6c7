# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things lie on the host, its clocks, and how people and the journal are told."""

from __future__ import annotations

import datetime
import os
import pathlib
import re
import sys
import time

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

# Priorities of syslog, as systemd reads them at the start of a line.
NOTICE, WARNING, ERROR = 5, 4, 3


class Failed(Exception):
    """Something that could not be done: what, and what to do about it."""


class Host:
    """Paths below a root, which is / except in tests, and the time.

    now: seconds since the epoch. monotonic: seconds since the boot, the same for all processes. sleep: waits that many seconds.
    """

    def __init__(self, root="/", now=time.time, monotonic=time.monotonic, sleep=time.sleep):
        self.root = pathlib.Path(root)
        self.now, self.monotonic, self.sleep = now, monotonic, sleep

    def etc(self, name):
        """What the playbook wrote for an instance."""
        return self.root / "etc/vllm" / name

    def lib(self, name):
        """What the host keeps of an instance."""
        return self.root / "var/lib/vllm" / name

    def run(self, name):
        """What only this boot needs to know; a file's name, such as coder.lock."""
        return self.root / "run/vllm" / name

    @property
    def metrics(self):
        return self.root / "var/lib/vllm/metrics/vllm_instances.prom"

    def names(self):
        """The instances that have a definition, sorted."""
        return sorted(path.parent.name for path in self.root.glob("etc/vllm/*/definition.json") if NAME.fullmatch(path.parent.name))

    def timestamp(self):
        """The time in UTC, as it stands in state.json."""
        return datetime.datetime.fromtimestamp(self.now(), datetime.timezone.utc).strftime(TIME_FORMAT)

    def say(self, name, text, priority=NOTICE):
        """One line for the journal, or for who started this by hand."""
        mark = "<%d>" % priority if "JOURNAL_STREAM" in os.environ else ""
        print(f"{mark}vllm-instance: {name}: {text}", file=sys.stderr, flush=True)


def seconds(timestamp):
    """Seconds since the epoch of a time in state.json; 0 for what is none."""
    try:
        return datetime.datetime.strptime(timestamp, TIME_FORMAT).replace(tzinfo=datetime.timezone.utc).timestamp()
    except (TypeError, ValueError):
        return 0.0
