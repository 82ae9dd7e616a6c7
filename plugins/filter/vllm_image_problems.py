# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_image_problems
short_description: Which engines of a host cannot run on its cards and its driver
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Judges what was found inside the image, or the virtual environment, of every instance. It must hold the planned version of vLLM with code for
    the instance's cards, built for a CUDA that the host's driver runs.
  - An engine that was not looked into is not judged.
positional: _input, host, images, proofs
options:
  _input:
    description: The host's C(vllm_instances).
    type: list
    elements: dict
    required: true
  host:
    description: The host's C(ansible_facts.gpuhosts). Cards or a driver that are not known are not judged.
    type: dict
    required: true
  images:
    description: Image of each engine version, C(vllm_images).
    type: dict
    required: true
  proofs:
    description: What was found in each image by its reference, or in each virtual environment by its path; see M(gpuhosts.inference.vllm_image_proof).
    type: dict
    required: true
  models:
    description: The C(config.json) of every model by its hub id, where it is known. A mixture of experts needs more of the engine's code.
    type: dict
    default: {}
  native_root:
    description: Directory of the virtual environments of instances with C(runtime=native).
    type: str
    default: /opt/vllm
seealso:
  - module: gpuhosts.inference.vllm_image_proof
"""

EXAMPLES = r"""
- name: Refuse an image without code for the cards
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | map(attribute='message') | zip(problems | map(attribute='remedy')) | map('join', ' ') | join('\n') }}"
  vars:
    problems: "{{ vllm_instances | gpuhosts.inference.vllm_image_problems(ansible_facts.gpuhosts, vllm_images, ansible_facts.gpuhosts.docker.proofs) }}"

# => - code: no_code_for_card
#      message: "The image example.org/vllm:mine holds no code for sm_75, which GPU 0, 1, 2, 3 needs: its vllm._C has sm_80, sm_90."
#      remedy: Use a vLLM that is built for compute capability 7.5; in a build of your own, 7.5 belongs into TORCH_CUDA_ARCH_LIST.
"""

RETURN = r"""
_value:
  description: The problems, in the order of the instances. Empty when there are none.
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is, in snake_case.
      type: str
    message:
      description: What is wrong and where, one sentence.
      type: str
    remedy:
      description: What to do, one sentence.
      type: str
"""

import dataclasses

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import image_proof
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def vllm_image_problems(instances, host, images, proofs, models=None, native_root="/opt/vllm"):
    try:
        problems = image_proof.host_problems(plain(instances), plain(host), plain(images), plain(proofs), plain(models or {}), native_root)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_image_problems wants instances that vllm_problems has passed: {error!r}") from error
    return [dataclasses.asdict(problem) for problem in problems]


class FilterModule:
    """The filter vllm_image_problems."""

    def filters(self):
        return {"vllm_image_problems": vllm_image_problems}
