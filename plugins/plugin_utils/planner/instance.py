# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One entry of `vllm_instances`: which keys it has, and what can be wrong with a host's whole list.

An instance is a dict. Its keys, their types and what stands for a missing one are in KEYS.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import options, values
from .problem import PlanRefused, Problem


@dataclass(frozen=True)
class Key:
    """One key of an instance. `default` stands for a missing value; None means that nothing does."""

    kind: type
    noun: str
    default: object = None
    required: bool = False


KEYS = {
    "name": Key(str, "a string", required=True),
    "model": Key(str, "a string, the model's id on the hub", required=True),
    "revision": Key(str, "a string (quote it)"),
    "gpus": Key(list, "a list of GPU indices"),
    "hosts": Key(list, "a list of hosts of the inventory"),
    "port": Key(int, "an integer", 8000),
    "served_model_name": Key(str, "a string"),  # the instance's name stands for a missing one
    "profile": Key(str, "a string", "throughput"),
    "objective": Key(dict, "a mapping"),
    "options": Key(dict, "a mapping of engine options", {}),
    "env": Key(dict, "a mapping of environment variables", {}),
    "engine_version": Key(str, "a string (quote it)", "0.8.5"),
    "cpuset_cpus": Key(str, "a string of CPU numbers (quote it)"),
    "cpuset_mems": Key(str, "a string of NUMA node numbers (quote it)"),
    "supervisor": Key(str, "a string", "systemd"),
    "runtime": Key(str, "a string", "container"),
    "attention_strategy": Key(str, "a string", "default"),
}

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # a systemd unit and a container carry it
MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
NUMBERS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET_ENV = re.compile(r"(^|_)((API|ACCESS|SECRET|PRIVATE)_?KEY(_ID)?|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)

AS_GIVEN = "as_given"  # nothing is solved: the options go to the engine as they are
PROFILES = ("throughput", "low_memory", "latency", AS_GIVEN)
SUPERVISORS = ("systemd", "compose", "docker")  # who starts an instance, and starts it again
RUNTIMES = ("container", "native")  # in what the engine runs
# What the engine gets for attention besides its own: nothing, the backend xFormers by name, or the role flash_attn_wheel's wheel.
WHEEL_STRATEGIES = ("wheel", "build_on_start", "image")
STRATEGIES = ("default", "xformers", *WHEEL_STRATEGIES)
STRATEGY_VERSION = "0.8.5"  # the only engine that reads the variable, and that a wheel is built for
BACKEND = "VLLM_ATTENTION_BACKEND"
CPUSETS = {"cpuset_cpus": ("CPUs", "0-55"), "cpuset_mems": ("NUMA nodes", "0-1")}  # what each numbers, and an example
# What an instance over several hosts has to have; None for a key that it cannot have. Ray is in the image of that engine.
CLUSTERED = {"gpus": None, "supervisor": "systemd", "runtime": "container", "attention_strategy": "default", "engine_version": "0.8.5"}
OBJECTIVES = {"context": int, "concurrency": int, "max_gpu_memory_gib": float}
LARGEST_OBJECTIVE = 2**24
APART = (
    "Name different cards in the key gpus of each instance; without it an instance uses all. To share a card, give each of them the option "
    "gpu_memory_utilization, with room for the CUDA context of each."
)
INDICES = "Write the indices as nvidia-smi numbers them, such as [0, 1]."

# Options and variables that an instance's own key sets: what to write instead.
LISTENS = "Remove it: the engine listens inside its container, and the instance's key port is what the host publishes."
KEY_OPTIONS = {
    "model": "Use the instance's key model.",
    "served_model_name": "Use the instance's key served_model_name.",
    "revision": "Use the instance's key revision.",
    "port": "Use the instance's key port.",
    "host": LISTENS,
    "uds": LISTENS,
    "headless": "Remove it: without the API server nothing would answer on the instance's port.",
    "device_ids": "Use the instance's key gpus.",
    **dict.fromkeys(("nnodes", "node_rank", "master_addr", "master_port"), "Remove it: an instance over several hosts names them in its key hosts."),
}
KEY_ENV = {
    "CUDA_VISIBLE_DEVICES": "Use the instance's key gpus.",
    "NVIDIA_VISIBLE_DEVICES": "Use the instance's key gpus.",
}
# Options and variables that carry a secret. An option would show it to every user of the host, in the process list.
API_KEY_REMEDY = "Put it in the role variable vllm_api_key, which reaches the engine in a root-only environment file."
SECRET_OPTIONS = {
    "api_key": API_KEY_REMEDY,
    "hf_token": "Remove it: the weights are on the host before the engine starts, so the engine needs no token.",
}
SECRET_REMEDY = "Remove it: the only secret that this release hands to the engine is the role variable vllm_api_key."


PLAIN = frozenset((str, int, float, bool, type(None)))
DEEPEST = 100  # levels of mappings and lists: a config.json has five


def plain(value, depth: int = 0):
    """A copy made of Python's own dict, list, str, int and float: Ansible's values are subclasses of them, read lazily and tagged.

    PlanRefused for what is nested deeper than DEEPEST, such as what contains itself: nothing behind this need be proof against it.
    """
    if type(value) in PLAIN:
        return value
    if depth > DEEPEST:
        raise PlanRefused([Problem("nested_too_deep", f"A value is nested more than {DEEPEST} levels deep.", "Write it with fewer levels.")])
    if isinstance(value, dict):
        # What is plain already, as most is, takes no call.
        return {key if type(key) in PLAIN else plain(key): item if type(item) in PLAIN else plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item if type(item) in PLAIN else plain(item, depth + 1) for item in value]
    if isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def normalize(instance: dict) -> dict:
    """The instance with every key of KEYS and its default, as a plain copy. It has passed `problems`.

    gpus, hosts, revision, objective, cpuset_cpus and cpuset_mems stay None when they are not given: all cards, one host, the hub's default, no
    goal, all CPUs, the memory of all nodes. The attention_strategy xformers is a variable in env from here on.
    """
    given = {key: value for key, value in plain(instance).items() if value is not None}
    defaults = plain({key: contract.default for key, contract in KEYS.items()})
    full = {**defaults, "served_model_name": given.get("name"), **given}
    return {**full, "env": {BACKEND: "XFORMERS", **full["env"]}} if full["attention_strategy"] == "xformers" else full


def problems(instances, gpu_count: int | None = None) -> list[Problem]:
    """What is wrong with a host's `vllm_instances`; an empty list when nothing is.

    gpu_count: how many cards the host has, where that is known; without it indices have no upper limit. Checked here is what one can
    see without a GPU or a model; whether it fits is the plan's business.
    """
    if not isinstance(instances, list):
        message = f"vllm_instances must be a list, not {values.kind_of(instances)}."
        return [Problem("not_a_list", message, "Write it as a list with one mapping for each instance.")]
    found, hosted = [], []
    for position, instance in enumerate(instances, 1):
        if not isinstance(instance, dict):
            message = f"Instance number {position} must be a mapping, not {values.kind_of(instance)}."
            found.append(Problem("not_a_mapping", message, "Write it as a mapping with the keys name and model."))
            continue
        name = instance.get("name")
        label = f"Instance {str(name)!r}" if isinstance(name, str) and name else f"Instance number {position}"
        good, bad = _typed(instance)
        for problem in itertools.chain(bad, _one(good, gpu_count)):
            found.append(dataclasses.replace(problem, message=f"{label}: {problem.message}"))
        hosted.append((label, good, _cards(instance.get("gpus"))))
    return found + list(_between(hosted))


# -- One instance --------------------------------------------------------------------------------------------------------------------------


def _typed(instance: dict) -> tuple[dict, list[Problem]]:
    """The keys whose values have the right type, with defaults filled in, and the problems of the others. A null is a missing key."""
    good, bad = {}, []
    for key in instance:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            if key in options.schema(KEYS["engine_version"].default):
                remedy = f"Write it under options if the engine's option {key} is meant, otherwise remove it."
            elif near:
                remedy = f"Write {near[0]} if that is meant, otherwise remove it."
            else:
                remedy = f"Remove it, or use one of {', '.join(KEYS)}."
            bad.append(Problem("unknown_key", f"{key} is not a key of an instance.", remedy))
    for key, contract in KEYS.items():
        value = instance.get(key)
        if value is None:
            if contract.required:
                bad.append(Problem("missing_key", f"{key} is missing.", f"Add {key}, {contract.noun}."))
            elif contract.default is not None:
                good[key] = contract.default
        elif _fits(value, contract.kind):
            good[key] = value
        else:
            # A whole env or options, given as a string, may hold a secret: it is not shown.
            what = values.kind_of(value) if contract.kind in (dict, list) else values.shown(value)
            bad.append(Problem("wrong_type", f"{key} must be {contract.noun}, not {what}.", f"Write {key} as {contract.noun}."))
    return good, bad


def _fits(value, kind: type) -> bool:
    """Whether a value has the type; a boolean is no integer here."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _one(instance: dict, gpu_count: int | None) -> Iterator[Problem]:
    """The problems of one instance, of which only well-typed keys are left."""
    name, model = instance.get("name"), instance.get("model")
    if name is not None and not NAME.fullmatch(name):
        yield Problem(
            "invalid_name",
            f"the name {str(name)!r} cannot name a systemd unit and a container.",
            "Use lower-case letters, digits, - and _, and begin with a letter or a digit.",
        )
    if model is not None and not MODEL.fullmatch(model):
        yield Problem("invalid_model", f"the model {str(model)!r} is not an id of the hub.", "Write it as in Qwen/Qwen3-32B-AWQ.")
    if "served_model_name" in instance and not re.fullmatch(r"[^\s-]\S*", instance["served_model_name"]):
        yield Problem("invalid_served_model_name", "served_model_name is empty, has a space or begins with a dash.", "Use one word, such as coder.")
    if "port" in instance and not 1 <= instance["port"] <= 65535:
        yield Problem("port_out_of_range", f"the port {instance['port']} does not exist.", "Use a port from 1 to 65535.")
    for key, (what, example) in CPUSETS.items():
        if key in instance and not _is_set(instance[key]):
            message = f"{key} {str(instance[key])!r} is not a set of {what}."
            yield Problem(f"invalid_{key}", message, f'Write it as docker run reads it, such as "{example}" or "0,2,4-7".')
    yield from _supervision(instance)
    yield from _strategy(instance)
    yield from _profile(instance)
    yield from _gpus(instance.get("gpus"), gpu_count)
    yield from _hosts(instance)
    yield from _env(instance.get("env", {}))
    yield from _options(instance)


def _is_set(text: str) -> bool:
    """Whether docker run would take it as a cpuset: single numbers and rising ranges."""
    ranges = [[int(number) for number in part.split("-")] for part in text.split(",")] if NUMBERS.fullmatch(text) else [[1, 0]]
    return all(numbers[0] <= numbers[-1] for numbers in ranges)


def _supervision(instance: dict) -> Iterator[Problem]:
    """Who starts the engine, and in what."""
    for key, known in (("supervisor", SUPERVISORS), ("runtime", RUNTIMES)):
        if key in instance and instance[key] not in known:
            yield Problem(f"unknown_{key}", f"the {key} {str(instance[key])!r} is not known.", f"Use one of {', '.join(known)}.")
    supervisor = instance.get("supervisor")
    if instance.get("runtime") == "native" and supervisor in SUPERVISORS and supervisor != "systemd":
        message = f"the runtime native is a program of the host, and the supervisor {supervisor} starts containers only."
        yield Problem("native_needs_systemd", message, "Use supervisor: systemd, or runtime: container.")


def _strategy(instance: dict) -> Iterator[Problem]:
    """What is added to the engine for attention, as far as that can be seen without model and card."""
    strategy, version, backend = instance.get("attention_strategy"), instance.get("engine_version"), instance.get("env", {}).get(BACKEND)
    if strategy not in (None, *STRATEGIES):
        yield Problem("unknown_attention_strategy", f"the attention_strategy {str(strategy)!r} is not known.", f"Use one of {', '.join(STRATEGIES)}.")
    elif strategy not in (None, "default") and version != STRATEGY_VERSION:
        reason = "has no xFormers backend" if strategy == "xformers" else "imports flash-attn 1 for no model"
        message = f"the attention_strategy {strategy} is for vLLM {STRATEGY_VERSION}, and vLLM {version} {reason}."
        yield Problem("strategy_not_for_version", message, f"Remove attention_strategy, or use engine_version: {STRATEGY_VERSION}.")
    elif strategy in WHEEL_STRATEGIES and instance.get("runtime") == "native":
        message = f"the attention_strategy {strategy} prepares a container, and the runtime native has none."
        yield Problem("wheel_needs_container", message, "Use runtime: container, or add the package to vllm_native_requirements.")
    elif strategy == "xformers" and backend not in (None, "XFORMERS"):
        message = f"the attention_strategy is xformers, and env says {BACKEND}: {backend}."
        yield Problem("strategy_against_env", message, f"Remove one of the two: attention_strategy, or {BACKEND} from env.")


def _profile(instance: dict) -> Iterator[Problem]:
    profile, objective = instance.get("profile", KEYS["profile"].default), instance.get("objective") or {}
    if profile not in PROFILES:
        yield Problem("unknown_profile", f"the profile {str(profile)!r} is not known.", f"Use one of {', '.join(PROFILES)}.")
    elif objective and profile == AS_GIVEN:
        message = f"an objective has no effect on the profile {AS_GIVEN}, which decides nothing."
        yield Problem("objective_without_solver", message, f"Use profile: {PROFILES[0]}, or remove objective.")
    for name, value in objective.items():
        if name not in OBJECTIVES:
            yield Problem("unknown_objective", f"objective has {values.shown(name)}, which is not known.", f"Use {', '.join(OBJECTIVES)}.")
        elif value is not None and not _is_objective(name, value):
            message = f"objective {name} is {values.shown(value)}."
            yield Problem("invalid_objective", message, f"Write a positive number up to {LARGEST_OBJECTIVE}, whole for context and concurrency.")


def _is_objective(name: str, value) -> bool:
    number = values.is_int(value) if OBJECTIVES[name] is int else values.is_number(value)
    return number and 0 < value <= LARGEST_OBJECTIVE


def _gpus(gpus: list | None, gpu_count: int | None) -> Iterator[Problem]:
    if gpus is None:
        return
    wrong = [gpu for gpu in gpus if not values.is_int(gpu)]
    if wrong:
        yield Problem("wrong_type", f"gpus must be a list of integers, and it has {values.shown(wrong[0])}.", INDICES)
        return
    if not gpus:
        yield Problem("no_gpus", "gpus is an empty list.", "Name at least one card, or leave gpus out to use all of them.")
    negative, duplicate = sorted({gpu for gpu in gpus if gpu < 0}), sorted({gpu for gpu in gpus if gpus.count(gpu) > 1})
    if negative:
        yield Problem("negative_gpus", f"gpus has {_listed(negative)}, and indices begin at 0.", INDICES)
    if duplicate:
        yield Problem("duplicate_gpus", f"gpus names {_listed(duplicate)} more than once.", "Name each card once.")
    beyond = sorted({gpu for gpu in gpus if gpu_count is not None and gpu >= gpu_count})
    if beyond:
        last = f"the last card of the host is GPU {gpu_count - 1}" if gpu_count else "the host has no card"
        yield Problem("gpus_out_of_range", f"gpus names {_listed(beyond)}, and {last}.", "Name only cards that the host has.")


def _hosts(instance: dict) -> Iterator[Problem]:
    """An instance over several hosts, as far as that can be seen without them: see cluster.py."""
    hosts = instance.get("hosts")
    if hosts is None:
        return
    if len(hosts) < 2 or not all(isinstance(host, str) and host for host in hosts) or len(set(hosts)) < len(hosts):
        message = f"hosts must name two hosts or more, each once, and it has {', '.join(map(values.shown, hosts)) or 'none'}."
        yield Problem("invalid_hosts", message, "Write names of the inventory, the head first, or leave hosts out for an instance of one host.")
    for key, wanted in CLUSTERED.items():
        if key in instance and instance[key] != wanted:
            message = f"hosts names several, which {key} {instance[key]} does not go with."
            remedy = f"Use {key}: {wanted}" if wanted else f"Remove {key}: tensor_parallel_size says how many cards of each host are used"
            yield Problem("not_over_hosts", message, f"{remedy}, or leave hosts out.")


def _env(env: dict) -> Iterator[Problem]:
    for name, value in env.items():
        if not isinstance(name, str) or not ENV_NAME.fullmatch(name):
            message = f"env has {values.shown(name)}, which cannot name a variable."
            yield Problem("invalid_env_name", message, "Use letters, digits and _, and do not begin with a digit.")
        elif SECRET_ENV.search(name):
            yield Problem("secret_in_env", f"env has {name}, which carries a secret.", API_KEY_REMEDY if name == "VLLM_API_KEY" else SECRET_REMEDY)
        elif name in KEY_ENV:
            yield Problem("env_set_by_key", f"env has {name}, which the instance's own keys set.", KEY_ENV[name])
        elif not isinstance(value, str):
            yield Problem("wrong_type", f"the variable {name} in env must be a string, not {values.shown(value)}.", "Quote its value.")
        elif re.search(r"[\n\r\0]", value):
            yield Problem("invalid_env_value", f"the variable {name} in env has more than one line.", "Write its value on one line.")


def _options(instance: dict) -> Iterator[Problem]:
    given, version = instance.get("options", {}), instance.get("engine_version")
    for name in given:
        if name in SECRET_OPTIONS:
            yield Problem("secret_in_options", f"{name} is a secret, and as an option the host's process list would show it.", SECRET_OPTIONS[name])
        elif name in KEY_OPTIONS:
            yield Problem("option_set_by_key", f"the option {name} is set by the collection.", KEY_OPTIONS[name])
    if version is not None and version not in options.versions():
        yield Problem("unknown_engine_version", f"the options of vLLM {version} are not known.", f"Use one of {', '.join(options.versions())}.")
    elif version is not None:
        yield from options.check(version, {name: value for name, value in given.items() if name not in {*SECRET_OPTIONS, *KEY_OPTIONS}})


# -- Between the instances of a host -------------------------------------------------------------------------------------------------------


def _cards(gpus) -> set[int] | None:
    """The cards that the key gpus names; None is all of them. What is not a list of indices is reported elsewhere and overlaps nothing."""
    if gpus is None:
        return None
    return {gpu for gpu in gpus if values.is_int(gpu)} if isinstance(gpus, list) else set()


def _between(hosted: list[tuple[str, dict, set[int] | None]]) -> Iterator[Problem]:
    """The problems of every two instances, and of those that share a card; each is given as its label, its well-typed keys and its cards."""
    for (first, a, a_cards), (second, b, b_cards) in itertools.combinations(hosted, 2):
        both = joined([first, second])
        if "name" in a and a["name"] == b.get("name"):
            both = f"Two instances named {str(a['name'])!r}"
            yield Problem("duplicate_name", f"{both} are on one host.", "Give each instance its own name.")
        if "port" in a and a["port"] == b.get("port"):
            message = f"{both} have the port {a['port']}, which both would bind (SO_REUSEPORT) and so share the traffic silently."
            yield Problem("duplicate_port", message, f"Give each instance its own port; without one it is {KEYS['port'].default}.")
        if a_cards is None and b_cards is None:
            shared = "all cards"
        else:
            shared = _listed(sorted(b_cards if a_cards is None else a_cards if b_cards is None else a_cards & b_cards))
        if shared and None in (share(a), share(b)):
            yield Problem("overlapping_gpus", f"{both} both use {shared}.", APART)
    yield from _overcommitted(hosted)


def share(instance: dict) -> float | None:
    """The share of each of its cards that an instance says it takes."""
    given = instance.get("options")
    given = given.get("gpu_memory_utilization") if isinstance(given, dict) else None
    return given if values.is_number(given) and 0 < given <= 1 else None


def _overcommitted(hosted: list[tuple[str, dict, set[int] | None]]) -> Iterator[Problem]:
    """Cards whose shares are more than the card. What lies outside of the shares is together.py's business, which knows the plans."""
    named = {card for dummy, dummy, cards in hosted for card in cards or ()}
    owners = collections.defaultdict(list)
    for card in sorted(named) or [None]:
        sharing = tuple((label, share(keys)) for label, keys, cards in hosted if cards is None or card in cards)
        if len(sharing) > 1 and all(part for dummy, part in sharing) and round(sum(part for dummy, part in sharing), 4) > 1:
            owners[sharing].append(card)
    for sharing, cards in owners.items():
        which = "all cards" if cards == [None] else _listed(cards)
        taken = " + ".join(f"{part:g}" for dummy, part in sharing)
        message = f"{joined([label for label, dummy in sharing])} share {which}, and take {taken} of it."
        yield Problem("shared_card_overcommitted", message, "Lower their gpu_memory_utilization, together to 0.9 or less, or name different cards.")


def joined(labels: list[str]) -> str:
    """The labels of instances as they stand in a sentence: Instance 'a', instance 'b' and instance 'c'."""
    rest = [f"{label[0].lower()}{label[1:]}" for label in labels[1:]]
    return ", ".join([labels[0], *rest[:-1]]) + f" and {rest[-1]}"


def _listed(gpus: list[int]) -> str:
    return f"GPU {', '.join(map(str, gpus))}" if gpus else ""
