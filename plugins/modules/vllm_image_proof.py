#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image_proof
short_description: What is inside the engines' images, read once for each
version_added: "0.1.0"
description:
  - Runs a program with the C(python3) of an image, in a container without network, cards and rights, and keeps the JSON that it prints on the
    host, in C(/var/lib/vllm/proofs), under the image's id. An image that has such a file is not started again.
  - Judges nothing. P(gpuhosts.inference.vllm_image_problems#filter) does.
  - In check mode no container is started. An image that was not looked into before has no proof then.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  images:
    description: References of images that the host's Docker Engine has.
    type: list
    elements: str
    required: true
  program:
    description: Source of the program.
    type: str
    required: true
  timeout:
    description: Seconds that the program may take in one image. It reads parts of files of more than a GB, which may lie on a slow disk.
    type: int
    default: 600
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: partial
    details: What is inside an image is not known before it was looked into.
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
seealso:
  - module: gpuhosts.inference.gpu_facts
"""

EXAMPLES = r"""
- name: Look into the image
  gpuhosts.inference.vllm_image_proof:
    images: [vllm/vllm-openai:v0.8.5]
    program: "{{ lookup('ansible.builtin.file', 'image_probe.py') }}"
  register: proof
"""

RETURN = r"""
proofs:
  description: For each of O(images), what the program printed. Null in check mode for an image that was not looked into.
  returned: success
  type: dict
  sample:
    vllm/vllm-openai:v0.8.5:
      vllm: 0.8.5
      python: "3.12"
      torch: 2.6.0+cu124
      torch_cuda: "12.4"
      extensions: {_C: {elf: {"75": 28, "80": 37}, ptx: {}}}
"""

import json

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import child, docker_socket, host_files
from ansible_collections.gpuhosts.inference.plugins.module_utils.config_files import ConfigFiles

# The image is started by its id, so that the proof is of what was looked into, whatever a tag points to by then. NVIDIA's runtime, where it is
# the engine's default, adds nothing when no card is asked for: it would refuse an image that wants a newer driver, before it is judged.
RUN = ["run", "--rm", "--pull=never", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=NVIDIA_VISIBLE_DEVICES=void"]


def look_into(module, docker, reference, image):
    """What the program prints in the image; ends the module with a sentence where that is no JSON object."""
    command = [docker, *RUN, "--entrypoint=python3", image, "-c", module.params["program"]]
    try:
        status, stdout, stderr = child.run(command, module.params["timeout"])
    except child.TimedOut as error:
        status, stdout, stderr = 1, "", str(error)
    try:
        found = json.loads(stdout) if status == 0 else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    said = " ".join((stderr.strip() or stdout.strip() or f"status {status}").splitlines()[-1:])
    return module.fail_json(
        msg=f"What is inside the image {reference} cannot be read, so nobody knows whether its vLLM runs on this host's cards: {said}. "
        "Name an image in vllm_images that has vLLM and python3."
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "str", "required": True},
            "program": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    engine, problem = docker_socket.describe(images=module.params["images"])
    proofs, files, changed = {}, ConfigFiles(module), False
    for reference, image in engine["images"].items():
        if not image and not module.check_mode:
            module.fail_json(msg=f"The image {reference} is not on this host: {problem or 'pull it first'}.")
        proofs[reference] = host_files.image_proof(image) if image else None
        if proofs[reference] is None:
            changed = True
            if not module.check_mode:
                proofs[reference] = look_into(module, module.get_bin_path("docker", required=True), reference, image)
                path = f"/{host_files.IMAGE_PROOFS}{image.partition(':')[2]}.json"
                files.write(path, json.dumps(proofs[reference], indent=2, sort_keys=True) + "\n")
    module.exit_json(changed=changed, proofs=proofs)


if __name__ == "__main__":
    main()
