# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the driver on a host came from, and which of its parts have which version."""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.gpuhosts.inference.plugins.module_utils import child, host_files

# What a .run file leaves behind to remove itself with. No package has these names.
_UNINSTALLERS = ("usr/bin/nvidia-uninstall", "usr/bin/nvidia-installer")
_LIBCUDA = ("usr/lib/x86_64-linux-gnu/libcuda.so.*.*", "usr/lib64/libcuda.so.*.*")
# The packages that have libcuda: in NVIDIA's repository for Debian and in Debian, in that for Ubuntu and in Ubuntu.
_LIBCUDA_PACKAGE = re.compile(r"libcuda1|libnvidia-compute(-\d+(-server)?)?")


def foreign_files(root="/"):
    """Files of a driver that came past apt, by a .run file or by hand: its uninstaller, and every libcuda that no package has."""
    found = [name for name in _UNINSTALLERS if os.path.exists(os.path.join(root, name))]
    libraries = sorted(os.path.relpath(path, root) for pattern in _LIBCUDA for path in glob.glob(os.path.join(root, pattern)) if not os.path.islink(path))
    if libraries:
        owned = _packaged(root)
        found += [name for name in libraries if "/" + name not in owned and "/" + name.partition("usr/")[2] not in owned]
    return ["/" + name for name in found]


def _packaged(root):
    """All paths in the packages of the driver and of CUDA, whose names say so."""
    paths = set()
    for pattern in ("*cuda*.list", "*nvidia*.list"):
        for path in glob.glob(os.path.join(root, "var/lib/dpkg/info", pattern)):
            paths.update((host_files.read_text(root, os.path.relpath(path, root)) or "").splitlines())
    return paths


def package_version(packages):
    """Version of the installed user-space driver without epoch and Debian revision, C(570.153.02); None without one."""
    versions = [version for name, version in sorted(packages.items()) if _LIBCUDA_PACKAGE.fullmatch(name)]
    return re.sub(r"^\d+:|-[^-]*$", "", versions[-1]) if versions else None


def module_version(program, path, timeout):
    """Version of a kernel module's file by modinfo, which reads compressed ones too; None where it cannot tell."""
    if program is None or path is None:
        return None
    try:
        status, stdout, dummy = child.run([program, "-F", "version", path], timeout)
    except (child.TimedOut, OSError):
        return None
    return stdout.strip() or None if status == 0 else None


def reboot_reasons(running, installed):
    """A sentence where the driver that runs is not the one that is installed, which only a reboot or a reload of the modules mends."""
    return [f"driver {running} runs, and the next boot loads {installed}"] if running and installed and running != installed else []
