# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an instance's options are written on the engine's command line."""

from __future__ import annotations

from . import options as engine_options


def model_path(model: str) -> str:
    """Return where an engine finds a model inside its container."""
    return "/model/" + model.rpartition("/")[2]


def command(instance: dict, options: dict) -> list[str]:
    """What follows `python3 -m vllm.entrypoints.openai.api_server`: the model, its name, and the options in their order.

    instance: with every default filled in (instance.normalize), free of problems. options: the final option map.
    """
    head = ["--model", model_path(instance["model"]), "--served-model-name", instance["served_model_name"]]
    return [*head, *engine_options.render(instance["engine_version"], options)]
