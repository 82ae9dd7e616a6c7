# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: docker_gpu_argv
short_description: The arguments of docker run that give a container its cards
version_added: "0.1.0"
description:
  - Names cards for C(docker run) in the form that the host's engine understands, so that the container keeps them over C(systemctl daemon-reload).
  - The form is C(--device=nvidia.com/gpu=0) for an engine with CDI, and NVIDIA's runtime with the same names for one without.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: host
options:
  _input:
    description: Indices of the cards. An empty list is all of them.
    type: list
    elements: int
    required: true
  host:
    description: The host's C(ansible_facts.gpuhosts).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See all cards in a container
  ansible.builtin.command:
    argv: "{{ ['docker', 'run', '--rm'] + ([] | gpuhosts.inference.docker_gpu_argv(ansible_facts.gpuhosts)) + ['ubuntu:24.04', 'nvidia-smi', '-L'] }}"
"""

RETURN = r"""
_value:
  description: The arguments.
  type: list
  elements: str
"""

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import container


def docker_gpu_argv(cards, host):
    """Return the arguments of `docker run` that give a container these cards."""
    return container.gpu_argv(cards or None, host)


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"docker_gpu_argv": docker_gpu_argv}
