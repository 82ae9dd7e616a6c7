# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What containers of instances have in common with others: where a model lies, and how cards get in."""

from __future__ import annotations

import collections.abc

DEFAULT_REVISION = "main"
ENGINE_PORT = 8000  # the engine's own default; the instance's port is the one published


def model_directory(model: str) -> str:
    """Return where a model lies below the models' root: the owner in lower case, then the name (qwen/Qwen3-32B-AWQ)."""
    owner, slash, name = model.rpartition("/")
    return f"{owner.lower()}{slash}{name}"


def model_locations(instances, root: str) -> list[dict]:
    """Return {repo_id, revision, path} of every model that instances name, once each, in the order of their first mention.

    Of a model that is named at several revisions the first counts: its directory can hold only one. What is no instance with a model is left out.
    """
    found = {}
    for instance in instances if isinstance(instances, list) else []:
        model = instance.get("model") if isinstance(instance, dict) else None
        if isinstance(model, str) and model and model not in found:
            revision = str(instance.get("revision") or DEFAULT_REVISION)
            found[model] = {"repo_id": model, "revision": revision, "path": f"{root.rstrip('/')}/{model_directory(model)}"}
    return list(found.values())


# What an engine may write to in a container whose root is read-only: its home and /tmp in memory (compiled kernels are loaded from there, hence
# exec), and the volume of its caches, which outlives it.
WRITABLE = ("/tmp:exec", "/root:exec")
LOG_OPTIONS = {"max-size": "50m", "max-file": "3"}


def limits_argv(settings: collections.abc.Mapping) -> list[str]:
    """Return the arguments of `docker run` that say what an engine's container may use and do.

    settings: ipc, shm_size, ulimits and read_only of the role vllm; cpuset_cpus and cpuset_mems where the instance has them.
    """
    return [
        *([f"--ipc={settings['ipc']}"] if settings["ipc"] else []),
        *([f"--shm-size={settings['shm_size']}"] if settings["shm_size"] else []),
        *(f"--ulimit={limit}={value}" for limit, value in settings["ulimits"].items()),
        *(f"--cpuset-{key}={settings[f'cpuset_{key}']}" for key in ("cpus", "mems") if settings.get(f"cpuset_{key}")),
        "--security-opt=no-new-privileges",
        "--cap-drop=ALL",
        *(["--read-only", *(f"--tmpfs={path}" for path in WRITABLE)] if settings["read_only"] else []),
        "--log-driver=json-file",
        *(f"--log-opt={key}={value}" for key, value in LOG_OPTIONS.items()),
    ]


def gpu_argv(cards: collections.abc.Sequence[int] | None, host: collections.abc.Mapping) -> list[str]:
    """Return the arguments of `docker run` that give a container cards by their index, or all of them (None).

    Cards are given by their names in the host's CDI description and not by `--gpus`: after `systemctl daemon-reload` a container keeps the
    devices it was given, and loses the ones a runtime hook slipped in. An engine before 25 does not know CDI. NVIDIA's runtime does the same
    for it when the names are complete: its mode `auto` then edits the container's own list of devices and adds no hook
    (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html).

    The host's `docker` is as gpu_facts returns it; of an engine that is not known (no version) CDI is expected.
    """
    names = [f"nvidia.com/gpu={card}" for card in (["all"] if cards is None else cards)]
    docker = host.get("docker") or {}
    if docker.get("version") and not docker.get("cdi"):
        return ["--runtime=nvidia", f"--env=NVIDIA_VISIBLE_DEVICES={','.join(names)}"]
    return [f"--device={name}" for name in names]
