from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import hardware, problem

GIB = 1024**3
MIB = 1024**2


def card(**changes):
    return {
        "index": 0,
        "name": "NVIDIA GeForce RTX 2080 Ti",
        "compute_capability": "7.5",
        "memory_total_bytes": 22528 * MIB,
        "memory_reserved_bytes": 532 * MIB,
        **changes,
    }


def codes(facts):
    with pytest.raises(problem.PlanRefused) as refused:
        hardware.read(facts)
    return [found.code for found in refused.value.problems]


def test_the_engine_sees_the_total_without_what_is_reserved():
    host = hardware.read({"gpus": [card()], "memory_bytes": 512 * GIB, "cpus": 56, "driver_version": "570.153.02"})
    assert round(host.cards[0].total_bytes / GIB, 2) == 21.48
    assert (host.cards[0].capability, host.cards[0].sm) == ((7, 5), 75)
    assert (host.memory_bytes, host.cpus, host.driver_version) == (512 * GIB, 56, "570.153.02")


# The total that nvidia-smi prints, in MiB, and what engines have logged for the card, in GiB.
SEEN = [
    ("RTX 2080 Ti 11 GB", 11264, 10.57, 10.73),
    ("RTX 2080 Ti 22 GB", 22528, 21.48, 21.49),
    ("Tesla T4", 15360, 14.56, 14.74),
    ("A10", 23028, 22.06, 22.07),
    ("RTX 3090", 24576, 23.58, 23.69),
    ("RTX 4090", 24564, 23.55, 23.65),
    ("RTX 5090", 32607, 31.37, 31.37),
    ("L40S", 46068, 44.31, 44.39),
    ("A100 40 GB", 40960, 39.38, 39.49),
    ("A100 80 GB", 81920, 79.15, 79.33),
    ("H100 80 GB", 81559, 79.10, 79.22),
]


@pytest.mark.parametrize(("name", "mib", "least", "most"), SEEN, ids=[seen[0] for seen in SEEN])
def test_an_unknown_reserve_is_estimated_to_within_one_and_a_half_percent(name, mib, least, most):
    total = hardware.read({"gpus": [card(memory_total_bytes=mib * MIB, memory_reserved_bytes=None)]}).cards[0].total_bytes / GIB
    assert least * 0.985 <= total <= most * 1.015


def test_a_hand_written_card_needs_only_its_name_capability_and_memory():
    host = hardware.read({"gpus": [{"name": "Tesla T4", "compute_capability": 7.5, "memory_total_bytes": 15360 * MIB}]})
    assert (host.cards[0].index, host.cards[0].capability, host.memory_bytes) == (0, (7, 5), None)


def test_cards_are_ordered_and_chosen_by_index():
    host = hardware.read({"gpus": [card(index=1), card(index=0)]})
    assert [found.index for found in host.cards] == [0, 1]
    assert host.chosen(None) == host.cards
    assert [found.index for found in host.chosen([1, 0])] == [1, 0]
    with pytest.raises(problem.PlanRefused) as refused:
        host.chosen([0, 2])
    assert refused.value.problems[0].code == "gpus_out_of_range"


def test_cards_of_unequal_size_are_told():
    host = hardware.read({"gpus": [card(), card(index=1, memory_total_bytes=11264 * MIB, memory_reserved_bytes=452 * MIB)]})
    assert hardware.unequal(host.cards, 0.1).code == "unequal_cards"
    assert "10.92 GiB stay unused" in hardware.unequal(host.cards, 0.1).message
    assert hardware.unequal(hardware.read({"gpus": [card(), card(index=1, memory_reserved_bytes=522 * MIB)]}).cards, 0.05) is None


@pytest.mark.parametrize(
    ("facts", "linked"),
    [
        ({"nvlink": [[25.781, 25.781], [25.781]]}, True),
        ({"nvlink": [[25.781], []]}, False),
        ({"nvlink": True}, True),
        ({"nvlink": False}, False),
        ({}, None),
    ],
)
def test_links_come_from_the_facts(facts, linked):
    assert hardware.read({"gpus": [card(), card(index=1)], **facts}).nvlink is linked


@pytest.mark.parametrize(("name", "linked"), [("NVIDIA A100-SXM4-80GB", True), ("NVIDIA H100 80GB HBM3", True), ("NVIDIA A100-PCIE-40GB", None)])
def test_links_are_taken_from_the_name_where_the_facts_are_silent(name, linked):
    assert hardware.read({"gpus": [card(name=name)]}).nvlink is linked


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (None, "hardware_not_a_mapping"),
        ([], "hardware_not_a_mapping"),
        ("cards", "hardware_not_a_mapping"),
        ({}, "no_cards"),
        ({"gpus": []}, "no_cards"),
        ({"gpus": {"0": card()}}, "no_cards"),
        ({"gpus": [card(index=index) for index in range(65)]}, "too_many_cards"),
        ({"gpus": ["Tesla T4"]}, "card_not_a_mapping"),
        ({"gpus": [card(index=-1)]}, "invalid_card_index"),
        ({"gpus": [card(index="0")]}, "invalid_card_index"),
        ({"gpus": [card(index=True)]}, "invalid_card_index"),
        ({"gpus": [card(), card()]}, "duplicate_card"),
        ({"gpus": [card(compute_capability=None)]}, "invalid_compute_capability"),
        ({"gpus": [card(compute_capability="sm_75")]}, "invalid_compute_capability"),
        ({"gpus": [card(compute_capability=float("nan"))]}, "invalid_compute_capability"),
        ({"gpus": [card(compute_capability=75)]}, "invalid_compute_capability"),
        ({"gpus": [card(memory_total_bytes=None)]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes=-1)]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes=22528)]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes=10**18)]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes=float("inf"))]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes="22 GB")]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_total_bytes=True)]}, "invalid_memory_total_bytes"),
        ({"gpus": [card(memory_reserved_bytes=-1)]}, "invalid_memory_reserved_bytes"),
        ({"gpus": [card(memory_reserved_bytes=22000 * MIB)]}, "invalid_memory_reserved_bytes"),
        ({"gpus": [card()], "memory_bytes": -5}, "invalid_memory_bytes"),
        ({"gpus": [card()], "memory_bytes": "much"}, "invalid_memory_bytes"),
        ({"gpus": [card()], "cpus": 0}, "invalid_cpus"),
    ],
)
def test_what_cannot_be_a_host_is_refused_with_a_code(facts, code):
    assert codes(facts) == [code]


def test_every_problem_is_told_at_once():
    assert codes({"gpus": [card(compute_capability="x", memory_total_bytes=0), card(index="a")], "cpus": "many"}) == [
        "invalid_compute_capability",
        "invalid_memory_total_bytes",
        "invalid_card_index",
        "invalid_cpus",
    ]
