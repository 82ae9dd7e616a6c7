#!/usr/bin/python
# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: wheel_build
short_description: Builds a wheel with CUDA code in a container
version_added: "0.1.0"
description:
  - Runs the program of the role C(flash_attn_wheel) in an image, without network and without cards, and waits until it has built the wheel.
  - A build outlives the run that started it. The next run finds its container and waits for it; where it was ended, what was compiled stays compiled.
  - A build that has ended well in O(directory) is not started again.
  - While it compiles, the playbook shows how far it has come.
  - Decides nothing. How many compilers run at once, and how much memory they may take, are arguments.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  name:
    description: Name of the container.
    type: str
    required: true
  image:
    description: The image in which is compiled, and which is to use the wheel.
    type: str
    required: true
  directory:
    description: Directory of the build on the builder. The sources lie in it already.
    type: path
    required: true
  spec:
    description: What is to be built, as the program reads it.
    type: dict
    required: true
  program:
    description: Source of the program.
    type: str
    required: true
  memory_bytes:
    description: What the build may take of the builder's memory. 0 sets no limit.
    type: int
    default: 0
  timeout:
    description: Seconds after which the build is ended.
    type: int
    default: 7200
  patience:
    description: Seconds after which the module returns all the same. The action plugin of the same name calls it again until the build is over.
    type: int
    default: 15
  resume:
    description: What the last call returned as RV(resume).
    type: dict
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
seealso:
  - module: gpuhosts.inference.vllm_image_proof
"""

EXAMPLES = r"""
- name: Build the wheel
  gpuhosts.inference.wheel_build:
    name: wheel-flash-attn-1.0.9
    image: vllm/vllm-openai:v0.8.5
    directory: /var/lib/gpuhosts/wheels/flash-attn-1.0.9
    spec: {source: flash_attn-1.0.9.tar.gz, name: flash-attn, version: 1.0.9, archs: ["7.5"], imports: [flash_attn_cuda], jobs: [4, 2, 1]}
    program: "{{ lookup('ansible.builtin.file', 'wheel/build.py') }}"
  register: built
"""

RETURN = r"""
built:
  description: Whether the build is over. False only between two calls of the action plugin, and in check mode.
  returned: success
  type: bool
status:
  description: What the program says of the wheel, with the listings of cuobjdump.
  returned: success
  type: dict
  sample: {state: built, wheel: dist/flash_attn-1.0.9-cp312-cp312-linux_x86_64.whl, sha256: 964cd1e5, python: "3.12", torch: 2.6.0+cu124, cuda: "12.4"}
resume:
  description: What the next call of the same build needs.
  returned: while it is built
  type: dict
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import background, child
from ansible_collections.gpuhosts.inference.plugins.module_utils.config_files import ConfigFiles

# Nothing of the host but the build's own directory. NVIDIA's runtime, where it is the engine's default, adds nothing when no card is asked for.
RUN = ["run", "--detach", "--pull=never", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=NVIDIA_VISIBLE_DEVICES=void"]
INSIDE = "/build"
SECONDS = 60
DELAY = 1


class Build:
    """One build on this host: its directory, and the container in which it runs."""

    def __init__(self, module):
        self.module = module
        self.docker = module.get_bin_path("docker", required=True)
        self.directory = module.params["directory"]
        self.name = module.params["name"]

    def status(self):
        """What the program has said last; {} before it said anything."""
        try:
            with open(os.path.join(self.directory, "status.json"), encoding="utf-8") as file:
                status = json.load(file)
        except (OSError, ValueError):
            return {}
        whole = status.get("state") != "built" or os.path.exists(os.path.join(self.directory, status["wheel"]))
        return status if whole else {}

    def running(self):
        """Whether the container runs; None where there is none."""
        code, stdout, dummy = self.ask("inspect", "--type=container", "--format={{.State.Running}}", self.name)
        return stdout.strip() == "true" if code == 0 else None

    def start(self):
        """Begin, or go on with what was compiled."""
        files = ConfigFiles(self.module)
        files.write(os.path.join(self.directory, "build.py"), self.module.params["program"])
        files.write(os.path.join(self.directory, "spec.json"), json.dumps(self.module.params["spec"], indent=1, sort_keys=True) + "\n")
        files.remove(os.path.join(self.directory, "status.json"))
        self.end()
        memory = self.module.params["memory_bytes"]
        limits = [f"--memory={memory}", f"--memory-swap={memory}"] if memory else []
        where = [f"--name={self.name}", f"--volume={self.directory}:{INSIDE}", "--entrypoint=python3", self.module.params["image"]]
        code, dummy, stderr = self.ask(*RUN, *limits, *where, f"{INSIDE}/build.py", INSIDE)
        if code != 0:
            said = " ".join(stderr.strip().splitlines()[-1:])
            self.module.fail_json(msg=f"The image {self.module.params['image']} cannot be started to build a wheel in it: {said}")

    def end(self):
        """Remove the container, running or not."""
        self.ask("rm", "--force", self.name)

    def ask(self, *words):
        """(exit status, stdout, stderr) of the engine's client."""
        try:
            return child.run([self.docker, *words], SECONDS)
        except child.TimedOut as error:
            return 1, "", str(error)

    def wait(self, seconds):
        """Whether the build is over within so many seconds."""
        return background.ended(self.running, seconds, DELAY)

    def verdict(self):
        """What came of a build that is over; ends the module where that is no wheel."""
        status = self.status()
        if status.get("state") == "built":
            self.end()
            return status
        where = f"All that was printed is in {self.directory}/build.log."
        if status.get("state") == "failed":
            self.end()
            self.module.fail_json(msg=f"{status['error']}\n{where}")
        dummy, stdout, stderr = self.ask("logs", "--tail=5", self.name)
        self.end()
        self.module.fail_json(
            msg=f"The build ended before it was complete: {(stdout + stderr).strip() or 'its container was killed'}\n{where} Run again, it goes on."
        )
        return None


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "spec": {"type": "dict", "required": True},
            "program": {"type": "str", "required": True},
            "memory_bytes": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 7200},
            "patience": {"type": "int", "default": 15},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    build, resume = Build(module), module.params["resume"]
    if not resume and not build.running():
        if build.status().get("state") == "built":
            module.exit_json(changed=False, built=True, status=build.status())
        if module.check_mode:
            module.exit_json(changed=True, built=False, status={})
        build.start()
    if build.wait(module.params["patience"]):
        module.exit_json(changed=True, built=True, status=build.verdict())
    if (resume or {}).get("waited_seconds", 0) > module.params["timeout"]:
        build.end()
        module.fail_json(msg=f"The wheel was not built within {module.params['timeout']} s. Run again, it goes on where it was; or allow more time.")
    module.exit_json(changed=True, built=False, status=build.status(), resume={"waited_seconds": 0})


if __name__ == "__main__":
    main()
