"""What a host's files say, on a made-up root."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import host_files

CDI_YAML = """---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args:
    - nvidia-cdi-hook
    hookName: createContainer
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not a device
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: GPU-36cd1759-0002-4a6b-9c1f-11080000aaaa
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
kind: nvidia.com/gpu
"""


@pytest.fixture
def root(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    write.path = str(tmp_path)
    return write


def test_os_release(root):
    root("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n')
    assert host_files.os_release(root.path) == {"id": "ubuntu", "version_id": "24.04", "codename": "noble"}


def test_no_os_release(root):
    assert host_files.os_release(root.path) == {"id": None, "version_id": None, "codename": None}


def test_architecture_and_memory(root):
    root("proc/meminfo", "MemTotal:       16384256 kB\nMemFree:  1 kB\n")
    assert host_files.memory_bytes(root.path) == 16384256 * 1024
    assert host_files.debian_architecture("x86_64") == "amd64"
    assert host_files.debian_architecture("riscv64") == "riscv64"


SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({SECURE_BOOT: b"\x06\x00\x00\x00\x01"}, True),
        ({SECURE_BOOT: b"\x06\x00\x00\x00\x00"}, False),
        ({"sys/firmware/efi/runtime": b"0"}, None),
        ({"sys/firmware/acpi/pm_profile": b"1"}, False),
        ({}, None),
    ],
    ids=["on", "off", "efivars not mounted", "BIOS", "container"],
)
def test_secure_boot(root, files, state):
    for name, content in files.items():
        root(name, content)
    assert host_files.secure_boot(root.path) is state


def test_running_driver_by_sysfs(root):
    root("sys/module/nvidia/version", "570.153.02\n")
    assert host_files.running_driver(root.path) == "570.153.02"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.153.02  Release Build  (dvs-builder@U16)", "570.153.02"),
    ],
)
def test_running_driver_by_procfs(root, line, version):
    root("proc/driver/nvidia/version", line + "\nGCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2)\n")
    assert host_files.running_driver(root.path) == version


def test_no_driver(root):
    assert host_files.running_driver(root.path) is None


def test_module_for_the_running_kernel(root):
    root("lib/modules/6.8.0-63/modules.dep", "updates/dkms/nvidia-uvm.ko.zst: x\nupdates/dkms/nvidia.ko.zst:\n")
    root("lib/modules/6.8.0-64/modules.dep", "kernel/drivers/video/fbdev/nvidia/nvidiafb.ko.zst: x\n")
    assert host_files.nvidia_module("6.8.0-63", root.path).startswith(f"{root.path}/lib/modules/6.8.0-63/updates/dkms/nvidia.ko")
    assert host_files.nvidia_module("6.8.0-64", root.path) == ""
    assert host_files.nvidia_module("6.8.0-65", root.path) is None
    root("lib/modules/6.1.0-37/modules.dep", "updates/dkms/nvidia-current.ko:\n")
    assert host_files.nvidia_module("6.1.0-37", root.path) == f"{root.path}/lib/modules/6.1.0-37/updates/dkms/nvidia-current.ko"


def test_reasons_to_reboot(root, tmp_path):
    assert host_files.reboot_reasons("6.8.0-63", root.path) == []
    (tmp_path / "vmlinuz").symlink_to("boot/vmlinuz-6.8.0-63")
    assert host_files.reboot_reasons("6.8.0-63", root.path) == []
    root("run/reboot-required", "")
    root("run/reboot-required.pkgs", "linux-base\nlinux-image-6.8.0-64\nlinux-base\n")
    assert host_files.reboot_reasons("6.8.0-62", root.path) == [
        "packages have asked for a reboot: linux-base, linux-image-6.8.0-64",
        "kernel 6.8.0-62 runs, and 6.8.0-63 is installed",
    ]


def test_nouveau_and_reboot(root):
    assert not host_files.nouveau_loaded(root.path)
    assert not host_files.reboot_required(root.path)
    root("sys/module/nouveau/refcnt", "0")
    root("run/reboot-required", "*** System restart required ***\n")
    assert host_files.nouveau_loaded(root.path)
    assert host_files.reboot_required(root.path)


@pytest.mark.parametrize(
    ("text", "settings", "error"),
    [
        (None, {}, None),
        ("", {}, None),
        ('{"log-driver": "local"}', {"log-driver": "local"}, None),
        ('{"log-driver": "local",}', {}, "/etc/docker/daemon.json is not valid JSON: "),
        ("[]", {}, "/etc/docker/daemon.json is not a JSON object"),
    ],
)
def test_daemon_config(root, text, settings, error):
    if text is not None:
        root("etc/docker/daemon.json", text)
    found, problem = host_files.daemon_config(root.path)
    assert found == settings
    assert problem is None if error is None else problem.startswith(error)


def test_cdi_yaml():
    assert host_files.cdi_names(CDI_YAML) == ["0", "GPU-36cd1759-0002-4a6b-9c1f-11080000aaaa", "all"]


def test_cdi_yaml_with_indented_lists():
    text = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n  - name: '0'\n    containerEdits:\n      env:\n        - A=b\n  - name: all\nannotations: {}\n"
    assert host_files.cdi_names(text) == ["0", "all"]


def test_cdi_json_and_what_is_not_ours():
    specification = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {}}, {"name": "all"}]}
    assert host_files.cdi_names(json.dumps(specification)) == ["0", "all"]
    assert host_files.cdi_names(json.dumps(dict(specification, kind="vendor.com/net"))) == []
    assert host_files.cdi_names(CDI_YAML.replace("nvidia.com/gpu", "vendor.com/net")) == []
    assert host_files.cdi_names("{broken") == []
    assert host_files.cdi_names('{"kind": "nvidia.com/gpu", "devices": null}') == []


def test_cdi_of_both_directories(root):
    root("etc/cdi/nvidia.yaml", CDI_YAML)
    root("var/run/cdi/nvidia.json", '{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "7"}]}')
    assert host_files.cdi_devices(root.path) == ["0", "7", "GPU-36cd1759-0002-4a6b-9c1f-11080000aaaa", "all"]


def test_file_system_of_a_path_that_is_not_there_yet(tmp_path):
    here = host_files.file_system(str(tmp_path))
    there = host_files.file_system(str(tmp_path / "not" / "yet"))
    assert here["total_bytes"] == there["total_bytes"] > here["free_bytes"] > 0
    assert here["mount_point"] == there["mount_point"]
    assert str(tmp_path).startswith(here["mount_point"])


def test_kernel_arguments(root, tmp_path):
    assert host_files.kernel_arguments(str(tmp_path)) == []
    root("proc/cmdline", "BOOT_IMAGE=/vmlinuz ro iommu=pt\n")
    assert host_files.kernel_arguments(str(tmp_path)) == ["BOOT_IMAGE=/vmlinuz", "ro", "iommu=pt"]


def test_what_gpu_tuning_left(root, tmp_path):
    assert host_files.gpu_tuning(str(tmp_path)) == {
        "program": None, "settings": None, "unit": None, "grub": None, "enabled": False, "applied": None, "problems": [],
    }  # fmt: skip
    root("etc/gpu-tuning.conf", "abc")
    root("run/gpu-tuning/applied", "0123\n")
    root("run/gpu-tuning/problems", "one\ntwo\n")
    root("etc/systemd/system/multi-user.target.wants/.keep", "")
    (tmp_path / "etc/systemd/system/multi-user.target.wants/gpu-tuning.service").symlink_to("../gpu-tuning.service")
    state = host_files.gpu_tuning(str(tmp_path))
    assert state["settings"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (state["enabled"], state["applied"], state["unit"]) == (True, "0123", None)
    assert state["problems"] == ["one", "two"]


def test_what_monitoring_left(root, tmp_path):
    assert host_files.monitoring(str(tmp_path)) == {"files": {}, "units": {}}
    units = '["a.service", "b.service", "c.timer", "d.timer"]'
    root("etc/gpuhosts-monitoring/manifest.json", '{"files": {"/etc/a.conf": "0", "/etc/b.conf": "0"}, "units": %s}' % units)
    root("etc/a.conf", "abc")
    for unit in ("a.service", "b.service", "c.timer"):
        root(f"etc/systemd/system/multi-user.target.wants/{unit}", "")
    # systemd keeps such a link for each unit with processes that is active.
    root("run/systemd/units/invocation:a.service", "")
    assert host_files.monitoring(str(tmp_path)) == {
        "files": {"/etc/a.conf": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "/etc/b.conf": None},
        "units": {"a.service": True, "b.service": False, "c.timer": True, "d.timer": False},
    }
    (tmp_path / "etc/systemd/system/multi-user.target.wants/a.service").unlink()
    assert host_files.monitoring(str(tmp_path))["units"]["a.service"] is False
    for half in ('{"files": {"/etc/a', "[]", '{"files": 3}'):
        root("etc/gpuhosts-monitoring/manifest.json", half)
        assert host_files.monitoring(str(tmp_path)) == {"files": {}, "units": {}}


def mounts(*versions):
    lines = [f"  - hostPath: /usr/lib/x86_64-linux-gnu/{name}.so.{version}" for version in versions for name in ("libcuda", "libnvidia-ml")]
    return CDI_YAML.replace("  hooks:\n", "  mounts:\n" + "\n".join(lines) + "\n  hooks:\n", 1)


def test_the_driver_a_cdi_description_was_made_for(root):
    assert host_files.cdi_driver_version(root.path) is None
    root("etc/cdi/nvidia.yaml", CDI_YAML)
    assert host_files.cdi_driver_version(root.path) is None
    root("etc/cdi/nvidia.yaml", mounts("570.153.02"))
    assert host_files.cdi_driver_version(root.path) == "570.153.02"
    root("etc/cdi/nvidia.yaml", mounts("580.95"))
    assert host_files.cdi_driver_version(root.path) == "580.95"


def test_two_cdi_descriptions_for_two_drivers_are_for_none(root):
    root("etc/cdi/nvidia.yaml", mounts("570.153.02"))
    root("var/run/cdi/nvidia.yaml", mounts("570.172.08"))
    assert host_files.cdi_driver_version(root.path) is None


@pytest.mark.parametrize(("text", "proof"), [('{"driver": "570.153.02"}', {"driver": "570.153.02"}), ("{", {}), ("[]", {}), (None, {})])
def test_container_proof(root, text, proof):
    if text is not None:
        root("var/lib/gpuhosts/container_proof.json", text)
    assert host_files.container_proof(root.path) == proof


def test_what_the_gateway_left(root, tmp_path):
    root("etc/gpuhosts-gateway/manifest.json", '{"files": {"/etc/a.conf": "0"}, "units": ["haproxy.service"]}')
    assert host_files.gateway(str(tmp_path)) == {"files": {"/etc/a.conf": None}, "units": {"haproxy.service": False}}
