# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_quote
short_description: An argument list as the command line of a systemd unit
version_added: "0.1.0"
description:
  - Joins arguments for an C(Exec) line of a unit, quoted where systemd would split or expand them.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  _input:
    description: The arguments.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show a command line
  ansible.builtin.debug:
    msg: "ExecStart={{ ['/bin/echo', '100 %'] | gpuhosts.inference.systemd_quote }}"
"""

RETURN = r"""
_value:
  description: The command line.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.systemd import quote


def systemd_quote(arguments):
    """Return the arguments as one command line of a unit file."""
    if isinstance(arguments, str) or not all(isinstance(argument, str) for argument in arguments):
        raise AnsibleFilterError("systemd_quote wants a list of strings")
    try:
        return " ".join(quote(argument) for argument in arguments)
    except ValueError as error:
        raise AnsibleFilterError(f"systemd_quote: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"systemd_quote": systemd_quote}
