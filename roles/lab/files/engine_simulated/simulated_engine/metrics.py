# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The V0 engine's metrics: names, help texts and buckets of vllm/engine/metrics.py, 0.8.5.

Left out because nothing here produces them: speculative decoding, and model_forward_time and model_execute_time, which the
real engine fills only with --collect-detailed-traces.
"""

from __future__ import annotations

import itertools
import time

from .exposition import Family

LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)
OUTPUT_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

# Deprecated in 0.8 and shown only when the option names exactly the previous minor version.
SHOWS_HIDDEN = "0.7"


def lengths(limit: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, ... up to `limit` (build_1_2_5_buckets)."""
    series = (mantissa * 10**exponent for exponent in itertools.count() for mantissa in (1, 2, 5))
    return tuple(itertools.takewhile(lambda value: value <= limit, series))


class Metrics:
    """All families of one engine. Values are set by the engine; `render` is the body of /metrics."""

    def __init__(self, model_name: str, max_model_len: int, *, shown: bool = True, hidden: bool = False) -> None:
        """shown: false for --disable-log-stats, then nothing is rendered. hidden: also the deprecated families."""
        self.labels = {"model_name": model_name}
        self._shown, self._hidden = shown, hidden
        self._families: list[Family] = []
        tokens = lengths(max_model_len)

        self.cache_config = self._gauge("cache_config_info", "Information of the LLMEngine CacheConfig")
        self.running = self._gauge("num_requests_running", "Number of requests currently running on GPU.")
        self.waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.lora = self._gauge("lora_requests_info", "Running stats on lora requests.")
        self.gpu_cache_usage = self._gauge("gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.")
        self.preemptions = self._counter("num_preemptions_total", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = self._counter("prompt_tokens_total", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter("generation_tokens_total", "Number of generation tokens processed.")
        self.success = self._counter("request_success_total", "Count of successfully processed requests.")
        self.step_tokens = self._histogram("iteration_tokens_total", "Histogram of number of tokens per engine_step.", STEP_TOKENS)
        self.first_token = self._histogram("time_to_first_token_seconds", "Histogram of time to first token in seconds.", FIRST_TOKEN)
        self.output_token = self._histogram("time_per_output_token_seconds", "Histogram of time per output token in seconds.", OUTPUT_TOKEN)
        self.latency = self._histogram("e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.", LATENCY)
        self.queue_time = self._histogram("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", LATENCY)
        self.inference_time = self._histogram(
            "request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", LATENCY
        )
        self.prefill_time = self._histogram(
            "request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", LATENCY
        )
        self.decode_time = self._histogram("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", LATENCY)
        self.request_prompt = self._histogram("request_prompt_tokens", "Number of prefill tokens processed.", tokens)
        self.request_generation = self._histogram("request_generation_tokens", "Number of generation tokens processed.", tokens)
        self.request_max_generation = self._histogram(
            "request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", tokens)
        self.request_n = self._histogram("request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20))
        self.request_max_tokens = self._histogram("request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens)

        self.swapped = self._gauge(
            "num_requests_swapped",
            "Number of requests swapped to CPU. DEPRECATED: KV cache offloading is not used in V1",
            hidden=True,
        )
        self.cpu_cache_usage = self._gauge(
            "cpu_cache_usage_perc",
            "CPU KV-cache usage. 1 means 100 percent usage. DEPRECATED: KV cache offloading is not used in V1",
            hidden=True,
        )
        self.cpu_hit_rate = self._gauge(
            "cpu_prefix_cache_hit_rate",
            "CPU prefix cache block hit rate. DEPRECATED: KV cache offloading is not used in V1",
            hidden=True,
        )
        self.gpu_hit_rate = self._gauge(
            "gpu_prefix_cache_hit_rate",
            "GPU prefix cache block hit rate. DEPRECATED: use vllm:gpu_prefix_cache_queries and vllm:gpu_prefix_cache_queries in V1",
            hidden=True,
        )
        self.time_in_queue = self._histogram(
            "time_in_queue_requests",
            "Histogram of time the request spent in the queue in seconds. DEPRECATED: use vllm:request_queue_time_seconds instead.",
            LATENCY, hidden=True,
        )

    def _gauge(self, name: str, help_text: str, *, hidden: bool = False) -> Family:
        return self._add(name, "gauge", help_text, hidden=hidden)

    def _counter(self, name: str, help_text: str) -> Family:
        return self._add(name, "counter", help_text)

    def _histogram(self, name: str, help_text: str, bounds: tuple[float, ...], *, hidden: bool = False) -> Family:
        return self._add(name, "histogram", help_text, bounds, hidden=hidden)

    def _add(self, name: str, kind: str, help_text: str, bounds: tuple[float, ...] = (), *, hidden: bool = False) -> Family:
        family = Family("vllm:" + name, kind, help_text, bounds)
        if self._shown and (self._hidden or not hidden):
            self._families.append(family)
        return family

    def record_system(self, running: int, waiting: int, cache_usage: float, hit_rate: float) -> None:
        """What the engine reports with every step. The first call makes the gauges and counters appear. hit_rate: -1 for none."""
        self.running.set(running, **self.labels)
        self.waiting.set(waiting, **self.labels)
        self.gpu_cache_usage.set(cache_usage, **self.labels)
        self.lora.set(time.time(), max_lora="0", running_lora_adapters="", waiting_lora_adapters="")
        for counter in (self.preemptions, self.prompt_tokens, self.generation_tokens):
            counter.add(0, **self.labels)
        for gauge, value in ((self.swapped, 0), (self.cpu_cache_usage, 0), (self.cpu_hit_rate, -1), (self.gpu_hit_rate, hit_rate)):
            gauge.set(value, **self.labels)

    def render(self) -> str:
        return "".join(f"{line}\n" for family in self._families for line in family.render())
