"""Cards on a made-up PCI bus."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import nvidia_pci


@pytest.fixture
def bus(tmp_path):
    def add(bus_id, **attributes):
        device = tmp_path / "sys/bus/pci/devices" / bus_id
        device.mkdir(parents=True)
        for name, text in attributes.items():
            if name != "class_":
                (device / name).write_text(text + "\n")
        (device / "class").write_text(attributes["class_"] + "\n")

    link = {"current_link_speed": "2.5 GT/s PCIe", "max_link_speed": "8.0 GT/s PCIe", "current_link_width": "8", "max_link_width": "16"}
    add("0000:86:00.0", vendor="0x10de", device="0x1e07", class_="0x030000", numa_node="1", **link)
    add("0000:3b:00.0", vendor="0x10de", device="0x1e04", class_="0x030200", numa_node="-1", **link)
    add("0000:3b:00.1", vendor="0x10de", device="0x10f7", class_="0x040300")
    add("0000:00:02.0", vendor="0x1002", device="0x67df", class_="0x030000")
    add("0000:af:00.0", vendor="0x10de", device="0xffff", class_="0x030200", current_link_speed="Unknown")
    return str(tmp_path)


def test_display_and_3d_controllers_of_nvidia_in_the_order_of_the_bus(bus):
    cards = nvidia_pci.read_cards(bus)
    assert [(card["index"], card["pci_bus_id"]) for card in cards] == [(0, "0000:3b:00.0"), (1, "0000:86:00.0"), (2, "0000:af:00.0")]
    assert cards[0]["name"] == "NVIDIA GeForce RTX 2080 Ti"
    assert cards[0]["compute_capability"] == "7.5"
    assert cards[0]["pci_device_id"] == "10de:1e04"
    assert cards[0]["pcie"] == {"generation": 1, "width": 8, "generation_max": 3, "width_max": 16}
    assert cards[0]["memory_total_bytes"] is None


def test_a_card_not_in_the_table_is_still_a_card(bus):
    card = nvidia_pci.read_cards(bus)[2]
    assert (card["name"], card["compute_capability"]) == (None, None)
    assert card["pcie"] == {"generation": None, "width": None, "generation_max": None, "width_max": None}


def test_numa_node(bus):
    assert nvidia_pci.numa_node("0000:86:00.0", bus) == 1
    assert nvidia_pci.numa_node("0000:3b:00.0", bus) is None
    assert nvidia_pci.numa_node("0000:99:00.0", bus) is None
    assert nvidia_pci.numa_node(None, bus) is None


def test_no_bus_at_all(tmp_path):
    assert nvidia_pci.read_cards(str(tmp_path)) == []


def test_the_table_is_well_formed():
    for device, (name, capability) in nvidia_pci.DEVICES.items():
        assert device == device.lower() and len(device) == 4 and int(device, 16)
        assert name and float(capability) >= 7.0
