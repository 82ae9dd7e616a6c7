# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs an instance on its host: its definition, and that definition written out for each supervisor.

The definition is the one source. A unit, a compose file, a `docker run` and a native command are made from it, here and nowhere else; the host
program (roles/vllm/files/vllm_instance) reads the definition and starts the command of the rung that the host is on.
"""

from __future__ import annotations

import collections.abc
import ipaddress

import yaml

from . import container, ray_cluster
from .planner import instance as contract
from .planner.command import model_path

HEADER = "Written by gpuhosts.inference from vllm_instances of the inventory: what is changed here is lost."
ROOT = "/etc/vllm"  # one directory for each instance
PROGRAM = "/usr/local/sbin/vllm-instance"
ENTRY_POINT = ("-m", "vllm.entrypoints.openai.api_server")

CACHE = "/root/.cache"
NOT_BUILT = "not-built-yet"  # in check mode
# Caches that would lie beside the volume.
CACHE_ENV = {"TRITON_CACHE_DIR": f"{CACHE}/triton", "CUDA_CACHE_PATH": f"{CACHE}/nv", "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/torchinductor"}

# An instance that is asked to stop has this much longer than its requests before systemd kills it.
STOP_MARGIN_SECONDS = 30
# With a wheel that the image does not have, the container starts by a program that installs it (roles/flash_attn_wheel/files/wheel/start.py).
WHEEL_PROGRAMS = "/usr/local/lib/gpuhosts/wheel"
QUARANTINED_STATUS = 78  # EX_CONFIG: what the host program ends with when the instance is in quarantine


def url(port: int, listen_address: str) -> str:
    """Return where the host itself reaches an instance: the address it listens on, or loopback where that is all of them."""
    address = ipaddress.ip_address(listen_address)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def definition(instance: collections.abc.Mapping, plan: collections.abc.Mapping, host: collections.abc.Mapping, settings: collections.abc.Mapping) -> dict:
    """Return what runs an instance: plain types, no secret.

    instance: an entry of vllm_instances without problems. plan: its plan, which fits. host: what gpu_facts returned. settings: the role's

        images          engine version -> image reference
        models          what model_facts returned: hub id -> {path, commit, ...}
        listen_address  address on which ports are published
        ulimits, ipc, shm_size, read_only   of the containers
        native_root     directory of the engines' virtual environments, one for each version
        native_engines  engine version -> the directory behind that path, where it is known
        wheel           for instances with such an attention_strategy: key, sha256, root (directory of the wheels), build_seconds, image (the reference
                        of the one that has the wheel inside)
        limits          seconds and counts for the watchdog; ready_seconds 0 takes the plan's

    Raises KeyError where there is no image for the version, or the model's facts are missing.
    """
    given = contract.normalize(instance)
    native = given["runtime"] == "native"
    found = settings["models"][given["model"]]
    cluster = plan.get("cluster")
    path = found["path"] if native else model_path(given["model"])
    derived = given["attention_strategy"] == "image"
    reference = None if native else (settings["wheel"].get("image") or NOT_BUILT) if derived else settings["images"][given["engine_version"]]
    limits = dict(settings["limits"])
    limits["ready_seconds"] = limits.get("ready_seconds") or plan["ready_seconds"]
    if given["attention_strategy"] == "build_on_start":
        limits["ready_seconds"] += settings["wheel"]["build_seconds"]
    whole = {"reason": "as planned", "changes": {}, "argv": plan["argv"], "kv": plan["kv"]}
    result = {
        "name": given["name"],
        "supervisor": given["supervisor"],
        "runtime": given["runtime"],
        "engine_version": given["engine_version"],
        "served_model_name": given["served_model_name"],
        "port": given["port"],
        "url": url(given["port"], settings["listen_address"]),
        "model": {"repo_id": given["model"], "revision": given["revision"], "commit": found.get("commit"), "path": found["path"]},
        "image": None if native else {"reference": reference, "id": ((host.get("docker") or {}).get("images") or {}).get(reference)},
        "gpus": cluster["hosts"][0]["gpus"] if cluster else list(range(len(host.get("gpus") or []))) if given["gpus"] is None else given["gpus"],
        "rungs": [
            {
                "reason": rung["reason"],
                "changes": rung["changes"],
                "argv": _own_argv(rung["argv"], path, given["port"], settings["listen_address"]) if native or cluster else rung["argv"],
                "kv_tokens": rung["kv"]["tokens"],
            }
            for rung in [whole, *plan["ladder"]]
        ],
        "hang_argv": plan["hang_argv"],
        "expected": {"kv_tokens": plan["kv"]["tokens"], "block_size": plan["kv"]["block_size"]},
        "limits": limits,
    }
    return {**result, "command": _command(result, given, host, settings, cluster)}


def _own_argv(argv, path: str, port: int, listen_address: str) -> list[str]:
    """The engine's arguments in the host's own network: the model where it lies, and the port and address that Docker would have published."""
    head, rest = list(argv[:2]), list(argv[2:])
    return [head[0], path, *rest, "--host", listen_address, "--port", str(port)]


def environment(instance: collections.abc.Mapping, plan: collections.abc.Mapping, api_key: str = "") -> str:
    """Return the file with the engine's environment, as Docker and systemd read it; it holds the API key."""
    given = contract.normalize(instance)
    values = {"HF_HUB_OFFLINE": "1"}
    if given["runtime"] == "container":
        values |= CACHE_ENV
    else:
        cards = range(len(plan["memory"]["per_rank"])) if given["gpus"] is None else given["gpus"]
        values |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, cards))}
    if plan.get("cluster"):
        values |= ray_cluster.environment(plan["cluster"]["hosts"][0])
    values |= plan["env"]
    if api_key:
        values["VLLM_API_KEY"] = api_key
    return "".join(f"{name}={value}\n" for name, value in values.items())


# -- The renderings ------------------------------------------------------------------------------------------------------------------------


def _command(result: dict, given: dict, host, settings, cluster=None) -> list[str]:
    """What stands before the engine's own arguments. cluster: the plan's, of an instance over several hosts."""
    name, directory = given["name"], f"{ROOT}/{given['name']}"
    if given["runtime"] == "native":
        path = f"{settings['native_root']}/{given['engine_version']}"
        # By what is behind the link: other contents are another command, and the one before can be put back.
        return [f"{settings.get('native_engines', {}).get(given['engine_version'], path)}/bin/python3", *ENTRY_POINT]
    if given["supervisor"] == "compose":
        return ["docker", "compose", "--file", f"{directory}/compose.yaml"]
    volumes, started = _wheel(given, settings)
    network = [f"--publish={_published(settings['listen_address'])}:{given['port']}:{container.ENGINE_PORT}"]
    if cluster:
        volumes, network = [f"{ray_cluster.PROGRAMS}:/ray_cluster:ro"], ["--network=host"]
        started = [*ray_cluster.head(cluster), "python3", *ENTRY_POINT]
    attached = ["--rm"] if given["supervisor"] == "systemd" else ["--detach", "--restart=always"]
    return [
        "docker",
        "run",
        *attached,
        "--pull=never",
        f"--name=vllm-{name}",
        *container.gpu_argv(cluster["hosts"][0]["gpus"] if cluster else given["gpus"], host),
        *container.limits_argv({**settings, **{key: given[key] for key in contract.CPUSETS}}),
        f"--env-file={directory}/environment",
        f"--volume={result['model']['path']}:{model_path(given['model'])}:ro",
        # Each instance has caches of its own: vLLM keys what it probed by card numbers that instances may share.
        f"--volume=vllm-{name}-cache:{CACHE}",
        *(f"--volume={volume}" for volume in volumes),
        *network,
        *(["--entrypoint=python3"] if started else []),
        result["image"]["reference"],
        *started,
    ]


def _wheel(given: dict, settings) -> tuple[list[str], list[str]]:
    """The volumes of an instance with a wheel, and what its container's Python starts before the engine's own arguments; empty without."""
    strategy = given["attention_strategy"]
    if strategy not in contract.WHEEL_STRATEGIES or strategy == "image":
        return [], []
    found = settings["wheel"]
    sources, directory = strategy == "build_on_start", f"{found['root']}/{found['key']}"
    what = f"{CACHE}/gpuhosts-wheel/{found['key']}" if sources else found.get("sha256", NOT_BUILT)
    volumes = [f"{WHEEL_PROGRAMS}:/gpuhosts:ro", f"{directory}-sources:/wheel:ro" if sources else f"{directory}:/wheel:ro"]
    return volumes, ["/gpuhosts/start.py", "build" if sources else "wheel", "/wheel", what, *ENTRY_POINT]


def _published(listen_address: str) -> str:
    """An address as `docker run --publish` takes it."""
    return f"[{listen_address}]" if ipaddress.ip_address(listen_address).version == 6 else listen_address


def compose(result: dict, given: dict, host, settings) -> dict:
    """Return the compose file of an instance as a mapping: the same container as `docker run --restart=always` makes."""
    name = given["name"]
    docker = host.get("docker") or {}
    wheel_volumes, started = _wheel(given, settings)
    devices = [f"nvidia.com/gpu={card}" for card in (["all"] if given["gpus"] is None else given["gpus"])]
    service = {
        "image": result["image"]["reference"],
        "container_name": f"vllm-{name}",
        "command": result["rungs"][0]["argv"],
        "restart": "always",
        "pull_policy": "never",
        "network_mode": "bridge",
        "env_file": [f"{ROOT}/{name}/environment"],
        "volumes": [f"{result['model']['path']}:{model_path(given['model'])}:ro", f"cache:{CACHE}", *wheel_volumes],
        "ports": [f"{_published(settings['listen_address'])}:{given['port']}:{container.ENGINE_PORT}"],
        "security_opt": ["no-new-privileges"],
        "cap_drop": ["ALL"],
        "logging": {"driver": "json-file", "options": container.LOG_OPTIONS},
        "stop_grace_period": f"{result['limits']['drain_seconds']}s",
    }
    if docker.get("version") and not docker.get("cdi"):
        service |= {"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": ",".join(devices)}}
    else:
        # The long form: compose before 2.30 does not read CDI names under `devices`.
        service["deploy"] = {"resources": {"reservations": {"devices": [{"driver": "cdi", "device_ids": devices, "capabilities": ["gpu"]}]}}}
    if started:
        service["entrypoint"] = ["python3", *started]
    if settings["ipc"]:
        service["ipc"] = settings["ipc"]
    if settings["shm_size"]:
        service["shm_size"] = settings["shm_size"]
    if settings["ulimits"]:
        service["ulimits"] = dict(settings["ulimits"])
    if given["cpuset_cpus"]:
        service["cpuset"] = given["cpuset_cpus"]
    if settings["read_only"]:
        service |= {"read_only": True, "tmpfs": list(container.WRITABLE)}
    return {"name": f"vllm-{name}", "services": {"vllm": service}, "volumes": {"cache": {"name": f"vllm-{name}-cache"}}}


def compose_text(document: collections.abc.Mapping) -> str:
    """Return the compose file. `$` starts a variable there, so that it is doubled."""
    text = yaml.safe_dump(dict(document), sort_keys=False, width=160, allow_unicode=True)
    return f"# {HEADER}\n{text.replace('$', '$$')}"


def service(instance, plan, host, settings) -> dict:
    """Return what the module vllm_service puts on a host for an instance: {definition, unit, compose}, the last two None where they are not needed.

    The environment, which holds a secret, goes its own way.
    """
    found = definition(instance, plan, host, settings)
    given = contract.normalize(instance)
    return {
        "definition": found,
        "unit": unit(found, instance, settings) if given["supervisor"] == "systemd" else None,
        "compose": compose_text(compose(found, given, host, settings)) if given["supervisor"] == "compose" else None,
    }


def unit(definition: collections.abc.Mapping, instance: collections.abc.Mapping, settings: collections.abc.Mapping) -> str:
    """Return the systemd unit of an instance."""
    given = contract.normalize(instance)
    name, native = given["name"], given["runtime"] == "native"
    drain = definition["limits"]["drain_seconds"]
    # Wants, not Requires: with live-restore a container outlives its engine's restart, and the unit finds it again.
    lines = [
        f"# {HEADER}",
        "[Unit]",
        f"Description=vLLM {name}: {given['model']}",
        *([] if native else ["Wants=docker.service", "After=docker.service"]),
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        *(ray_cluster.requirements() if given["hosts"] else []),
        # Restarts are counted by vllm-instance, which knows an exit from a stop.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={PROGRAM} run {name}",
        f"ExecStop={PROGRAM} stop {name}",
        f"ExecStopPost={PROGRAM} exited {name}",
        # vLLM 0.8.5 ends with 0 also when its engine has died under it.
        "Restart=always",
        "RestartSec=10",
        f"RestartPreventExitStatus={QUARANTINED_STATUS}",
        f"TimeoutStopSec={drain + STOP_MARGIN_SECONDS}",
        # docker run ends with the engine's status, and an engine that is asked to stop ends by that signal.
        "SuccessExitStatus=143",
    ]
    if native:
        lines += _native_lines(given, definition, settings)
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def _native_lines(given: dict, definition: collections.abc.Mapping, settings: collections.abc.Mapping) -> list[str]:
    """What docker run does for a container, done by systemd."""
    name = given["name"]
    return [
        f"EnvironmentFile={ROOT}/{name}/environment",
        f"CacheDirectory=vllm-{name}",
        f"Environment=HOME=/var/cache/vllm-{name} XDG_CACHE_HOME=/var/cache/vllm-{name}",
        *([f"AllowedCPUs={given['cpuset_cpus']}"] if given["cpuset_cpus"] else []),
        *([f"AllowedMemoryNodes={given['cpuset_mems']}"] if given["cpuset_mems"] else []),
        *(f"Limit{limit.upper()}={'infinity' if value == -1 else value}" for limit, value in settings["ulimits"].items()),
        "NoNewPrivileges=true",
        "CapabilityBoundingSet=",
        "PrivateTmp=true",
        "ProtectHome=read-only",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/vllm /run/vllm",
        f"ReadOnlyPaths={definition['model']['path']}",
    ]
