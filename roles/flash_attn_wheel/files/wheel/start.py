"""Starts an engine with a wheel that its image does not have, and changes nothing of the image. The entry point of an instance's container.

Usage: start.py wheel DIRECTORY SHA256 ARGUMENT...    the wheel that lies in DIRECTORY, beside its manifest.json
       start.py build DIRECTORY CACHE ARGUMENT...     the sources in DIRECTORY, by its spec.json, compiled below CACHE once

The wheel is unpacked without network into a directory in memory, which stands before the image's own packages; it is imported beside torch, and
then Python is started with the ARGUMENTs. What fails is said in one sentence, and no engine starts without what it was to have.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import build

INSTALLED = "/tmp/gpuhosts-wheel"
PARTS = ("source", "dist", "build.log", "status.json")


def read(directory, name):
    """A JSON file of the directory; build.Failed where it is not there."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise build.Failed(f"{name} of the wheel cannot be read ({error}): run site.yml, which carries it anew.")


def carried(directory, checksum):
    """(path, modules to import) of the wheel in the directory; build.Failed unless it has the checksum that the definition names."""
    manifest = read(directory, "manifest.json")
    path = os.path.join(directory, manifest["wheel"])
    found = build.sha256(path) if os.path.exists(path) else "none: it is not there"
    if found != checksum:
        raise build.Failed(
            f"The wheel {manifest['wheel']} is not the one that was proved: its SHA-256 is {found}, not {checksum}. Run site.yml, which carries it anew."
        )
    return path, manifest["imports"]


def compiled(directory, cache):
    """(path, modules to import) of the wheel that was compiled below the cache, now or at an earlier start."""
    spec = read(directory, "spec.json")
    os.makedirs(cache, exist_ok=True)
    status_path = os.path.join(cache, "status.json")
    status = read(cache, "status.json") if os.path.exists(status_path) else {}
    path = os.path.join(cache, status.get("wheel", ""))
    if status.get("spec") != spec or not os.path.isfile(path) or build.sha256(path) != status["sha256"]:
        if status.get("spec") not in (None, spec):
            for part in PARTS:
                shutil.rmtree(os.path.join(cache, part), ignore_errors=True)
        shutil.copy(os.path.join(directory, spec["source"]), cache)
        status = build.build(cache, spec, lambda step, steps, jobs: print(f"{spec['name']}: step {step} of {steps}, {jobs} at once", flush=True))
        with open(status_path, "w", encoding="utf-8") as file:
            json.dump({**status, "spec": spec}, file)
    return os.path.join(cache, status["wheel"]), spec["imports"]


def main(way, directory, what, *arguments):
    try:
        path, imports = (carried if way == "wheel" else compiled)(directory, what)
        shutil.rmtree(INSTALLED, ignore_errors=True)
        build.install(path, INSTALLED)
        build.import_beside_torch(INSTALLED, imports)
    except build.Failed as error:
        sys.exit(f"ERROR: {error}")
    print(f"{os.path.basename(path)} is installed in {INSTALLED}", flush=True)
    paths = [INSTALLED, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


if __name__ == "__main__":
    main(*sys.argv[1:])
