"""Make /sys/bus/pci/devices of a simulated host from the description of its cards.

    python3 pci_tree.py CARDS.json DIRECTORY

The attributes and their forms are the kernel's: https://docs.kernel.org/PCI/sysfs-pci.html. Entries that the description no longer
has are removed, so a card can fall off the bus by describing one less.
"""

import json
import pathlib
import shutil
import sys

SPEED = {1: "2.5 GT/s PCIe", 2: "5.0 GT/s PCIe", 3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}


def attributes(card):
    """File names and contents of one device."""
    return {
        "vendor": "0x10de",
        "device": card["pci_device_id"],
        "subsystem_vendor": "0x10de",
        "subsystem_device": card["pci_subsystem_id"],
        "class": card["pci_class"],
        "revision": "0xa1",
        "numa_node": str(card["numa_node"]),
        "local_cpulist": card["cpu_affinity"],
        "current_link_speed": SPEED[card["pcie_generation"]],
        "max_link_speed": SPEED[card["pcie_generation_max"]],
        "current_link_width": str(card["pcie_width"]),
        "max_link_width": str(card["pcie_width_max"]),
    }


def write(description, directory):
    """One directory a card, named as the kernel does: 0000:1a:00.0."""
    wanted = {card["pci_bus_id"][4:].lower(): card for card in description["gpus"]}
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.name not in wanted:
            shutil.rmtree(entry)
    for name, card in wanted.items():
        (directory / name).mkdir(exist_ok=True)
        for attribute, value in attributes(card).items():
            (directory / name / attribute).write_text(value + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")), pathlib.Path(sys.argv[2]))
