# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: benchmark_plot
short_description: Throughput and latency of a benchmark against concurrency, as SVG
version_added: "0.1.0"
description:
  - A line for each side, through the medians, with lowest and highest of the rounds.
requirements:
  - matplotlib
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  _input:
    description: The record, as P(gpuhosts.inference.benchmark_record#filter) makes it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Plot a kept benchmark
  ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.file', 'baseline.json') | from_json | gpuhosts.inference.benchmark_plot }}"
    dest: baseline.svg
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The SVG.
  type: str
"""

import io

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import benchmark
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import plain

PLOTTED = ("output_throughput", "mean_e2el_ms")


def benchmark_plot(record):
    # Not above: Ansible loads the collection's filters one after the other until it has the one that is asked for, in every task's process, and
    # this takes more time than all others together. Where it is not installed, benchmark_plan has refused before anything was measured.
    import matplotlib
    from matplotlib.figure import Figure

    record = plain(record)
    with matplotlib.rc_context({"svg.hashsalt": "benchmark", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(PLOTTED)), PLOTTED, strict=True):
            title, shown, factor, dummy = benchmark.FIGURES[name]
            for side, levels in record["summary"].items():
                points = sorted((int(level), each[name]) for level, each in levels.items() if each[name])
                medians = [spread["median"] * factor for dummy, spread in points]
                reach = [[abs(spread[end] - spread["median"]) * factor for dummy, spread in points] for end in ("low", "high")]
                axes.errorbar([level for level, dummy in points], medians, yerr=reach, marker="o", capsize=3, label=side)
            axes.set(xlabel="requests at once", ylabel=f"{title}, {shown.rpartition(' ')[2]}", xticks=record["scenario"]["max_concurrency"], ylim=(0, None))
            axes.grid(alpha=0.3)
        axes.legend()
        output = io.StringIO()
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None})
    return output.getvalue()


class FilterModule:
    """The filter benchmark_plot."""

    def filters(self):
        return {"benchmark_plot": benchmark_plot}
