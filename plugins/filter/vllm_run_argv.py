# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_run_argv
short_description: The docker run command of an instance
version_added: "0.1.0"
description:
  - Turns an instance of C(vllm_instances) into the argument list of C(docker run), with the engine's own arguments at its end.
  - The engine's arguments come from the instance's plan; see P(gpuhosts.inference.vllm_plan#filter).
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: argv, image
options:
  _input:
    description: The instance.
    type: dict
    required: true
  argv:
    description: The engine's arguments.
    type: list
    elements: str
    required: true
  image:
    description: The engine's image.
    type: str
    required: true
  model_directory:
    description: Directory on the host in which the model lies.
    type: str
    required: true
  env_file:
    description: File on the host with the container's environment.
    type: str
    required: true
  listen_address:
    description: Address of the host on which the instance's port is published.
    type: str
    default: 127.0.0.1
  ulimits:
    description: Limits of the container, by C(docker run)'s names.
    type: dict
    default: {}
  host:
    description: The host's C(ansible_facts.gpuhosts). How cards get into a container depends on its Docker Engine.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show how an instance is started
  ansible.builtin.debug:
    msg: >-
      {{ vllm_instances[0] | gpuhosts.inference.vllm_run_argv(plan.argv, 'vllm/vllm-openai:v0.8.5', model_directory='/home/llm/model/qwen/Qwen3-32B-AWQ',
                                                              env_file='/etc/default/vllm-coder') | join(' ') }}
"""

RETURN = r"""
_value:
  description: The argument list, C(docker) first.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import container


def vllm_run_argv(instance, argv, image, model_directory, env_file, listen_address="127.0.0.1", ulimits=None, host=None):
    """Return the argument list of `docker run` for one instance."""
    return container.run_argv(instance, argv, image, model_directory, env_file, listen_address, ulimits or {}, host or {})


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"vllm_run_argv": vllm_run_argv}
