# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an engine can run on a host's cards and driver, by what roles/vllm/files/image_probe.py found in its image or virtual environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import hardware, lanes, model
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.instance import normalize
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused, Problem

# The modules whose kernels every model needs, and those that a mixture of experts needs too. From 0.19 on they move, one kernel after the
# other, to a module for PyTorch's stable interface. All others (FlashAttention, FlashMLA, ...) are for newer cards only, or chosen by them.
KERNELS = ("_C", "_C_stable_libtorch")
EXPERT_KERNELS = ("_moe_C", "_moe_C_stable_libtorch")


def judge(
    probe: Mapping, subject: str, right: str, engine_version: str, capabilities: Mapping[int, str | None], driver: str | None, experts: bool = False
) -> list[Problem]:
    """What speaks against starting the engine here; nothing does when the list is empty.

    probe: what the program printed. subject: how messages call it, such as "The image vllm/vllm-openai:v0.8.5". right: what is to be named
    instead. engine_version: which the plan is made for. capabilities: compute capability "7.5" of each card by its index; one that nobody
    could tell is not judged. driver: version of the driver; None judges nothing. experts: whether the model is a mixture of experts.
    """
    found, extensions = probe.get("vllm"), probe.get("extensions") or {}
    if not found:
        message = f"{subject} has no vLLM that its python3 would start."
        return [Problem("no_engine", message, f"Name {right}.")]
    problems = list(_version(found, subject, right, engine_version))
    if not any(codes for extension in extensions.values() for codes in extension.values()):
        message = f"{subject} holds no code for any NVIDIA card: its vLLM {found} is built for another kind of device."
        return [*problems, Problem("no_cuda_code", message, f"Name {right}.")]
    cards: dict[tuple[int, int], list[int]] = {}
    for index, text in capabilities.items():
        if (capability := hardware.capability(text)) is not None:
            cards.setdefault(capability, []).append(index)
    for capability, indices in sorted(cards.items()):
        problems += _code(extensions, subject, capability, indices, KERNELS, "") or (
            _code(extensions, subject, capability, indices, EXPERT_KERNELS, "a mixture of experts on ") if experts else []
        )
    cuda = re.match(r"(\d+)\.(\d+)", probe.get("torch_cuda") or "")
    too_old = lanes.cuda_problem(subject, (int(cuda[1]), int(cuda[2])), driver) if cuda else None
    return [*problems, *([too_old] if too_old else [])]


def runs(codes: Mapping[str, Mapping[str, int]], capability: tuple[int, int]) -> bool:
    """Whether a card runs one of these codes, {"elf": {"75": 28}, "ptx": {"90": 1}}.

    Machine code runs on cards of the same major and at least its minor, and with an "a" on that very one. PTX is compiled by the driver for
    any later card, yet only the same major counts here: wheels carry a stub of the compiler's default, compute_52, that holds no kernel.
    """
    sm = 10 * capability[0] + capability[1]
    archs = {arch for kind in ("elf", "ptx") for arch in codes.get(kind) or {}}
    return f"{sm}a" in archs or any(arch.isdecimal() and 10 * capability[0] <= int(arch) <= sm for arch in archs)


def _version(found: str, subject: str, right: str, engine_version: str) -> Iterator[Problem]:
    """0.8.5.post2 and 0.8.5+cu124 are 0.8.5; 0.8.5rc1 and 0.8.5.dev3 are not yet."""
    if not re.fullmatch(rf"{re.escape(engine_version)}(\.post\d+)?(\+.*)?", found):
        release = re.match(r"[\d.]*\d", found)
        other = f"Set the instance's engine_version to {release[0]}, or name" if release and release[0] in lanes.LANES else "Name"
        yield Problem("other_engine_version", f"{subject} holds vLLM {found}, and the plan is for {engine_version}.", f"{other} {right}.")


def _code(extensions: Mapping, subject: str, capability: tuple[int, int], indices: Sequence[int], modules: Sequence[str], what: str) -> list[Problem]:
    """The problem that none of the modules that are there has code for the card."""
    present = {module: extensions[module] for module in modules if module in extensions}
    if any(runs(codes, capability) for codes in present.values()):
        return []
    sm, dotted = "sm_{}{}".format(*capability), "{}.{}".format(*capability)
    held = sorted({arch for codes in present.values() for arch in codes.get("elf") or {}}, key=lambda arch: (int(arch.rstrip("a")), arch))
    has = f"its vllm.{' and vllm.'.join(present)} has {', '.join(f'sm_{arch}' for arch in held) or 'none'}" if present else f"it has no vllm.{modules[0]}"
    message = f"{subject} holds no code for {sm}, which {what}GPU {', '.join(map(str, indices))} needs: {has}."
    remedy = f"Use a vLLM that is built for compute capability {dotted}; in a build of your own, {dotted} belongs into TORCH_CUDA_ARCH_LIST."
    return [Problem("no_code_for_card", message, remedy)]


def host_problems(
    instances: list[dict], host: Mapping, images: Mapping[str, str], proofs: Mapping, models: Mapping, native_root: str = "/opt/vllm"
) -> list[Problem]:
    """What speaks against the engines of a host's instances, each engine judged once for all cards that it is to run on.

    host: what gpu_facts returned. proofs: what was found, by an image's reference or a virtual environment's path; an engine without is not
    judged. models: config.json by hub id.
    """
    engines: dict[tuple[str, str], tuple[set[int], bool]] = {}
    known = {card["index"]: card.get("compute_capability") for card in host.get("gpus") or []}
    for given in instances:
        instance = normalize(given)
        engine = place(instance, images, native_root), instance["engine_version"]
        cards, experts = engines.get(engine, (set(), False))
        chosen = known if instance["gpus"] is None else instance["gpus"]
        engines[engine] = cards | set(chosen), experts or _has_experts(models.get(instance["model"]))
    found = []
    for (engine, version), (cards, experts) in engines.items():
        if proofs.get(engine):
            native = engine.startswith("/")
            subject = f"The {'virtual environment' if native else 'image'} {engine}"
            official = f"an image of vLLM {version} in vllm_images, such as {lanes.lane(version).image}"
            right = f"what makes vLLM {version} for CUDA in vllm_native_requirements or vllm_native_archives" if native else official
            capabilities = {index: known.get(index) for index in sorted(cards)}
            found += judge(proofs[engine], subject, right, version, capabilities, host.get("driver_version"), experts)
    return found


def place(instance: Mapping, images: Mapping[str, str], native_root: str) -> str:
    """Where the engine of an instance is: an image's reference, or the path of a virtual environment."""
    version = instance["engine_version"]
    return f"{native_root}/{version}" if instance["runtime"] == "native" else images[version]


def _has_experts(config) -> bool:
    """Whether a model is a mixture of experts; one that the planner cannot read counts as none, and its plan says what is wrong."""
    try:
        return config is not None and model.read(config).experts is not None
    except PlanRefused:
        return False
