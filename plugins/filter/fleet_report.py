# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: The state of a fleet as one document
version_added: 0.1.0
author: The gpuhosts.inference authors (@gpuhosts)
description:
  - Puts together what was found on every host, the last benchmark of each instance, and what Prometheus says.
  - Its keys are described in C(plugins/plugin_utils/fleet_report.py). Pages are drawn from it.
positional: _input, wanted, rollout, benchmarks, prometheus, title
options:
  _input:
    description:
      - What is known of each host, by its name. C(silence), why it could not be read; C(problem), why it has no plan; C(facts), what
        M(gpuhosts.inference.gpu_facts) returned; C(gathered), what M(gpuhosts.inference.vllm_diagnosis) did; C(plans), by instance; and C(services),
        what M(gpuhosts.inference.vllm_service_facts) returned. All may be empty.
    type: dict
    required: true
  wanted:
    description: What the inventory says of each host, by its name, as C(cards) (how many), C(driver), C(images) by version, and C(instances).
    type: dict
    required: true
  rollout:
    description: The report of the last rollout, empty without one.
    type: dict
    default: {}
  benchmarks:
    description: Path of the directory on the controller where benchmarks are kept. It need not exist.
    type: str
    default: ""
  prometheus:
    description:
      - C(alerts) and C(speeds), the answers of a Prometheus. Empty where none was asked.
      - With C(problem) alone, why it could not be asked.
    type: dict
    default: {}
  title:
    description: The title.
    type: str
    default: Fleet
seealso:
  - plugin: gpuhosts.inference.vllm_diagnosis
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Keep the state of the fleet
  ansible.builtin.copy:
    content: "{{ looks | gpuhosts.inference.fleet_report(wanted) | to_nice_json }}\n"
    dest: fleet.json
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The document.
  type: dict
"""

import datetime
import json
import pathlib

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import fleet_report as report
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain


def fleet_report(looks, wanted, rollout=None, benchmarks="", prometheus=None, title="Fleet"):
    looks, wanted, rollout, prometheus = plain(looks), plain(wanted), plain(rollout or {}), plain(prometheus or {})
    before = {one["name"]: one for one in rollout.get("hosts") or []}
    looked = [report.host(str(name), look, wanted[name], before.get(name, {})) for name, look in looks.items()]
    kept, notes = {}, []
    for name, instance in [(one["host"]["name"], each["name"]) for one in looked for each in one["host"]["instances"]]:
        kept[name, instance] = read_benchmarks(pathlib.Path(str(benchmarks), name, instance), notes) if benchmarks else []
    if prometheus.get("problem"):
        notes.append(f"Prometheus was not asked: {prometheus['problem']}")
    answers = prometheus if "alerts" in prometheus else None
    time = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return report.document(looked, kept, answers, notes, str(title), time)


def read_benchmarks(directory, notes):
    """[(record, SVG or None)], the last of each scenario that is kept of an instance. What cannot be read is added to the notes."""
    found = []
    for scenario in sorted(path for path in directory.glob("*") if path.is_dir()):
        # Named by their time; the baseline is a copy of one of them.
        for path in sorted(scenario.glob("[0-9]*.json"), reverse=True)[:1]:
            plot = path.with_suffix(".svg")
            try:
                found.append((json.loads(path.read_text(encoding="utf-8")), plot.read_text(encoding="utf-8") if plot.exists() else None))
            except (OSError, ValueError) as error:
                notes.append(f"The benchmark {path} cannot be read: {error}")
    return found


class FilterModule:
    """The filter fleet_report."""

    def filters(self):
        return {"fleet_report": fleet_report}
