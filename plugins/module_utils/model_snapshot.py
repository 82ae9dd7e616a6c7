# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a model's directory holds what its manifest says. The manifest is written last, so a directory without one is an unfinished download."""

from __future__ import annotations

import json
import os

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
    """Compare a directory with its manifest, by size: checksums were verified when the files were downloaded.

    Returns complete, problems (why not, a sentence each), repo_id, revision and commit of the manifest (or None), bytes that are there, the number
    of files in the manifest, and config: the C(config.json) that lies there, None where there is none or it belongs to another model or revision.
    """
    problems = []
    manifest = read_manifest(path, problems)
    files = manifest.get("files", {})
    others = list(check_identity(manifest, repo_id, revision)) if manifest else []
    present, file_problems = check_files(path, files)
    problems += others + file_problems
    return {
        "complete": not problems,
        "problems": problems,
        "repo_id": manifest.get("repo_id"),
        "revision": manifest.get("revision"),
        "commit": manifest.get("commit"),
        "bytes": present,
        "files": len(files),
        "config": None if others else read_config(path),
    }


def read_config(path):
    """The directory's config.json, None where there is none that can be used."""
    try:
        return read_object(os.path.join(path, "config.json"))
    except (OSError, ValueError):
        return None
