#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pull_hold
short_description: Keep a host from converging itself while a controller changes it
version_added: "0.1.0"
description:
  - A host with the role C(pull) converges itself by a timer. Whoever changes it holds a lock; this module takes it for a run from a controller, by
    C(gpuhosts-hold.service) on the host, and gives it back.
  - A run of the host that is at work is waited for, C(pull_wait_seconds) at most. After that the module fails, and nothing was changed.
  - A controller that did not live to give it back holds it for C(pull_hold_seconds). The next run from a controller takes it over.
  - Does nothing on a host that does not converge itself, and nothing in check mode.
  - Never a change, because it is no state that anything converges to.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  state:
    description: Whether the host's own run is kept away.
    type: str
    choices: [held, free]
    default: held
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Keep the host's own run away
  gpuhosts.inference.pull_hold:

- name: Let it begin again
  gpuhosts.inference.pull_hold:
    state: free
"""

RETURN = r"""
held:
  description: Whether the host is held now.
  returned: success
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule

UNIT = "/etc/systemd/system/gpuhosts-hold.service"
HOLD = "gpuhosts-hold.service"
PULL = "gpuhosts-pull.service"


def refusal(module):
    """Why the host could not be held, and what to do."""
    since = module.run_command(["systemctl", "show", "--property=InactiveExitTimestamp", "--value", PULL])[1]
    if module.run_command(["systemctl", "is-active", PULL])[1].strip() in ("active", "activating", "deactivating"):
        return (
            f"The host converges itself since {since.strip()} ({PULL}), and did not come to its end in pull_wait_seconds. Wait for it (journalctl -fu {PULL} "
            f"on the host), or end it there with systemctl stop {PULL}; then run again. Nothing was changed."
        )
    return f"{HOLD} does not start, and without it the host could converge itself meanwhile: systemctl status {HOLD} on the host says why. Nothing was changed."


def main():
    module = AnsibleModule(argument_spec={"state": {"type": "str", "choices": ["held", "free"], "default": "held"}}, supports_check_mode=True)
    held = module.params["state"] == "held"
    if module.check_mode or not os.path.exists(UNIT):
        module.exit_json(changed=False, held=False)
    # A restart takes over what a run that was cut off has left.
    status, dummy, stderr = module.run_command(["systemctl", "restart" if held else "stop", HOLD])
    if status and held:
        message = refusal(module)
        # It was wanted by this run alone, and is nothing that the host lacks.
        module.run_command(["systemctl", "reset-failed", HOLD])
        module.fail_json(msg=message)
    if status:
        module.fail_json(msg=f"{HOLD} cannot be stopped: {stderr.strip()}")
    module.exit_json(changed=False, held=held)


if __name__ == "__main__":
    main()
