# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The running engine: admits requests, generates tokens at a pace, counts them, and misbehaves when told to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from . import logs
from .metrics import Metrics

STATS_INTERVAL_SECONDS = 10.0


class EngineDead(RuntimeError):
    """The engine has died of a fault; the server answers 500 and ends with exit status 1."""


@dataclass(eq=False)
class _Sequence:
    """A request in the engine. tokens: prompt and generated so far; identity tells two apart."""

    tokens: int


class Engine:
    """At most `max_num_seqs` sequences run, the rest wait in order of arrival. Thread-safe: one thread per request.

    gpu_blocks, block_size: the KV cache, for its usage. prefix_caching: whether hits of equal beginnings are counted.
    told: the faults in force (see `faults`).
    """

    def __init__(self, metrics: Metrics, *, max_num_seqs: int, gpu_blocks: int, block_size: int, prefix_caching: bool, told: dict) -> None:
        self.metrics = metrics
        self._max_num_seqs, self._gpu_blocks, self._block_size = max_num_seqs, gpu_blocks, block_size
        self._changed = threading.Condition()
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._prefixes: set[int] | None = set() if prefix_caching else None
        self._hits = self._queries = 0
        self._told = dict(told)
        self._begun = 0
        self._reported = False
        self.died = threading.Event()

    @property
    def told(self) -> dict:
        return dict(self._told)

    def tell(self, told: dict) -> None:
        """Replace the faults in force; `hang:N` and `crash:N` count from here, and a hang that is no longer told ends."""
        with self._changed:
            self._told, self._begun = dict(told), 0
            self._changed.notify_all()

    def generate(self, prompt: list[int], completion: list[int], finish_reason: str) -> Iterator[int]:
        """Yield the completion's tokens as they are generated. Closing the iterator aborts the request. Raises EngineDead."""
        prompt_tokens = len(prompt)
        sequence = _Sequence(prompt_tokens)
        arrived = time.monotonic()
        outcome = "abort"
        try:
            self._admit(sequence)
            started = time.monotonic()
            self._step()
            first = last = time.monotonic()
            self._count_prefill(prompt_tokens, first - arrived)
            self._look_up(prompt)
            for number, token in enumerate(completion):
                if number:
                    self._step()
                    now = time.monotonic()
                    self.metrics.output_token.observe(now - last, **self.metrics.labels)
                    self.metrics.step_tokens.observe(1, **self.metrics.labels)
                    last = now
                sequence.tokens += 1
                self.metrics.generation_tokens.add(1, **self.metrics.labels)
                yield token
            outcome = finish_reason
            self._count_request(prompt_tokens, len(completion), arrived, started, first)
        finally:
            self._release(sequence)
            self.metrics.success.add(1, finished_reason=outcome, **self.metrics.labels)

    def report(self) -> str:
        """The body of /metrics. Gauges and counters appear with the first request or the first statistics interval."""
        with self._changed:
            if self._reported:
                self._record_system()
        return self.metrics.render()

    def log_statistics(self) -> None:
        """Log the throughput every interval in which, or before which, tokens moved. A hung engine logs nothing. Never returns."""
        previous, was_active = (0.0, 0.0), False
        while True:
            time.sleep(STATS_INTERVAL_SECONDS)
            labels = self.metrics.labels
            counts = self.metrics.prompt_tokens.value(**labels), self.metrics.generation_tokens.value(**labels)
            active = counts != previous
            with self._changed:
                usage = self._record_system()
                if active or was_active:
                    logs.vllm(
                        "INFO", "metrics.py:486",
                        f"Avg prompt throughput: {(counts[0] - previous[0]) / STATS_INTERVAL_SECONDS:.1f} tokens/s, "
                        f"Avg generation throughput: {(counts[1] - previous[1]) / STATS_INTERVAL_SECONDS:.1f} tokens/s, "
                        f"Running: {len(self._running)} reqs, Swapped: 0 reqs, Pending: {len(self._waiting)} reqs, "
                        f"GPU KV cache usage: {100 * usage:.1f}%, CPU KV cache usage: 0.0%.",
                    )
            previous, was_active = counts, active

    def _record_system(self) -> float:
        """Set the gauges; return the KV cache's usage, 0 to 1. Called with the lock held."""
        self._reported = True
        blocks = sum(-(-sequence.tokens // self._block_size) for sequence in self._running)
        usage = min(1.0, blocks / self._gpu_blocks)
        hit_rate = self._hits / self._queries if self._queries else -1
        self.metrics.record_system(len(self._running), len(self._waiting), usage, hit_rate)
        return usage

    def _admit(self, sequence: _Sequence) -> None:
        """Wait for a place; then die if this is the request to die with."""
        with self._changed:
            self._reported = True
            self._waiting.append(sequence)
            self._changed.wait_for(lambda: len(self._running) < self._max_num_seqs and self._waiting[0] is sequence)
            self._waiting.popleft()
            self._running.append(sequence)
            self._begun += 1
            self._changed.notify_all()
            if self._past("crash"):
                self.died.set()
                raise EngineDead(
                    "CUDA error: an illegal memory access was encountered\n"
                    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might "
                    "be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
                )

    def _step(self) -> None:
        """One token's time: not at all while hung."""
        rate = self._told.get("slow")
        if rate:
            time.sleep(1 / rate)
        with self._changed:
            self._changed.wait_for(lambda: not self._past("hang"))

    def _past(self, fault: str) -> bool:
        """Whether more requests have begun than a bounded fault leaves alone."""
        return fault in self._told and self._begun > (self._told[fault] or 0)

    def _release(self, sequence: _Sequence) -> None:
        with self._changed:
            for queue in (self._running, self._waiting):
                if sequence in queue:
                    queue.remove(sequence)
            self._changed.notify_all()

    def _count_prefill(self, prompt_tokens: int, seconds: float) -> None:
        labels = self.metrics.labels
        self.metrics.prompt_tokens.add(prompt_tokens, **labels)
        self.metrics.step_tokens.observe(prompt_tokens + 1, **labels)
        self.metrics.first_token.observe(seconds, **labels)

    def _look_up(self, prompt: list[int]) -> None:
        """Count the prompt's full blocks, and those of them with which an earlier prompt began too. This cache never forgets."""
        if self._prefixes is None:
            return
        with self._changed:
            prefix = 0
            for start in range(0, len(prompt) - self._block_size + 1, self._block_size):
                prefix = hash((prefix, *prompt[start : start + self._block_size]))
                self._queries += 1
                self._hits += prefix in self._prefixes
                self._prefixes.add(prefix)

    def _count_request(self, prompt_tokens: int, generated: int, arrived: float, started: float, first: float) -> None:
        ended = time.monotonic()
        values = {
            "latency": ended - arrived, "queue_time": started - arrived, "time_in_queue": started - arrived,
            "inference_time": ended - started, "prefill_time": first - started, "decode_time": ended - first,
            "request_prompt": prompt_tokens, "request_generation": generated, "request_max_generation": generated,
        }
        for name, value in values.items():
            getattr(self.metrics, name).observe(value, **self.metrics.labels)
