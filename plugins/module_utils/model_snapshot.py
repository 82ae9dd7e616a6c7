# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model's directory and its manifest, which lies beside it (C(DIRECTORY.json)) and is written last: without one it is an unfinished download."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

CHUNK = 4 * 1024 * 1024


def manifest_path(path):
    """Where the manifest of a model's directory lies; of a link, that of the directory which it leads to."""
    return os.path.realpath(path) + ".json"


def read_object(path):
    """A JSON object from a file. Raises OSError, or ValueError for anything that is not one."""
    with open(path, encoding="utf-8") as source:
        document = json.load(source)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def read_manifest(path, problems):
    """The manifest, {} where there is none that can be used."""
    where = manifest_path(path)
    try:
        manifest = read_object(where)
    except FileNotFoundError:
        what = f"has no manifest ({where}): its download did not finish" if os.path.isdir(path) else "does not exist"
        problems.append(f"{path} {what}.")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"The manifest {where} cannot be used: {error}.")
        return {}
    files = manifest.get("files")
    if not files or not isinstance(files, dict) or not all(isinstance(entry, dict) and isinstance(entry.get("size"), int) for entry in files.values()):
        problems.append(f"The manifest {where} lists no files with sizes.")
        return dict(manifest, files={})
    return manifest


def check_identity(manifest, repo_id, revision):
    """Sentences about a manifest that is of another model or revision than is wanted."""
    if repo_id and manifest.get("repo_id") != repo_id:
        yield "It holds {}, not {}.".format(manifest.get("repo_id"), repo_id)
    if revision and revision not in (manifest.get("revision"), manifest.get("commit")):
        yield "It holds revision {} (commit {}), not {}.".format(manifest.get("revision"), manifest.get("commit"), revision)


def leads_outside(name):
    """Whether a file's name leads out of the directory that it is to lie in."""
    return os.path.isabs(name) or ".." in name.split("/")


def check_files(path, files):
    """(bytes there, sentences about files that are missing, have another size, or were written after they were verified)."""
    present, problems = 0, []
    for name, entry in sorted(files.items()):
        if leads_outside(name):
            problems.append(f"{name} lies outside the snapshot.")
            continue
        try:
            found = os.stat(os.path.join(path, name))
        except OSError as error:
            problems.append(f"{name} is missing." if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}.")
            continue
        present += found.st_size
        if found.st_size != entry["size"]:
            problems.append("{} has {} bytes instead of {}.".format(name, found.st_size, entry["size"]))
        elif found.st_mtime_ns != entry.get("mtime_ns", found.st_mtime_ns):
            problems.append(f"{name} was written after it was verified.")
    return present, problems


def inspect(path, revision=None, repo_id=None):
    """Compare a directory with its manifest, by size and time of writing: checksums were verified when the files came.

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


def is_what_the_hub_says(path, entry):
    """Whether a file has the size and the hash of the hub's metadata; its sha256, or None. Reads the whole file.

    entry: size, and sha256, or blob_id: git's name for the file's contents, which is all that the hub tells of small files.
    """
    try:
        if os.stat(path).st_size != entry["size"]:
            return None
        sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % entry["size"])
        with open(path, "rb") as source:
            for chunk in iter(lambda: source.read(CHUNK), b""):
                sha256.update(chunk)
                blob.update(chunk)
    except OSError:
        return None
    right = sha256.hexdigest() == entry["sha256"] if entry.get("sha256") else blob.hexdigest() == entry.get("blob_id")
    return sha256.hexdigest() if right else None


class Snapshot:
    """One commit of a model: its directory, and the link by which it is known.

    directory: where the files lie. link: the path that leads to it; a directory may lie there, from before, whose files are taken over where they are
    the same. manifest: repo_id, revision, commit and files (see is_what_the_hub_says). Everything raises OSError.
    """

    def __init__(self, directory, link, manifest):
        self.directory, self.link, self.manifest = directory, link, manifest

    def verify(self, rehash=False):
        """(the manifest with every file's sha256 and time of writing, names of files that are missing or wrong, names of files that were read).

        What the manifest on disk has verified is read again only when it was written since, or when that is asked for.
        """
        known = read_manifest(self.directory, []).get("files", {})
        files, missing, hashed = {}, [], []
        for name, entry in sorted(self.manifest["files"].items()):
            if leads_outside(name):
                raise OSError(f"{name} lies outside the snapshot")
            before = known.get(name, {})
            if not rehash and not check_files(self.directory, {name: dict(entry, mtime_ns=before.get("mtime_ns"))})[1] and _same(before, entry):
                files[name] = before
                continue
            sha256 = self._find(name, entry, hashed)
            if sha256 is None:
                missing.append(name)
            else:
                files[name] = dict(entry, sha256=sha256, mtime_ns=os.stat(os.path.join(self.directory, name)).st_mtime_ns)
        return dict(self.manifest, files=files), missing, hashed

    def _find(self, name, entry, hashed):
        """The sha256 of a file that is right; one that lies at the link becomes a second name of the same file here."""
        path, old = os.path.join(self.directory, name), os.path.join(self.link, name)
        for candidate in [path, *([] if os.path.islink(self.link) else [old])]:
            if os.path.isfile(candidate):
                hashed.append(name)
                sha256 = is_what_the_hub_says(candidate, entry)
                if sha256 and candidate == old:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    if os.path.lexists(path):
                        os.unlink(path)
                    os.link(os.path.realpath(old), path)
                if sha256:
                    return sha256
        return None

    def publish(self, manifest):
        """Write the manifest and turn the link, each in one step; returns whether that changed anything, and where a directory in the link's place went."""
        where, aside = manifest_path(self.directory), None
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        target = os.path.relpath(self.directory, os.path.dirname(self.link))
        if os.path.islink(self.link) and os.readlink(self.link) == target and _text(where) == text:
            return False, None
        shutil.rmtree(os.path.join(self.directory, ".cache"), ignore_errors=True)  # the hub client's own
        os.sync()
        with open(where + ".partial", "w", encoding="utf-8") as partial:
            partial.write(text)
        os.replace(where + ".partial", where)
        os.makedirs(os.path.dirname(self.link), exist_ok=True)
        if os.path.isdir(self.link) and not os.path.islink(self.link):
            aside = _unused(os.path.join(os.path.dirname(self.directory), "replaced"))
            os.rename(self.link, aside)
        os.symlink(target, _unused(self.link + ".new"))
        os.replace(self.link + ".new", self.link)
        return True, aside


def _same(before, entry):
    """Whether a file of the manifest on disk is the one that is wanted."""
    return all(before.get(key) == entry[key] for key in ("size", "sha256", "blob_id") if entry.get(key) is not None)


def _text(path):
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except OSError:
        return None


def _unused(path):
    """The path, or the first of path-1, path-2 that is not there. What a run that was cut off left at C(link.new) is removed."""
    if os.path.islink(path):
        os.unlink(path)
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = f"{path}-{number}"
    return free


def room(path):
    """(free bytes, free inodes, None where the file system counts none) of the file system that a path will lie on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None
