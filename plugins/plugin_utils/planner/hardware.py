# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host that a plan is made for: its cards and its RAM.

`read` takes what the module gpu_facts returns under `gpuhosts`, or the same written by hand in `gpuhosts_hardware`, where only the cards
with name, compute_capability and memory_total_bytes are needed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from .instance import plain
from .problem import PlanRefused, Problem
from .values import is_int, shown

GIB = 1024**3
CAPABILITY = re.compile(r"(\d{1,2})\.(\d)", re.ASCII)

# A plan for less or more than this is a typing error: MiB for bytes, or a sum over all cards.
MIN_CARD_BYTES, MAX_CARD_BYTES = GIB, 1024 * GIB
MIN_RAM_BYTES, MAX_RAM_BYTES = GIB, 64 * 1024 * GIB
MAX_CARDS = 64

# What driver and firmware keep of a card whose reserved memory is not known: this much and this share of the total. The difference between
# the total that nvidia-smi prints and the total that the engine logs, seen on fourteen kinds of cards, is 0.23 to 0.75 GiB and grows with
# the card (RTX 2080 Ti 11 GB 0.27 and 0.43, 22 GB 0.52; T4 0.26 and 0.44; A10 0.42; RTX 4090 0.40; A100 40 GB 0.51 to 0.61, 80 GB 0.67).
RESERVED_BASE_BYTES = int(0.3 * GIB)
RESERVED_SHARE = 0.006

# Cards of one instance that differ by more than firmware explains, as a share of the larger: of pairs such as 22 and 24 GB people report that they
# serve, of 11 and 22 GB nobody.
UNEQUAL_WARNING, UNEQUAL_REFUSAL = 0.05, 0.10

# Cards whose machines join them by NVLink or NVSwitch, by name, where the host's own links are not known.
NVLINK_NAMES = re.compile(r"\b(A100|A800|H100|H800|H20|H200|B100|B200|B300|GB?H?200|V100-SXM\d|P100-SXM\d)(?!\S*PCIE)", re.IGNORECASE)


class Card(NamedTuple):
    """One card. total_bytes is what a program sees of it: all of its memory less what driver and firmware keep."""

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int

    @property
    def sm(self) -> int:
        """The compute capability as one number: 75 for 7.5."""
        return self.capability[0] * 10 + self.capability[1]


@dataclass(frozen=True, slots=True)
class Host:
    """The cards in the order of their index, and the rest where it is known. memory_bytes is RAM. hosts: how many it stands for, see cluster.py."""

    cards: tuple[Card, ...]
    memory_bytes: int | None = None
    cpus: int | None = None
    nvlink: bool | None = None
    driver_version: str | None = None
    hosts: int = 1

    def chosen(self, indices: list[int] | None) -> tuple[Card, ...]:
        """The cards of an instance's key gpus, in its order; None is all of them. PlanRefused for an index that the host does not have."""
        if indices is None:
            return self.cards
        by_index = {card.index: card for card in self.cards}
        missing = [index for index in indices if index not in by_index]
        if missing:
            message = f"gpus names GPU {', '.join(map(str, missing))}, and the host has GPU {', '.join(map(str, by_index))}."
            raise PlanRefused([Problem("gpus_out_of_range", message, "Name only cards that the host has.")])
        return tuple(by_index[index] for index in indices)


NO_CARDS = Problem("no_cards", "The hardware has no list of cards under gpus.", "List every card with index, name, compute_capability and memory_total_bytes.")


def read(facts) -> Host:
    """The host described by gpu_facts or by hand. PlanRefused with every problem when it cannot be used.

    A value of null is the same as a missing one. memory_reserved_bytes may be missing: then it is estimated from the total.
    """
    facts = plain(facts)
    if not isinstance(facts, dict):
        raise PlanRefused([Problem("hardware_not_a_mapping", "The hardware is not a mapping.", "Write it with the key gpus, as gpu_facts returns it.")])
    gpus = facts.get("gpus")
    if not isinstance(gpus, list) or not gpus:
        raise PlanRefused([NO_CARDS])
    if len(gpus) > MAX_CARDS:
        raise PlanRefused([Problem("too_many_cards", f"The hardware lists {len(gpus)} cards.", f"List at most {MAX_CARDS} cards for one host.")])
    problems, cards = [], []
    for position, gpu in enumerate(gpus):
        card = _card(gpu, position, problems)
        if card is not None:
            cards.append(card)
    indices = [card.index for card in cards]
    twice = sorted({index for index in indices if indices.count(index) > 1})
    if twice:
        message = f"The hardware lists GPU {', '.join(map(str, twice))} more than once."
        problems.append(Problem("duplicate_card", message, "Give each card its own index."))
    memory = _number(facts, "memory_bytes", MIN_RAM_BYTES, MAX_RAM_BYTES, "The host's", problems)
    cpus = _number(facts, "cpus", 1, 65536, "The host's", problems)
    if problems:
        raise PlanRefused(problems)
    driver = facts.get("driver_version")
    ordered = tuple(sorted(cards, key=lambda card: card.index))
    hosts = facts.get("hosts")
    return Host(ordered, memory, cpus, _nvlink(facts, cards), driver if isinstance(driver, str) else None, hosts if is_int(hosts) else 1)


def capability(value) -> tuple[int, int] | None:
    """The compute capability "7.5" as (7, 5); None for what is not one. YAML's 7.5, a float, is read too."""
    if isinstance(value, float) and math.isfinite(value):
        value = f"{value:.1f}"
    match = CAPABILITY.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def reserved_estimate(total_bytes: int) -> int:
    """What driver and firmware keep of a card of that size, where nvidia-smi was not asked."""
    return RESERVED_BASE_BYTES + int(RESERVED_SHARE * total_bytes)


def unequal(cards: tuple[Card, ...], share: float) -> Problem | None:
    """The problem that cards of one instance differ by more than that share of the largest: every rank gets as few blocks as the smallest has."""
    if len({card.total_bytes for card in cards}) == 1:
        return None
    smallest, largest = min(cards, key=lambda card: card.total_bytes), max(cards, key=lambda card: card.total_bytes)
    if largest.total_bytes - smallest.total_bytes <= share * largest.total_bytes:
        return None
    message = (
        f"GPU {smallest.index} has {smallest.total_bytes / GIB:.2f} GiB and GPU {largest.index} has {largest.total_bytes / GIB:.2f} GiB: "
        f"every card holds as many KV blocks as the smallest, so {(largest.total_bytes - smallest.total_bytes) / GIB:.2f} GiB stay unused."
    )
    return Problem("unequal_cards", message, "Put cards of one size in one instance.")


def _card(gpu, position: int, problems: list[Problem]) -> Card | None:
    if not isinstance(gpu, dict):
        problems.append(Problem("card_not_a_mapping", f"Card number {position + 1} is not a mapping.", "Write it as a mapping with the key name."))
        return None
    before = len(problems)
    index = gpu.get("index", position)
    if index is None:
        index = position
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 1024:
        problems.append(Problem("invalid_card_index", f"Card number {position + 1} has {shown(index)} as its index.", "Use its number in nvidia-smi."))
        index = position
    label = f"GPU {index}:"
    found = capability(gpu.get("compute_capability"))
    if found is None:
        given = gpu.get("compute_capability")
        message = f"{label} compute_capability is {'missing' if given is None else shown(given)}."
        problems.append(Problem("invalid_compute_capability", message, 'Write it as in compute_capability: "7.5".'))
    total = _number(gpu, "memory_total_bytes", MIN_CARD_BYTES, MAX_CARD_BYTES, label, problems, required=True)
    reserved = _number(gpu, "memory_reserved_bytes", 0, MAX_CARD_BYTES, label, problems)
    if total is not None:
        reserved = reserved_estimate(total) if reserved is None else reserved
        if reserved > total / 2:
            message = f"{label} memory_reserved_bytes {reserved} is more than half of memory_total_bytes {total}."
            problems.append(Problem("invalid_memory_reserved_bytes", message, "Leave it out to have it estimated."))
    if len(problems) > before or found is None or total is None or reserved is None:
        return None
    name = gpu.get("name")
    return Card(index, name if isinstance(name, str) else "unknown card", found, total - reserved)


def _number(mapping: dict, key: str, least: int, most: int, label: str, problems: list[Problem], required: bool = False) -> int | None:
    """The whole number under the key; None when it is missing, or when it is wrong, which is then a problem."""
    value = mapping.get(key)
    if value is None:
        if required:
            problems.append(Problem(f"invalid_{key}", f"{label} {key} is missing.", "Write it as a whole number."))
        return None
    whole = isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
    if not whole or not least <= value <= most:
        message = f"{label} {key} is {shown(value)}, and it must be a whole number from {least} to {most}."
        problems.append(Problem(f"invalid_{key}", message, "Write what nvidia-smi or the kernel reports, in bytes." if "bytes" in key else "Correct it."))
        return None
    return int(value)


def _nvlink(facts: dict, cards: list[Card]) -> bool | None:
    """Whether every card is linked to the others by NVLink: from gpu_facts' list of link speeds, a boolean by hand, or the cards' names."""
    links = facts.get("nvlink")
    if isinstance(links, bool):
        return links
    if isinstance(links, list) and links and len(links) >= len(cards):
        return all(bool(card) for card in links)
    if cards and all(NVLINK_NAMES.search(card.name) for card in cards):
        return True
    return None
