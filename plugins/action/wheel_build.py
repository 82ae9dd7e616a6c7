# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module of the same name in slices, and shows between them how far the compilers have come. Its documentation is the module's."""

from __future__ import annotations

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.slices import SlicedAction

MODULE = "gpuhosts.inference.wheel_build"


class ActionModule(SlicedAction):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """The result of the last slice: the module's own, with a failure or without."""
        result, arguments, shown = super().run(tmp, task_vars), dict(self._task.args), [None]

        def onward(outcome, waited):
            status = outcome.get("status") or {}
            if status != shown[-1]:
                shown.append(status)
                steps = f"step {status['step']} of {status['steps']}" if status.get("steps") else "preparing"
                self._display.display(f"{arguments.get('name')}: {steps}, {status.get('jobs', 1)} at once, {waited:.0f} s", color="bright gray")
            return {"resume": {**outcome["resume"], "waited_seconds": waited}}

        return {**result, **self.in_slices(MODULE, arguments, task_vars, onward)}
