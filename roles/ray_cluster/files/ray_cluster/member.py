# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the container of an engine over several hosts starts, in the engine's image: Ray, and on the head the engine once every worker has joined.

    member.py head --address A --port P --gpus N --worker NAME=ADDRESS ... -- COMMAND ...
    member.py worker --address A --port P --gpus N --head ADDRESS
    member.py status --address A --port P --worker NAME=ADDRESS ...          on the head: who is there, and who is missing (exit status 1)

The engine does not outlive a rank. So a head that loses a worker says which, and ends; its unit starts it again, and with it the whole cluster: workers
end when their head is gone, and join the next one. Exit status of the head: the engine's; 1 a worker was lost; 75 not all workers came, which is no
failure of the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

NOT_YET = 75  # EX_TEMPFAIL: vllm-instance does not count it
ENDED = 128 + signal.SIGTERM
JOIN_SECONDS, SAY_SECONDS, LOOK_SECONDS, STOP_SECONDS, ANSWER_SECONDS = 120, 10, 1, 5, 3
# Every port that Ray opens, from the one that is given: its firewall knows no other. The next four are a node's own, then those of its processes.
NAMES = ("node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port", "dashboard-agent-listen-port")
METRICS, FIRST_PROCESS, LAST_PROCESS = 6, 20, 120
# The engine's variables reach the workers through Ray, unencrypted. The key is the API server's alone.
NOT_CARRIED = ["VLLM_API_KEY"]
OBJECT_STORE_BYTES = 256 << 20  # the engine sends its tensors by NCCL


def say(text):
    print(f"ray_cluster: {text}", flush=True)


def start_argv(options):
    """Ray's own command for this member, without what only a head or a worker has."""
    ports = [f"--{name}={options.port + 1 + number}" for number, name in enumerate(NAMES)]
    processes = [f"--min-worker-port={options.port + FIRST_PROCESS}", f"--max-worker-port={options.port + LAST_PROCESS}"]
    limits = [f"--num-gpus={options.gpus}", f"--num-cpus={options.gpus + 1}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    metrics = [f"--metrics-export-port={options.port + METRICS}", "--disable-usage-stats"]
    return ["ray", "start", f"--node-ip-address={options.address}", *ports, *metrics, *processes, *limits]


def connect(options):
    """Ray's module, connected to this cluster."""
    import ray

    ray.init(address=f"{options.address}:{options.port}", log_to_driver=False, logging_level="warning")
    return ray


def missing(nodes, members):
    """{name: address} of the members that are not among Ray's nodes, as ray.nodes() tells them."""
    there = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    return {name: address for name, address in members.items() if address not in there}


def lost(nodes, joined):
    """(name, why) of the first member whose node is gone. joined: name -> NodeID. Ray that was started again on a host is another node there."""
    known = {node["NodeID"]: node for node in nodes}
    alive = {node["NodeManagerAddress"]: node["NodeID"] for node in nodes if node["Alive"]}
    for name, node in joined.items():
        found = known.get(node)
        if found is None or not found["Alive"]:
            return name, (found or {}).get("DeathReasonMessage") or "Ray does not know it any more"
        if alive[found["NodeManagerAddress"]] != node:
            return name, "its Ray was started again"
    return None


def workers(options):
    """{name: address} of the options --worker."""
    return dict(pair.split("=", 1) for pair in options.worker)


def listed(members):
    return ", ".join(f"{name} ({address})" for name, address in members.items())


def head(options):
    """Start Ray, wait for the workers, run the engine for as long as all of them are there. Returns the exit status."""
    others = workers(options)
    # The first process of a container has no default for it.
    signal.signal(signal.SIGTERM, lambda *dummy: sys.exit(ENDED))
    subprocess.run([*start_argv(options), "--head", f"--port={options.port}", "--include-dashboard=false"], check=True, stdout=subprocess.DEVNULL)
    ray = connect(options)
    if not wait(ray, others):
        return NOT_YET
    alive = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    joined = {name: alive.get(address) for name, address in others.items()}
    say(f"all {1 + len(others)} members have joined: {listed({'the head': options.address, **others})}")
    carried = pathlib.Path.home() / ".config/vllm/ray_non_carry_over_env_vars.json"
    carried.parent.mkdir(parents=True, exist_ok=True)
    carried.write_text(json.dumps(NOT_CARRIED), encoding="ascii")
    engine = subprocess.Popen(options.command, env={**os.environ, "RAY_ADDRESS": f"{options.address}:{options.port}"})
    stopping = []

    def stop(*dummy):
        stopping.append(True)
        engine.terminate()

    signal.signal(signal.SIGTERM, stop)
    while engine.poll() is None:
        time.sleep(LOOK_SECONDS)
        if gone := lost(ray.nodes(), joined):
            end(engine)
            break
    else:
        # What an engine dies of may be a worker's end that Ray has not noticed yet.
        silent = [(name, "nobody answers there any more") for name, address in others.items() if not answers(address, options.port + 1)]
        gone = None if stopping or not engine.returncode else lost(ray.nodes(), joined) or (silent[0] if silent else None)
    if gone:
        say(f"the worker {gone[0]} ({others[gone[0]]}) was lost: {gone[1]}. The engine cannot go on without it: all members start again")
        return 1
    return engine.returncode if engine.returncode >= 0 else 128 - engine.returncode


def answers(address, port):
    """Whether somebody listens there."""
    try:
        with socket.create_connection((address, port), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


def wait(ray, others):
    """Whether all workers have joined in time; who has not is said."""
    end_of_wait, said = time.monotonic() + JOIN_SECONDS, time.monotonic()
    while away := missing(ray.nodes(), others):
        if time.monotonic() >= end_of_wait:
            say(f"not started, for {listed(away)} did not join within {JOIN_SECONDS} s: see journalctl -u ray-worker there")
            return False
        if time.monotonic() >= said:
            say(f"waiting for {listed(away)}")
            said += SAY_SECONDS
        time.sleep(LOOK_SECONDS)
    return True


def end(engine):
    """End an engine whose ranks may hang in each other."""
    engine.terminate()
    try:
        engine.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        engine.kill()


def worker(options):
    """Become Ray's node for as long as there is a head."""
    environment = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "15", "RAY_gcs_server_request_timeout_seconds": "10"}
    say(f"joining {options.head}:{options.port} as {options.address}")
    os.execvpe("ray", [*start_argv(options), f"--address={options.head}:{options.port}", "--block"], environment)


def status(options):
    """Say which members Ray sees. Returns 1 where one is missing."""
    members = {"the head": options.address, **workers(options)}
    away = missing(connect(options).nodes(), members)
    there = {name: address for name, address in members.items() if name not in away}
    print(f"{len(there)} of {len(members)} members are there: {listed(there)}." + (f" Missing: {listed(away)}." if away else ""))
    return 1 if away else 0


def main(arguments):
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(required=True)
    for do in (head, worker, status):
        role = roles.add_parser(do.__name__)
        role.set_defaults(do=do)
        role.add_argument("--address", required=True)
        role.add_argument("--port", type=int, required=True)
        if do is not status:
            role.add_argument("--gpus", type=int, required=True)
        if do is not worker:
            role.add_argument("--worker", action="append", required=True)
        if do is head:
            role.add_argument("command", nargs="+")
        if do is worker:
            role.add_argument("--head", required=True)
    options = parser.parse_args(arguments)
    return options.do(options) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
