# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: apt_problem
short_description: What is in apt's way, and what to do about it
version_added: "0.1.0"
description:
  - Turns what apt and M(ansible.builtin.apt) say in a failure into one sentence with a remedy, followed by apt's own words.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  _input:
    description: The failed task's result, C(ansible_failed_result).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Install the driver
  block:
    - name: Install the driver
      ansible.builtin.apt:
        name: nvidia-driver-cuda
  rescue:
    - name: Say why it cannot be installed
      ansible.builtin.fail:
        msg: "{{ ansible_failed_result | gpuhosts.inference.apt_problem }}"
"""

RETURN = r"""
_value:
  description: One or two sentences.
  type: str
"""

import re

# What apt says (a regular expression), what it means and what to do. The first that is found counts; a lock or a full disk has other messages in its train.
PROBLEMS = [
    (
        r"Could not get lock (?P<lock>[^\s.]+)(?:[^\n]*?held by process (?P<process>\d+ \([^)]*\)))?",
        "another process holds apt's lock {lock} (process {process}): wait until it has ended, or raise apt_source_lock_timeout, then run again",
    ),
    (
        r"(?:enough free space in (?P<place>\S+?)\.?(?:\s|$)|No space left on device)",
        "the disk of {place} is full: make room there (`apt-get clean` empties apt's own cache), then run again",
    ),
    (
        r"dpkg was interrupted",
        "an earlier installation was interrupted: run `dpkg --configure -a` on the host, look at what it says, then run again",
    ),
    (
        r"Conflicting values set for option Signed-By regarding source (?P<source>\S+)",
        "another file in /etc/apt/sources.list.d names the repository {source} with another key: remove that file, then run again",
    ),
    (
        r"(?:Failed to fetch (?P<url>\S+)[^\n]*?)?404 +Not Found",
        "the repository names {url} in its index and does not have it: it is being updated, or a mirror is incomplete; "
        "complete the mirror or wait for it, then run again",
    ),
    (
        r"The repository '(?P<url>[^' ]+)[^']*' (?:does not have|no longer has) a Release file",
        "there is no apt repository at {url}: check its address in the inventory, or the mirror",
    ),
    (
        r"(?:NO_PUBKEY (?P<key>\w+)|is not signed)",
        "a repository's signature cannot be verified (key {key}): check the key's address and fingerprint in the inventory",
    ),
    (
        r"(?:no available installation candidate for|No package(?: matching)?) '?(?P<package>[^\s']+)",
        "no repository of this host has {package}: check the version, or the mirror's contents; "
        "where it is the running kernel's headers, boot a kernel whose headers the distribution still has",
    ),
    (
        r"(?:unmet dependencies|held broken packages)",
        "apt finds no set of packages that fits together: see its words below; `apt-mark showhold` and /etc/apt/preferences.d say what is kept "
        "where it is",
    ),
    (
        r"(?:Could not resolve|Could not connect|Unable to connect|Connection (?:failed|refused|timed out)|Temporary failure)",
        "a repository does not answer: check the host's network and the repository's address in the inventory",
    ),
]

# For what apt leaves out.
UNKNOWN = {"process": "unknown", "place": "the host", "url": "a file", "key": "unknown"}


def apt_problem(result):
    """Return what the failed apt task's result means, with what apt said."""
    text = "\n".join(str(result.get(key) or "") for key in ("msg", "stderr", "stdout"))
    said = list(dict.fromkeys(line.strip() for line in text.splitlines() if re.match(r"\s*E:", line))) or [str(result.get("msg", "")).strip()]
    own_words = "apt said: " + " ".join(said[-3:])
    for pattern, meaning in PROBLEMS:
        match = re.search(pattern, text)
        if match:
            known = {name: value for name, value in match.groupdict().items() if value}
            return meaning.format(**{**UNKNOWN, **known}) + ". " + own_words
    return own_words


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"apt_problem": apt_problem}
