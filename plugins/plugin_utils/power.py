# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which power limit and which clocks each card of a host gets, and what speaks against it.

Pure: the cards are what the module gpu_facts returns. Watts and MHz throughout.
"""

from __future__ import annotations

import math

# The first compute capability whose clocks can be locked: NVML, nvmlDeviceSetGpuLockedClocks (Volta) and
# nvmlDeviceSetMemoryLockedClocks (Ampere). Older cards answer "not supported", and nvidia-smi exits with 0.
LOCKABLE = {"graphics": ((7, 0), "Volta"), "memory": ((8, 0), "Ampere")}


def power_limits(cards: list[dict], limit=None, by_card=None, budget=None) -> dict:
    """Decide the power limit of each card.

    limit is for every card, by_card for single ones (index or uuid: watts) and goes first. budget is what the cards may draw together: what
    the explicit limits leave of it goes to the other cards in equal shares of whole watts, each within its card's own range; what a card
    cannot take is shared by the rest. Cards that nothing is said about get their default.

    Returns {"limits": {uuid: watts}, "changes": [sentence for each card whose limit is another now], "problems": [sentence]}. With problems
    the limits are empty. A card whose power the driver does not manage has no limit.
    """
    explicit, problems = _explicit(cards, limit, by_card or {})
    limits = {card["uuid"]: card["power_default_limit_watts"] for card in cards if _managed(card)} | explicit
    if budget is not None and not problems:
        shares, problems = _shares(cards, explicit, budget)
        limits |= shares
    if problems:
        return {"limits": {}, "changes": [], "problems": problems}
    limits = {uuid: int(watts) if watts == int(watts) else watts for uuid, watts in limits.items()}
    changes = [
        f"GPU {card['index']}: {card['power_limit_watts']:g} W to {limits[card['uuid']]:g} W"
        for card in cards
        if card["uuid"] in limits and card["power_limit_watts"] != limits[card["uuid"]]
    ]
    return {"limits": limits, "changes": changes, "problems": []}


def clock_problems(cards: list[dict], graphics=None, memory=None) -> list[str]:
    """What speaks against locking the clocks to [lowest, highest] MHz, as sentences."""
    problems = []
    for kind, clocks in (("graphics", graphics), ("memory", memory)):
        if clocks is None:
            continue
        numbers = [_whole(value) for value in clocks] if isinstance(clocks, (list, tuple)) else []
        if len(numbers) != 2 or None in numbers or not 0 < numbers[0] <= numbers[1]:
            problems.append(f"The {kind} clocks are {clocks!r}: give the lowest and the highest in MHz, for example [300, 1500].")
            continue
        first, architecture = LOCKABLE[kind]
        problems += [
            f"{_name(card)} cannot lock its {kind} clocks, which {architecture} and newer cards can: leave them unset."
            for card in cards
            if card["compute_capability"] and tuple(int(part) for part in card["compute_capability"].split(".")) < first
        ]
    return problems


def _explicit(cards, limit, by_card):
    """({uuid: watts} of the cards that have a limit of their own, problems)."""
    wanted, named_by, problems = {}, {}, []
    if limit is not None:
        wanted = {card["uuid"]: limit for card in cards}
    names = {str(card["index"]): card for card in cards} | {card["uuid"].lower(): card for card in cards}
    for name, value in by_card.items():
        card = names.get(str(name).lower())
        if card is None:
            problems.append(f"There is no card {name} on this host: it has {_range(cards)}.")
        elif card["uuid"] in named_by:
            problems.append(f"{_name(card)} is named twice, as {named_by[card['uuid']]} and as {name}: leave one out.")
        else:
            named_by[card["uuid"]] = name
            wanted[card["uuid"]] = value
    limits = {}
    for card in cards:
        if card["uuid"] not in wanted:
            continue
        watts = _whole(wanted[card["uuid"]])
        if watts is None:
            problems.append(f"The power limit {wanted[card['uuid']]!r} of GPU {card['index']} is not a whole number of watts.")
        elif not _managed(card):
            problems.append(
                f"{_name(card)} takes no power limit: its driver answers [N/A], as laptop and vGPU cards do. Leave this card's limit unset."
            )
        elif not card["power_min_limit_watts"] <= watts <= card["power_max_limit_watts"]:
            low, high = card["power_min_limit_watts"], card["power_max_limit_watts"]
            problems.append(f"{_name(card)} takes a power limit from {low:g} W to {high:g} W, not {watts} W.")
        else:
            limits[card["uuid"]] = watts
    return limits, problems


def _shares(cards, explicit, budget):
    """({uuid: watts} of the cards that share what the explicit limits leave of the budget, problems)."""
    given, budget = budget, _whole(budget)
    if budget is None:
        return {}, [f"The power budget {given!r} is not a whole number of watts."]
    unmanaged = [card for card in cards if not _managed(card)]
    if unmanaged:
        return {}, [
            f"{_name(card)} takes no power limit, so no power budget can be kept on this host: leave the budget unset." for card in unmanaged
        ]
    sharing = [card for card in cards if card["uuid"] not in explicit]
    taken = sum(explicit.values())
    if taken > budget:
        return {}, [f"The power limits set for single cards sum to {taken} W, and the budget is {budget} W: lower them, or raise it."]
    low = {card["uuid"]: math.ceil(card["power_min_limit_watts"]) for card in sharing}
    high = {card["uuid"]: math.floor(card["power_max_limit_watts"]) for card in sharing}
    if sum(low.values()) > budget - taken:
        rest = f"{budget - taken} W of the budget of {budget} W are left" if explicit else f"the budget is {budget} W"
        least = ", ".join(f"{low[card['uuid']]} W for GPU {card['index']}" for card in sharing)
        return {}, [
            f"{'The other cards' if explicit else 'The cards'} need at least {sum(low.values())} W together ({least}), and {rest}: raise it to "
            f"{taken + sum(low.values())} W or more."
        ]

    def at(level):
        """Everyone gets the level, or the nearest to it within the card's range."""
        return {uuid: min(max(level, low[uuid]), high[uuid]) for uuid in low}

    levels = range(max(high.values(), default=0) + 1)
    return at(max(level for level in levels if sum(at(level).values()) <= budget - taken)), []


def _managed(card) -> bool:
    return None not in (card["power_default_limit_watts"], card["power_min_limit_watts"], card["power_max_limit_watts"])


def _name(card) -> str:
    return f"GPU {card['index']} ({card['name']})"


def _range(cards) -> str:
    indices = [card["index"] for card in cards]
    return f"the cards {indices[0]} to {indices[-1]}" if len(indices) > 1 else f"only the card {indices[0]}" if indices else "none"


def _whole(value) -> int | None:
    """A whole number from 0, which -e gives as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and value >= 0 else None
