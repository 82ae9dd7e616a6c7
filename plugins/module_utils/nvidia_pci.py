# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the PCI bus says about NVIDIA cards, with or without a driver."""

from __future__ import annotations

import os

VENDOR = "10de"

# 0300 is a VGA controller, 0302 a 3D controller (data-centre cards, and cards without outputs).
CLASSES = ("0x0300", "0x0302")

# PCI device id: (name as nvidia-smi prints it, compute capability).
# Ids from the PCI ID repository (pci-ids.ucw.cz), capabilities from NVIDIA's list of CUDA GPUs.
DEVICES = {
    "1db1": ("Tesla V100-SXM2-16GB", "7.0"),
    "1db4": ("Tesla V100-PCIE-16GB", "7.0"),
    "1db5": ("Tesla V100-SXM2-32GB", "7.0"),
    "1db6": ("Tesla V100-PCIE-32GB", "7.0"),
    "1e02": ("NVIDIA TITAN RTX", "7.5"),
    "1e03": ("NVIDIA GeForce RTX 2080 Ti", "7.5"),
    "1e04": ("NVIDIA GeForce RTX 2080 Ti", "7.5"),
    "1e07": ("NVIDIA GeForce RTX 2080 Ti", "7.5"),
    "1e30": ("Quadro RTX 6000/8000", "7.5"),
    "1e36": ("Quadro RTX 6000", "7.5"),
    "1e78": ("Quadro RTX 6000/8000", "7.5"),
    "1e81": ("NVIDIA GeForce RTX 2080 SUPER", "7.5"),
    "1e82": ("NVIDIA GeForce RTX 2080", "7.5"),
    "1e84": ("NVIDIA GeForce RTX 2070 SUPER", "7.5"),
    "1e87": ("NVIDIA GeForce RTX 2080", "7.5"),
    "1eb0": ("Quadro RTX 5000", "7.5"),
    "1eb8": ("Tesla T4", "7.5"),
    "20b0": ("NVIDIA A100-SXM4-40GB", "8.0"),
    "20b2": ("NVIDIA A100-SXM4-80GB", "8.0"),
    "20b5": ("NVIDIA A100 80GB PCIe", "8.0"),
    "20b7": ("NVIDIA A30", "8.0"),
    "20f1": ("NVIDIA A100-PCIE-40GB", "8.0"),
    "2203": ("NVIDIA GeForce RTX 3090 Ti", "8.6"),
    "2204": ("NVIDIA GeForce RTX 3090", "8.6"),
    "2206": ("NVIDIA GeForce RTX 3080", "8.6"),
    "2208": ("NVIDIA GeForce RTX 3080 Ti", "8.6"),
    "2230": ("NVIDIA RTX A6000", "8.6"),
    "2235": ("NVIDIA A40", "8.6"),
    "2236": ("NVIDIA A10", "8.6"),
    "2321": ("NVIDIA H100 NVL", "9.0"),
    "2330": ("NVIDIA H100 80GB HBM3", "9.0"),
    "2331": ("NVIDIA H100 PCIe", "9.0"),
    "2335": ("NVIDIA H200", "9.0"),
    "2684": ("NVIDIA GeForce RTX 4090", "8.9"),
    "26b5": ("NVIDIA L40", "8.9"),
    "26b9": ("NVIDIA L40S", "8.9"),
    "2704": ("NVIDIA GeForce RTX 4080", "8.9"),
    "27b8": ("NVIDIA L4", "8.9"),
    "2b85": ("NVIDIA GeForce RTX 5090", "12.0"),
}

# Transfer rate of one lane in GT/s: PCI Express generation.
_GENERATIONS = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "16": 4, "32.0": 5, "32": 5, "64.0": 6, "64": 6}


def read_cards(root="/"):
    """The NVIDIA display and 3D controllers under C(/sys/bus/pci/devices), in the order of their bus ids, which is nvidia-smi's order.

    The list has the same keys as the one made from nvidia-smi; what only the driver knows is None.
    """
    base = os.path.join(root, "sys/bus/pci/devices")
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return []
    cards = (_read_card(base, name) for name in names)
    return [dict(card, index=index) for index, card in enumerate(card for card in cards if card)]


def numa_node(bus_id, root="/"):
    """NUMA node of a device, None where the machine has none (sysfs says -1) or the device is not to be seen."""
    node = _integer(_attribute(os.path.join(root, "sys/bus/pci/devices", bus_id or "none"), "numa_node"))
    return None if node is None or node < 0 else node


def _read_card(base, bus_id):
    path = os.path.join(base, bus_id)
    if _attribute(path, "vendor") != "0x" + VENDOR or not _attribute(path, "class").startswith(CLASSES):
        return None
    device = _attribute(path, "device")[2:]
    name, capability = DEVICES.get(device, (None, None))
    return {
        "index": None,
        "uuid": None,
        "name": name,
        "compute_capability": capability,
        "memory_total_bytes": None,
        "memory_reserved_bytes": None,
        "pci_bus_id": bus_id,
        "pci_device_id": VENDOR + ":" + device,
        "pcie": {
            "generation": _generation(_attribute(path, "current_link_speed")),
            "width": _integer(_attribute(path, "current_link_width")),
            "generation_max": _generation(_attribute(path, "max_link_speed")),
            "width_max": _integer(_attribute(path, "max_link_width")),
        },
        "power_limit_watts": None,
        "power_default_limit_watts": None,
        "power_min_limit_watts": None,
        "power_max_limit_watts": None,
        "persistence_mode": None,
    }


def _attribute(path, name):
    try:
        with open(os.path.join(path, name), encoding="ascii", errors="replace") as source:
            return source.read().strip()
    except OSError:
        return ""


def _generation(speed):
    """C(8.0 GT/s PCIe) is generation 3; None for C(Unknown)."""
    return _GENERATIONS.get(speed.split(" ")[0])


def _integer(text):
    try:
        return int(text)
    except ValueError:
        return None
