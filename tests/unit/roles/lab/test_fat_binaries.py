"""What the lab's engines hold for NVIDIA's cards is read as the real wheels are."""

import pathlib
import runpy

import pytest

ROLES = pathlib.Path(__file__).parents[4] / "roles"


@pytest.mark.parametrize("version, kernels, experts", [("0.8.5", 28, 3), ("0.19.1", 43, 16)])
def test_the_counts_for_turing_are_the_wheels(tmp_path, version, kernels, experts):
    runpy.run_path(str(ROLES / "lab/files/fat_binaries.py"))["main"](tmp_path, version)
    found = runpy.run_path(str(ROLES / "vllm/files/image_probe.py"))["extensions"](tmp_path)
    counts = {module: codes["elf"].get("75", 0) for module, codes in found.items()}
    assert sum(counts.get(module, 0) for module in ("_C", "_C_stable_libtorch")) == kernels
    assert counts["_moe_C"] == experts
    assert not any(codes["ptx"] for codes in found.values())
