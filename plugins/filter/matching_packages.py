# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: matching_packages
short_description: The installed packages whose name and version match
version_added: "0.1.0"
description:
  - Finds the packages that belong together, so that they are held and replaced together.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: names, version
options:
  _input:
    description: Installed packages, as name to full version; C(ansible_facts.gpuhosts.packages).
    type: dict
    required: true
  names:
    description: Globs, separated by spaces, as apt's preferences take them.
    type: str
    required: true
  version:
    description: Regular expression that the version begins with.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Packages of the driver that are not on hold
  ansible.builtin.debug:
    msg: >-
      {{ ansible_facts.gpuhosts.packages | gpuhosts.inference.matching_packages('*nvidia* libcuda1', '570[.]153[.]02-')
         | difference(ansible_facts.gpuhosts.held) }}
"""

RETURN = r"""
_value:
  description: The matching ones, as name to full version.
  type: dict
"""

import fnmatch
import re


def matching_packages(installed, names, version=""):
    """Return the part of {name: version} whose names match a glob and whose versions begin with the expression."""
    globs = names.split()
    return {
        name: found for name, found in installed.items() if re.match(version, found) and any(fnmatch.fnmatchcase(name, glob) for glob in globs)
    }


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"matching_packages": matching_packages}
