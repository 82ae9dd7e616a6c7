#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_keyring
short_description: An apt repository's signing key, pinned by its fingerprint
version_added: "0.1.0"
description:
  - Puts the key of an apt repository into a file that the repository's C(Signed-By) names.
  - The key is known by its fingerprint, not by where it comes from. A file that already holds exactly that key is left alone and nothing is
    downloaded. A download that holds another key, or one more key, is refused and nothing is written.
  - Fingerprints are computed in Python. The host needs no C(gpg).
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  path:
    description:
      - The file. With a name that ends in C(.asc) it is written as ASCII armour, with C(.gpg) as binary packets, whichever the download is,
        because apt goes by the name. Other names get ASCII armour.
    type: path
    required: true
  url:
    description: Where the key is downloaded from. Required with O(state=present).
    type: str
  fingerprint:
    description:
      - Fingerprint of the primary key, 40 hex digits. Spaces and case do not matter.
      - Required with O(state=present).
    type: str
  state:
    description: Whether the file is there.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description: Permissions of the file. apt reads it as the user C(_apt).
    type: raw
    default: "0644"
  timeout:
    description: Seconds to wait for the server.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it. It downloads nothing then.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: ansible.builtin.deb822_repository
"""

EXAMPLES = r"""
- name: Key of NVIDIA's CUDA repository
  gpuhosts.inference.apt_keyring:
    path: /etc/apt/keyrings/nvidia-cuda.asc
    url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/3bf863cc.pub
    fingerprint: EB69 3B30 35CD 5710 E231  E123 A4B4 6996 3BF8 63CC

- name: No key that nobody uses
  gpuhosts.inference.apt_keyring:
    path: /etc/apt/keyrings/nvidia-cuda.asc
    state: absent
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/apt/keyrings/nvidia-cuda.asc
fingerprint:
  description: The pinned fingerprint as 40 hex digits. In a failure for a wrong key, this is what was wanted.
  returned: with O(state=present)
  type: str
  sample: EB693B3035CD5710E231E123A4B469963BF863CC
found:
  description: Fingerprints of the primary keys in the download that was refused.
  returned: when the key is not the pinned one
  type: list
  elements: str
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import openpgp

# A repository's key has a few kilobytes; anything larger is a wrong address.
MAXIMUM_BYTES = 1024 * 1024


def has_key(path, fingerprint):
    """Whether the file holds the pinned primary key and no other, in the form its name promises."""
    try:
        with open(path, "rb") as source:
            data = source.read(MAXIMUM_BYTES)
        return openpgp.primary_fingerprints(data) == [fingerprint] and openpgp.is_armoured(data) != path.endswith(".gpg")
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
    """The packets of the download, when its only primary key is the pinned one; fails otherwise."""
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
    return openpgp.dearmour(data) if openpgp.is_armoured(data) else data


def write(module, path, content):
    """Write the file whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as target:
        target.write(content)
    module.atomic_move(temporary, path)


def present(module, path):
    params = module.params
    try:
        fingerprint = openpgp.normalise(params["fingerprint"])
    except openpgp.OpenPGPError as error:
        module.fail_json(msg=f"fingerprint: {error}.")
    changed = not has_key(path, fingerprint)
    if changed and not module.check_mode:
        key = verified(module, params["url"], download(module, params["url"]), fingerprint)
        try:
            write(module, path, key if path.endswith(".gpg") else openpgp.armour(key))
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error.strerror or error}.")
    if os.path.exists(path):
        changed = module.set_mode_if_different(path, params["mode"], changed)
    module.exit_json(changed=changed, path=path, fingerprint=fingerprint)


def absent(module, path):
    changed = os.path.lexists(path)
    if changed and not module.check_mode:
        try:
            os.unlink(path)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be removed: {error.strerror or error}.")
    module.exit_json(changed=changed, path=path)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "url": {"type": "str"},
            "fingerprint": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "mode": {"type": "raw", "default": "0644"},
            "timeout": {"type": "int", "default": 30},
        },
        required_if=[("state", "present", ("url", "fingerprint"))],
        supports_check_mode=True,
    )
    action = present if module.params["state"] == "present" else absent
    action(module, module.params["path"])


if __name__ == "__main__":
    main()
