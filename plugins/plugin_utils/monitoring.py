# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Prometheus is told of the fleet: targets and expectations, out of the inventory alone, so that one host is configured without the others.

Variables of the roles that a host's inventory leaves out have the roles' own defaults here; a test compares them.
"""

from __future__ import annotations

import collections.abc
import ipaddress
import json

import yaml

from .planner import instance as contract

DEFAULTS = {
    "monitoring_address": None,
    "monitoring_listen_address": "127.0.0.1",
    "monitoring_allowed_addresses": [],
    "monitoring_exporter_port": 9100,
    "monitoring_dcgm_port": 9400,
    "monitoring_gpu_exporter": "textfile",
    "monitoring_cards": None,
    "vllm_listen_address": "0.0.0.0",
    "vllm_instances": [],
}
HEADER = "# Written by the role gpuhosts.inference.monitoring.\n"


def prometheus(
    hosts: collections.abc.Mapping, gpu_hosts: collections.abc.Collection, servers: collections.abc.Collection, server: str, settings: collections.abc.Mapping
) -> dict:
    """Return {config, rules, problems}: prometheus.yml and the inventory's own rules as texts, and what keeps this server from its targets.

    hosts: name -> the host's variables, of all GPU hosts and servers. server: the one that is configured. settings: scrape_seconds, port (of
    Prometheus itself), alertmanagers ("address:port" each).
    """
    jobs, problems = {"node": [], "dcgm": [], "vllm": []}, []
    for name, variables in hosts.items():
        host = {key: value if variables.get(key) is None else variables[key] for key, value in DEFAULTS.items()}
        address = host["monitoring_address"] or variables.get("ansible_host") or name
        wanted = [("node", host["monitoring_exporter_port"], host["monitoring_listen_address"], {}, "monitoring_listen_address")]
        if name in gpu_hosts:
            if host["monitoring_gpu_exporter"] == "dcgm":
                wanted.append(("dcgm", host["monitoring_dcgm_port"], host["monitoring_listen_address"], {}, "monitoring_listen_address"))
            for instance in host["vllm_instances"]:
                given = contract.normalize(dict(instance))
                wanted.append(("vllm", given["port"], host["vllm_listen_address"], {"name": given["name"]}, "vllm_listen_address"))
        for job, port, listens, labels, variable in wanted:
            where = target(address, str(listens), port, name == server)
            if where is None:
                what = f"its instance {labels['name']}" if labels else f"its exporter {job}"
                problems.append(f"{name}: {what} listens on {listens} only, where {server} cannot ask it: set {variable} to an address that {server} reaches.")
            else:
                jobs[job].append({"targets": [where], "labels": {"host": name, **labels}})
    problems = list(dict.fromkeys(problems))
    return {"config": _config(jobs, server, settings), "rules": _rules(hosts, gpu_hosts, servers), "problems": problems}


def exporter_problems(name: str, settings: collections.abc.Mapping) -> list[str]:
    """What is wrong with what a host is to listen on, and with the image of its exporter.

    settings: listen_address, allowed_addresses (addresses, networks, or "any"), gpu_exporter, dcgm_image.
    """
    problems = []
    try:
        loopback = ipaddress.ip_address(settings["listen_address"]).is_loopback
    except ValueError:
        return [f"{name}: monitoring_listen_address is {settings['listen_address']}, which is no address: write one of the host's, or 0.0.0.0."]
    if not loopback and not settings["allowed_addresses"]:
        problems.append(
            f"{name}: its exporter would answer everybody at {settings['listen_address']}: list who may ask in monitoring_allowed_addresses, "
            "addresses or networks, or [any]."
        )
    for address in settings["allowed_addresses"]:
        try:
            address == "any" or ipaddress.ip_network(address, strict=False)
        except ValueError:
            problems.append(f"{name}: {address} in monitoring_allowed_addresses is no address and no network: write 10.0.0.5 or 10.0.0.0/24.")
    if settings["gpu_exporter"] == "dcgm" and "@sha256:" not in settings["dcgm_image"]:
        problems.append(
            f"{name}: monitoring_dcgm_image is {settings['dcgm_image'] or 'not set'}: name NVIDIA's dcgm-exporter by its digest, "
            "registry/name@sha256:..., or set monitoring_gpu_exporter to textfile."
        )
    return problems


def target(address: str, listens: str, port: int, here: bool) -> str | None:
    """address:port at which a server reaches what listens there; None where it does not. here: on the server itself."""
    listening = ipaddress.ip_address(listens)
    if listening.is_loopback and not here:
        return None
    if here:
        address = {True: "127.0.0.1" if listening.version == 4 else "::1", False: listens}[listening.is_unspecified]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _config(jobs: dict, server: str, settings: collections.abc.Mapping) -> str:
    itself = [{"targets": [f"127.0.0.1:{settings['port']}"], "labels": {"host": server}}]
    document = {
        "global": {"scrape_interval": f"{settings['scrape_seconds']}s", "evaluation_interval": f"{settings['scrape_seconds']}s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [{"job_name": job, "static_configs": targets} for job, targets in [*jobs.items(), ("prometheus", itself)] if targets],
    }
    if settings["alertmanagers"]:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(settings["alertmanagers"])}]}]}
    return _yaml(document)


def _rules(hosts: collections.abc.Mapping, gpu_hosts, servers) -> str:
    """What the inventory says, as series that alerts compare with."""
    rules = [_constant("gpuhosts:prometheus_server", name, 1) for name in servers]
    for name in gpu_hosts:
        variables = hosts[name]
        cards = variables.get("monitoring_cards") or len((variables.get("gpuhosts_hardware") or {}).get("gpus") or [])
        if cards:
            rules.append(_constant("gpuhosts:gpu_cards_expected", name, int(cards)))
    return _yaml({"groups": [{"name": "gpuhosts_inventory", "rules": rules}]})


def _yaml(document: dict) -> str:
    """The file. Texts of an inventory are Ansible's own kind, which YAML does not write: JSON makes plain ones of them."""
    return HEADER + yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False)


def _constant(name: str, host: str, value: int) -> dict:
    return {"record": name, "expr": f"vector({value})", "labels": {"host": host}}
