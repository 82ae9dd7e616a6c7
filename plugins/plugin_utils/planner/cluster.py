# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One instance over several hosts, as vLLM does it with Ray: each host is a stage of the pipeline, and the cards of a host share its layers.

To the planner it is an instance of one host that has all the cards, stage by stage, with pipeline_parallel_size and tensor_parallel_size given. What
is said here is what lies between the hosts: which cards of each, which layers, and what the pipeline sends over the slowest link.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator

from . import hardware, judgement, values
from . import instance as contract
from . import plan as single
from .hardware import GIB
from .problem import PlanRefused, Problem
from .weights import stage_layers

MOST_HOSTS = 16
DEFAULT_PORT, PORTS = 6379, 121  # Ray's own, and how many it uses from that one on
# Other sizes of tensor parallelism are tried only where one of these refuses the largest.
SHAPES = frozenset(
    {
        "heads_not_divisible", "kv_heads_not_divisible", "intermediate_not_divisible", "vocabulary_not_divisible", "quantized_input_not_divisible",
        "quantized_output_not_packed",
    }
)  # fmt: skip
FORMING_SECONDS = 180  # until every member has joined: they start in any order, and try again
# Chosen, not measured: a step of one token for each sequence takes such cards some 20 to 60 ms.
SLOW_STEP_SECONDS = 0.02
UNEVEN_SHARE = 0.1  # of the budget: room for the KV cache on one rank that the tightest does not have, from which it is said


def plan(instance, members, model_config, ledger=(), tensor_bytes=None, name: str = "") -> dict:
    """Decide as plan.plan does, for an instance with the key hosts. Nothing that the arguments hold makes it raise.

    members: inventory name -> {hardware, address, interface, bandwidth_gbit, port, allow_public, instances}, what each host has: its cards as
    gpu_facts returns them, its address and interface on the hosts' own network, the Gbit/s of its link, Ray's first port, whether that address may
    be public, and its own vllm_instances. name: the host that the instance is planned for, which has to be the first. Added to the plan is

        cluster    {hosts: [{name, address, interface, gpus, layers: [first, last]}], port, link: {host, gbit_per_second, bytes_per_token, decode_seconds,
                   batch_seconds}}; link is null where a bandwidth is not known, and cluster where the hosts could not be read
    """
    try:
        given, members = contract.plain(instance), contract.plain(members or {})
        if wrong := contract.problems([given]):
            raise PlanRefused(wrong)
        read = _read(given, members, name)
        size, found = _sized(given, read, model_config, ledger, tensor_bytes)
    except PlanRefused as refused:
        return {**single.refused(refused.problems, instance), "cluster": None}
    found["reasons"] = {**_reasons(given, read, size), **found["reasons"]}
    if found["refusals"] and {problem["code"] for problem in found["refusals"]} <= judgement.MEMORY_CODES:
        found["refusals"][0]["remedy"] += _more_hosts(given, read, size, model_config, ledger, tensor_bytes)
    if found["ready_seconds"] is not None:
        found["ready_seconds"] += FORMING_SECONDS
    found["lanes"] = []  # Ray is in the image of this engine
    case = judgement.read(_instance(given, size, len(read)), _hardware(read, size), model_config, ledger, tensor_bytes)
    found["cluster"] = _cluster(members, read, size, case, found)
    found["warnings"] += [dict(vars(problem)) for problem in _warnings(read, size, found)]
    return found


def rows(found: dict) -> list[tuple[str, str]]:
    """What there is to say of the hosts, as (label, words) for a terminal."""
    if not found.get("cluster"):
        return []
    hosts, link, lines = found["cluster"]["hosts"], found["cluster"]["link"], []
    for number, host in enumerate(hosts):
        first, last = host["layers"]
        words = f"{host['name']} ({host['address']}): layers {first}-{last} on GPU {', '.join(map(str, host['gpus']))}"
        lines.append(("hosts" if not number else "", f"{words}{', the head' if not number else ''}"))
    if link:
        decode, batch = (f"{link[key] * 1000:.1f} ms" for key in ("decode_seconds", "batch_seconds"))
        sent = f"{link['bytes_per_token'] / 1024:g} KiB per token to the next host; over the slowest, {link['gbit_per_second']:g} Gbit/s of {link['host']}"
        lines.append(("link", f"{sent}, {decode} for a token of each sequence and {batch} for a full batch of prompts"))
    return lines


# -- The hosts -----------------------------------------------------------------------------------------------------------------------------


def _read(given: dict, members: dict, name: str) -> dict[str, hardware.Host]:
    """The hosts by their names, in the order of the pipeline. PlanRefused with every problem."""
    names, found, problems = given["hosts"], {}, []
    if name and names[0] != name:
        message = f"hosts begins with {names[0]}, and the instance stands in vllm_instances of {name}."
        problems.append(Problem("not_the_head", message, "Begin hosts with the host that has the instance: it is the head, and answers on the port."))
    for each in names:
        member = members.get(each)
        if not isinstance(member, dict):
            problems.append(Problem("unknown_member", f"hosts names {each}, which is not in the inventory.", "Write the names of hosts of the inventory."))
            continue
        problems += _network(each, member)
        try:
            found[each] = hardware.read(member.get("hardware"))
        except PlanRefused as refused:
            remedy = "Describe it in gpuhosts_hardware, or run for all hosts of the instance."
            problems += [Problem(problem.code, f"{each}: {problem.message}", f"{problem.remedy} {remedy}") for problem in refused.problems]
    problems = problems or [*_alike(names, members), *_unlike(found)]
    problems = problems or list(_taken(names[1:], members, found, _cards(given, found)))
    if problems:
        raise PlanRefused(problems)
    # executor/ray_distributed_executor.py sort_by_driver_then_worker_ip: after the head in the order of the addresses, as texts.
    return {each: found[each] for each in [names[0], *sorted(names[1:], key=lambda each: members[each]["address"])]}


def _alike(names: list[str], members: dict) -> Iterator[Problem]:
    """Addresses that two hosts have."""
    for number, name in enumerate(names):
        for other in names[:number]:
            if members[other]["address"] == members[name]["address"]:
                message = f"{other} and {name} have the same ray_cluster_address {members[name]['address']}."
                yield Problem("shared_address", message, "Give each host its own: ranks are told apart by it.")


def _taken(names: list[str], members: dict, found: dict[str, hardware.Host], size: int) -> Iterator[Problem]:
    """Cards of workers that instances of their own use. Those of the head are together.py's business."""
    for name in names:
        used = [card.index for card in found[name].cards[:size]]
        for other in members[name].get("instances") or []:
            gpus = other.get("gpus") if isinstance(other, dict) else None
            if shared := [index for index in used if not isinstance(gpus, list) or index in gpus]:
                message = f"{name} serves {other.get('name')!r} on GPU {', '.join(map(str, shared))}, which this instance takes."
                yield Problem("member_cards_taken", message, "Remove one of the two, or leave the host out of hosts.")


def _network(name: str, member: dict) -> Iterator[Problem]:
    """How the others reach a host. Ray asks nobody who they are: whoever reaches its ports runs programs on the host."""
    if not member.get("interface"):
        yield Problem("no_interface", f"{name} has no ray_cluster_interface.", "Name the interface of the hosts' own network, such as eth1.")
    try:
        address = ipaddress.IPv4Address(member.get("address"))
    except ValueError:
        given = "no ray_cluster_address" if member.get("address") is None else f"the ray_cluster_address {str(member['address'])[:60]!r}"
        yield Problem("no_address", f"{name} has {given}.", "Give the IPv4 address that it has on the hosts' own network.")
        return
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        yield Problem("no_address", f"{name} has the ray_cluster_address {address}, at which no other host reaches it.", "Give its address on their network.")
    elif not address.is_private and not member.get("allow_public"):
        message = f"{name} has the ray_cluster_address {address}, which is public, and Ray lets everybody who reaches it run programs."
        yield Problem("public_address", message, "Use a private network, or set ray_cluster_allow_public: true where nobody else reaches it.")
    port = member.get("port", DEFAULT_PORT)
    if not (values.is_int(port) and 1024 <= port <= 65535 - PORTS):
        yield Problem("invalid_port", f"{name} has ray_cluster_port {values.shown(port)}.", f"Use a number from 1024 to {65535 - PORTS}.")
    bandwidth = member.get("bandwidth_gbit")
    if bandwidth is not None and not (values.is_number(bandwidth) and 0 < bandwidth <= 10000):
        yield Problem("invalid_bandwidth", f"{name} has ray_cluster_bandwidth_gbit {values.shown(bandwidth)}.", "Write the Gbit/s of its link, such as 10.")


def _unlike(found: dict[str, hardware.Host]) -> Iterator[Problem]:
    """Hosts that cannot be stages of one engine, and cards of one host that cannot share its layers."""
    kinds = {name: sorted({card.capability for card in host.cards}) for name, host in found.items()}
    if len({kind for each in kinds.values() for kind in each}) > 1:
        words = ", ".join(f"{name} {' and '.join('.'.join(map(str, kind)) for kind in each)}" for name, each in kinds.items())
        message = f"The cards have different compute capabilities ({words}), and the engine on the head chooses the kernels for all of them."
        yield Problem("capabilities_differ", message, "Use hosts with one kind of card.")
    for name, host in found.items():
        if problem := hardware.unequal(host.cards, hardware.UNEQUAL_REFUSAL):
            yield dataclasses.replace(problem, message=f"{name}: {problem.message}")


def _cards(given: dict, found: dict[str, hardware.Host]) -> int:
    """How many cards of each host may be used. PlanRefused where the options ask for another shape than hosts makes."""
    asked, problems = given.get("options") or {}, []
    fewest = min(found, key=lambda name: len(found[name].cards))
    most, size = len(found[fewest].cards), asked.get("tensor_parallel_size")
    if size is not None and not 1 <= size <= most:
        message = f"tensor_parallel_size is {size}, and {fewest} has {most} cards: a layer is divided inside of a host, and the layers among the hosts."
        problems.append(Problem("ranks_over_cards", message, f"Use tensor_parallel_size from 1 to {most}, or leave it out."))
    if asked.get("pipeline_parallel_size") not in (None, len(found)):
        message = f"pipeline_parallel_size is {asked['pipeline_parallel_size']}, and hosts names {len(found)}: each host is one stage."
        problems.append(Problem("stages_not_hosts", message, "Leave it out, or name as many hosts."))
    if asked.get("distributed_executor_backend") not in (None, "ray"):
        message = f"distributed_executor_backend is {asked['distributed_executor_backend']}, which knows one host, and hosts names {len(found)}."
        problems.append(Problem("executor_of_one_host", message, "Leave it out: it becomes ray."))
    if "VLLM_PP_LAYER_PARTITION" in (given.get("env") or {}):
        message = "VLLM_PP_LAYER_PARTITION divides the layers otherwise than the plan knows."
        problems.append(Problem("unknown_partition", message, "Remove it: the layers are divided evenly."))
    if problems:
        raise PlanRefused(problems)
    return min(most, size or most)


def _hardware(read: dict[str, hardware.Host], size: int) -> dict:
    """All hosts as one, with so many cards of each, stage by stage. RAM is as much as if every host had the least."""
    cards = [card for host in read.values() for card in host.cards[:size]]
    rams = [host.memory_bytes for host in read.values()]
    drivers = [host.driver_version for host in read.values() if host.driver_version]
    links = [host.nvlink for host in read.values()]
    return {
        "gpus": [
            {
                "name": card.name, "compute_capability": f"{card.capability[0]}.{card.capability[1]}", "memory_total_bytes": card.total_bytes,
                "memory_reserved_bytes": 0,
            }
            for card in cards
        ],
        "hosts": len(read),
        "memory_bytes": None if None in rams else min(rams) * len(rams),
        "nvlink": all(links) if None not in links else None,
        # What the oldest runs, all run.
        "driver_version": min(drivers, key=lambda text: [int(part) if part.isdigit() else 0 for part in text.split(".")], default=None),
    }  # fmt: skip


# -- The plan ------------------------------------------------------------------------------------------------------------------------------


def _instance(given: dict, size: int, stages: int) -> dict:
    """The instance as one of a host that has all cards."""
    shape = {"tensor_parallel_size": size, "pipeline_parallel_size": stages, "distributed_executor_backend": "ray"}
    return {**{key: value for key, value in given.items() if key != "hosts"}, "options": {**(given.get("options") or {}), **shape}}


def _sized(given: dict, read: dict[str, hardware.Host], *rest) -> tuple[int, dict]:
    """(cards of each host, the plan): as many as the host with the fewest has, and fewer only where the model cannot be cut so often."""
    first, most = None, _cards(given, read)
    for size in [most] if (given.get("options") or {}).get("tensor_parallel_size") else range(most, 0, -1):
        found = single.plan(_instance(given, size, len(read)), _hardware(read, size), *rest)
        first = first or (size, found)
        if not SHAPES & {problem["code"] for problem in found["refusals"]}:
            return size, found
    return first


def _more_hosts(given: dict, read: dict[str, hardware.Host], size: int, *rest) -> str:
    """How many hosts would do, with others like the last; empty where so many would not either."""
    last = list(read)[-1]
    for count in range(len(read) + 1, MOST_HOSTS + 1):
        wider = {**read, **{f"{last} {number}": read[last] for number in range(len(read), count)}}
        if single.plan(_instance(given, size, count), _hardware(wider, size), *rest)["verdict"] == "fits":
            return f" Or name more hosts: {count} would do, with others like {last}."
    return ""


def _reasons(given: dict, read: dict[str, hardware.Host], size: int) -> dict[str, str]:
    asked, most = given.get("options") or {}, min(len(host.cards) for host in read.values())
    cut = "as many as each host has" if size == most else f"the model cannot be divided among {most}"
    chosen = {
        "tensor_parallel_size": f"{size} cards of each host share its layers, {cut}",
        "pipeline_parallel_size": f"each of the {len(read)} hosts holds a part of the layers",
        "distributed_executor_backend": "the ranks are on several hosts",
    }
    return {name: reason for name, reason in chosen.items() if asked.get(name) is None}


def _cluster(members: dict, read: dict[str, hardware.Host], size: int, case: judgement.Case, found: dict) -> dict:
    """Which host does what, and the slowest link between them."""
    settings = judgement.Judgement(case, found["options"]).settings
    stages = stage_layers(case.model.layers, len(read)) if len(read) <= case.model.layers else [(0, 0)] * len(read)
    hosts = [
        {
            **{key: members[name].get(key) for key in ("address", "interface")},
            "name": name,
            "gpus": [card.index for card in host.cards[:size]],
            "layers": [first, last - 1],
        }
        for (name, host), (first, last) in zip(read.items(), stages, strict=True)
    ]
    result = {"hosts": hosts, "port": members[hosts[0]["name"]].get("port", DEFAULT_PORT), "link": None}
    speeds = {name: members[name].get("bandwidth_gbit") for name in read}
    if None in speeds.values() or settings is None:
        return result
    slowest = min(speeds, key=speeds.get)
    # distributed/parallel_state.py send_tensor_dict: hidden states and residual, each in as many parts as a stage has ranks.
    token = 2 * case.model.hidden * settings.activation_bytes
    second = speeds[slowest] * 1e9 / 8
    link = {
        "host": slowest,
        "gbit_per_second": speeds[slowest],
        "bytes_per_token": token,
        "decode_seconds": settings.max_num_seqs * token / second,
        "batch_seconds": settings.max_num_batched_tokens * token / second,
    }
    return {**result, "link": link}


def _warnings(read: dict[str, hardware.Host], size: int, found: dict) -> Iterator[Problem]:
    """What lies between the hosts and is not as one might expect."""
    idle = {name: len(host.cards) - size for name, host in read.items() if len(host.cards) > size}
    if idle:
        counts = ", ".join(f"{name} {len(host.cards)}" for name, host in read.items())
        words = " and ".join(f"{count} of {name}" for name, count in idle.items())
        message = f"The hosts have cards: {counts}. tensor_parallel_size {size} uses {size} of each; idle are {words}."
        yield Problem("idle_cards", message, "Use hosts with the same number of cards, or put another instance on the idle ones of the head.")
    ranks = found["memory"]["per_rank"]
    caches = [rank["kv_cache"] for rank in ranks]
    if found["verdict"] == "fits" and max(caches) - min(caches) > UNEVEN_SHARE * ranks[caches.index(max(caches))]["budget"]:
        names, tight, wide = list(read), caches.index(min(caches)), caches.index(max(caches))
        message = (
            f"Every rank holds as many KV blocks as the tightest: rank {tight} on {names[tight // size]} has room for {caches[tight] / GIB:.2f} GiB, "
            f"rank {wide} on {names[wide // size]} for {caches[wide] / GIB:.2f} GiB."
        )
        yield Problem("uneven_ranks", message, "Use hosts with cards of one size, or accept that some of the larger ones stays unused.")
    link = found["cluster"]["link"]
    if link is None and found["verdict"] == "fits":
        message = "How fast the hosts' links are is not known, and the pipeline sends every token over them."
        yield Problem("link_not_known", message, "Set ray_cluster_bandwidth_gbit for each of the hosts.")
    elif link and link["decode_seconds"] > SLOW_STEP_SECONDS:
        message = (
            f"A step of every sequence sends {link['bytes_per_token'] / 1024:g} KiB for each over {link['gbit_per_second']:g} Gbit/s of {link['host']}, which "
            f"takes {link['decode_seconds'] * 1000:.0f} ms: the link is slower than the cards."
        )
        yield Problem("slow_link", message, "Use a faster network, or lower max_num_seqs.")
