# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module of the same name in slices, and shows between them how far the compilers have come. Its documentation is the module's."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase

MODULE = "gpuhosts.inference.wheel_build"


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """The result of the last slice: the module's own, with a failure or without."""
        result, arguments, began, shown = super().run(tmp, task_vars), dict(self._task.args), time.monotonic(), None
        while True:
            outcome = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
            if outcome.get("failed") or "resume" not in outcome:
                return {**result, **outcome}
            waited = time.monotonic() - began
            arguments["resume"] = {**outcome["resume"], "waited_seconds": waited}
            status = outcome.get("status") or {}
            if status != shown:
                steps = f"step {status['step']} of {status['steps']}" if status.get("steps") else "preparing"
                self._display.display(f"{arguments.get('name')}: {steps}, {status.get('jobs', 1)} at once, {waited:.0f} s", color="bright gray")
                shown = status
