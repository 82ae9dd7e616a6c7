# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: wheel_artifact
short_description: The wheel that an image needs, and whether a store has it
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Says on what a wheel with CUDA code depends, the key that follows from it, and looks for it in a store on the controller.
positional: _input, image, image_id, probe, store, repository
options:
  _input:
    description: The package, C(name), C(version), C(sha256) of its sources and C(archs).
    type: dict
    required: true
  image:
    description: Reference of the image that is to use the wheel.
    type: str
    required: true
  image_id:
    description: Its id on a host. It stands for an image whose reference has no digest.
    type: str
    required: true
  probe:
    description: What was found inside, see M(gpuhosts.inference.vllm_image_proof). Null leaves Python, PyTorch and CUDA open, and any will do.
    type: dict
    required: true
  store:
    description: Directory of wheels on the controller.
    type: str
    required: true
  repository:
    description: Repository of the images that are made with it inside.
    type: str
    default: ""
seealso:
  - module: gpuhosts.inference.wheel_build
"""

EXAMPLES = r"""
- name: Look for the wheel
  ansible.builtin.debug:
    msg: "{{ package | gpuhosts.inference.wheel_artifact('vllm/vllm-openai:v0.8.5', image_id, probe, '/srv/wheels') }}"
  vars:
    package: {name: flash-attn, version: 1.0.9, sha256: 7c7e29ce25c6135f7291d39d8ce96481b6de0dc14e85eae73d1e5b6258d43ed9, archs: ["7.5"]}

# => {state: missing, key: flash-attn-1.0.9-0f62a7be33d90c0d, directory: /srv/wheels/flash-attn-1.0.9-0f62a7be33d90c0d, wanted: {...}, ...}
"""

RETURN = r"""
_value:
  description: The wheel.
  type: dict
  contains:
    state:
      description: V(stored), V(missing), or V(broken), when what lies in the store is not what its manifest says.
      type: str
    problem:
      description: What is broken, a sentence; null otherwise.
      type: str
    key:
      description: Name of the wheel's directory.
      type: str
    directory:
      description: That directory in the store.
      type: str
    offer:
      description: Name of the manifest in a store behind a URL, see P(gpuhosts.inference.wheel_offer#filter).
      type: str
    wanted:
      description: What the wheel depends on.
      type: dict
    wheel:
      description: File name of the wheel, where there is one.
      type: str
    sha256:
      description: Its checksum, where there is one.
      type: str
    manifest:
      description: What is known of it, where there is one.
      type: dict
    images:
      description: The images that were made with it inside, by their repository.
      type: dict
    image:
      description: The one of O(repository), by its digest, or null.
      type: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def wheel_artifact(package, image, image_id, probe, store, repository=""):
    want = wheel.wanted(plain(package), str(image), plain(image_id), plain(probe))
    found = wheel.stored(want, str(store))
    return {"wanted": want, "offer": wheel.offer(want), **found, "image": found["images"].get(str(repository))}


class FilterModule:
    """The filter wheel_artifact."""

    def filters(self):
        return {"wheel_artifact": wheel_artifact}
