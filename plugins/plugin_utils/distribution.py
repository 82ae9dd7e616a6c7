# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who fetches a model from the hub, who gets it from whom, and what a checkpoint has to hold."""

from __future__ import annotations

import collections.abc

# Methods whose layers hold packed weights under this name; the engine's loader asks for it by name ("KeyError: qweight").
PACKED = {"awq": "qweight", "awq_marlin": "qweight", "gptq": "qweight", "gptq_marlin": "qweight"}


def distributions(found: collections.abc.Mapping[str, collections.abc.Mapping], seeds: collections.abc.Sequence[str]) -> list[dict]:
    """Return what has to be moved: {repo_id, revision, seed, from_hub, receivers} of every model that a host of the play lacks.

    found: host -> what model_facts returned for it. seeds: hosts that are preferred as the source, in this order.

    The seed is a host that has the model, so that a fleet keeps one commit and the hub is not asked; where none has it, one of those that want it,
    and it fetches (from_hub). Receivers are the others that lack it, in the order of the play.
    """
    have, lack = {}, {}
    for host, models in found.items():
        for model in models.values():
            wanted = model["wanted"]
            (have if model["complete"] else lack).setdefault((wanted["repo_id"], wanted["revision"]), []).append(host)
    result = []
    for key, without in lack.items():
        candidates = have.get(key) or without
        seed = next((host for host in seeds if host in candidates), candidates[0])
        receivers = [host for host in without if host != seed]
        result.append({"repo_id": key[0], "revision": key[1], "seed": seed, "from_hub": key not in have, "receivers": receivers})
    return result


def checkpoint_problems(instances, model: str, config: collections.abc.Mapping, tensor_kinds: collections.abc.Sequence[str] | None) -> list[str]:
    """Return why a checkpoint is not what instances ask for, a sentence each.

    instances: vllm_instances. config: the checkpoint's config.json. tensor_kinds: the last words of its tensors' names, None where they are not known.
    """
    declared = (config.get("quantization_config") or {}).get("quant_method")
    problems = []
    for instance in instances if isinstance(instances, list) else []:
        if not isinstance(instance, dict) or instance.get("model") != model:
            continue
        asked = (instance.get("options") or {}).get("quantization") or declared
        packed = PACKED.get(str(asked).lower())
        if packed and not declared:
            problems.append(
                f"{instance.get('name')} asks for {asked}, and config.json of {model} has no quantization_config: the checkpoint is not quantised, and the "
                f"engine would end with KeyError: {packed}. Name a checkpoint that is, or leave quantization out."
            )
        elif packed and tensor_kinds is not None and packed not in tensor_kinds:
            problems.append(
                f"{instance.get('name')} asks for {asked}, and {model} has no tensor named {packed} (it has {', '.join(tensor_kinds)}): the engine would end "
                f"with KeyError: {packed}. The checkpoint is not what its config.json says: name another."
            )
    return problems
