# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the hosts of one instance run so that Ray joins them, and what has to be alike on all of them. Pure functions on plain data.

The head's container is the instance's own (service.py), with what `head` adds; a worker's is a unit of the role ray_cluster. Both start
roles/ray_cluster/files/ray_cluster/member.py in the engine's image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from . import container
from .planner.cluster import PORTS
from .planner.command import model_path
from .planner.problem import Problem
from .systemd import quote

PROGRAMS = "/usr/local/lib/gpuhosts/ray_cluster"
PROGRAM = "/ray_cluster/member.py"  # in the containers
HEADER = "Written by gpuhosts.inference from the inventory: what is changed here is lost."
CHAIN = "RAY-CLUSTER"
WORKER, FIREWALL = "ray-worker.service", "ray-cluster-firewall.service"
UNITS = "/etc/systemd/system"
RULES = {"iptables": "/etc/gpuhosts/ray-cluster.rules", "ip6tables": "/etc/gpuhosts/ray-cluster.rules6"}
ENVIRONMENT = "/etc/gpuhosts/ray-worker.environment"


def environment(member: Mapping) -> dict[str, str]:
    """The variables of one member. member: an entry of a plan's cluster.hosts. Each has an address of its own, and all traffic stays on their network."""
    interface = member["interface"]
    return {"VLLM_HOST_IP": member["address"], "NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}


def head(cluster: Mapping) -> list[str]:
    """What the head's container starts before the engine's own command line. cluster: a plan's."""
    first, *others = cluster["hosts"]
    workers = [f"--worker={member['name']}={member['address']}" for member in others]
    return [PROGRAM, "head", *_member(cluster, first), *workers, "--"]


def _member(cluster: Mapping, member: Mapping) -> list[str]:
    return [f"--address={member['address']}", f"--port={cluster['port']}", f"--gpus={len(member['gpus'])}"]


def files(instance: Mapping, cluster: Mapping, name: str, host: Mapping, settings: Mapping) -> dict[str, str]:
    """{path: text} of what a member has besides the instance itself: its firewall, and on a worker its unit.

    instance: the entry of vllm_instances. cluster: of its plan. name: the member's in the inventory. host: what gpu_facts returned there. settings:
    image, model_path, ulimits, ipc, shm_size, read_only and program, the text of member.py.
    """
    member = next(each for each in cluster["hosts"] if each["name"] == name)
    found = {f"{PROGRAMS}/member.py": settings["program"], f"{UNITS}/{FIREWALL}": firewall_unit(), **firewall(cluster)}
    if member is not cluster["hosts"][0]:
        found[ENVIRONMENT] = "".join(f"{key}={value}\n" for key, value in {**environment(member), "HF_HUB_OFFLINE": "1"}.items())
        found[f"{UNITS}/{WORKER}"] = worker_unit(instance, cluster, member, host, settings)
    return found


# -- The firewall --------------------------------------------------------------------------------------------------------------------------


def firewall(cluster: Mapping) -> dict[str, str]:
    """{path: text} of the rules that let the members alone to Ray's ports: it listens on every address of a host and asks nobody who they are."""
    ports = f"{cluster['port']}:{cluster['port'] + PORTS - 1}"
    # Ray listens on IPv6 too, and no member has such an address.
    admitted = {"iptables": [f"-A {CHAIN} -s {member['address']}/32 -j RETURN" for member in cluster["hosts"]], "ip6tables": []}
    texts = {}
    for program, members in admitted.items():
        rules = [f"-A {CHAIN} -i lo -j RETURN", *members, f"-A {CHAIN} -p tcp -m tcp --dport {ports} -j DROP"]
        # Naming the chain empties it.
        texts[RULES[program]] = "\n".join([f"# {HEADER}", "*filter", f":{CHAIN} - [0:0]", *rules, "COMMIT", ""])
    return texts


def firewall_unit() -> str:
    """The unit that puts the rules in force. What else is in the tables stays."""
    lines = [
        f"# {HEADER}",
        "[Unit]",
        "Description=Lets the members of a Ray cluster alone to its ports",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
    ]
    for program, path in RULES.items():
        restore = f"/usr/sbin/{program}-restore --wait --noflush {path}"
        jump = [f"/usr/sbin/{program} --wait --{what} INPUT --jump {CHAIN}" for what in ("check", "insert", "delete")]
        lines += [f"ExecStart={restore}", f"ExecStart=/bin/sh -c {quote(f'{jump[0]} || {jump[1]}')}", f"ExecReload={restore}", f"ExecStop={jump[2]}"]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


# -- A worker ------------------------------------------------------------------------------------------------------------------------------


def worker_unit(instance: Mapping, cluster: Mapping, member: Mapping, host: Mapping, settings: Mapping) -> str:
    """The unit of a worker. It ends with its head, and tries again until there is one."""
    first = cluster["hosts"][0]
    command = [
        "/usr/bin/docker", "run", "--rm", "--pull=never", "--name=ray-worker", *container.gpu_argv(member["gpus"], host), "--network=host",
        *container.limits_argv(settings), f"--env-file={ENVIRONMENT}", f"--volume={settings['model_path']}:{model_path(instance['model'])}:ro",
        f"--volume={PROGRAMS}:/ray_cluster:ro", "--entrypoint=python3", settings["image"],
        PROGRAM, "worker", *_member(cluster, member), f"--head={first['address']}",
    ]  # fmt: skip
    lines = [
        f"# {HEADER}",
        "[Unit]",
        f"Description=Ray worker of vLLM {instance['name']}, whose head is {first['name']}",
        *requirements(),
        "Wants=docker.service network-online.target",
        "After=docker.service network-online.target nvidia-persistenced.service",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        # A host that lost its power leaves a container of that name behind.
        "ExecStartPre=-/usr/bin/docker rm --force ray-worker",
        f"ExecStart={' '.join(map(quote, command))}",
        "ExecStop=/usr/bin/docker stop --time 5 ray-worker",
        "Restart=always",
        "RestartSec=5",
    ]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def requirements() -> list[str]:
    """Lines of every unit whose container opens Ray's ports: not without the firewall."""
    return [f"Requires={FIREWALL}", f"After={FIREWALL}"]


# -- What has to be alike ------------------------------------------------------------------------------------------------------------------


def instances(name: str, members: Mapping[str, list]) -> list[dict]:
    """The instances that a host is a member of. members: host -> its vllm_instances, of all hosts that may be heads."""
    listed = [given for each in members.values() if isinstance(each, list) for given in each if isinstance(given, dict)]
    return [given for given in listed if isinstance(given.get("hosts"), list) and name in given["hosts"]]


def problems(instance: Mapping, found: Mapping[str, Mapping]) -> Iterator[Problem]:
    """What stands in the way of a start: members that were not looked at, or that have another image or model than the head.

    found: host -> {image, commit}, the image's id and the model's commit on that host, null where it has none; a host that was not looked at is missing.
    """
    head_name, *others = instance["hosts"]
    for name in instance["hosts"]:
        if name not in found:
            message = f"{instance['name']} is held by {', '.join(instance['hosts'])}, and {name} was not looked at in this run."
            yield Problem("member_unknown", message, f"Run for all of them, without a --limit that leaves {name} out, or start it.")
            return
    for key, what, remedy in (
        ("image", "the image", "Give all members the same vllm_images, by digest"),
        ("commit", "the model at the commit", "Give the instance a revision that is a commit"),
    ):
        missing = [name for name in instance["hosts"] if not found[name].get(key)]
        if missing:
            message = (
                f"{instance['name']}: {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} not got {what.partition(' at ')[0]} that it runs with."
            )
            yield Problem(f"member_without_{key}", message, "Run playbooks/artifacts.yml for all members.")
            continue
        wanted = found[head_name][key]
        for name in others:
            if found[name][key] != wanted:
                message = f"{instance['name']}: {name} has {what} {found[name][key]}, and the head {head_name} {wanted}."
                yield Problem(f"other_{key}", message, f"{remedy}, and run again: nothing was changed, and what serves goes on.")
