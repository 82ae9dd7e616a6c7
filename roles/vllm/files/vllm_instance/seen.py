# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Up to which end a container's ends were judged: /run/vllm/NAME.seen, gone with the boot as Docker's own count."""

from __future__ import annotations

import json

from . import files
from .host import WARNING


def read(host, name):
    """{id, restarts, started_at}, or None at the first look in this boot."""
    try:
        with open(host.run(name + ".seen"), encoding="utf-8") as stream:
            found = json.load(stream)
        return found if isinstance(found, dict) and {"id", "restarts", "started_at"} <= set(found) else None
    except (OSError, ValueError):
        return None


def write(host, name, found):
    """All ends of a container up to now are judged. found: docker.Container, None for one that is being created."""
    document = {"id": found.id, "restarts": found.restarts, "started_at": found.started_at} if found else {"id": "", "restarts": 0, "started_at": ""}
    if document == read(host, name):
        return
    path = host.run(name + ".seen")
    try:
        files.write(path, json.dumps(document) + "\n")
    except OSError as error:
        host.say(name, f"{path} cannot be written ({error}): an end may be judged twice", WARNING)
