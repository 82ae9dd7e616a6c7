"""What a gateway costs: `make bench-gateway`. The same requests to an engine directly, through the role's HAProxy, and through LiteLLM's proxy.

    python3 tests/bench/gateway.py --litellm .cache/litellm/bin/litellm

The engine is the lab's simulated one, whose own time is the same for all three. Latency: one client, one request after the other, the three ways in turn.
Requests per second: --clients at once.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import conftest  # the checkout as a collection
import lab_gateway

assert conftest
LOCAL = threading.local()


def asker(name, port, key, size):
    """A function that asks once, on a connection of its thread, and returns milliseconds."""
    body = json.dumps({"messages": [{"role": "user", "content": "x" * size}], "model": "coder", "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def ask(dummy=None):
        connections = LOCAL.__dict__
        for again in (True, False):
            connection = connections.setdefault(f"{name}{port}", http.client.HTTPConnection("127.0.0.1", port, timeout=60))
            started = time.perf_counter()
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                response = connection.getresponse()
                response.read()
            except (http.client.HTTPException, OSError):
                # A connection that was kept open too long.
                connections.pop(f"{name}{port}").close()
                if not again:
                    raise
                continue
            if response.status != 200:
                sys.exit(f"{name} answered {response.status}")
            return (time.perf_counter() - started) * 1000

    return ask


@contextlib.contextmanager
def litellm(program, engine, directory):
    """LiteLLM's proxy before the engine; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = {"model": "openai/coder", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": lab_gateway.ENGINE_KEY}
    config = {"model_list": [{"model_name": "coder", "litellm_params": target}], "general_settings": {"master_key": lab_gateway.KEY}}
    path = directory / "litellm.json"
    path.write_text(json.dumps(config))
    with (directory / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"], stdout=log, stderr=log,
            env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"LiteLLM does not start:\n{(directory / 'litellm.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield port
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--litellm", help="LiteLLM's program; without it LiteLLM is left out")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--size", type=int, default=2000, help="bytes of the prompt")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        base = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start = lab_gateway.launcher(base)
        quiet = ("--disable-log-requests", "--disable-uvicorn-access-log")
        gateway = stack.enter_context(start(*quiet, contexts=(4096,), gateway_concurrency_factor=1000))
        engine = gateway.engines[0].port
        ways = {"direct": (engine, lab_gateway.ENGINE_KEY), "gateway (HAProxy)": (gateway.port, lab_gateway.KEY)}
        if options.litellm:
            ways["LiteLLM's proxy"] = (stack.enter_context(litellm(options.litellm, engine, base)), lab_gateway.KEY)
        ask = {name: asker(name, port, key, options.size) for name, (port, key) in ways.items()}
        for way in ask.values():
            for dummy in range(20):
                way()
        times = {name: [] for name in ask}
        for dummy in range(options.requests):
            for name, way in ask.items():
                times[name].append(way())
        rates = {}
        for name, way in ask.items():
            with concurrent.futures.ThreadPoolExecutor(options.clients) as threads:
                started = time.perf_counter()
                list(threads.map(way, range(options.requests)))
                rates[name] = options.requests / (time.perf_counter() - started)
        direct = statistics.quantiles(times["direct"], n=100)
        print(f"{options.requests} requests with {options.size} bytes of prompt, one token each; requests per second with {options.clients} clients\n")
        print("| way | p50 | p99 | added at p50 | added at p99 | requests per second |\n|---|---:|---:|---:|---:|---:|")
        for name, found in times.items():
            cuts = statistics.quantiles(found, n=100)
            print(f"| {name} | {cuts[49]:.2f} ms | {cuts[98]:.2f} ms | {cuts[49] - direct[49]:.2f} ms | {cuts[98] - direct[98]:.2f} ms | {rates[name]:.0f} |")


if __name__ == "__main__":
    main()
