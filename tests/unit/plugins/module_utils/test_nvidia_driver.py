"""Where a driver came from."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import nvidia_driver

LIBRARY = "usr/lib/x86_64-linux-gnu/libcuda.so.570.153.02"


@pytest.fixture
def root(tmp_path):
    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write.path = str(tmp_path)
    return write


def test_nothing(root):
    assert nvidia_driver.foreign_files(root.path) == []


def test_a_run_file_left_its_uninstaller_and_its_library(root):
    root("usr/bin/nvidia-uninstall")
    root(LIBRARY)
    assert nvidia_driver.foreign_files(root.path) == ["/usr/bin/nvidia-uninstall", f"/{LIBRARY}"]


@pytest.mark.parametrize("path", [f"/{LIBRARY}", "/lib/x86_64-linux-gnu/libcuda.so.570.153.02"])
@pytest.mark.parametrize("package", ["libcuda1:amd64", "libnvidia-compute-570:amd64"])
def test_a_packages_library(root, package, path):
    root(LIBRARY)
    root(f"var/lib/dpkg/info/{package}.list", f"/.\n/usr\n{path}\n")
    assert nvidia_driver.foreign_files(root.path) == []


def test_a_second_library_beside_the_packages(root):
    root(LIBRARY)
    root("usr/lib/x86_64-linux-gnu/libcuda.so.535.54.03")
    root("var/lib/dpkg/info/libcuda1:amd64.list", f"/{LIBRARY}\n")
    assert nvidia_driver.foreign_files(root.path) == ["/usr/lib/x86_64-linux-gnu/libcuda.so.535.54.03"]


@pytest.mark.parametrize(
    "packages, version",
    [
        ({"libcuda1": "570.153.02-1", "libc6": "2.41-12"}, "570.153.02"),
        ({"libnvidia-compute-570": "570.211.01-0ubuntu0.24.04.1"}, "570.211.01"),
        ({"libnvidia-compute-570-server": "570.211.01-0ubuntu1"}, "570.211.01"),
        ({"libcuda1": "1:535.247.01-1~deb12u1"}, "535.247.01"),
        ({"libnvidia-compute-extra-570": "1-1", "cuda-toolkit-12-8": "12.8.1-1"}, None),
        ({}, None),
    ],
)
def test_version_of_the_packages(packages, version):
    assert nvidia_driver.package_version(packages) == version


def program(tmp_path, text):
    path = tmp_path / "modinfo"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_version_of_the_module(tmp_path):
    modinfo = program(tmp_path, '[ "$*" = "-F version /lib/modules/6.8/nvidia.ko.zst" ] && echo 570.153.02')
    assert nvidia_driver.module_version(modinfo, "/lib/modules/6.8/nvidia.ko.zst", 5) == "570.153.02"
    assert nvidia_driver.module_version(modinfo, "/lib/modules/6.8/other.ko", 5) is None
    assert nvidia_driver.module_version(modinfo, None, 5) is None
    assert nvidia_driver.module_version(None, "/lib/modules/6.8/nvidia.ko.zst", 5) is None
    assert nvidia_driver.module_version(program(tmp_path, "sleep 60"), "/x", 1) is None


def test_a_driver_that_waits_for_a_reboot():
    assert nvidia_driver.reboot_reasons("570.153.02", "575.57.08") == ["driver 570.153.02 runs, and the next boot loads 575.57.08"]
    assert (
        nvidia_driver.reboot_reasons("570.153.02", "570.153.02") == nvidia_driver.reboot_reasons(None, "570") == nvidia_driver.reboot_reasons("570", None) == []
    )
