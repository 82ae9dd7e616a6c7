"""Write the description of a simulated host's cards: cards.json, read by the stand-ins of nvidia-smi and the kernel module.

    python3 cards.py MODEL COUNT [--host NAME] [--nvlink 0-1,2-3] > cards.json

The cards sit on two NUMA nodes, half on each, as in a two-socket box. The uuids follow from the host's name, so they stay the same.
Sources: device ids from https://pci-ids.ucw.cz/read/PC/10de; power and clocks from NVIDIA's specifications. Reserved memory is what
makes total minus reserved the size an engine reports: 21.48 GiB on a 22 GB 2080 Ti and 10.57 GiB on an 11 GB one (vLLM's own logs).
"""

import argparse
import json
import uuid

TURING = {
    "name": "NVIDIA GeForce RTX 2080 Ti", "architecture": "Turing", "brand": "GeForce", "compute_capability": "7.5",
    "pci_device_id": "0x1e07", "pci_subsystem_id": "0x12a3", "pci_class": "0x030000",
    "pcie_generation_max": 3, "pcie_generation": 1, "pcie_width_max": 16, "pcie_width": 16,
    "power_min_limit_watts": 100, "power_default_limit_watts": 250, "power_max_limit_watts": 280,
    "clock_max_sm_mhz": 2100, "fan_percent": 28, "nvlinks": 2, "nvlink_gbytes_per_second": 25.781,
}  # fmt: skip
DATACENTER = {"brand": "Tesla", "pci_class": "0x030200", "pcie_width_max": 16, "pcie_width": 16, "ecc_mode": "Enabled"}
MODELS = {
    "2080ti-22g": TURING | {"memory_total_mib": 22528, "memory_reserved_mib": 530},
    "2080ti-11g": TURING | {"memory_total_mib": 11264, "memory_reserved_mib": 440},
    "t4": DATACENTER | {
        "name": "Tesla T4", "architecture": "Turing", "compute_capability": "7.5", "pci_device_id": "0x1eb8", "pci_subsystem_id": "0x12a2",
        "memory_total_mib": 15360, "memory_reserved_mib": 445, "pcie_generation_max": 3, "pcie_generation": 1,
        "power_min_limit_watts": 60, "power_default_limit_watts": 70, "power_max_limit_watts": 70, "clock_max_sm_mhz": 1590,
    },
    "a100": DATACENTER | {
        "name": "NVIDIA A100-SXM4-40GB", "architecture": "Ampere", "brand": "NVIDIA", "compute_capability": "8.0", "mig_mode": "Disabled",
        "pci_device_id": "0x20b0", "pci_subsystem_id": "0x134f", "memory_total_mib": 40960, "memory_reserved_mib": 624,
        "pcie_generation_max": 4, "pcie_generation": 4, "nvlinks": 12, "nvlink_gbytes_per_second": 25,
        "power_min_limit_watts": 100, "power_default_limit_watts": 400, "power_max_limit_watts": 400, "clock_max_sm_mhz": 1410,
    },
    "h100": DATACENTER | {
        "name": "NVIDIA H100 80GB HBM3", "architecture": "Hopper", "brand": "NVIDIA", "compute_capability": "9.0", "mig_mode": "Disabled",
        "pci_device_id": "0x2330", "pci_subsystem_id": "0x16c1", "memory_total_mib": 81559, "memory_reserved_mib": 551,
        "pcie_generation_max": 5, "pcie_generation": 5, "nvlinks": 18, "nvlink_gbytes_per_second": 26.562,
        "power_min_limit_watts": 200, "power_default_limit_watts": 700, "power_max_limit_watts": 700, "clock_max_sm_mhz": 1980,
    },
}  # fmt: skip
BUSES = ("1A", "1B", "3D", "3E", "88", "89", "B1", "B2")


def describe(model, count, host="gpu01", bridges=()):
    """The content of cards.json. `bridges`: pairs of indices that a bonded NVLink joins."""
    card = MODELS[model]
    if count > len(BUSES):
        raise ValueError("%d cards: a simulated host has at most %d" % (count, len(BUSES)))
    gpus = []
    for index in range(count):
        node = int(index >= (count + 1) // 2)
        identity = uuid.uuid5(uuid.NAMESPACE_DNS, "%s.%s.%d.gpuhosts.invalid" % (host, model, index))
        gpus.append(
            card | {"uuid": "GPU-%s" % identity, "pci_bus_id": "00000000:%s:00.0" % BUSES[index], "memory_used_mib": 1,
                    "numa_node": node, "cpu_affinity": ("0-13,28-41", "14-27,42-55")[node]}
        )  # fmt: skip
    return {"gpus": gpus, "topology": {"%d-%d" % tuple(sorted(pair)): "NV%d" % card["nvlinks"] for pair in bridges}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("count", type=int)
    parser.add_argument("--host", default="gpu01")
    parser.add_argument("--nvlink", default="", help="bridged pairs, for example 0-1,2-3")
    arguments = parser.parse_args()
    bridges = [tuple(int(index) for index in pair.split("-")) for pair in arguments.nvlink.split(",") if pair]
    print(json.dumps(describe(arguments.model, arguments.count, arguments.host, bridges), indent=1))


if __name__ == "__main__":
    main()
