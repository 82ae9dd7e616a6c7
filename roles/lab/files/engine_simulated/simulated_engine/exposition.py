# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of the Prometheus text format that the engine's /metrics uses.

https://prometheus.io/docs/instrumenting/exposition_formats/. A family without samples is left out, as the real server does
(prometheus_client in multiprocess mode): before the first request it shows only vllm:cache_config_info.
"""

from __future__ import annotations

import bisect
import threading

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Family:
    """One metric with its labelled values. `kind` is gauge, counter or histogram; `bounds` are a histogram's upper bounds."""

    def __init__(self, name: str, kind: str, help_text: str, bounds: tuple[float, ...] = ()) -> None:
        self.name, self.kind, self.help_text = name, kind, help_text
        self._bounds = bounds
        self._values: dict[tuple[tuple[str, str], ...], float] = {}
        self._buckets: dict[tuple[tuple[str, str], ...], list[int]] = {}
        self._lock = threading.Lock()

    def set(self, value: float, **labels: str) -> None:
        with self._lock:
            self._values[_key(labels)] = value

    def add(self, value: float, **labels: str) -> None:
        with self._lock:
            self._values[_key(labels)] = self._values.get(_key(labels), 0) + value

    def observe(self, value: float, **labels: str) -> None:
        with self._lock:
            self._values[_key(labels)] = self._values.get(_key(labels), 0) + value
            buckets = self._buckets.setdefault(_key(labels), [0] * (len(self._bounds) + 1))
            buckets[bisect.bisect_left(self._bounds, value)] += 1

    def value(self, **labels: str) -> float:
        """The sample's value, a histogram's sum; 0 before the first."""
        with self._lock:
            return self._values.get(_key(labels), 0)

    def render(self) -> list[str]:
        """The family's lines."""
        with self._lock:
            if not self._values:
                return []
            lines = [f"# HELP {self.name} {self.help_text}", f"# TYPE {self.name} {self.kind}"]
            for key, value in self._values.items():
                if self.kind == "histogram":
                    lines += self._render_histogram(key, value)
                else:
                    lines.append(f"{self.name}{_labels(key)} {float(value)}")
            return lines

    def _render_histogram(self, key: tuple[tuple[str, str], ...], total: float) -> list[str]:
        lines = [f"{self.name}_sum{_labels(key)} {float(total)}"]
        count = 0
        for bound, number in zip([*map(float, self._bounds), "+Inf"], self._buckets[key], strict=True):
            count += number
            lines.append(f"{self.name}_bucket{_labels(tuple(sorted((*key, ('le', str(bound))))))} {float(count)}")
        return [*lines, f"{self.name}_count{_labels(key)} {float(count)}"]


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _labels(key: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in key) + "}" if key else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
