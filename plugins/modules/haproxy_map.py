#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_map
short_description: Give a running HAProxy its map files as they are now
version_added: "0.1.0"
description:
  - Replaces the maps that HAProxy holds in memory by what is in their files, each in one step, without a reload.
  - Neither the arguments nor the result have anything of what is in the files.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  socket:
    description: HAProxy's socket of level C(admin).
    type: path
    required: true
  maps:
    description: The map files, by the paths that its configuration has.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Take a client off the list
  gpuhosts.inference.haproxy_map:
    socket: /run/haproxy/admin.sock
    maps: [/etc/haproxy/clients.map]
"""

RETURN = r"""
replaced:
  description: The maps that HAProxy had otherwise in memory.
  returned: always
  type: list
  elements: str
"""

import re
import socket

from ansible.module_utils.basic import AnsibleModule


def ask(path, command):
    """What HAProxy answers to a command; OSError where it does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts).decode()


def entries(text):
    """Pairs of a map file, or of a map as HAProxy shows it, where an address stands before each."""
    words = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return sorted(tuple(line[-2:]) for line in words)


def replace(path, name, wanted):
    """Give one map in HAProxy's memory these entries. Returns HAProxy's complaint, None where it has none."""
    answer = ask(path, f"prepare map {name}")
    version = re.search(r"New version created: (\d+)", answer)
    if version is None:
        return answer.strip()
    if wanted:
        lines = "".join(f"{key} {value}\n" for key, value in wanted)
        answer = ask(path, f"add map @{version[1]} {name} <<\n{lines}")
        if answer.strip():
            return answer.strip()
    return ask(path, f"commit map @{version[1]} {name}").strip() or None


def main():
    module = AnsibleModule(
        argument_spec={"socket": {"type": "path", "required": True}, "maps": {"type": "list", "elements": "path", "required": True}},
        supports_check_mode=True,
    )
    path, replaced = module.params["socket"], []
    for name in module.params["maps"]:
        try:
            with open(name, encoding="utf-8") as source:
                wanted = entries(source.read())
            shown = ask(path, f"show map {name}")
            if "Unknown map" in shown:
                module.fail_json(msg=f"HAProxy at {path} was not started with {name}: reload it.")
            if entries(shown) == wanted:
                continue
            complaint = None if module.check_mode else replace(path, name, wanted)
        except OSError as error:
            module.fail_json(msg=f"{name} cannot be given to HAProxy at {path}: {error.strerror or error}. Is it running?")
        if complaint:
            module.fail_json(msg=f"HAProxy at {path} does not take {name}: {complaint}.")
        replaced.append(name)
    module.exit_json(changed=bool(replaced), replaced=replaced)


if __name__ == "__main__":
    main()
