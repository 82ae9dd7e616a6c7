#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_snapshot_info
short_description: Whether a model's files are all there
version_added: "0.1.0"
description:
  - Compares a directory with the manifest that was written into it at the end of its download, C(.gpuhosts.json). A directory without a manifest
    is a download that did not finish.
  - Files are compared by size. Their checksums were verified when they were downloaded and are not computed again.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  path:
    description: The directory.
    type: path
    required: true
  revision:
    description: The revision that is wanted, as it was asked for (a branch or tag) or as a commit. Any will do when it is not given.
    type: str
  repo_id:
    description: The model that is wanted, as the hub names it. Any will do when it is not given.
    type: str
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
- name: Look for the weights
  gpuhosts.inference.model_snapshot_info:
    path: /srv/models/Qwen/Qwen3-32B-AWQ
    repo_id: Qwen/Qwen3-32B-AWQ
    revision: main
  register: snapshot

- name: Stop where they are not complete
  ansible.builtin.assert:
    that: snapshot.complete
    fail_msg: "{{ snapshot.problems | join(' ') }}"
"""

RETURN = r"""
complete:
  description: Whether the manifest is there, is about the wanted model and revision, and every file in it is there with its size.
  returned: always
  type: bool
problems:
  description: Why the snapshot is not complete, one sentence each.
  returned: always
  type: list
  elements: str
repo_id:
  description: The model by the manifest, or null.
  returned: always
  type: str
revision:
  description: The revision that the download was asked for, or null.
  returned: always
  type: str
commit:
  description: The commit that the revision meant then, or null.
  returned: always
  type: str
bytes:
  description: Size of the manifest's files that are there, in bytes.
  returned: always
  type: int
files:
  description: Number of files in the manifest.
  returned: always
  type: int
config:
  description: The model's C(config.json), or null.
  returned: always
  type: dict
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

MANIFEST = ".gpuhosts.json"


def read_object(path):
    """A JSON object from a file. Raises OSError, or ValueError for anything that is not one."""
    with open(path, encoding="utf-8") as source:
        document = json.load(source)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def read_manifest(path, problems):
    """The manifest, {} where there is none that can be used."""
    try:
        manifest = read_object(os.path.join(path, MANIFEST))
    except FileNotFoundError:
        what = f"has no manifest ({MANIFEST}): its download did not finish" if os.path.isdir(path) else "does not exist"
        problems.append(f"{path} {what}.")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"The manifest {os.path.join(path, MANIFEST)} cannot be used: {error}.")
        return {}
    files = manifest.get("files")
    if not files or not isinstance(files, dict) or not all(isinstance(entry, dict) and isinstance(entry.get("size"), int) for entry in files.values()):
        problems.append(f"The manifest {os.path.join(path, MANIFEST)} lists no files with sizes.")
        return dict(manifest, files={})
    return manifest


def check_identity(manifest, repo_id, revision):
    """Sentences about a manifest that is of another model or revision than is wanted."""
    if repo_id and manifest.get("repo_id") != repo_id:
        yield "It holds {}, not {}.".format(manifest.get("repo_id"), repo_id)
    if revision and revision not in (manifest.get("revision"), manifest.get("commit")):
        yield "It holds revision {} (commit {}), not {}.".format(manifest.get("revision"), manifest.get("commit"), revision)


def check_files(path, files):
    """(bytes there, sentences about files that are missing or have another size)."""
    present, problems = 0, []
    for name, entry in sorted(files.items()):
        if os.path.isabs(name) or ".." in name.split("/"):
            problems.append(f"{name} lies outside the snapshot.")
            continue
        try:
            size = os.stat(os.path.join(path, name)).st_size
        except OSError as error:
            problems.append(f"{name} is missing." if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}.")
            continue
        present += size
        if size != entry["size"]:
            problems.append("{} has {} bytes instead of {}.".format(name, size, entry["size"]))
    return present, problems


def inspect(path, revision=None, repo_id=None):
    """The module's whole answer."""
    problems = []
    manifest = read_manifest(path, problems)
    files = manifest.get("files", {})
    if manifest:
        problems.extend(check_identity(manifest, repo_id, revision))
    present, file_problems = check_files(path, files)
    problems.extend(file_problems)
    try:
        config = read_object(os.path.join(path, "config.json"))
    except (OSError, ValueError):
        config = None
    return {
        "complete": not problems,
        "problems": problems,
        "repo_id": manifest.get("repo_id"),
        "revision": manifest.get("revision"),
        "commit": manifest.get("commit"),
        "bytes": present,
        "files": len(files),
        "config": config,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "revision": {"type": "str"},
            "repo_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **inspect(module.params["path"], module.params["revision"], module.params["repo_id"]))


if __name__ == "__main__":
    main()
