# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: model_locations
short_description: The models of a host, and where each one lies
version_added: "0.1.0"
description:
  - Names every model of C(vllm_instances) once, as M(gpuhosts.inference.model_facts) wants them.
  - A model lies below the models' root under its owner in lower case, then its name, as in C(qwen/Qwen3-32B-AWQ).
  - Entries without a model are left out. That is for P(gpuhosts.inference.vllm_problems#filter) to report.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: _input, root
options:
  _input:
    description: A list of mappings with C(model), the identifier on the hub, and C(revision) (V(main) where it is missing).
    type: raw
    required: true
  root:
    description: The directory below which models lie.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Look at the models on the host
  gpuhosts.inference.model_facts:
    models: "{{ vllm_instances | gpuhosts.inference.model_locations('/home/llm/model') }}"

# vllm_instances:
#   - {name: coder, model: Qwen/Qwen3-32B-AWQ}
#   - {name: tester, model: Qwen/Qwen3-32B-AWQ}
#
# => - {repo_id: Qwen/Qwen3-32B-AWQ, revision: main, path: /home/llm/model/qwen/Qwen3-32B-AWQ}
"""

RETURN = r"""
_value:
  description: The models in the order of their first mention.
  type: list
  elements: dict
  contains:
    repo_id:
      description: The model, as the hub names it.
      type: str
    revision:
      description: A branch, tag or commit.
      type: str
    path:
      description: The model's directory.
      type: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.container import model_locations
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"model_locations": lambda instances, root: model_locations(plain(instances), str(root))}
