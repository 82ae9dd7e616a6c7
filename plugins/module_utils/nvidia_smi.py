# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Readers for what C(nvidia-smi) prints. Pure functions on text: nothing here runs a command."""

from __future__ import annotations

import re

MIB = 1024 * 1024

# Every field below is answered by driver branches 510 and newer ("compute_cap" is the youngest).
FIELDS = (
    "index",
    "uuid",
    "name",
    "compute_cap",
    "memory.total",
    "memory.reserved",
    "pci.bus_id",
    "pci.device_id",
    "pcie.link.gen.current",
    "pcie.link.gen.max",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "power.limit",
    "power.default_limit",
    "power.min_limit",
    "power.max_limit",
    "persistence_mode",
    "driver_version",
)

ARGUMENTS = {
    "query": ["--query-gpu=" + ",".join(FIELDS), "--format=csv,noheader,nounits"],
    "topology": ["topo", "-m"],
    "nvlink": ["nvlink", "-s"],
    "xml": ["-q", "-x"],
    "usage": ["--query-gpu=index,memory.used,temperature.gpu,power.draw,utilization.gpu", "--format=csv,noheader,nounits"],
    "throttle": ["--query-gpu=index,clocks_throttle_reasons.active", "--format=csv,noheader"],
    "processes": ["--query-compute-apps=gpu_bus_id,pid,process_name,used_memory", "--format=csv,noheader,nounits"],
}

# Bits of the mask of throttle reasons that are a fault (nvml.h, nvmlClocksThrottleReason*). That a power limit or no work holds the clocks is none.
THROTTLE = {"hw_slowdown": 0x8, "sw_thermal_slowdown": 0x20, "hw_thermal_slowdown": 0x40, "hw_power_brake": 0x80}

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NVLINK_GPU = re.compile(r"^GPU (\d+):")
_NVLINK_LINK = re.compile(r"^\s+Link \d+:\s*([0-9.]+) GB/s")
_CUDA = re.compile(r"(?:CUDA(?: UMD)? Version\s*:\s*|<cuda_(?:\w+_)?version>)(\d+\.\d+)")

_REMEDIES = (
    (
        "driver/library version mismatch",
        "the user-space driver was replaced under the loaded kernel module: reboot the host, or unload and reload the nvidia modules",
    ),
    (
        "couldn't communicate with the nvidia driver",
        "the kernel module is not loaded: check that it is built for the running kernel, signed where secure boot is on, and that nouveau is off",
    ),
    ("no devices were found", "the module is loaded but drives no card: check seating and power, and the kernel log for NVRM lines"),
    ("unknown error", "a card has stopped answering, often because it fell off the bus: check the kernel log for Xid 79 and reboot the host"),
    ("gpu is lost", "a card fell off the bus: check the kernel log for Xid 79, its power and its riser, and reboot the host"),
    ("is not a valid field to query", "the driver is older than branch 510: install the one the fleet pins"),
    ("insufficient permissions", "run as root (become: true)"),
)


def value(text):
    """One CSV cell, or None for the ways nvidia-smi says that it does not know: [N/A], [Not Supported], [Unknown Error], N/A."""
    text = text.strip()
    return None if not text or text.startswith("[") or text.upper() == "N/A" else text


def number(text):
    """The number a cell starts with, with or without a unit behind it: C(250.00), C(22528 MiB); None where there is none."""
    match = re.match(r"-?\d+(?:\.\d+)?", value(text) or "")
    return float(match.group()) if match else None


def integer(text):
    """Like C(number), as int."""
    found = number(text)
    return None if found is None else int(found)


def mebibytes(text):
    """Bytes of a cell given in MiB."""
    found = number(text)
    return None if found is None else int(found * MIB)


def switch(text):
    """True for C(Enabled), False for C(Disabled), None otherwise."""
    return {"enabled": True, "disabled": False}.get((value(text) or "").lower())


def bus_id(text):
    """C(00000000:3B:00.0) as sysfs spells it: C(0000:3b:00.0), so that both sources can be compared."""
    text = value(text)
    if text is None:
        return None
    domain, separator, rest = text.lower().partition(":")
    return domain[-4:] + separator + rest


def device_id(text):
    """C(0x1E0710DE) (device, then vendor) as lspci -n spells it: C(10de:1e07)."""
    match = re.match(r"(?:0x)?([0-9a-f]{4})([0-9a-f]{4})$", (value(text) or "").lower())
    return match.group(2) + ":" + match.group(1) if match else None


def parse_query(text, fields=FIELDS):
    """Read C(--query-gpu=... --format=csv,noheader,nounits).

    Returns (cards, other lines). Lines without one cell per field (warnings, a card that has fallen off the bus) are handed back unread.
    """
    cards, others = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(fields) and cells[0].isdigit():
            cards.append(_card(dict(zip(fields, cells))))
        elif line.strip():
            others.append(line.strip())
    return sorted(cards, key=lambda card: card["index"]), others


def _card(row):
    def cell(field):
        return row.get(field, "")

    return {
        "index": int(row["index"]),
        "uuid": value(cell("uuid")),
        "name": value(cell("name")),
        "compute_capability": value(cell("compute_cap")),
        "memory_total_bytes": mebibytes(cell("memory.total")),
        "memory_reserved_bytes": mebibytes(cell("memory.reserved")),
        "pci_bus_id": bus_id(cell("pci.bus_id")),
        "pci_device_id": device_id(cell("pci.device_id")),
        "pcie": {
            "generation": integer(cell("pcie.link.gen.current")),
            "width": integer(cell("pcie.link.width.current")),
            "generation_max": integer(cell("pcie.link.gen.max")),
            "width_max": integer(cell("pcie.link.width.max")),
        },
        "power_limit_watts": number(cell("power.limit")),
        "power_default_limit_watts": number(cell("power.default_limit")),
        "power_min_limit_watts": number(cell("power.min_limit")),
        "power_max_limit_watts": number(cell("power.max_limit")),
        "persistence_mode": switch(cell("persistence_mode")),
        "driver_version": value(cell("driver_version")),
    }


def parse_topology(text):
    """Read the matrix of C(topo -m): C({"0": {"1": "NV2", "2": "PHB"}, ...}), cards only (no NICs).

    NV# is a bonded set of # NVLinks; PIX, PXB, PHB, NODE and SYS are the ways over PCIe, nearest first.
    """
    columns, matrix = None, {}
    for line in _ANSI.sub("", text).splitlines():
        words = line.split()
        if not words or not re.match(r"GPU\d+$", words[0]):
            continue
        if columns is None:
            # The header: device names, then "CPU Affinity", "NUMA Affinity" and so on.
            columns = words[: words.index("CPU")] if "CPU" in words else words
            continue
        matrix[words[0][3:]] = {
            column[3:]: way for column, way in zip(columns, words[1:]) if column.startswith("GPU") and column != words[0]
        }
    return matrix


def parse_nvlink(text):
    """Read C(nvlink -s): C({index: [GB/s of each active link]}); inactive links are left out."""
    links, index = {}, None
    for line in text.splitlines():
        card = _NVLINK_GPU.match(line)
        link = _NVLINK_LINK.match(line)
        if card:
            index = int(card.group(1))
            links[index] = []
        elif link and index is not None:
            links[index].append(float(link.group(1)))
    return links


def parse_usage(text):
    """Read the answer to C(usage): {index: {memory_used_bytes, temperature_celsius, power_watts, utilization_percent}}, None for what is not known."""
    found = {}
    for line in text.splitlines():
        cells = line.split(",")
        if len(cells) == 5 and cells[0].strip().isdigit():
            found[int(cells[0])] = {
                "memory_used_bytes": mebibytes(cells[1]),
                "temperature_celsius": integer(cells[2]),
                "power_watts": number(cells[3]),
                "utilization_percent": integer(cells[4]),
            }
    return found


def parse_throttle(text):
    """Read the answer to C(throttle): {index: the names in THROTTLE that hold the card's clocks down}; cards that do not tell are left out."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*(\d+)\s*,\s*0x([0-9a-fA-F]+)\s*$", line)
        if match:
            found[int(match.group(1))] = [name for name, bit in THROTTLE.items() if int(match.group(2), 16) & bit]
    return found


def parse_processes(text):
    """Read the answer to C(processes): [{pci_bus_id, pid, program, memory_bytes}]."""
    rows = (line.rsplit(",", 1) for line in text.splitlines())
    # A program's name may have a comma.
    rows = (row[0].split(",", 2) + row[1:] for row in rows if len(row) == 2)
    return [
        {"pci_bus_id": bus_id(row[0]), "pid": int(row[1]), "program": row[2].strip(), "memory_bytes": mebibytes(row[3])}
        for row in rows
        if len(row) == 4 and row[1].strip().isdigit()
    ]


def parse_cuda_version(text):
    """The highest CUDA version the driver supports, from any of nvidia-smi's forms: the table's head, C(-q), C(-q -x), C(--version)."""
    match = _CUDA.search(text)
    return match.group(1) if match else None


def diagnose(text):
    """One sentence out of what a failing nvidia-smi printed: its own words, then what to do where that is known."""
    words = " ".join(text.split()) or "it printed nothing"
    for needle, remedy in _REMEDIES:
        if needle in words.lower():
            return "{} ({})".format(words.rstrip("."), remedy)
    return words
