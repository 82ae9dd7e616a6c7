#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: An apt repository with a key pinned by its fingerprint, and its packages pinned to a version
version_added: "0.1.0"
description:
  - Writes everything that apt knows about one repository, in one execution. C(NAME) is O(name).
  - C(/etc/apt/keyrings/NAME.asc), the key. It is known by its fingerprint, not by where it comes from. A file that already holds exactly
    that key is left alone and nothing is downloaded. A download that holds another key, or one more key, is refused and nothing is written.
  - C(/etc/apt/sources.list.d/NAME.sources), in deb822 form with C(Signed-By).
  - C(/etc/apt/preferences.d/NAME.pref) and C(/etc/apt/apt.conf.d/52NAME-unattended-upgrades) where O(pin) is given.
  - Reads no index and installs nothing. Fingerprints are computed in Python. The host needs no C(gpg).
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: Name of the files.
    type: str
    required: true
  uri:
    description: Address of the repository.
    type: str
    required: true
  suites:
    description: Suites. A flat repository, as NVIDIA's are, has the one that is a slash.
    type: list
    elements: str
    default: [/]
  components:
    description: Components. A flat repository has none.
    type: list
    elements: str
    default: []
  key_url:
    description: Where the key is downloaded from.
    type: str
    required: true
  key_fingerprint:
    description: Fingerprint of the primary key, 40 hex digits. Spaces and case do not matter.
    type: str
    required: true
  pin:
    description:
      - Packages that stay at a version, as names (globs, separated by spaces) to version without the Debian revision.
      - C(unattended-upgrades) is told to leave these packages alone.
      - Unset leaves the files of an earlier run as they are; an empty dictionary removes them.
    type: dict
  obsolete:
    description:
      - Files that older ways of adding this repository have left, as path (a glob) to a part of the repository's address.
      - Apt refuses to work with one repository under two keys. A C(.list) or C(.sources) file is removed only if every address in it has that
        part. Any other file, such as a key, is removed where it is.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for the server that has the key.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it. It downloads nothing then.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: ansible.builtin.deb822_repository
"""

EXAMPLES = r"""
- name: NVIDIA's CUDA repository, with one driver only
  gpuhosts.inference.apt_source:
    name: nvidia-cuda
    uri: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/
    key_url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/3bf863cc.pub
    key_fingerprint: EB69 3B30 35CD 5710 E231  E123 A4B4 6996 3BF8 63CC
    pin:
      "*nvidia* cuda-drivers*": 570.153.02
    obsolete:
      /etc/apt/sources.list.d/cuda*.list: /compute/cuda/repos/
"""

RETURN = r"""
written:
  description: The files that were changed or made.
  returned: always
  type: list
  elements: str
removed:
  description: The files that were removed.
  returned: always
  type: list
  elements: str
fingerprint:
  description: The pinned fingerprint as 40 hex digits. In a failure for a wrong key, this is what was wanted.
  returned: always
  type: str
  sample: EB693B3035CD5710E231E123A4B469963BF863CC
found:
  description: Fingerprints of the primary keys in the download that was refused.
  returned: when the key is not the pinned one
  type: list
  elements: str
"""

import glob
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import openpgp
from ansible_collections.gpuhosts.inference.plugins.module_utils.config_files import ConfigFiles

# The tests' to move.
ROOT = "/"
# A repository's key has a few kilobytes; anything larger is a wrong address.
MAXIMUM_BYTES = 1024 * 1024
HEADER = "Written by gpuhosts.inference.apt_source."


def has_key(path, fingerprint):
    """Whether the file holds the pinned primary key and no other, as ASCII armour: apt goes by the name, which ends in .asc."""
    try:
        with open(path, "rb") as source:
            data = source.read(MAXIMUM_BYTES)
        return openpgp.primary_fingerprints(data) == [fingerprint] and openpgp.is_armoured(data)
    except (OSError, openpgp.OpenPGPError):
        return False


def download(module, url):
    """The bytes at the address; fails with one sentence where there are none."""
    try:
        data = open_url(url, timeout=module.params["timeout"], http_agent="gpuhosts.inference").read(MAXIMUM_BYTES + 1)
    except Exception as error:  # open_url raises from several libraries; each of them is the same to the user.
        why = getattr(error, "reason", None) if not hasattr(error, "code") else error
        module.fail_json(msg=f"The key at {url} cannot be downloaded ({why or error}): check the address, or set it to a mirror this host reaches.")
    if len(data) > MAXIMUM_BYTES:
        module.fail_json(msg=f"What {url} answers is larger than {MAXIMUM_BYTES} bytes and so no repository key. Check the address.")
    return data


def verified(module, url, data, fingerprint):
    """The download in ASCII armour, when its only primary key is the pinned one; fails otherwise."""
    try:
        found = openpgp.primary_fingerprints(data)
    except openpgp.OpenPGPError as error:
        module.fail_json(msg=f"What {url} answers is not a usable key: {error}. Nothing was written. Check the address.")
    if found != [fingerprint]:
        which = "the fingerprint " + found[0] if len(found) == 1 else "{} primary keys ({})".format(len(found), ", ".join(found))
        module.fail_json(
            msg=f"The key at {url} has {which}, not the pinned {fingerprint}: nothing was written. Either the address is wrong, or the repository changed "
            "its key (then pin the new fingerprint after checking it against the vendor's announcement), or someone has replaced it.",
            found=found,
            fingerprint=fingerprint,
        )
    return openpgp.armour(openpgp.dearmour(data) if openpgp.is_armoured(data) else data)


def source_text(params):
    """The repository in deb822 form: sources.list(5)."""
    lines = [f"# {HEADER}", "Types: deb", "URIs: " + params["uri"], "Suites: " + " ".join(params["suites"])]
    lines += ["Components: " + " ".join(params["components"])] if params["components"] else []
    return "\n".join([*lines, "Signed-By: /etc/apt/keyrings/{}.asc".format(params["name"]), ""])


def pin_text(pin):
    """apt_preferences(5). Above 1000, so that a newer version that is installed gives way."""
    stanzas = [f"Package: {names}\nPin: version {version}-*\nPin-Priority: 1001\n" for names, version in pin.items()]
    return "\n".join([f"# {HEADER}", *stanzas])


def blacklist_text(pin):
    """What unattended-upgrades leaves alone, as regular expressions that it matches from a name's start."""
    names = sorted({name for names in pin for name in names.split()})
    lines = ['    "{}$";'.format(re.sub(r"[.+]", r"[\g<0>]", name).replace("*", ".*").replace("?", ".")) for name in names]
    return "\n".join([f"// {HEADER}", "Unattended-Upgrade::Package-Blacklist {", *lines, "};", ""])


def addresses(text):
    """Every repository's address in a .list or .sources file; what is commented out does not count."""
    one_line = re.findall(r"(?m)^\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)", text)
    return one_line + [uri for uris in re.findall(r"(?mi)^URIs:(.*(?:\n[ \t].*)*)", text) for uri in uris.split()]


def is_obsolete(path, part):
    """Whether the file is nothing but another way to the same repository."""
    if not path.endswith((".list", ".sources")):
        return True
    with open(path, encoding="utf-8", errors="replace") as source:
        found = addresses(source.read())
    return bool(found) and all(part in address for address in found)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "uri": {"type": "str", "required": True},
            "suites": {"type": "list", "elements": "str", "default": ["/"]},
            "components": {"type": "list", "elements": "str", "default": []},
            "key_url": {"type": "str", "required": True, "no_log": False},
            "key_fingerprint": {"type": "str", "required": True, "no_log": False},
            "pin": {"type": "dict"},
            "obsolete": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    name, apt = params["name"], os.path.join(ROOT, "etc/apt")
    try:
        fingerprint = openpgp.normalise(params["key_fingerprint"])
    except openpgp.OpenPGPError as error:
        module.fail_json(msg=f"key_fingerprint: {error}.")
    files = ConfigFiles(module)
    key = os.path.join(apt, "keyrings", name + ".asc")
    if has_key(key, fingerprint):
        with open(key, "rb") as source:
            content = source.read()
    elif module.check_mode:
        content = b""
    else:
        content = verified(module, params["key_url"], download(module, params["key_url"]), fingerprint)
    files.write(key, content, secret=True)
    files.write(os.path.join(apt, "sources.list.d", name + ".sources"), source_text(params))
    texts = {f"preferences.d/{name}.pref": pin_text, f"apt.conf.d/52{name}-unattended-upgrades": blacklist_text}
    for path, text in texts.items() if params["pin"] is not None else ():
        if params["pin"]:
            files.write(os.path.join(apt, path), text(params["pin"]))
        else:
            files.remove(os.path.join(apt, path))
    for pattern, part in sorted(params["obsolete"].items()):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern.lstrip("/")))):
            if is_obsolete(path, part):
                files.remove(path)
    module.exit_json(fingerprint=fingerprint, **files.result())


if __name__ == "__main__":
    main()
