# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: missing_packages
short_description: The packages that are not installed at the wanted version
version_added: "0.1.0"
description:
  - Compares wanted packages with the installed ones, so that apt is asked only where there is something to do.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: installed
options:
  _input:
    description: Wanted packages, as name to upstream version; the Debian revision may be any. Without a version (null) any will do.
    type: dict
    required: true
  installed:
    description: Installed packages, as name to full version; C(ansible_facts.gpuhosts.packages).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ {'cuda-toolkit-12-8': '12.8.1'} | gpuhosts.inference.missing_packages(ansible_facts.gpuhosts.packages) }}"
"""

RETURN = r"""
_value:
  description: What to give to apt, each as C(name=version-*), or as C(name) where any version will do.
  type: list
  elements: str
"""


def missing_packages(wanted, installed):
    """Return apt's `name=version-*` (`name` for any version) of each wanted package that is absent or at another version."""
    missing = {name: version for name, version in wanted.items() if not is_installed(installed.get(name), version)}
    return [f"{name}={version}-*" if version else name for name, version in missing.items()]


def is_installed(found, version):
    """Whether the full version found (None: absent) is the wanted upstream version (None: any)."""
    return found is not None and (not version or found.startswith(f"{version}-"))


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"missing_packages": missing_packages}
