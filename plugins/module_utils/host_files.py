# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host's files say about it. Every function takes the root of the file system, so that tests can bring their own."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el", "armv7l": "armhf", "i686": "i386"}
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_CDI_KIND = "nvidia.com/gpu"
# What the role gpu_tuning leaves on a host, by its own names for them (roles/gpu_tuning/vars/main.yml).
_GPU_TUNING = {
    "program": "usr/local/lib/gpu-tuning.py",
    "settings": "etc/gpu-tuning.conf",
    "unit": "etc/systemd/system/gpu-tuning.service",
    "grub": "etc/default/grub.d/gpu-tuning.cfg",
}
_GPU_TUNING_WANTED = "etc/systemd/system/multi-user.target.wants/gpu-tuning.service"
_GPU_TUNING_APPLIED = "run/gpu-tuning/applied"
_GPU_TUNING_PROBLEMS = "run/gpu-tuning/problems"
# Written last by roles: {"files": {path: checksum}, "units": [name]} (roles/monitoring/vars/main.yml, and the same of gateway and pull).
_MONITORING = "etc/gpuhosts-monitoring/manifest.json"
_GATEWAY = "etc/gpuhosts-gateway/manifest.json"
_PULL = "etc/gpuhosts-pull/manifest.json"
_PULL_LAST = "var/lib/gpuhosts-pull/last.json"  # roles/pull/files/pull.py
_CDI_FILES = ("etc/cdi/nvidia.yaml", "etc/cdi/nvidia.json", "var/run/cdi/nvidia.yaml", "var/run/cdi/nvidia.json")

IMAGE_PROOFS = "var/lib/vllm/proofs/"


def read_text(root, name):
    """The file's text, or None where it cannot be read."""
    try:
        with open(os.path.join(root, name), encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return None


def debian_architecture(machine):
    """The kernel's word for the machine (C(x86_64)) as Debian spells it (C(amd64))."""
    return _ARCHITECTURES.get(machine, machine)


def os_release(root="/"):
    """C(id), C(version_id) and C(codename) of os-release(5); None for what it leaves out."""
    pairs = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", read_text(root, "etc/os-release") or ""))
    pairs = {key: text.strip().strip("\"'") for key, text in pairs.items()}
    return {
        "id": pairs.get("ID"),
        "version_id": pairs.get("VERSION_ID"),
        "codename": pairs.get("VERSION_CODENAME") or pairs.get("UBUNTU_CODENAME"),
    }


def memory_bytes(root="/"):
    """MemTotal of C(/proc/meminfo), in bytes."""
    match = re.search(r"(?m)^MemTotal:\s*(\d+) kB", read_text(root, "proc/meminfo") or "")
    return int(match.group(1)) * 1024 if match else None


def secure_boot(root="/"):
    """True or False as the firmware says; None where it cannot be known (a container, or efivars not mounted).

    An EFI variable file is four bytes of attributes and then the value, here one byte.
    """
    firmware = os.path.join(root, "sys/firmware")
    if not os.path.isdir(os.path.join(firmware, "efi")):
        # A BIOS machine has other entries here (acpi, dmi); a container runtime shows an empty directory.
        return False if os.path.isdir(firmware) and os.listdir(firmware) else None
    try:
        with open(os.path.join(root, _SECURE_BOOT), "rb") as source:
            return source.read()[4:5] == b"\x01"
    except OSError:
        return None


def running_driver(root="/"):
    """Version of the loaded nvidia kernel module, None when it is not loaded."""
    version = (read_text(root, "sys/module/nvidia/version") or "").strip()
    if version:
        return version
    match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", read_text(root, "proc/driver/nvidia/version") or "")
    return match.group(1) if match else None


def nvidia_module(kernel, root="/"):
    """Path of the nvidia module that is installed for that kernel, by depmod's index: "" where there is none, None where the kernel has no index on
    this root.

    Debian's own packages call it nvidia-current.
    """
    index = read_text(root, f"lib/modules/{kernel}/modules.dep")
    if index is None:
        return None
    match = re.search(r"(?m)^(\S*/nvidia(?:-current)?\.ko(?:\.\w+)?):", index)
    return os.path.join(root, f"lib/modules/{kernel}", match.group(1)) if match else ""


def nouveau_loaded(root="/"):
    """Whether the nouveau module is loaded."""
    return os.path.isdir(os.path.join(root, "sys/module/nouveau"))


def reboot_required(root="/"):
    """Whether a package has asked for a reboot (update-notifier's flag file)."""
    return any(os.path.exists(os.path.join(root, name)) for name in ("run/reboot-required", "var/run/reboot-required"))


def kernel_arguments(root="/"):
    """The words of the running kernel's command line."""
    return (read_text(root, "proc/cmdline") or "").split()


def gpu_tuning(root="/"):
    """What the role gpu_tuning left: SHA-256 of each of its files (None where it is not there), and of the settings that were last applied.

    C(applied) is gone after a boot until the unit has applied every setting; C(problems) are the sentences for those that it could not.
    """
    state = {}
    for key, name in _GPU_TUNING.items():
        text = read_text(root, name)
        state[key] = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    state["enabled"] = os.path.lexists(os.path.join(root, _GPU_TUNING_WANTED))
    state["applied"] = (read_text(root, _GPU_TUNING_APPLIED) or "").strip() or None
    state["problems"] = (read_text(root, _GPU_TUNING_PROBLEMS) or "").splitlines()
    return state


def monitoring(root="/"):
    """What the role monitoring left; see _left."""
    return _left(root, _MONITORING)


def gateway(root="/"):
    """What the role gateway left; see _left."""
    return _left(root, _GATEWAY)


def pull(root="/"):
    """What the role pull left; see _left. C(last) is what came of the host's own last run, None where it had none.

    One that says that it is running and does not run was cut off.
    """
    try:
        last = json.loads(read_text(root, _PULL_LAST) or "null")
    except ValueError:
        last = None
    last = last if isinstance(last, dict) else None
    if last and last.get("result") == "running" and not os.path.lexists(os.path.join(root, "run/systemd/units/invocation:gpuhosts-pull.service")):
        last["result"] = "cut off"
    return dict(_left(root, _PULL), last=last)


def _left(root, name):
    """What a role left by its manifest: {"files": {path: its SHA-256 now, None where it is gone}, "units": {name: whether it runs, and will at boot}}."""
    try:
        manifest = json.loads(read_text(root, name) or "{}")
        files, units = list(manifest.get("files", {})), list(manifest.get("units", []))
    except (ValueError, AttributeError, TypeError):
        # Half a manifest is none: the role writes it anew.
        files, units = [], []
    texts = {path: read_text(root, path.lstrip("/")) for path in files}
    return {
        "files": {path: None if text is None else hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()},
        "units": {unit: _runs(root, unit) for unit in units},
    }


def _runs(root, unit):
    """Whether systemd runs a unit and starts it at the next boot, by the links that it keeps of both. A timer runs nothing, and has the second only."""
    wanted = glob.glob(os.path.join(root, "etc/systemd/system/*.wants", unit))
    return bool(wanted) and (unit.endswith(".timer") or os.path.lexists(os.path.join(root, "run/systemd/units/invocation:" + unit)))


def reboot_reasons(kernel, root="/"):
    """Why the host waits for a reboot, a sentence each: packages that asked for one, and a kernel that is installed and does not run."""
    reasons = []
    if reboot_required(root):
        packages = sorted(set((read_text(root, "run/reboot-required.pkgs") or "").split()))
        reasons.append("packages have asked for a reboot" + (": " + ", ".join(packages) if packages else ""))
    # The link that the boot loader follows: Debian keeps it in the root directory, Ubuntu in /boot.
    for link in ("vmlinuz", "boot/vmlinuz"):
        try:
            installed = os.path.basename(os.readlink(os.path.join(root, link))).partition("vmlinuz-")[2]
        except OSError:
            continue
        if installed and installed != kernel:
            reasons.append(f"kernel {kernel} runs, and {installed} is installed")
            break
    return reasons


def daemon_config(root="/"):
    """Docker's daemon.json: (settings, error). No file is no settings; a file that cannot be read as an object is {} and a sentence."""
    path = "/etc/docker/daemon.json"
    text = read_text(root, path[1:])
    if text is None:
        if os.path.lexists(os.path.join(root, path[1:])):
            return {}, f"{path} cannot be read"
        return {}, None
    try:
        settings = json.loads(text) if text.strip() else {}
    except ValueError as error:
        return {}, f"{path} is not valid JSON: {error}"
    if not isinstance(settings, dict):
        return {}, f"{path} is not a JSON object"
    return settings, None


def cdi_devices(root="/"):
    """Names of the nvidia.com/gpu devices in the host's CDI specifications, sorted and without repeats: C(["0", "1", "all"])."""
    names = set()
    for path in _CDI_FILES:
        names.update(cdi_names(read_text(root, path) or ""))
    return sorted(names)


def cdi_names(text):
    """Device names in one CDI specification, JSON or the YAML that nvidia-ctk writes.

    The YAML is read by a scan of its lines, because a host's Python often has no YAML reader: under C(devices:), a list item's own keys stand
    two columns right of its dash, and C(name) among them is the device's name.
    """
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
            devices = document.get("devices", []) if document.get("kind") == _CDI_KIND else []
            return [str(device["name"]) for device in devices if "name" in device]
        except (ValueError, TypeError, AttributeError):
            return []
    if not re.search(rf"(?m)^kind:\s*[\"']?{re.escape(_CDI_KIND)}[\"']?\s*$", text):
        return []
    names, column, inside = [], None, False
    for line in text.splitlines():
        if line[:1] not in ("", " ", "-", "#"):
            inside, column = line.startswith("devices:"), None
            continue
        match = re.match(r"( *)(- )? *(\w+):\s*(.*)$", line)
        if not inside or not match:
            continue
        indent, dash, key, text_value = match.groups()
        if column is None and dash:
            column = len(indent)
        own = len(indent) == column if dash else column is not None and len(indent) == column + 2
        if own and key == "name":
            names.append(text_value.strip().strip("\"'"))
    return names


def cdi_driver_version(root="/"):
    """Version of the driver whose files the host's CDI specifications mount, None where they name none or several.

    nvidia-ctk mounts the driver's libraries by their full names (C(/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.153.02)). After an update of
    the driver those are gone, and no container starts with the old description.
    """
    versions = set()
    for path in _CDI_FILES:
        versions.update(re.findall(r"/lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)\b", read_text(root, path) or ""))
    return versions.pop() if len(versions) == 1 else None


def container_proof(root="/"):
    """What was last proved to work in a container, as the role nvidia_container_toolkit wrote it; {} where nothing was."""
    try:
        proof = json.loads(read_text(root, "var/lib/gpuhosts/container_proof.json") or "{}")
    except ValueError:
        return {}
    return proof if isinstance(proof, dict) else {}


def image_proof(image, root="/"):
    """What was found in an image (C(sha256:...)), as the module vllm_image_proof keeps it; None where it was not looked into."""
    try:
        proof = json.loads(read_text(root, IMAGE_PROOFS + image.partition(":")[2] + ".json") or "null")
    except ValueError:
        return None
    return proof if isinstance(proof, dict) else None


def file_system(path):
    """Free and total bytes, free inodes and mount point of the file system that holds the path or its nearest existing parent.

    Free is what an ordinary process may use. File systems without a fixed number of inodes (btrfs) have None.
    """
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    mount_point = os.path.realpath(path)
    while not os.path.ismount(mount_point):
        mount_point = os.path.dirname(mount_point)
    return {
        "free_bytes": found.f_bavail * found.f_frsize,
        "total_bytes": found.f_blocks * found.f_frsize,
        "free_inodes": found.f_favail if found.f_files else None,
        "mount_point": mount_point,
    }
