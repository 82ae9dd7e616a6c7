# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process: reads the command line, starts the engine, serves until it is told to stop or dies."""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import NoReturn

from planner.options import parse

from . import VERSION, checkpoint, faults, logs, settings, sizing, startup
from .api import Api
from .engine import Engine
from .metrics import SHOWS_HIDDEN, Metrics
from .server import Server

STATE_DIRECTORY = "/root/.cache/simulated-engine"
USAGE = "usage: api_server.py [-h] [--host HOST] [--port PORT] [--model MODEL] [...]"


def main() -> NoReturn:
    """Exit status: 0 when stopped, 1 when the engine cannot start or dies, 2 for a bad command line or fault text."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        status = _run(sys.argv[1:])
    except SystemExit as stop:
        status = int(stop.code or 0)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Request threads may still be frozen by a fault: leave without waiting for them.
    os._exit(status)


def _run(argv: list[str]) -> int:
    try:
        options = parse(VERSION, argv)
    except ValueError as error:
        print(f"{USAGE}\napi_server.py: error: {error}", file=sys.stderr)
        return 2
    try:
        told = faults.parse(os.environ.get("GPUHOSTS_SIMULATED_FAULT", ""))
    except ValueError as error:
        print(f"GPUHOSTS_SIMULATED_FAULT: {error}", file=sys.stderr)
        return 2

    logs.vllm("INFO", "__init__.py:239", "Automatically detected platform cuda.")
    logs.vllm("INFO", "api_server.py:1043", f"vLLM API server version {VERSION}")
    logs.vllm("INFO", "api_server.py:1044", f"args: {argparse.Namespace(**options)}")
    server = Server(
        (options["host"] or "0.0.0.0", options["port"]),
        api_key=options["api_key"] or os.environ.get("VLLM_API_KEY"),
        access_log=not options["disable_uvicorn_access_log"] and options["uvicorn_log_level"] in ("info", "debug", "trace"),
    )
    config = checkpoint.read_config(options["model"])
    resolved = settings.resolve(options, config)
    memory = _start_engine(resolved, options, config, told)
    engine = _engine(resolved, options, memory, told)
    return _serve(server, Api(engine, resolved, log_requests=not options["disable_log_requests"]), options)


def _start_engine(resolved: settings.Settings, options: dict, config: dict, told: dict) -> sizing.Memory:
    """What the real server does in a second process: its failures are told twice, by that process and by this one."""
    logs.vllm("INFO", "api_server.py:246", f"Started engine process with PID {os.getpid()}")
    state = pathlib.Path(os.environ.get("GPUHOSTS_SIMULATED_STATE", STATE_DIRECTORY))
    try:
        return startup.load(resolved, options, config, told, state)
    except Exception as error:
        logs.vllm("ERROR", "engine.py:448", f"{error}\n{traceback.format_exc().rstrip()}")
        print("Process SpawnProcess-1:", file=sys.stderr)
        traceback.print_exc()
        raise RuntimeError("Engine process failed to start. See stack trace for the root cause.") from None


def _engine(resolved: settings.Settings, options: dict, memory: sizing.Memory, told: dict) -> Engine:
    metrics = Metrics(
        resolved.served_model_names[0], resolved.max_model_len,
        shown=not options["disable_log_stats"], hidden=options["show_hidden_metrics_for_version"] == SHOWS_HIDDEN,
    )
    metrics.cache_config.set(1, **{name: str(value) for name, value in {
        "block_size": resolved.block_size,
        "cache_dtype": resolved.kv_cache_dtype,
        "calculate_kv_scales": options["calculate_kv_scales"],
        "cpu_offload_gb": options["cpu_offload_gb"],
        "enable_prefix_caching": options["enable_prefix_caching"],
        "gpu_memory_utilization": resolved.gpu_memory_utilization,
        "is_attention_free": False,
        "num_cpu_blocks": memory.cpu_blocks,
        "num_gpu_blocks": memory.gpu_blocks,
        "num_gpu_blocks_override": resolved.num_gpu_blocks_override,
        "prefix_caching_hash_algo": options["prefix_caching_hash_algo"],
        "sliding_window": None,
        "swap_space": options["swap_space"],
        "swap_space_bytes": resolved.swap_space_bytes,
    }.items()})
    engine = Engine(
        metrics, max_num_seqs=resolved.max_num_seqs, gpu_blocks=memory.gpu_blocks, block_size=resolved.block_size,
        prefix_caching=bool(options["enable_prefix_caching"]),
        told={name: argument for name, argument in told.items() if name in faults.WHILE_SERVING},
    )
    if not options["disable_log_stats"]:
        threading.Thread(target=engine.log_statistics, daemon=True).start()
    return engine


def _serve(server: Server, api: Api, options: dict) -> int:
    """Answer requests until SIGTERM (0) or the engine's death (1)."""
    host, port = server.server_address[:2]
    logs.vllm("INFO", "api_server.py:1090", f"Starting vLLM API server on http://{f'[{host}]' if ':' in host else host}:{port}")
    server.open(api)
    speaks = options["uvicorn_log_level"] in ("info", "debug", "trace")
    _say(speaks, f"Started server process [{os.getpid()}]", "Waiting for application startup.", "Application startup complete.")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        api.engine.died.wait()
        # Let the request that died get its answer.
        time.sleep(0.2)
        status = 1
    except SystemExit:
        logs.vllm("INFO", "launcher.py:79", "Shutting down FastAPI HTTP server.")
        status = 0
    _say(speaks, "Shutting down", "Waiting for application shutdown.", "Application shutdown complete.")
    return status


def _say(speaks: bool, *messages: str) -> None:
    for message in messages:
        if speaks:
            logs.uvicorn(message)


def _stop(signum: int, frame: object) -> NoReturn:
    """Break off whatever the main thread waits for."""
    raise SystemExit(0)
