# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker's daemon.json with several authors: how settings are merged, and what the engine must do to take a change. No file, no command."""

from __future__ import annotations

import re

# What dockerd takes up on SIGHUP (https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior), without `features`: the engine
# reads features.cdi and features.containerd-snapshotter only when it starts (seen with 26.1).
RELOADABLE = frozenset(
    (
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    )
)
_ABSENT = object()


def merge(current, ours, wanted):
    """The settings with `wanted` in them.

    Maps are merged key by key at every depth. Everything else, lists too, is one value: the wanted one takes the place of the current one.
    What is in `ours` (what the same author wanted the last time) and no longer wanted goes, unless somebody has changed it meanwhile; a map
    that is empty by that goes too. Everything else stays as it is.
    """
    merged = {}
    for key, value in current.items():
        mine, want = ours.get(key, _ABSENT), wanted.get(key, _ABSENT)
        if isinstance(value, dict) and (isinstance(want, dict) or (want is _ABSENT and isinstance(mine, dict))):
            inner = merge(value, mine if isinstance(mine, dict) else {}, want if isinstance(want, dict) else {})
            if inner or want is not _ABSENT:
                merged[key] = inner
        elif want is not _ABSENT:
            merged[key] = want
        elif mine is _ABSENT or mine != value:
            merged[key] = value
    merged.update((key, value) for key, value in wanted.items() if key not in current)
    return merged


def needed(before, after):
    """What brings a running engine from one configuration to the other: C(none), C(reload) or C(restart).

    A reload leaves a setting as it was when its key is gone from the file (seen with 26.1), so that a key that goes takes a restart.
    """
    changed = {key for key in before.keys() | after.keys() if before.get(key, _ABSENT) != after.get(key, _ABSENT)}
    if not changed:
        return "none"
    return "reload" if changed <= RELOADABLE and changed <= after.keys() else "restart"


def differences(wanted, info):
    """Names of the reloadable settings in which an engine's C(/info) contradicts the file's settings; it does not tell all of them."""
    registry = info.get("RegistryConfig") or {}
    told = {
        "debug": info.get("Debug"),
        "default-runtime": info.get("DefaultRuntime"),
        "labels": info.get("Labels") or [],
        "live-restore": info.get("LiveRestoreEnabled"),
        "registry-mirrors": [mirror.rstrip("/") for mirror in registry.get("Mirrors") or []],
    }
    compared = {key: wanted[key] for key in told if key in wanted}
    if "registry-mirrors" in compared:
        compared["registry-mirrors"] = [mirror.rstrip("/") for mirror in compared["registry-mirrors"]]
    found = {key for key, value in compared.items() if value != told[key]}
    if not set(wanted.get("runtimes", {})) <= set(info.get("Runtimes") or {}):
        found.add("runtimes")
    return sorted(found)


def masked(text):
    """The text without the user and password of any URL: a proxy's address may hold them."""
    return re.sub(r"(://)[^/@\s\"']+@", r"\1***@", text)


def reload_failed(log):
    """Whether an engine's log says that it kept its old configuration on SIGHUP."""
    return bool(re.search(r"level=error msg=\"(unable to configure the Docker daemon|Error (reconfiguring|validating))", log))


def refusal(log):
    """Why an engine did not take its configuration, from its log: the last error's own words, or the last line; None for an empty log.

    dockerd writes logfmt (level=error msg="...") and, when it fails to start, a plain line.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        match = re.search(r"level=(?:error|fatal) msg=\"((?:[^\"\\]|\\.)*)\"", line)
        if match:
            return re.sub(r"\\(.)", r"\1", match.group(1))
        if re.match(r"(failed to start daemon|unable to configure the Docker daemon)", line):
            return line
    return lines[-1] if lines else None
