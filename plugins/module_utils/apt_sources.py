# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The repositories that apt is told of, in both of its formats (sources.list(5))."""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.gpuhosts.inference.plugins.module_utils import host_files

INLINE = "a key inside the file"


def apt_sources(root="/"):
    """Every address and suite of binary packages that is switched on: [{file, uri, suite, signed_by}], in the order of the files' names.

    C(signed_by) is what the source says, None where it leaves the key to apt.
    """
    names = ["etc/apt/sources.list"]
    names += (os.path.relpath(path, root) for path in sorted(glob.glob(os.path.join(root, "etc/apt/sources.list.d/*"))))
    found = []
    for name in names:
        read = {".list": parse_list, ".sources": parse_deb822}.get(os.path.splitext(name)[1])
        if read:
            found += [dict(file="/" + name, **source) for source in read(host_files.read_text(root, name) or "")]
    return found


def parse_list(text):
    """One line a source: C(deb [signed-by=/path arch=amd64] uri suite component ...)."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            key = re.search(r"(?:^|\s)signed-by=(\S+)", match.group(1) or "", re.IGNORECASE)
            yield {"uri": match.group(2), "suite": match.group(3), "signed_by": key.group(1) if key else None}


def parse_deb822(text):
    """Stanzas of fields, separated by empty lines; a field goes on in lines that begin with a space."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields, name = {}, None
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, dummy, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        key = " ".join(fields.get("signed-by", "").split())
        signed_by = INLINE if "BEGIN PGP" in key else key or None
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield {"uri": uri, "suite": suite, "signed_by": signed_by}
