#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot
short_description: Verify one commit of a model on disk, and put it in place when it is whole
version_added: "0.1.0"
description:
  - Compares the files below O(store), in a directory named after the commit, with their sizes and hashes in O(manifest).
  - When every file is right, writes the manifest beside the directory and turns O(path), a link, to it. Until then nothing that is in place changes.
  - A directory that already lies at O(path), such as a model that was downloaded by hand, is read too. Files of it that are right are taken over without
    being copied. It is set aside when the link takes its place, and never deleted.
  - What was verified before is not read again, unless it was written since.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  store:
    description: Directory of the model's commits.
    type: path
    required: true
  path:
    description: The link by which the model is known.
    type: path
    required: true
  manifest:
    description: C(repo_id), C(revision), C(commit) and C(files) as M(gpuhosts.inference.model_manifest) returns them. Left out, it is what is in place.
    type: dict
  rehash:
    description: Read every file, so that one that a disk has changed is found.
    type: bool
    default: false
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
- name: Put the model in place if it is whole
  gpuhosts.inference.model_snapshot:
    store: /srv/models/.snapshots/qwen/Qwen3-32B-AWQ
    path: /srv/models/qwen/Qwen3-32B-AWQ
    manifest: "{{ hub.manifest }}"
  register: model
"""

RETURN = r"""
complete:
  description: Whether every file is there and right, and the link leads to them.
  returned: success
  type: bool
missing:
  description: Files that are not there, or are not what the manifest says.
  returned: success
  type: list
  elements: str
missing_bytes:
  description: Their size.
  returned: success
  type: int
hashed:
  description: Files that were read.
  returned: success
  type: list
  elements: str
directory:
  description: The commit's directory.
  returned: success
  type: str
manifest:
  description: The manifest; of a complete model with every file's sha256.
  returned: success
  type: dict
set_aside:
  description: Where a directory went that lay at O(path), or null.
  returned: success
  type: str
free_bytes:
  description: Free space on the file system of O(store).
  returned: success
  type: int
free_inodes:
  description: Free inodes there, null where it counts none.
  returned: success
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_snapshot


def settle(store, path, manifest, rehash):
    """The module's result. Raises OSError, and ValueError where a manifest is needed and none can be used."""
    if not manifest:
        manifest = model_snapshot.read_object(model_snapshot.manifest_path(path))
    directory = os.path.join(store, manifest["commit"])
    snapshot = model_snapshot.Snapshot(directory, path, manifest)
    verified, missing, hashed = snapshot.verify(rehash)
    changed, aside = (False, None) if missing else snapshot.publish(verified)
    free_bytes, free_inodes = model_snapshot.room(directory)
    return {
        "changed": changed,
        "complete": not missing,
        "missing": missing,
        "missing_bytes": sum(manifest["files"][name]["size"] for name in missing),
        "hashed": hashed,
        "directory": directory,
        "manifest": manifest if missing else verified,
        "set_aside": aside,
        "free_bytes": free_bytes,
        "free_inodes": free_inodes,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "manifest": {"type": "dict"},
            "rehash": {"type": "bool", "default": False},
        },
    )
    given = module.params
    try:
        module.exit_json(**settle(given["store"], given["path"], given["manifest"], given["rehash"]))
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"The model at {given['path']} cannot be verified or put in place: {error}.")


if __name__ == "__main__":
    main()
