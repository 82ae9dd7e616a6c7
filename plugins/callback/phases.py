# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: phases
type: aggregate
short_description: Show that long tasks are alive, and how long each phase took
version_added: "0.1.0"
description:
  - While a task runs longer than O(heartbeat) seconds, prints which task on which hosts is still under way, and for how long.
  - At the end prints the wall time of every play, and of the whole run.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  heartbeat:
    description: Seconds between two signs of life. V(0) turns them off.
    type: int
    default: 15
    env:
      - name: GPUHOSTS_HEARTBEAT
    ini:
      - section: callback_phases
        key: heartbeat
"""

EXAMPLES = r"""
ansible.cfg: |
  [defaults]
  callbacks_enabled = gpuhosts.inference.phases
"""

import threading
import time

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpuhosts.inference.phases"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display=None, options=None):
        super().__init__(display=display, options=options)
        self.started = time.monotonic()
        self.phases: list[tuple[str, float]] = []
        self.task: tuple[str, float] | None = None
        self.waiting: set[str] = set()
        self.stopped = threading.Event()

    def v2_playbook_on_start(self, playbook):
        interval = self.get_option("heartbeat")
        if interval > 0:
            threading.Thread(target=self._heartbeat, args=(interval,), daemon=True).start()

    def v2_playbook_on_play_start(self, play):
        self.phases.append((play.get_name(), time.monotonic()))

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.task = (task.get_name(), time.monotonic())
        self.waiting.clear()

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host, task):
        self.waiting.add(host.get_name())

    def _done(self, result, **kwargs):
        self.waiting.discard(result._host.get_name())

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_skipped = v2_runner_on_unreachable = _done

    def v2_playbook_on_stats(self, stats):
        self.stopped.set()
        now = time.monotonic()
        ends = [begin for name, begin in self.phases[1:]] + [now]
        self._display.banner("PHASES")
        for (name, begin), end in zip(self.phases, ends):
            self._display.display(f"{end - begin:7.1f} s  {name}")
        self._display.display(f"{now - self.started:7.1f} s  in all")

    def _heartbeat(self, interval: int) -> None:
        while not self.stopped.wait(interval):
            task, hosts = self.task, sorted(self.waiting)
            if task and hosts and time.monotonic() - task[1] >= interval:
                names = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
                self._display.display(f"  ... {time.monotonic() - task[1]:.0f} s: {task[0]} ({names})", color="bright gray")
