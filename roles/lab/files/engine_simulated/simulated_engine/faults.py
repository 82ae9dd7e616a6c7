# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Faults on request.

`GPUHOSTS_SIMULATED_FAULT` holds a comma-separated list of `name` or `name:argument`:

at load (read once, when the engine starts)
  oom_at_load            run out of GPU memory while loading, every time
  oom_at_load:N          only in the first N starts, counted in a file under GPUHOSTS_SIMULATED_STATE
                         (default /root/.cache/simulated-engine; a volume there makes the count survive the container)
  oom_above:OPTION=N     run out of memory while the option (max_num_seqs, max_model_len, ...) is above N
  slow_load:SECONDS      take this long to load the weights
  hang_at_load           stop for ever after NCCL has been found, as a stuck NCCL set-up does

while serving (also told by POST /simulated/fault {"fault": "..."}, which replaces those in force)
  hang:N                 answer N requests (default 0), then freeze: /health stays 200, running requests stay running,
                         no token is generated, no request is answered
  crash:N                answer N requests (default 0), then die of a CUDA error with exit status 1
  slow:TOKENS            generate this many tokens per second and request
  bad_answer             answer completions with HTTP 500
  garbage_answer         answer completions with "!!!!", what overflowing half-precision activations produce
"""

from __future__ import annotations

import pathlib

AT_LOAD = {"oom_at_load": "count or nothing", "oom_above": "option=value", "slow_load": "seconds", "hang_at_load": ""}
WHILE_SERVING = {"hang": "count or nothing", "crash": "count or nothing", "slow": "rate", "bad_answer": "", "garbage_answer": ""}


class OutOfMemoryError(RuntimeError):
    """Prints as `torch.OutOfMemoryError`."""


OutOfMemoryError.__module__ = "torch"


def parse(text: str, known: dict[str, str] = AT_LOAD | WHILE_SERVING) -> dict[str, object]:
    """The faults in `text` by name, with arguments read. ValueError says what is wrong with the text."""
    faults = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, dummy, argument = item.partition(":")
        if name not in known:
            raise ValueError(f"unknown fault {name!r}, known here: {', '.join(known)}")
        try:
            faults[name] = _READERS[known[name]](argument)
        except ValueError as error:
            raise ValueError(f"fault {item!r}: wants {known[name] or 'no argument'}") from error
    return faults


def out_of_memory(faults: dict, options: dict, state: pathlib.Path) -> bool:
    """Whether this start runs out of memory. Counts the start under `state` when a bounded `oom_at_load` is in force.

    options: engine options by name, defaults resolved. KeyError for an option that the engine does not have.
    """
    if "oom_above" in faults:
        name, limit = faults["oom_above"]
        if options[name] > limit:
            return True
    if "oom_at_load" not in faults:
        return False
    bound = faults["oom_at_load"]
    return bound is None or _count_start(state / "oom_at_load") <= bound


def _count_start(path: pathlib.Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = (int(path.read_text(encoding="ascii")) if path.exists() else 0) + 1
    path.write_text(f"{count}\n", encoding="ascii")
    return count


def _read_nothing(argument: str) -> None:
    if argument:
        raise ValueError(argument)


def _read_count(argument: str) -> int | None:
    if not argument:
        return None
    if not argument.isascii() or not argument.isdigit():
        raise ValueError(argument)
    return int(argument)


def _read_rate(argument: str) -> float:
    value = float(argument)
    if not 0 < value < float("inf"):
        raise ValueError(argument)
    return value


def _read_limit(argument: str) -> tuple[str, float]:
    name, dummy, value = argument.partition("=")
    return name.strip().replace("-", "_"), float(value)


_READERS = {"": _read_nothing, "count or nothing": _read_count, "rate": _read_rate, "seconds": _read_rate, "option=value": _read_limit}
