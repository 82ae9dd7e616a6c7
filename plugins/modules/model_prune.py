#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_prune
short_description: Remove commits of models that nothing uses
version_added: "0.1.0"
description:
  - Removes the complete commits that M(gpuhosts.inference.model_snapshot) put below C(.snapshots) of O(root) and that neither a link below O(root) nor
    an instance of the host uses. An instance uses what it serves now and what one of its kept generations would serve after a rollback.
  - Downloads that did not finish, and directories that were set aside, stay.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  root:
    description: Directory below which models lie.
    type: path
    required: true
  definitions:
    description: Directories that are searched for the definitions of instances.
    type: list
    elements: path
    default: [/etc/vllm, /var/lib/vllm]
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
- name: Make room
  gpuhosts.inference.model_prune:
    root: /home/llm/model
"""

RETURN = r"""
removed:
  description: The directories that were removed.
  returned: success
  type: list
  elements: str
kept:
  description: The complete commits that stay.
  returned: success
  type: list
  elements: str
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_snapshot


def commits(root):
    """Directories of complete commits: those with a manifest beside them."""
    for directory, names, dummy in os.walk(os.path.join(root, ".snapshots")):
        complete = [name for name in names if os.path.isfile(os.path.join(directory, name + ".json"))]
        yield from (os.path.realpath(os.path.join(directory, name)) for name in complete)
        names[:] = [name for name in names if name not in complete]


def linked(root):
    """What links below the root lead to."""
    for directory, names, dummy in os.walk(root):
        yield from (os.path.realpath(os.path.join(directory, name)) for name in names if os.path.islink(os.path.join(directory, name)))
        names[:] = [name for name in names if name != ".snapshots"]


def served(directories):
    """The models of all definitions. One that cannot be read raises ValueError or OSError: nothing is removed on a guess."""
    for top in directories:
        for directory, dummy, names in os.walk(top):
            if "definition.json" in names:
                definition = model_snapshot.read_object(os.path.join(directory, "definition.json"))
                yield os.path.realpath(definition["model"]["path"])


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "definitions": {"type": "list", "elements": "path", "default": ["/etc/vllm", "/var/lib/vllm"]},
        },
        supports_check_mode=True,
    )
    root = module.params["root"]
    try:
        found = sorted(commits(root))
        used = {*linked(root), *served(module.params["definitions"])}
        unused = [path for path in found if path not in used]
        for path in [] if module.check_mode else unused:
            os.unlink(path + ".json")  # first: what is half removed is no model
            shutil.rmtree(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        module.fail_json(msg=f"It cannot be told which models below {root} are used, or one cannot be removed: {error}. Nothing more was removed.")
    module.exit_json(changed=bool(unused), removed=unused, kept=[path for path in found if path in used])


if __name__ == "__main__":
    main()
