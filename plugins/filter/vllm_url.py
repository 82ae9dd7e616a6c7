# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_url
short_description: Where a host itself reaches an instance
version_added: "0.1.0"
description:
  - The address that the instance listens on, or loopback where it listens on all of them.
author:
  - The gpuhosts.inference authors (@gpuhosts)
positional: listen_address
options:
  _input:
    description: The instance, an entry of C(vllm_instances).
    type: dict
    required: true
  listen_address:
    description: C(vllm_listen_address).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Ask an instance for its models
  ansible.builtin.uri:
    url: "{{ vllm_instances[0] | gpuhosts.inference.vllm_url('0.0.0.0') }}/v1/models"
"""

RETURN = r"""
_value:
  description: The address, without C(/v1).
  type: str
  sample: http://127.0.0.1:8888
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import service
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import instance as contract


def vllm_url(instance, listen_address):
    """Return where the host itself reaches an instance."""
    try:
        return service.url(contract.normalize(instance)["port"], str(listen_address))
    except ValueError as error:
        raise AnsibleFilterError(f"gpuhosts.inference.vllm_url: vllm_listen_address is no address: {error}") from error


class FilterModule:
    """The filter vllm_url."""

    def filters(self):
        return {"vllm_url": vllm_url}
