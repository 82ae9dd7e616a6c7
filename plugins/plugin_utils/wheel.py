# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Wheels with CUDA code: what one depends on, where it lies in a store, how many compilers may run, and whether what was built is what was wanted.

A store is a directory on the controller, or a share that is mounted there. It has one directory for each wheel, named by the wheel's key, with the
wheel and manifest.json: {"wanted": what it was built for, "wheel": its file name, "sha256": its checksum, and what else the build said}. Where an image
was made with the wheel inside, images.json says so: {repository: reference by digest}.

Served by any web server, it is a store behind a URL, in which nothing can be searched for. So every manifest lies there once more, under a name that is
known before an image was looked into.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import Problem

GIB = 2**30
# What a host keeps of its memory and its cores for what serves, when a wheel is built on it.
MEMORY_SHARE, SPARE_CORES = 0.75, 1
# Of the image, once it was looked into (image_probe.py).
FROM_PROBE = {"python": "python", "torch": "torch", "cuda": "torch_cuda"}


def wanted(package: Mapping, image: str, image_id: str | None, probe: Mapping | None) -> dict:
    """What a wheel depends on: all of this, and nothing else, goes into its key.

    package: {name, version, sha256, archs} of the sources. image: the reference of the image that is to use it; image_id: the engine's id of it,
    which stands for the image where the reference has no digest. probe: what was found inside; None leaves Python, PyTorch and CUDA open.
    """
    digest = re.search(r"@(sha256:[0-9a-f]{64})$", image)
    probe = probe or {}
    return {
        "name": package["name"],
        "version": package["version"],
        "source_sha256": package["sha256"],
        "archs": sorted(package["archs"], key=lambda arch: [int(number) for number in re.findall(r"\d+", arch)]),
        "image": digest[1] if digest else image_id,
        **{key: probe.get(name) for key, name in FROM_PROBE.items()},
    }


def key(want: Mapping) -> str:
    """The name of a wheel's directory: the same dependencies, the same key."""
    text = json.dumps(dict(want), sort_keys=True)
    return f"{want['name']}-{want['version']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def offer(want: Mapping) -> str:
    """The name under which a store behind a URL has the manifest of the wheel. Of Python, PyTorch and CUDA it needs nothing: the image says what they are."""
    return key({**want, **dict.fromkeys(FROM_PROBE)}) + ".json"


def offered(text: str, want: Mapping) -> dict | None:
    """What a store behind a URL offers: {key, wheel, sha256, manifest}; None where the text is not the manifest of a wheel that fulfils what is wanted."""
    try:
        manifest = json.loads(text)
        found = {"key": key(manifest["wanted"]), "wheel": manifest["wheel"], "sha256": manifest["sha256"], "manifest": manifest}
        sound = _fits(manifest, want) and re.fullmatch(r"[\w.+-]+\.whl", found["wheel"]) and re.fullmatch(r"[0-9a-f]{64}", found["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if sound else None


def stored(want: Mapping, store: str) -> dict:
    """The wheel in a store that fulfils what is wanted; a value that is not known (None) fits any.

    Returns {state, key, directory, problem, images} and of one that is there also {wheel, sha256, manifest}. state is stored, missing, or broken: then
    problem says what is wrong, such as a wheel that was cut off or is another one than its manifest's.
    """
    for path in sorted(pathlib.Path(store).glob(f"{want['name']}-{want['version']}-*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            fits = _fits(manifest, want)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # what a run that was cut off has left is built anew
        if fits:
            found = {"key": path.parent.name, "directory": str(path.parent), "manifest": manifest, "wheel": manifest["wheel"], "sha256": manifest["sha256"]}
            problem = _damage(path.parent / manifest["wheel"], manifest["sha256"])
            return {**found, "state": "broken" if problem else "stored", "problem": problem, "images": _images(path.parent / "images.json")}
    return {"state": "missing", "key": key(want), "directory": str(pathlib.Path(store) / key(want)), "problem": None, "images": {}}


def _fits(manifest: Mapping, want: Mapping) -> bool:
    return all(value is None or manifest["wanted"].get(name) == value for name, value in want.items())


def _images(path: pathlib.Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # none was made, or a run was cut off: one is made
    return found if isinstance(found, dict) else {}


def _damage(path: pathlib.Path, checksum: str) -> str | None:
    try:
        with open(path, "rb") as wheel:
            found = hashlib.file_digest(wheel, "sha256").hexdigest()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    return None if found == checksum else f"{path} is not the wheel that its manifest names: its SHA-256 is {found}, not {checksum}"


def attempts(cpus: int | None, memory_bytes: int | None, gib_per_job: float) -> dict:
    """How a build shares a host with what serves on it: {"jobs": [4, 2, 1], "memory_bytes": 51539607552}.

    jobs: as many compilers as cores and memory allow, then half of that after each try that ran out of memory. memory_bytes: what the build may
    take in all, so that the kernel ends a compiler and not an engine; 0 where the host's memory is not known.
    """
    limit = int((memory_bytes or 0) * MEMORY_SHARE)
    by_cores = max(1, (cpus or 1) - SPARE_CORES) if (cpus or 1) > 2 else cpus or 1
    most = max(1, min(by_cores, int(limit / (gib_per_job * GIB))) if limit else 1)
    jobs = [most]
    while jobs[-1] > 1:
        jobs.append(jobs[-1] // 2)
    return {"jobs": jobs, "memory_bytes": limit}


def archs_in(text: str) -> set[str]:
    """The archs in a listing of cuobjdump, "7.5": its lines end in NAME.1.sm_75.cubin, or .ptx."""
    return {f"{sm[:-1]}.{sm[-1]}{suffix}" for sm, suffix in re.findall(r"\.(?:sm|compute)_(\d+)([a-z]?)\.(?:cubin|ptx)\b", text)}


def problems(status: Mapping, want: Mapping) -> Iterator[Problem]:
    """What speaks against carrying a wheel that was built. status: what build.py says, with the listings of cuobjdump."""
    again = "Remove its directory from the store, and build it again."
    found = status["metadata"]
    if (_normal(found["name"]), found["version"]) != (_normal(want["name"]), want["version"]):
        message = f"The wheel says that it is {found['name']} {found['version']}, and {want['name']} {want['version']} was wanted."
        yield Problem("other_package", message, "Correct flash_attn_wheel_source, flash_attn_wheel_package and flash_attn_wheel_version.")
    for name in FROM_PROBE:
        if want[name] not in (None, status[name]):
            yield Problem("other_image", f"The wheel was built beside {name} {status[name]}, and its key says {want[name]}.", again)
    tag = f"cp{status['python'].replace('.', '')}"
    wrong = [given for given in found["tags"] if not given.startswith((tag, "py3-", "py2.py3-")) and "abi3" not in given]
    if wrong:
        yield Problem("other_python", f"The wheel is for {', '.join(wrong)}, and the image has Python {status['python']}.", again)
    yield from _code(status["objdump"], want)


def _code(objdump: Mapping, want: Mapping) -> Iterator[Problem]:
    """Machine code for all wanted archs and no other, and no PTX."""
    machine = set().union(*(archs_in(listing["elf"]) for listing in objdump.values())) if objdump else set()
    ptx = set().union(*(archs_in(listing["ptx"]) for listing in objdump.values())) if objdump else set()
    missing, extra = sorted(set(want["archs"]) - machine), sorted(machine - set(want["archs"]))
    if missing:
        has = f"it has {_sms(machine)}" if machine else "it has none"
        yield Problem("code_missing", f"The wheel holds no code for {_sms(missing)}: {has}.", "See build.log on the builder for what nvcc was told.")
    if extra or ptx:
        also = " and ".join(part for part in (f"code for {_sms(extra)}" if extra else "", f"PTX for {_sms(sorted(ptx))}" if ptx else "") if part)
        message = f"The wheel also holds {also}, which nobody asked for."
        yield Problem("code_unwanted", message, "Add these to flash_attn_wheel_archs, or see build.log on the builder for what nvcc was told.")


def _sms(archs) -> str:
    return ", ".join(f"sm_{arch.replace('.', '')}" for arch in sorted(archs))


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
