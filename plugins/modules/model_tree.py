#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_tree
short_description: A model that is on the host, as a tree of files for hosts that cannot ask its hub
version_added: "0.1.0"
description:
  - Copies a model's files into a directory by its manifest, and writes C(SHA256SUMS) beside them when all are there. The directory above the model's
    owner is an endpoint for C(model_weights_endpoint), as C(tree+file:///DIRECTORY) or behind a web server.
  - Every file that is copied is compared with its hash. One that is there already, and is right, is not copied again.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  path:
    description: The model on this host, as the role C(model_weights) leaves it.
    type: path
    required: true
  target:
    description: Directory of the copy. Files of another commit in it are removed.
    type: path
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: none
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Copy a model
  gpuhosts.inference.model_tree:
    path: /home/llm/model/qwen/Qwen3-32B-AWQ
    target: /srv/bundle/models/Qwen/Qwen3-32B-AWQ
"""

RETURN = r"""
copied:
  description: Names of the files that were copied.
  returned: success
  type: list
  elements: str
bytes:
  description: Size of the model.
  returned: success
  type: int
"""

import hashlib
import os
import shutil

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_snapshot

SUMS = "SHA256SUMS"


def copy(source, target, entry):
    """Copy a file, whole or not at all. Raises ValueError for one that is not what the manifest says."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    found = hashlib.sha256()
    with open(source, "rb") as content, open(target + ".new", "wb") as copied:
        for chunk in iter(lambda: content.read(model_snapshot.CHUNK), b""):
            found.update(chunk)
            copied.write(chunk)
    if found.hexdigest() != entry["sha256"]:
        os.unlink(target + ".new")
        raise ValueError(f"{source} is not what its manifest says: run playbooks/artifacts.yml with -e model_weights_rehash=true, then again.")
    os.replace(target + ".new", target)


def tree(path, target):
    """The module's result. Raises OSError and ValueError."""
    problems = []
    files = model_snapshot.read_manifest(path, problems).get("files")
    if problems or not files or any("sha256" not in entry or model_snapshot.leads_outside(name) for name, entry in files.items()):
        raise ValueError(" ".join(problems) or f"The manifest of {path} lacks hashes: run playbooks/artifacts.yml with -e model_weights_rehash=true.")
    sums = os.path.join(target, SUMS)
    text = "".join("{}  ./{}\n".format(entry["sha256"], name) for name, entry in sorted(files.items()))
    try:
        with open(sums, encoding="utf-8") as source:
            whole = source.read() == text
    except FileNotFoundError:
        whole = False
    if not whole and os.path.exists(sums):
        # Of another commit, or half of one.
        shutil.rmtree(target)
    copied = []
    for name, entry in sorted(files.items()):
        there = os.path.join(target, name)
        # The sums were written when all files had been compared.
        if whole and os.path.isfile(there) and os.stat(there).st_size == entry["size"]:
            continue
        if not model_snapshot.is_what_the_hub_says(there, entry):
            copy(os.path.join(path, name), there, entry)
            copied.append(name)
    if not whole:
        with open(sums, "w", encoding="utf-8") as listed:
            listed.write(text)
    return {"changed": bool(copied) or not whole, "copied": copied, "bytes": sum(entry["size"] for entry in files.values())}


def main():
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}, "target": {"type": "path", "required": True}})
    try:
        module.exit_json(**tree(module.params["path"], module.params["target"]))
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{module.params['path']} cannot be copied: {error}")


if __name__ == "__main__":
    main()
