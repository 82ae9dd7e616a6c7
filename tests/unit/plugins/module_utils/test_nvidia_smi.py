"""The readers of nvidia-smi's output, on outputs of real cards (tests/unit/fixtures/README.md names the sources)."""

import pathlib

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import nvidia_smi

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "nvidia_smi"
MIB = 1024**2


def fixture(name):
    return (FIXTURES / name).read_text()


@pytest.mark.parametrize(
    ("name", "count", "product", "capability", "total", "reserved", "device", "watts", "limits"),
    [
        ("query_2080ti_22gb.csv", 2, "NVIDIA GeForce RTX 2080 Ti", "7.5", 22528, 442, "10de:1e07", 280.0, (250, 100, 280)),
        ("query_2080ti_11gb.csv", 2, "NVIDIA GeForce RTX 2080 Ti", "7.5", 11264, 452, "10de:1e04", 250.0, (250, 100, 280)),
        ("query_t4.csv", 1, "Tesla T4", "7.5", 15360, 388, "10de:1eb8", 70.0, (70, 60, 70)),
        ("query_a100.csv", 1, "NVIDIA A100-SXM4-80GB", "8.0", 81920, 869, "10de:20b2", 500.0, (500, 100, 500)),
        ("query_h100.csv", 1, "NVIDIA H100 80GB HBM3", "9.0", 81559, 479, "10de:2330", 700.0, (700, 200, 700)),
    ],
)
def test_real_cards(name, count, product, capability, total, reserved, device, watts, limits):
    cards, others = nvidia_smi.parse_query(fixture(name))
    assert others == []
    assert [card["index"] for card in cards] == list(range(count))
    card = cards[0]
    assert (card["name"], card["compute_capability"], card["pci_device_id"]) == (product, capability, device)
    assert card["memory_total_bytes"] == total * MIB
    assert card["memory_reserved_bytes"] == reserved * MIB
    assert card["power_limit_watts"] == watts
    assert tuple(card[f"power_{which}_limit_watts"] for which in ("default", "min", "max")) == limits


@pytest.mark.parametrize(
    ("line", "product", "capability", "total", "reserved", "device", "limits", "persistence"),
    [
        (0, "NVIDIA GeForce RTX 2080 SUPER", "7.5", 8192, 408, "10de:1e81", (250, 250, 105, 350), False),
        (1, "NVIDIA GeForce RTX 4080 SUPER", "8.9", 16376, 434, "10de:2702", (320, 320, 150, 400), False),
        (2, "NVIDIA L40S", "8.9", 46068, 609, "10de:26b9", (350, 350, 100, 350), False),
        (3, "NVIDIA H100 80GB HBM3", "9.0", 81559, 479, "10de:2330", (700, 700, 200, 700), True),
        (4, "NVIDIA H200", "9.0", 143771, 614, "10de:2335", (700, 700, 200, 700), True),
    ],
)
def test_every_field_as_a_driver_has_printed_it(line, product, capability, total, reserved, device, limits, persistence):
    """All of a line is one driver's own answer, with the units that nounits leaves out."""
    (card,), others = nvidia_smi.parse_query(fixture("query_captured.csv").splitlines()[line])
    assert others == []
    assert (card["name"], card["compute_capability"], card["pci_device_id"]) == (product, capability, device)
    assert (card["memory_total_bytes"], card["memory_reserved_bytes"]) == (total * MIB, reserved * MIB)
    assert tuple(card[f"power_{which}limit_watts"] for which in ("", "default_", "min_", "max_")) == limits
    assert card["persistence_mode"] is persistence
    assert None not in card.values() and None not in card["pcie"].values()


@pytest.mark.parametrize(
    ("name", "products", "total"),
    [
        ("captured_2080ti_11gb.csv", ["NVIDIA GeForce RTX 2080 Ti"] * 10, 11264),
        ("captured_t4.csv", ["Tesla T4"], 15360),
        ("captured_a100_mixed.csv", ["NVIDIA A100 80GB PCIe"] * 4 + ["NVIDIA A100-SXM4-80GB"] + ["NVIDIA A100 80GB PCIe"] * 2, 81920),
    ],
)
def test_whole_machines_as_they_answered_smaller_queries(name, products, total):
    head, dummy, lines = fixture(name).partition("\n")
    cards, others = nvidia_smi.parse_query(lines, [field.split()[0] for field in head.split(", ")])
    assert others == []
    assert [card["name"] for card in cards] == products
    assert [card["index"] for card in cards] == list(range(len(products)))
    assert {card["memory_total_bytes"] for card in cards} == {total * MIB}


def test_link_persistence_and_bus_id():
    card = nvidia_smi.parse_query(fixture("query_2080ti_11gb.csv"))[0][1]
    assert card["pcie"] == {"generation": 3, "width": 8, "generation_max": 3, "width_max": 16}
    assert card["persistence_mode"] is True
    assert card["pci_bus_id"] == "0000:86:00.0"
    assert card["driver_version"] == "570.211.01"


def test_what_nvidia_smi_does_not_know_is_none_and_a_lost_card_is_handed_back():
    cards, others = nvidia_smi.parse_query(fixture("query_unknown_values.csv"))
    assert others == ["Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error"]
    (card,) = cards
    assert card["compute_capability"] is None
    assert card["memory_total_bytes"] == 2048 * MIB
    assert card["memory_reserved_bytes"] is None
    assert card["pcie"] == {"generation": None, "width": 4, "generation_max": 3, "width_max": None}
    assert card["power_limit_watts"] is None
    assert card["power_default_limit_watts"] is card["power_min_limit_watts"] is card["power_max_limit_watts"] is None
    assert card["persistence_mode"] is None


def test_units_are_understood_and_fields_left_out_are_none():
    cards, others = nvidia_smi.parse_query("0, NVIDIA A10, 23028 MiB, 150.00 W\n", ("index", "name", "memory.total", "power.limit"))
    assert others == []
    assert cards[0]["memory_total_bytes"] == 23028 * MIB
    assert cards[0]["power_limit_watts"] == 150.0
    assert cards[0]["uuid"] is None


def test_nothing_printed_is_no_cards():
    assert nvidia_smi.parse_query("") == ([], [])
    assert nvidia_smi.parse_query("No devices were found\n") == ([], ["No devices were found"])


def test_topology_with_escape_sequences():
    matrix = nvidia_smi.parse_topology(fixture("topo_2080ti_pairs.txt"))
    assert sorted(matrix) == ["0", "1", "2", "3"]
    assert matrix["0"] == {"1": "NV2", "2": "PHB", "3": "PHB"}
    assert matrix["3"] == {"0": "PHB", "1": "PHB", "2": "NV2"}


def test_topology_leaves_network_cards_out():
    matrix = nvidia_smi.parse_topology(fixture("topo_h100_nics.txt"))
    assert matrix["2"] == {"0": "NV6", "1": "NV6", "3": "NV6"}
    assert set(matrix) == {"0", "1", "2", "3"}


def test_topology_over_pcie_alone():
    matrix = nvidia_smi.parse_topology(fixture("topo_3090_pcie.txt"))
    assert len(matrix) == 8
    assert matrix["5"] == {"0": "SYS", "1": "SYS", "2": "SYS", "3": "SYS", "4": "PIX", "6": "PHB", "7": "PHB"}


def test_a_bridged_pair_and_a_card_beside_it():
    assert nvidia_smi.parse_topology(fixture("topo_a6000_pair.txt")) == {
        "0": {"1": "NV4", "2": "NODE"},
        "1": {"0": "NV4", "2": "NODE"},
        "2": {"0": "NODE", "1": "NODE"},
    }
    assert nvidia_smi.parse_nvlink(fixture("nvlink_a6000_pair.txt")) == {0: [14.062] * 4, 1: [14.062] * 4, 2: []}


def test_the_bridge_of_two_2080_ti():
    assert nvidia_smi.parse_nvlink(fixture("nvlink_2080ti_bridge.txt")) == {2: [25.781] * 2, 3: [25.781] * 2}


def test_a_card_in_mig_mode_has_no_links():
    assert nvidia_smi.parse_nvlink(fixture("nvlink_h100_mig.txt")) == {0: []}


def test_topology_of_one_card_and_of_nothing():
    assert nvidia_smi.parse_topology(fixture("topo_one_card.txt")) == {"0": {}}
    assert nvidia_smi.parse_topology("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-15\t0\n") == {"0": {}}
    assert nvidia_smi.parse_topology("Failed to initialize NVML: Unknown Error\n") == {}


def test_nvlink_counts_active_links_only():
    assert nvidia_smi.parse_nvlink(fixture("nvlink_mixed.txt")) == {0: [25.781, 25.781], 1: [25.781], 2: []}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (fixture("banner_595.txt"), "13.2"),
        ("CUDA Version                              : 12.8\n", "12.8"),
        ("DRIVER version      : 590.48.01\nCUDA Version        : 13.1\n", "13.1"),
        ("| NVIDIA-SMI 610.57.04   KMD Version: 610.57.04     CUDA UMD Version: 13.3     |", "13.3"),
        ("<cuda_version>12.8</cuda_version>", "12.8"),
        ("No devices were found", None),
    ],
)
def test_cuda_version(text, version):
    assert nvidia_smi.parse_cuda_version(text) == version


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.211\n", "replaced under the loaded kernel module"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that ...", "kernel module is not loaded"),
        ("No devices were found", "drives no card"),
        ("Unable to determine the device handle for GPU0000:CB:00.0: Unknown Error", "Xid 79"),
        ('Field "compute_cap" is not a valid field to query.', "older than branch 510"),
    ],
)
def test_diagnosis_keeps_the_words_and_adds_what_to_do(text, advice):
    sentence = nvidia_smi.diagnose(text)
    assert sentence.startswith(text.split("\n")[0].rstrip("."))
    assert advice in sentence
    assert "\n" not in sentence


def test_diagnosis_of_the_unknown():
    assert nvidia_smi.diagnose(" \n") == "it printed nothing"
    assert nvidia_smi.diagnose("something new\n") == "something new"


def test_what_holds_the_clocks_down():
    text = "0, 0x0000000000000001\n1, 0x00000000000000E8\n2, [N/A]\n3, 0x0000000000000004\nUnable to determine the device handle\n"
    assert nvidia_smi.parse_throttle(text) == {0: [], 1: ["hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake"], 3: []}
