#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_manifest
short_description: What a hub says of a model before it is fetched
version_added: "0.1.0"
description:
  - Asks a hub for the commit that a revision means, for every file with its size and hash, for C(config.json)
    and for the names of the tensors. A few hundred kilobytes at most; no weights.
  - A hub that throttles (HTTP 429) is asked again after as long as it says, three times, with a warning each time.
  - Changes nothing.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  repo_id:
    description: The model, as the hub names it.
    type: str
    required: true
  revision:
    description: A branch, tag or commit.
    type: str
    default: main
  endpoint:
    description:
      - The address of a Hugging Face hub or of a mirror of it.
      - C(modelscope+https://www.modelscope.cn) is ModelScope, or what answers like it. The revision V(main) is its branch C(master).
      - C(tree+https://files.example/models) and C(tree+file:///mnt/models) are trees of files, in which C(REPO_ID/SHA256SUMS) lists those of a model.
      - Of the latter two the commit is made from the names and hashes of the files, and a revision that is such a commit pins them.
    type: str
    required: true
  token:
    description: Token for gated models. It is sent to the hub, and to no server that the hub may redirect to.
    type: str
    default: ""
  timeout:
    description: Seconds to wait for the hub.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Ask the hub what the model is
  gpuhosts.inference.model_manifest:
    repo_id: Qwen/Qwen3-32B-AWQ
    endpoint: https://huggingface.co
  register: hub
"""

RETURN = r"""
manifest:
  description:
    - C(repo_id), C(revision), C(commit), and C(files), by name with C(size) and C(sha256). Of small files the hub tells git's C(blob_id) instead.
  returned: success
  type: dict
config:
  description: The model's C(config.json) at that commit.
  returned: success
  type: dict
urls:
  description: Where each file lies, by name; null for a Hugging Face hub, whose own client knows it.
  returned: success
  type: dict
tensor_kinds:
  description: The last words of the tensors' names, each once, or null where the checkpoint lists no names.
  returned: success
  type: list
  elements: str
  sample: [qweight, qzeros, scales, weight]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_hub


def main():
    module = AnsibleModule(
        argument_spec={
            "repo_id": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "endpoint": {"type": "str", "required": True},
            "token": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        manifest = model_hub.fetch_manifest(given["endpoint"], given["repo_id"], given["revision"], given["token"], given["timeout"], module.warn)
        config = model_hub.fetch_config(given["endpoint"], manifest, given["token"], given["timeout"])
        tensors = model_hub.fetch_tensors(given["endpoint"], manifest, given["token"], given["timeout"], module.warn)
    except model_hub.HubError as error:
        module.fail_json(msg=str(error))
    kinds = None if tensors is None else sorted({name.rpartition(".")[2] for name in tensors})
    urls = model_hub.file_urls(given["endpoint"], manifest)
    module.exit_json(changed=False, manifest=manifest, config=config, urls=urls, tensor_kinds=kinds)


if __name__ == "__main__":
    main()
