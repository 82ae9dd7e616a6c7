# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quoting for systemd unit files."""

from __future__ import annotations

import re

PLAIN = re.compile(r"[A-Za-z0-9_@:,./=+-]+")


def quote(argument: str) -> str:
    """Return one word of an Exec line.

    systemd.service(5), "Command lines": words are split at white space unless quoted, C escapes apply, % starts a specifier and
    $ a variable even inside quotes. Raises ValueError for a NUL, which no argument can hold.
    """
    if "\0" in argument:
        raise ValueError("an argument cannot hold a NUL character")
    if PLAIN.fullmatch(argument):
        return argument
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
