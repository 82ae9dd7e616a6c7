# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line of a plan, or a refusal."""

from __future__ import annotations

from . import hardware
from . import instance as contract
from .command import command
from .plan import plan
from .problem import PlanRefused, Problem


def flags(instance: dict, host: dict | None = None, model: dict | None = None) -> list[str]:
    """What follows `python3 -m vllm.entrypoints.openai.api_server` for this instance. PlanRefused, with all problems, when it is refused.

    host: what gpu_facts returned. model: the checkpoint's config.json. Without them, only the profile as_given has a command line, and what
    the engine will say of its options is not judged; host alone limits the indices of the instance's cards.
    """
    if host and model:
        found = plan(instance, host, model)
        if found["verdict"] == "refused":
            raise PlanRefused([Problem(**problem) for problem in found["refusals"]])
        return found["argv"]
    cards = (host or {}).get("gpus")
    if cards is not None and not isinstance(cards, list):
        raise PlanRefused([hardware.NO_CARDS])
    problems = contract.problems([instance], None if cards is None else len(cards))
    if problems:
        raise PlanRefused(problems)
    full = contract.normalize(instance)
    if full["profile"] != contract.AS_GIVEN:
        message = f"Instance {full['name']!r}: the profile {full['profile']} needs the host's cards and the model's config.json."
        raise PlanRefused([Problem("nothing_to_plan_with", message, f"Give both, or use profile: {contract.AS_GIVEN}.")])
    return command(full, full["options"])
