# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's command line."""

from __future__ import annotations

from . import instance as contract
from . import options
from .problem import PlanRefused


def model_path(model: str) -> str:
    """Return where an engine finds a model inside its container."""
    return "/model/" + model.rpartition("/")[2]


def flags(instance: dict, host: dict | None = None, model: dict | None = None) -> list[str]:
    """What follows `python3 -m vllm.entrypoints.openai.api_server` for this instance: the model, its name, and its options in their order.

    host: what gpu_facts returned; its number of `gpus` limits the indices. model: the checkpoint's config.json. Profile as_given, the
    only one in this release, adds nothing to the options and does not read model. PlanRefused, with all problems, when any is found.
    """
    cards = (host or {}).get("gpus")
    found = contract.problems([instance], None if cards is None else len(cards))
    if found:
        raise PlanRefused(found)
    full = contract.normalize(instance)
    return ["--model", model_path(full["model"]), "--served-model-name", full["served_model_name"], *options.render(full["engine_version"], full["options"])]
