#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_venv
short_description: A virtual environment with an engine in it, for a host that runs it without a container
version_added: "0.1.0"
description:
  - Makes a virtual environment from pinned requirements, or unpacks an archive of one that was made elsewhere, and looks once into the vLLM in it.
  - O(path) is a link to a directory beside it that carries the content's fingerprint in its name. A change makes a new directory and moves the link
    when it is complete, so that an engine which runs is left alone until it is restarted. The directory before it is kept for the way back.
  - One that is complete has a file C(gpuhosts.json), which is written last. It is made anew when that file is missing, when a package is not
    installed as it says, or when its Python does not run. Nothing is downloaded otherwise.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  path:
    description: Where the virtual environment is found, such as C(/opt/vllm/0.8.5).
    type: path
    required: true
  program:
    description: Source of the program that looks into it; it prints a JSON object.
    type: str
    required: true
  requirements:
    description:
      - Content of a requirements file of C(pip). It has to be complete, because dependencies are not followed. With hashes each file must match its own.
      - Exactly one of O(requirements) and O(archive_sha256) is needed.
    type: str
  python:
    description: The Python that the virtual environment is made with.
    type: str
    default: python3
  index_url:
    description: Index that C(pip) installs from.
    type: str
    default: https://pypi.org/simple
  archive:
    description: File on the host with the content of the virtual environment, in any form that C(tar) reads. Not needed where it is unpacked already.
    type: path
  archive_sha256:
    description: SHA-256 of the archive.
    type: str
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: partial
    details: What is inside is not known before it was made.
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: gpuhosts.inference.vllm_image_proof
"""

EXAMPLES = r"""
- name: Have vLLM on the host
  gpuhosts.inference.vllm_venv:
    path: /opt/vllm/0.8.5
    requirements: "{{ lookup('ansible.builtin.file', 'native/0.8.5.txt') }}"
    program: "{{ lookup('ansible.builtin.file', 'image_probe.py') }}"
"""

RETURN = r"""
fingerprint:
  description: SHA-256 over what it is made from.
  returned: success
  type: str
directory:
  description: The directory behind O(path).
  returned: success
  type: str
  sample: /opt/vllm/0.8.5-1f0e9d8c7b6a
proof:
  description: What the program printed. Null in check mode where it is still to be made.
  returned: success
  type: dict
"""

import glob
import hashlib
import json
import os
import re
import shutil

from ansible.module_utils.basic import AnsibleModule

MARKER = "gpuhosts.json"
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


class Unusable(Exception):
    """The virtual environment cannot be made; the text says why and what to do."""


class Venv:
    """One virtual environment, made from requirements or an archive."""

    def __init__(self, module):
        self.path = module.params["path"]
        self._module = module
        self._python = module.params["python"]
        self._requirements = module.params["requirements"]
        if self._requirements is None:
            self.fingerprint = module.params["archive_sha256"]
        else:
            self.fingerprint = hashlib.sha256(f"{self._python}\n{self._requirements}".encode()).hexdigest()
        self.directory = f"{self.path}-{self.fingerprint[:12]}"

    def proof(self):
        """What was found inside when it was made; None when it is to be made, because it is not there or not as it was."""
        try:
            with open(os.path.join(self.directory, MARKER), encoding="utf-8") as source:
                marker = json.load(source)
            intact = marker["fingerprint"] == self.fingerprint and os.path.realpath(self.path) == os.path.realpath(self.directory)
            intact = intact and marker["packages"].items() <= self._packages().items()
            return marker["proof"] if intact and self._run_inside("-c", VERSION)[:2] == (0, marker["python"]) else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def make(self, program):
        """Make it, move the link, and look into it; returns what was found inside. The link goes back when it cannot be used."""
        if os.path.lexists(self.path) and not os.path.islink(self.path):
            raise Unusable(f"{self.path} is not a link to a virtual environment of this collection: move it away, then run again.")
        before = os.path.realpath(self.path)
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        if self._requirements is None:
            self._unpack()
        else:
            self._install()
        # Its own files may name it by the link, as an archive's do.
        self._link(self.directory)
        try:
            marker = self._look_inside(program)
        except Unusable:
            if os.path.isdir(before):
                self._link(before)
            raise
        with open(os.path.join(self.directory, MARKER), "w", encoding="utf-8") as target:
            json.dump(marker, target, indent=2, sort_keys=True)
        for other in glob.glob(glob.escape(self.path) + "-" + "[0-9a-f]" * 12):
            if os.path.realpath(other) not in (before, os.path.realpath(self.directory)):
                shutil.rmtree(other)
        return marker["proof"]

    def _look_inside(self, program):
        """What says that it is complete."""
        status, version, said = self._run_inside("-c", VERSION)
        if status:
            raise Unusable(f"The Python in {self.path} does not run: {said}. The host needs the one it was made with, or an archive has to bring it.")
        status, found, said = self._run_inside("-c", program)
        try:
            proof = json.loads(found) if status == 0 else None
        except ValueError:
            proof = None
        if not isinstance(proof, dict):
            raise Unusable(f"What is inside {self.path} cannot be read: {said if status else found}.")
        return {"fingerprint": self.fingerprint, "python": version, "packages": self._packages(), "proof": proof}

    def _install(self):
        status, stdout, stderr = self._module.run_command([self._python, "-m", "venv", self.directory])
        if status:
            raise Unusable(f"{self._python} makes no virtual environment: {_last(stdout + stderr)}. Install python3-venv, or name another vllm_native_python.")
        requirements = os.path.join(self.directory, "requirements.txt")
        with open(requirements, "w", encoding="utf-8") as target:
            target.write(self._requirements)
        pip = [os.path.join(self.directory, "bin/python3"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        index = ["--no-deps", f"--index-url={self._module.params['index_url']}", f"--requirement={requirements}"]
        status, stdout, stderr = self._module.run_command([*pip, *index])
        if status:
            errors = re.findall(r"(?m)^ERROR: (.+)$", stderr) or [_last(stdout + stderr)]
            raise Unusable(
                f"pip does not install the engine in {self.directory}: {' '.join(errors).rstrip('.')}. Correct vllm_native_requirements or "
                "vllm_native_index_url, or name a Python that they are made for in vllm_native_python. What serves was not changed."
            )

    def _unpack(self):
        archive = self._module.params["archive"]
        if not archive or not os.path.isfile(archive):
            raise Unusable(f"The archive of {self.path} is not on the host.")
        found = self._module.sha256(archive)
        if found != self.fingerprint:
            raise Unusable(f"The archive of {self.path} has the SHA-256 {found}, and {self.fingerprint} is wanted: correct vllm_native_archives, or the file.")
        os.mkdir(self.directory, 0o755)
        status, stdout, stderr = self._module.run_command(["tar", "--extract", "--no-same-owner", f"--file={archive}", f"--directory={self.directory}"])
        if status:
            raise Unusable(f"The archive of {self.path} cannot be unpacked: {_last(stdout + stderr)}.")

    def _link(self, directory):
        """Move the link in one step."""
        temporary = self.path + ".new"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.basename(directory), temporary)
        os.replace(temporary, self.path)

    def _run_inside(self, *arguments):
        """(exit status, what it prints, its last line of errors) of the Python at the path."""
        python = os.path.join(self.path, "bin/python3")
        if not os.path.exists(python):
            return 1, "", f"{python} is missing"
        status, stdout, stderr = self._module.run_command([python, *arguments], cwd=self.directory)
        return status, stdout.strip(), _last(stderr)

    def _packages(self):
        """Name -> version of the installed distributions."""
        names = [os.path.basename(path)[: -len(".dist-info")] for path in glob.glob(f"{glob.escape(self.directory)}/lib/python3*/site-packages/*.dist-info")]
        return {name: version for name, dummy, version in (name.rpartition("-") for name in names)}


def _last(text):
    """The last line that says something, without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it says nothing"


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "program": {"type": "str", "required": True},
            "requirements": {"type": "str"},
            "python": {"type": "str", "default": "python3"},
            "index_url": {"type": "str", "default": "https://pypi.org/simple"},
            "archive": {"type": "path"},
            "archive_sha256": {"type": "str"},
        },
        required_one_of=[("requirements", "archive_sha256")],
        mutually_exclusive=[("requirements", "archive_sha256")],
        supports_check_mode=True,
    )
    venv = Venv(module)
    proof = venv.proof()
    changed = proof is None
    if changed and not module.check_mode:
        try:
            proof = venv.make(module.params["program"])
        except Unusable as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"{venv.path} cannot be made: {error.strerror or error}.")
    module.exit_json(changed=changed, fingerprint=venv.fingerprint, directory=venv.directory, proof=proof)


if __name__ == "__main__":
    main()
