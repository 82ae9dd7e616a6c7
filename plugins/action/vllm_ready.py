# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module of the same name in slices, and shows between them how far the engine has come. Its documentation is the module's."""

from __future__ import annotations

from ansible_collections.gpuhosts.inference.plugins.module_utils import vllm_log
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.slices import SlicedAction

MODULE = "gpuhosts.inference.vllm_ready"
PATIENCE = 15


class ActionModule(SlicedAction):
    _supports_async = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """The result of the last slice: the module's own, with a failure or without."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self._task.async_val:
            result.update(
                self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars, wrap_async=not self._connection.has_native_async)
            )
            return result
        arguments.setdefault("patience", PATIENCE)

        def onward(outcome, waited):
            self._show(task_vars, arguments, outcome.get("progress"), waited)
            # What lay between the slices counts too.
            return {"resume": dict(outcome["resume"], waited_seconds=waited)}

        result.update(self.in_slices(MODULE, arguments, task_vars, onward))
        return result

    def _show(self, task_vars, arguments, progress, waited):
        if self._task.no_log:
            return
        host, model, limit = task_vars.get("inventory_hostname", ""), arguments.get("served_model_name", ""), arguments.get("timeout", 600)
        so_far = vllm_log.told(progress) if progress else "not ready yet"
        self._display.display(f"{host} {model}: {so_far}, {waited:.0f} s of at most {limit} s", color="bright gray")
