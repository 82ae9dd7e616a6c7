# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands between the instances of a host, once each of them is planned: names, ports, cards that they share, and RAM."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator

from . import hardware
from . import instance as contract
from .fitted import FITTED
from .hardware import GIB
from .problem import PlanRefused, Problem
from .settings import release

SWAP_SHARE = 0.7  # of RAM, for all instances together: what the engine refuses for one
TAKEN = ("weights", "activation", "non_torch", "kv_cache", "cuda_graphs")  # the budget, and the CUDA graphs where they lie outside of it


def problems(instances, host, plans: list[dict]) -> list[Problem]:
    """The problems between instances; those of one instance alone are in its plan. plans: plan.plan's, one for each instance in its order."""
    if not isinstance(instances, list):
        return contract.problems(instances)
    alone = {problem for given in instances for problem in contract.problems([given])}
    labels = {(problem.code, problem.remedy) for problem in alone}
    found = [problem for problem in contract.problems(instances) if problem not in alone and (problem.code, problem.remedy) not in labels]
    try:
        known = hardware.read(host)
    except PlanRefused:  # each of the plans says so
        return found
    return [*found, *_swap(known, plans), *_shared_cards(instances, known, plans)]


def _swap(host: hardware.Host, plans: list[dict]) -> Iterator[Problem]:
    """Swap is pinned in RAM for every card, also where nothing is swapped."""
    ram = host.memory_bytes
    swap = sum(_swap_bytes(each) for each in plans if each["engine"]["core"] == "V0")
    if len(plans) > 1 and ram and swap > SWAP_SHARE * ram:
        message = f"The swap of all instances together is {swap / GIB:.0f} GiB, {swap / ram:.0%} of {ram / GIB:.0f} GiB RAM."
        yield Problem("swap_over_ram_together", message, "Use smaller swap_space values; each counts once for every card.")


def _swap_bytes(found: dict) -> int:
    """Bytes of RAM that the swap of a plan pins, over all its cards. The engine's default is 4 GiB for each."""
    space = found["options"].get("swap_space")
    ranks, cluster = found["memory"]["per_rank"], found.get("cluster")
    return int((4 if space is None else space) * GIB) * len(cluster["hosts"][0]["gpus"] if cluster else ranks)


# -- Cards that several instances use ------------------------------------------------------------------------------------------------------


def _shared_cards(instances: list, host: hardware.Host, plans: list[dict]) -> Iterator[Problem]:
    """Whether each card has room for the ranks of all instances that fit on it alone, one problem for all cards that the same instances share.

    Shares that are missing, or more than the card, are instance.py's business.
    """
    ranks = _ranks(instances, host, plans)
    shares = {str(given.get("name")): contract.share(given) for given in instances if isinstance(given, dict)}
    owners = collections.defaultdict(list)
    for card, held in ranks.items():
        if len(held) > 1 and all(shares[name] for name in held) and round(sum(shares[name] for name in held), 4) <= 1:
            owners[tuple(held)].append(card)
    for names, shared in owners.items():
        which, who = f"GPU {', '.join(map(str, shared))}", contract.joined([f"instance {name!r}" for name in names])
        charging = [name for name in names if _charges_others(ranks[shared[0]][name][0])]
        if charging:
            version = ranks[shared[0]][charging[0]][0]["engine"]["version"]
            message = (
                f"{who[0].upper()}{who[1:]} share {which}, and the V1 engine of vLLM {version} takes what others use of a card from its own budget: the order "
                f"of their starts would decide how much cache each has, and after a restart one of them might have none."
            )
            yield Problem("shared_card_charged", message, 'Set VLLM_USE_V1: "0" in their env, use a later engine_version, or name different cards.')
            continue
        tightest = max(shared, key=lambda card: _over(ranks[card]))
        over, total = _over(ranks[tightest]), ranks[tightest][names[0]][1]["total"]
        if over > 0:
            each = ", ".join(f"{name} {_taken(rank) / GIB:.2f}" for name, (dummy, rank) in ranks[tightest].items())
            message = (
                f"{who[0].upper()}{who[1:]} share {which}, and take {(total + over) / GIB:.2f} GiB of the {total / GIB:.2f} GiB of GPU {tightest}: {each}, "
                f"with their CUDA graphs and {FITTED['context'] / GIB:.2f} GiB of CUDA context for each."
            )
            remedy = f"Lower their gpu_memory_utilization by {math.ceil(over / total * 100) / 100:g} in all, or name different cards in the key gpus."
            yield Problem("shared_card_too_small", message, remedy)


def _ranks(instances: list, host: hardware.Host, plans: list[dict]) -> dict[int, dict[str, tuple[dict, dict]]]:
    """Card -> instance -> (plan, rank) of the plans that fit."""
    found = collections.defaultdict(dict)
    for given, plan in zip(instances, plans, strict=True):
        if plan["verdict"] == "fits":
            # Of an instance over several hosts the first ranks are this one's, and it may have cards that are not used.
            gpus = plan["cluster"]["hosts"][0]["gpus"] if plan.get("cluster") else given.get("gpus")
            for card, rank in zip(host.chosen(gpus), plan["memory"]["per_rank"], strict=False):
                found[card.index][str(given["name"])] = plan, rank
    return found


def _taken(rank: dict) -> int:
    """Bytes of the card that a rank takes: its parts, and the CUDA context."""
    return sum(max(0, rank[part]) for part in TAKEN) + FITTED["context"]


def _over(held: dict[str, tuple[dict, dict]]) -> int:
    """Bytes that the ranks of a card take beyond it."""
    return sum(_taken(rank) for dummy, rank in held.values()) - next(iter(held.values()))[1]["total"]


def _charges_others(plan: dict) -> bool:
    """v1/worker/gpu_worker.py GPUWorker.determine_available_memory: until 0.9 everything in use counts, then only what the engine itself adds."""
    return plan["engine"]["core"] == "V1" and release(plan["engine"]["version"]) < (0, 9)
