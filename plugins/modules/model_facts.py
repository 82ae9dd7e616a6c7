#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_facts
short_description: Which models are complete on a host, and what each one is
version_added: "0.1.0"
description:
  - Looks at all models of a host in one call and returns them under C(ansible_facts.gpuhosts_models).
  - Compares each directory with the manifest that M(gpuhosts.inference.model_snapshot) wrote beside it. A directory without a manifest is a download
    that did not finish. Files are compared by size and by the time they were written; their checksums were verified then.
  - Reads each model's C(config.json) from its directory. Only where it does not lie there, it is asked of the hub, so that a plan can be made
    before the weights are fetched.
  - Changes nothing and does not fail because of a model. What is wrong with one is said in its facts.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  models:
    description: The models. Of several entries for one model the first counts.
    type: list
    elements: dict
    required: true
    suboptions:
      repo_id:
        description: The model, as the hub names it.
        type: str
        required: true
      revision:
        description: A branch, tag or commit.
        type: str
        default: main
      path:
        description: The model's directory.
        type: path
        required: true
  endpoint:
    description: The hub, a mirror of it or a tree of files, as for M(gpuhosts.inference.model_manifest). Without one no hub is asked.
    type: str
    default: ""
  token:
    description: Token for gated models. It is sent to the hub, and to no server that the hub may redirect to.
    type: str
    default: ""
  timeout:
    description: Seconds to wait for the hub. When it gives no answer for one model, it is not asked for the others.
    type: int
    default: 10
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  facts:
    description: Returns facts.
    support: full
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Look for the weights
  gpuhosts.inference.model_facts:
    models:
      - repo_id: Qwen/Qwen3-32B-AWQ
        revision: main
        path: /srv/models/qwen/Qwen3-32B-AWQ
    endpoint: https://huggingface.co

- name: Stop where they are not complete
  ansible.builtin.assert:
    that: model.complete
    fail_msg: "{{ model.problems | join(' ') }}"
  vars:
    model: "{{ ansible_facts.gpuhosts_models['Qwen/Qwen3-32B-AWQ'] }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: always
  type: dict
  contains:
    gpuhosts_models:
      description: Each model's facts under its C(repo_id).
      returned: always
      type: dict
      contains:
        wanted:
          description: The entry of O(models), so that one can see whether these facts are about what one wants.
          returned: always
          type: dict
          sample: {repo_id: Qwen/Qwen3-32B-AWQ, revision: main, path: /srv/models/qwen/Qwen3-32B-AWQ}
        path:
          description: The model's directory. Of a complete model it is the one behind the link, so that what runs keeps its files when the link is turned.
          returned: always
          type: str
        complete:
          description: Whether the manifest is there, is about the wanted model and revision, and every file in it is there with its size.
          returned: always
          type: bool
        problems:
          description: Why it is not complete, one sentence each.
          returned: always
          type: list
          elements: str
        repo_id:
          description: The model by the manifest, or null.
          returned: always
          type: str
        revision:
          description: The revision that the download was asked for, or null.
          returned: always
          type: str
        commit:
          description: The commit that the revision meant then, or null.
          returned: always
          type: str
        bytes:
          description: Size of the manifest's files that are there, in bytes.
          returned: always
          type: int
        files:
          description: Number of files in the manifest.
          returned: always
          type: int
        config:
          description: The model's C(config.json), or null.
          returned: always
          type: dict
        config_source:
          description: Where it comes from, C(disk) or C(hub), or null.
          returned: always
          type: str
        error:
          description: Why there is no C(config), one sentence, or null.
          returned: always
          type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_hub, model_snapshot


class Hub:
    """A hub that is asked as long as it answers."""

    def __init__(self, endpoint, token, timeout):
        self._endpoint, self._token, self._timeout = endpoint, token, timeout
        self._silence = None

    def config(self, repo_id, revision):
        """(config.json, None), or (None, a sentence that says why there is none)."""
        if not self._endpoint:
            return None, f"{repo_id} has no config.json on this host, and no hub was named to ask for it."
        if self._silence is None:
            try:
                return model_hub.fetch_config(self._endpoint, {"repo_id": repo_id, "revision": revision}, self._token, self._timeout), None
            except model_hub.HubError as error:
                if not error.silent:
                    return None, str(error)
                self._silence = str(error)
        return None, self._silence


def describe(wanted, hub):
    """All facts of one model."""
    found = model_snapshot.inspect(wanted["path"], wanted["revision"], wanted["repo_id"])
    source, error = "disk", None
    if found["config"] is None:
        found["config"], error = hub.config(wanted["repo_id"], wanted["revision"])
        source = "hub" if error is None else None
    path = os.path.realpath(wanted["path"]) if found["complete"] else wanted["path"]
    return dict(found, wanted=wanted, path=path, config_source=source, error=error)


def main():
    module = AnsibleModule(
        argument_spec={
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "repo_id": {"type": "str", "required": True},
                    "revision": {"type": "str", "default": "main"},
                    "path": {"type": "path", "required": True},
                },
            },
            "endpoint": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    hub = Hub(module.params["endpoint"], module.params["token"], module.params["timeout"])
    models = {}
    for wanted in module.params["models"]:
        if wanted["repo_id"] not in models:
            models[wanted["repo_id"]] = describe(wanted, hub)
    module.exit_json(changed=False, ansible_facts={"gpuhosts_models": models})


if __name__ == "__main__":
    main()
