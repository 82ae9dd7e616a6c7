#!/usr/bin/python
# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: watched_command
short_description: Runs a command that takes long, and shows how far it has come
version_added: "0.1.0"
description:
  - Starts a command on its own and waits for its end. Meanwhile the playbook shows how much has come to a directory, and what the command says.
  - The command outlives the run that started it. A run that finds it running starts no second one, and waits for it.
  - Its standard input is in no file, no argument list and no log.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: What is done, such as V(fetch-qwen-qwen3-32b-awq). One command of a name runs at a time.
    type: str
    required: true
  argv:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
  stdin:
    description: What it reads from standard input.
    type: str
    default: ""
  directory:
    description: The directory whose growth is its progress. It need not exist.
    type: path
    required: true
  total_bytes:
    description: How large that directory is when the command is done. V(0) is unknown.
    type: int
    default: 0
  patience:
    description:
      - Seconds after which the module returns all the same. The action plugin of the same name calls it again until the command is over, and waits longer
        each time, up to a minute.
    type: int
    default: 10
  resume:
    description: Whether the command was started by an earlier call.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Fetch a large file
  gpuhosts.inference.watched_command:
    name: fetch-model
    argv: [curl, --silent, --show-error, --fail, --output, /srv/model/weights, https://example.org/weights]
    directory: /srv/model
    total_bytes: 19326730240
"""

RETURN = r"""
rc:
  description: Exit status of the command, null where it was killed together with what waited for it.
  returned: when it is over
  type: int
output:
  description: The end of what it printed.
  returned: always
  type: str
bytes:
  description: What lies in O(directory).
  returned: always
  type: int
resume:
  description: Whether the command still runs.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import background


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "stdin": {"type": "str", "default": "", "no_log": True},
            "directory": {"type": "path", "required": True},
            "total_bytes": {"type": "int", "default": 0},
            "patience": {"type": "int", "default": 10},
            "resume": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=True, resume=False, output="", bytes=background.size(given["directory"]))
    command = background.Command(given["name"])
    if not given["resume"]:
        command.start(given["argv"], given["stdin"])
    over = command.wait(given["patience"])
    found = {"output": command.said(), "bytes": background.size(given["directory"])}
    if not over:
        module.exit_json(changed=True, resume=True, **found)
    status = command.exit_status()
    if status != 0:
        why = [f"{given['name']} was ended before it was done: run again."] if status is None else []
        message = " ".join([*why, *filter(None, [found["output"]])]) or f"{given['name']} ended with status {status}, and said nothing."
        module.fail_json(msg=message, rc=status, resume=False, **found)
    module.exit_json(changed=True, rc=0, resume=False, **found)


if __name__ == "__main__":
    main()
