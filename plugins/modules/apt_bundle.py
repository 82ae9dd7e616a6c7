#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_bundle
short_description: The packages of a host, and those that they need, as a tree of the repositories that they come from
version_added: "0.1.0"
description:
  - Downloads what apt would install on a bare host to give it the packages that this host has, from the same repositories under the same pins, and
    the repositories' signed indices. A web server that has the tree below C(/apt/) is a mirror with the vendors' own signatures.
  - C(http://deb.debian.org/debian/dists/...) lies at C(PATH/deb.debian.org/debian/dists/...).
  - What is there, and is what the index says, is not downloaded again. Packages that are not wanted any more stay.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  path:
    description: Directory of the tree.
    type: path
    required: true
  extra:
    description: Packages beside those that are installed.
    type: list
    elements: str
    default: []
  files:
    description: Addresses of other files that belong into the tree, such as the repositories' keys.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for a server.
    type: int
    default: 60
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: none
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Collect the packages
  gpuhosts.inference.apt_bundle:
    path: /srv/bundle/apt
    extra: [docker-registry, nginx]
    files: [https://nvidia.github.io/libnvidia-container/gpgkey]
"""

RETURN = r"""
packages:
  description: Number of packages in the tree that are wanted.
  returned: success
  type: int
bytes:
  description: Their size.
  returned: success
  type: int
downloaded:
  description: Paths in the tree that were downloaded now.
  returned: success
  type: list
  elements: str
left_out:
  description: Names of installed packages that no repository has.
  returned: success
  type: list
  elements: str
"""

import hashlib
import os
import re
import shutil
import tempfile
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import child

# 'ADDRESS' FILE SIZE SHA256:HASH, a line for each package that would be fetched.
FETCHED = re.compile(r"(?m)^'([^']+)' \S+ (\d+) SHA256:([0-9a-f]{64})$")
COMPRESSED = (".xz", ".gz", ".bz2", "")
APT_SECONDS = 600
# A host on which nothing is installed.
BARE = "--option=Dir::State::status=/dev/null"


class Unfit(Exception):
    """It cannot be collected; the text says why and what to do."""


def apt(*words):
    """What a program of apt prints. Raises Unfit with its last words."""
    try:
        status, stdout, stderr = child.run(list(words), APT_SECONDS)
    except child.TimedOut as error:
        raise Unfit(f"{words[0]}: {error}: run again.")
    if status:
        raise Unfit(
            f"{' '.join(words[:2])} failed: {(stderr or stdout).strip().splitlines()[-1:]}: see that apt-get update and apt-get check pass on this host."
        )
    return stdout


def installed():
    """Names of the installed packages, those of another architecture with it."""
    lines = apt("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${binary:Package}\\n").splitlines()
    return sorted(line.split()[1] for line in lines if line[1:2] == "i")


def candidates(names):
    """Those of the names that a repository has now."""
    found = re.findall(r"(?m)^(\S+):\n  Installed: .*\n  Candidate: (.*)\n(?:  .*\n)*", apt("apt-cache", BARE, "policy", *names))
    return [name for name, candidate in found if candidate != "(none)"]


def wanted(names):
    """(address, size, sha256) of everything that a bare host has to fetch for these packages."""
    # What the host keeps of its own downloads counts as little as what is installed.
    with tempfile.TemporaryDirectory() as empty:
        os.mkdir(os.path.join(empty, "partial"))
        options = (BARE, f"--option=Dir::Cache::archives={empty}/", "--option=Acquire::ForceHash=SHA256", "--yes", "--print-uris")
        said = apt("apt-get", *options, "--no-install-recommends", "--allow-downgrades", "install", *names)
    return [(address, int(size), digest) for address, size, digest in FETCHED.findall(said)]


def repositories():
    """(address of the suite, path of an index in it) of all that apt reads of the repositories: packages, and their descriptions where it is set to."""
    lines = apt("apt-get", "indextargets", "--format", "$(URI) $(METAKEY)").splitlines()
    pairs = [line.split() for line in lines]
    return sorted({(uri[: -len(key)], key) for uri, key in pairs})


class Tree:
    """The directory, by the addresses that its files come from."""

    def __init__(self, path, timeout):
        self.downloaded = []
        self._path, self._timeout = path, timeout

    def path(self, address):
        """Where the file of an address lies. Raises Unfit for an address that no web server has."""
        parts = urlsplit(address)
        name = os.path.normpath(os.path.join(parts.netloc.rpartition("@")[2], unquote(parts.path).lstrip("/")))
        if parts.scheme not in ("http", "https") or name.startswith(("..", "/")):
            raise Unfit(f"{address} cannot lie in a tree of web addresses: collect on a host whose apt uses http or https.")
        return os.path.join(self._path, name)

    def fetch(self, address, digest=None, names=()):
        """Have the file, and the same under other names beside it. Without a digest it is asked for anew: an index changes. Raises Unfit, HTTPError."""
        path = self.path(address)
        before = sha256(path)
        if digest is None or before != digest:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                with open_url(address, timeout=self._timeout, http_agent="gpuhosts.inference") as answer, open(path + ".new", "wb") as target:
                    shutil.copyfileobj(answer, target)
            except HTTPError:
                raise
            except Exception as error:  # open_url raises from several libraries; each of them is the same to the user.
                raise Unfit(f"{address} cannot be downloaded ({getattr(error, 'reason', None) or error}): run again, what has come is kept.")
            found = sha256(path + ".new")
            if digest is not None and found != digest:
                os.unlink(path + ".new")
                raise Unfit(f"{address} has the SHA-256 {found}, and its index says {digest}: run apt-get update on this host, then again.")
            os.replace(path + ".new", path)
            if found != before:
                self.downloaded.append(os.path.relpath(path, self._path))
        for name in names:
            other = os.path.join(os.path.dirname(path), name)
            if not os.path.exists(other):
                os.makedirs(os.path.dirname(other), exist_ok=True)
                shutil.copyfile(path, other)
        return path

    def repository(self, address, key):
        """The signed index of a suite and one of the lists that it names, by its own name and by its hash, as apt asks for either."""
        try:
            release = self.fetch(address + "InRelease")
        except HTTPError:
            release = self.fetch(address + "Release")
            self.fetch(address + "Release.gpg")
        with open(release, encoding="utf-8", errors="replace") as source:
            listed = {name: digest for digest, name in re.findall(r"(?m)^ ([0-9a-f]{64}) +\d+ (\S+)$", source.read())}
        names = [key + suffix for suffix in COMPRESSED if key + suffix in listed]
        for name in names:
            try:
                self.fetch(address + name, listed[name], [f"by-hash/SHA256/{listed[name]}"])
            except HTTPError:
                continue
            return
        # A repository need not have descriptions, or the like.
        if names or os.path.basename(key) == "Packages":
            raise Unfit(f"{address} has no {key} that can be downloaded: run apt-get update on this host, then again.")


def sha256(path):
    """Of a file's content; None where there is none."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as source:
            for chunk in iter(lambda: source.read(1 << 20), b""):
                found.update(chunk)
    except FileNotFoundError:
        return None
    return found.hexdigest()


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "extra": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        }
    )
    tree = Tree(module.params["path"], module.params["timeout"])
    try:
        apt("apt-get", "update", "--error-on=any")
        names = installed()
        known = candidates([*names, *module.params["extra"]])
        missing = sorted(set(module.params["extra"]) - set(known))
        if missing:
            raise Unfit(f"No repository of this host has {', '.join(missing)}: add one, or leave it out.")
        packages = wanted(known)
        for address, size, digest in packages:
            tree.fetch(address, digest)
        for address in module.params["files"]:
            tree.fetch(address)
        # Last: with its index, a package is there too.
        for address, key in repositories():
            tree.repository(address, key)
    except HTTPError as error:
        module.fail_json(msg=f"{error.url} answers HTTP {error.code}: run apt-get update on this host, then again. What has come is kept.")
    except (Unfit, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(tree.downloaded),
        packages=len(packages),
        bytes=sum(size for address, size, digest in packages),
        downloaded=tree.downloaded,
        left_out=sorted(set(names) - set(known)),
    )


if __name__ == "__main__":
    main()
