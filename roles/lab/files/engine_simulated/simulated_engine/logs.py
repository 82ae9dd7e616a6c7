# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Log lines in the two formats of the real server: vLLM's own logger and uvicorn's."""

from __future__ import annotations

import sys
import time


def vllm(level: str, origin: str, message: str) -> None:
    """Print like vLLM's logger: `INFO 11-22 02:25:17 [worker.py:287] message`.

    `origin` is the file and line that logs this in vLLM 0.8.5. Each further line of the message repeats the prefix and
    is separated by CR LF, as in vllm.logging_utils.NewLineFormatter.
    """
    prefix = f"{level} {time.strftime('%m-%d %H:%M:%S')} [{origin}] "
    print(prefix + message.replace("\n", "\r\n" + prefix), flush=True)


def uvicorn(message: str, *, access: bool = False) -> None:
    """Print like uvicorn: the access log on standard output, everything else on standard error."""
    print(f"INFO:     {message}", file=sys.stdout if access else sys.stderr, flush=True)
