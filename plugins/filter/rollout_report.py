# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_report
short_description: What became of a rollout
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Makes the report of a rollout, which the next one reads as well, and its text.
positional: _input, results, lost, before, stopped, begun
options:
  _input:
    description: What P(gpuhosts.inference.rollout_look#filter) returned for each host.
    type: list
    elements: dict
    required: true
  results:
    description: What became of each host whose wave is over, with C(name), C(state), C(reason), C(measured), C(rungs) and C(generations).
    type: list
    elements: dict
    required: true
  lost:
    description: Hosts that fell silent on the way.
    type: list
    elements: str
    required: true
  before:
    description: The last report. What it says of hosts that are not part of this run stays.
    type: dict
    required: true
  stopped:
    description: Why the rollout stopped; empty when it did not.
    type: str
    default: ""
  begun:
    description: Hosts whose wave is under way. Until it is over nothing is known of them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what became of the rollout
  ansible.builtin.debug:
    msg: "{{ (looks | gpuhosts.inference.rollout_report(results, [], {})).text }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    document:
      description: The report, for people and programs alike; docs/fleet.md describes it.
      type: dict
    text:
      description: The same for a terminal.
      type: str
    bad:
      description: Why a host is not what the inventory says, by host; hosts that are have none.
      type: dict
"""

import datetime

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout_report as report
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def rollout_report(looks, results, lost, before, stopped="", begun=()):
    looks = plain(looks)
    names = [look["name"] for look in looks]
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = report.document(looks, plain(results), plain(lost), plain(list(begun)), plain(before), str(stopped), now)
    here = [host for host in found["hosts"] if host["name"] in names]
    bad = {host["name"]: f"{host['status']}: {host['problem']}" for host in here if host["status"] not in (report.CONVERGED, report.rollout.DONE)}
    return {"document": found, "text": report.text(found, names), "bad": bad}


class FilterModule:
    """The filter rollout_report."""

    def filters(self):
        return {"rollout_report": rollout_report}
