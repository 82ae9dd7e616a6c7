# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: model_directory
short_description: Where a model lies below the models' root
version_added: "0.1.0"
description:
  - The owner in lower case, then the name, as in C(qwen/Qwen3-32B-AWQ).
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  _input:
    description: The model's identifier on the hub.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show a model's directory
  ansible.builtin.debug:
    msg: "/home/llm/model/{{ 'Qwen/Qwen3-32B-AWQ' | gpuhosts.inference.model_directory }}"
"""

RETURN = r"""
_value:
  description: The directory, relative to the models' root.
  type: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.container import model_directory


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"model_directory": model_directory}
