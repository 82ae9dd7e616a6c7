# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules that take long, called in slices: between two of them an action plugin shows how far they have come."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase


class SlicedAction(ActionBase):
    """An action whose module returns after a while in any case, with `resume` as long as there is more to wait for."""

    def in_slices(self, module_name, arguments, task_vars, onward):
        """The last result of the module, with a failure or without.

        onward(outcome, waited): what is called between two slices; waited is seconds since the first began. It returns the arguments that are otherwise
        in the next one.
        """
        began = time.monotonic()
        while True:
            outcome = self._execute_module(module_name=module_name, module_args=arguments, task_vars=task_vars)
            if outcome.get("failed") or not outcome.get("resume"):
                return outcome
            arguments = {**arguments, **onward(outcome, time.monotonic() - began)}
