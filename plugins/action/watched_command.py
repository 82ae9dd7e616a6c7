# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module of the same name in slices, and shows between them how much has come. Its documentation is the module's."""

from __future__ import annotations

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.slices import SlicedAction

MODULE = "gpuhosts.inference.watched_command"
GIB = 2**30
MIB = 2**20
# Seconds between two lines: more of them the longer it takes.
SOON = 10
SELDOM = 60


class ActionModule(SlicedAction):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """The result of the last slice: the module's own, with a failure or without."""
        result, arguments, said, seen = super().run(tmp, task_vars), dict(self._task.args), [""], []

        def onward(outcome, waited):
            seen.append((waited, outcome["bytes"]))
            self._show((task_vars or {}).get("inventory_hostname", ""), arguments, seen)
            if outcome["output"] != said[-1]:
                said.append(outcome["output"])
                self._display.display(f"  {said[-1].splitlines()[-1]}", color="bright gray")
            # The command has its input; it need not travel again.
            return {"resume": True, "stdin": "", "patience": min(SELDOM, max(SOON, int(waited - seen[0][0]) // 5))}

        return {**result, **self.in_slices(MODULE, arguments, task_vars, onward)}

    def _show(self, host, arguments, seen):
        (then, before), (now, come) = seen[-2] if len(seen) > 1 else seen[-1], seen[-1]
        total = int(arguments.get("total_bytes") or 0)
        share = f" of {total / GIB:.2f} GiB, {min(1, come / total):.0%}" if total else " GiB"
        speed = f", {(come - before) / (now - then) / MIB:.1f} MiB/s" if now > then else ""
        self._display.display(f"{host} {arguments.get('name')}: {come / GIB:.2f}{share}{speed}", color="bright gray")
