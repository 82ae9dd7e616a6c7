# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load the collection's filters once, instead of once for every task of every host
version_added: "0.1.0"
description:
  - Ansible runs every task on every host in a process of its own, forked from the controller. The first expression with a filter of a collection makes it
    load the collection's filters one after the other, which takes such a process as long as all else that it does, and is lost with it.
  - What the controller has loaded before it forks, the processes have. Nothing else is changed, and nothing is printed.
author:
  - The gpuhosts.inference authors (@gpuhosts)
"""

EXAMPLES = r"""
ansible.cfg: |
  [defaults]
  callbacks_enabled = gpuhosts.inference.phases, gpuhosts.inference.preload
"""

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpuhosts.inference.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook):
        # Any name will do: the loader goes through all files until it has found it, and this one comes last.
        filter_loader.get("gpuhosts.inference.wheel_problems")
