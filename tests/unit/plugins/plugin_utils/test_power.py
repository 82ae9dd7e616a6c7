"""Who gets how many watts."""

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.power import clock_problems, power_limits


def card(index, low=100.0, default=250.0, high=280.0, now=None, name="NVIDIA GeForce RTX 2080 Ti", capability="7.5"):
    return {
        "index": index, "uuid": f"GPU-{index}a", "name": name, "compute_capability": capability, "power_limit_watts": default if now is None else now,
        "power_min_limit_watts": low, "power_default_limit_watts": default, "power_max_limit_watts": high,
    }  # fmt: skip


def laptop(index):
    return card(index) | dict.fromkeys(("power_limit_watts", "power_min_limit_watts", "power_default_limit_watts", "power_max_limit_watts"))


FOUR = [card(index) for index in range(4)]
T4 = card(1, 60.0, 70.0, 70.0, name="Tesla T4")


def watts(*arguments, **options):
    decision = power_limits(*arguments, **options)
    assert decision["problems"] == []
    return list(decision["limits"].values())


def problems(*arguments, **options):
    decision = power_limits(*arguments, **options)
    assert (decision["limits"], decision["changes"]) == ({}, [])
    return decision["problems"]


def test_nothing_said_is_the_default():
    assert power_limits(FOUR) == {"limits": {f"GPU-{index}a": 250 for index in range(4)}, "changes": [], "problems": []}
    assert power_limits([]) == {"limits": {}, "changes": [], "problems": []}


def test_one_value_for_all_and_changes_in_words():
    decision = power_limits([card(0), card(1, now=150.0)], 150)
    assert decision["limits"] == {"GPU-0a": 150, "GPU-1a": 150}
    assert decision["changes"] == ["GPU 0: 250 W to 150 W"]


@pytest.mark.parametrize("key", [2, "2", "GPU-2a", "gpu-2A"])
def test_a_single_card_by_index_or_uuid_goes_first(key):
    assert watts(FOUR, 150, {key: 200}) == [150, 150, 200, 150]
    assert watts(FOUR, None, {key: "200"}) == [250, 250, 200, 250]


@pytest.mark.parametrize(
    ("cards", "by_card", "budget", "expected"),
    [
        (FOUR, {}, 600, [150] * 4),
        (FOUR, {}, "600", [150] * 4),
        (FOUR, {}, 803, [200] * 4),  # whole watts: 3 W are left over
        (FOUR, {}, 400, [100] * 4),
        (FOUR, {}, 5000, [280] * 4),
        (FOUR, {0: 250}, 800, [250, 183, 183, 183]),
        (FOUR, {0: 100, 1: 100, 2: 100, 3: 100}, 400, [100] * 4),
        ([card(0), T4], {}, 300, [230, 70]),  # what the T4 cannot take goes to the other
        ([card(0, low=200.0), T4], {}, 262, [200, 62]),  # what the 2080 Ti must have is taken from the other
        ([card(0, low=100.4, high=150.6)], {}, 500, [150]),
        ([card(0, low=100.4, high=150.6)], {}, 101, [101]),
        ([], {}, 500, []),
    ],
)
def test_budget(cards, by_card, budget, expected):
    assert watts(cards, None, by_card, budget) == expected


def test_a_budget_beside_a_limit_for_all_is_a_check():
    assert watts(FOUR, 150, {}, 600) == [150] * 4
    assert problems(FOUR, 151, {}, 600) == ["The power limits set for single cards sum to 604 W, and the budget is 600 W: lower them, or raise it."]


@hypothesis.given(
    ranges=st.lists(st.tuples(st.integers(50, 200), st.integers(0, 300)), min_size=1, max_size=8),
    budget=st.integers(0, 4000),
)
def test_a_budget_is_kept_used_and_fair(ranges, budget):
    cards = [card(index, low=float(low), default=float(low), high=float(low + room)) for index, (low, room) in enumerate(ranges)]
    decision = power_limits(cards, budget=budget)
    if sum(low for low, room in ranges) > budget:
        assert decision["problems"]
        return
    limits = list(decision["limits"].values())
    assert sum(limits) <= budget
    for (low, room), limit in zip(ranges, limits):
        assert low <= limit <= low + room
    # The cards that could take more have equal shares, or the least they need, and less than a watt for each of them is left over.
    hungry = [limit for (low, room), limit in zip(ranges, limits) if limit < low + room]
    if hungry:
        assert budget - sum(limits) < hungry.count(min(hungry))
        assert all(limit == min(hungry) or limit in (low, low + room) for (low, room), limit in zip(ranges, limits))


@pytest.mark.parametrize(
    ("cards", "options", "expected"),
    [
        (FOUR, {"limit": 400}, [f"GPU {n} (NVIDIA GeForce RTX 2080 Ti) takes a power limit from 100 W to 280 W, not 400 W." for n in range(4)]),
        (FOUR, {"by_card": {3: 99}}, ["GPU 3 (NVIDIA GeForce RTX 2080 Ti) takes a power limit from 100 W to 280 W, not 99 W."]),
        (FOUR, {"by_card": {4: 150}}, ["There is no card 4 on this host: it has the cards 0 to 3."]),
        ([card(0)], {"by_card": {"GPU-zz": 150}}, ["There is no card GPU-zz on this host: it has only the card 0."]),
        (FOUR, {"by_card": {0: 150, "GPU-0a": 160}}, ["GPU 0 (NVIDIA GeForce RTX 2080 Ti) is named twice, as 0 and as GPU-0a: leave one out."]),
        (FOUR, {"by_card": {0: "much"}}, ["The power limit 'much' of GPU 0 is not a whole number of watts."]),
        (FOUR, {"by_card": {0: True}}, ["The power limit True of GPU 0 is not a whole number of watts."]),
        (FOUR, {"budget": -1}, ["The power budget -1 is not a whole number of watts."]),
        (FOUR, {"budget": float("nan")}, ["The power budget nan is not a whole number of watts."]),
        (
            [card(0), laptop(1)],
            {"limit": 150},
            [
                "GPU 1 (NVIDIA GeForce RTX 2080 Ti) takes no power limit: its driver answers [N/A], as laptop and vGPU cards do. "
                "Leave this card's limit unset."
            ],
        ),
        (
            [card(0), laptop(1)],
            {"budget": 500},
            ["GPU 1 (NVIDIA GeForce RTX 2080 Ti) takes no power limit, so no power budget can be kept on this host: leave the budget unset."],
        ),
        (
            FOUR[:2],
            {"budget": 150},
            [
                "The cards need at least 200 W together (100 W for GPU 0, 100 W for GPU 1), and the budget is 150 W: raise it to 200 W or more."
            ],
        ),
        (
            FOUR[:2],
            {"budget": 300, "by_card": {0: 250}},
            [
                "The other cards need at least 100 W together (100 W for GPU 1), and 50 W of the budget of 300 W are left: raise it to 350 W or more."
            ],
        ),
    ],
)
def test_refusals(cards, options, expected):
    assert problems(cards, **options) == expected


def test_a_card_without_power_management_is_left_alone():
    assert power_limits([card(0), laptop(1)]) == {"limits": {"GPU-0a": 250}, "changes": [], "problems": []}


def test_clocks():
    assert clock_problems(FOUR, [300, 1500]) == []
    assert clock_problems([card(0, capability="8.0")], [300, 1500], [810, 1215]) == []
    assert clock_problems(FOUR[:1], None, [405, 7000]) == [
        "GPU 0 (NVIDIA GeForce RTX 2080 Ti) cannot lock its memory clocks, which Ampere and newer cards can: leave them unset."
    ]
    assert clock_problems([card(0, capability="6.1", name="Tesla P40")], [300, 1500]) == [
        "GPU 0 (Tesla P40) cannot lock its graphics clocks, which Volta and newer cards can: leave them unset."
    ]


@pytest.mark.parametrize("clocks", [[1500], [1500, 300], [0, 300], [1, 2, 3], ["a", 300], 1500, []])
def test_a_range_of_clocks_that_is_none(clocks):
    assert clock_problems(FOUR, clocks) == [f"The graphics clocks are {clocks!r}: give the lowest and the highest in MHz, for example [300, 1500]."]
