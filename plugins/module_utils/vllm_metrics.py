# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engine's /metrics says. Standard library only: modules and the host's own program use it."""

from __future__ import annotations

import collections
import re

SAMPLE = re.compile(r"^(vllm:\w+)(?:\{.*\})? ([-+0-9.eE]+|NaN|[-+]?Inf)\s*$", re.MULTILINE)
# Names of all versions. Swapped requests are a kind of running ones, and exist in the V0 engine only when asked for.
REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_swapped")


def read(text):
    """{name: value} of the vllm: metrics, without buckets; a name with several sets of labels is summed. {} where there are none.

    An engine with --disable-log-stats has none, nor has one before its first request and its first ten seconds.
    """
    found = collections.defaultdict(float)
    for name, value in SAMPLE.findall(text):
        if not name.endswith("_bucket"):
            found[name] += float(value)
    return dict(found)
