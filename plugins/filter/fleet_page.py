# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_page
short_description: The page of a fleet's document
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Fills an HTML template in, in which all that hosts say is text. Ansible's own templates are not for that, since they escape nothing by themselves.
positional: _input, template
options:
  _input:
    description: The document, as P(gpuhosts.inference.fleet_report#filter) or a rollout makes it. The template has it as C(document).
    type: dict
    required: true
  template:
    description: The Jinja template's text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Draw the page
  ansible.builtin.copy:
    content: "{{ document | gpuhosts.inference.fleet_page(lookup('ansible.builtin.file', 'index.html.j2')) }}"
    dest: index.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The HTML.
  type: str
"""

import base64

import jinja2

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def fleet_page(document, template):
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["b64encode"] = lambda text: base64.b64encode(text.encode()).decode()
    return environment.from_string(str(template)).render(document=plain(document))


class FilterModule:
    """The filter fleet_page."""

    def filters(self):
        return {"fleet_page": fleet_page}
