# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a gateway is told of the fleet: models, replicas, clients. Out of the inventory and the plans of the GPU hosts; a template writes it down."""

from __future__ import annotations

import collections
import collections.abc
import datetime
import hashlib
import ipaddress
import json
import re

from . import monitoring
from .planner import instance as contract

# What a host's inventory leaves out has the roles' own defaults; a test compares them.
DEFAULTS = {"gateway_address": None, "vllm_listen_address": "0.0.0.0", "vllm_api_key": "", "vllm_instances": []}
ENGINE_MAX_NUM_SEQS = 256  # the engine's own, where neither the inventory nor the plan says another (docs/planner.md)
KEY_CHARACTERS = 20  # shorter ones can be guessed from their digest
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
PATH = re.compile(r"/[A-Za-z0-9/_.-]+")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,14}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def plan(hosts: collections.abc.Mapping, gateway: str, settings: collections.abc.Mapping) -> dict:
    """Return {models, maps, listing, problems}.

    hosts: name -> the variables and facts of a GPU host; its plan and the state of its instances are among them once it was read. gateway: the host that
    is configured. settings: concurrency_factor, clients, paths, listen_address, plaintext, certificate and certificate_key (PEM), certificate_file,
    shared_address ("" where none is shared), shared_interface, shared_router_id.

    models:   [{name, api_key (bool), context (tokens, None where unknown), tiers: [{backend, context, servers: [{name, address, concurrency}]}]}]
    maps:     file name -> text of HAProxy's map: clients (digest of a key -> name), requests and concurrent (name -> quota), upstreams (model -> key)
    listing:  what /v1/models answers
    problems: one sentence each
    """
    replicas, problems = _replicas(hosts, gateway, float(settings["concurrency_factor"]))
    maps, wrong = clients(settings["clients"])
    problems += wrong + _access(settings) + _shared(settings) + _disagreements(replicas)
    models = [_model(name, found) for name, found in sorted(replicas.items())]
    if not models and not problems:
        problems.append("No GPU host has an instance in vllm_instances, so that there is nothing to be a gateway for.")
    maps["upstreams"] = "".join(f"{name} {found[0]['api_key']}\n" for name, found in sorted(replicas.items()) if found[0]["api_key"])
    listing = {
        "object": "list",
        "data": [
            {"id": model["name"], "object": "model", "created": 0, "owned_by": "vllm", **({"max_model_len": model["context"]} if model["context"] else {})}
            for model in models
        ],
    }
    return {"models": models, "maps": maps, "listing": json.dumps(listing), "problems": problems}


# -- Replicas ------------------------------------------------------------------------------------------------------------------------------


def concurrency(planned: collections.abc.Mapping, rung: int, factor: float) -> int:
    """Return how many requests an instance gets at once on a rung of its plan's ladder (0: the plan itself).

    As many of full length as its KV cache holds, times the factor; one fewer than it runs at once, so that the health check need not wait.
    """
    steps = [planned, *planned["ladder"]]
    step = steps[min(rung, len(steps) - 1)]
    at_once = step["options"].get("max_num_seqs") or ENGINE_MAX_NUM_SEQS
    return max(1, min(int(step["kv"]["max_concurrency"] * factor), at_once - 1))


def _replicas(hosts, gateway: str, factor: float) -> tuple[dict, list[str]]:
    """Served name -> its replicas, in the order of the inventory."""
    replicas, problems = collections.defaultdict(list), []
    for name, variables in hosts.items():
        host = {key: value if variables.get(key) is None else variables[key] for key, value in DEFAULTS.items()}
        plans = (variables.get("__vllm_plan") or {}).get("plans") or {}
        states = ((variables.get("ansible_facts") or {}).get("gpuhosts_services") or {}).get("instances") or {}
        address = host["gateway_address"] or variables.get("ansible_host") or name
        for instance in host["vllm_instances"]:
            given = contract.normalize(contract.plain(dict(instance)))
            label = f"{name}: its instance {given['name']}"
            target = monitoring.target(str(address), str(host["vllm_listen_address"]), given["port"], name == gateway)
            if given["name"] not in plans or plans[given["name"]]["verdict"] != "fits":
                problems.append(f"{label} was not planned in this run, so that nobody knows what it can take: run without --limit, with {name} up.")
            elif target is None:
                problems.append(f"{label} listens on loopback only, where {gateway} cannot reach it: set vllm_listen_address to another address of {name}.")
            else:
                planned, rung = plans[given["name"]], ((states.get(given["name"]) or {}).get("state") or {}).get("rung") or 0
                step = [planned, *planned["ladder"]][: rung + 1][-1]
                replicas[str(given["served_model_name"])].append(
                    {
                        "name": f"{name}:{given['name']}",
                        "address": target,
                        "model": f"{given['model']} at revision {given['revision']}" if given["revision"] else given["model"],
                        "api_key": str(host["vllm_api_key"]),
                        "context": step["options"].get("max_model_len"),
                        "concurrency": concurrency(planned, rung, factor),
                    }
                )
    return dict(replicas), problems


def _disagreements(replicas: dict) -> list[str]:
    """Replicas of one name that are not the same to who asks for it."""
    problems = []
    for name, found in sorted(replicas.items()):
        if not SERVED.fullmatch(name):
            problems.append(f"The served name {name!r} has characters that a gateway does not route by: use letters, digits and . _ : / @ + - in it.")
        first = found[0]
        for other in found[1:]:
            if other["model"] != first["model"]:
                problems.append(
                    f"{name} is {first['model']} on {first['name']} and {other['model']} on {other['name']}: give one of them another served_model_name."
                )
            if other["api_key"] != first["api_key"]:
                problems.append(f"{name} has one vllm_api_key on {first['name']} and another on {other['name']}: a gateway asks all replicas with the same.")
    return problems


def _model(name: str, found: list[dict]) -> dict:
    """One served name. Replicas with the same context are a tier; requests that are too long for a tier go to the next."""
    contexts = sorted({replica["context"] for replica in found}) if all(replica["context"] for replica in found) else [None]
    # A digest keeps names apart that differ only in characters which HAProxy's own names cannot have.
    label = f"{re.sub('[^A-Za-z0-9._-]', '_', name)}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    tiers = [
        {
            "backend": label if len(contexts) == 1 else f"{label}-{context}",
            "context": context,
            "servers": [
                {key: replica[key] for key in ("name", "address", "concurrency")} for replica in found if context is None or replica["context"] == context
            ],
        }
        for context in contexts
    ]
    return {"name": name, "api_key": bool(found[0]["api_key"]), "context": contexts[-1], "tiers": tiers}


# -- Clients -------------------------------------------------------------------------------------------------------------------------------


def clients(given: collections.abc.Sequence) -> tuple[dict, list[str]]:
    """Return HAProxy's maps of the clients, and what is wrong with them. Keys leave this function as digests only."""
    names, digests, problems = set(), {}, []
    maps = {"clients": "", "requests": "", "concurrent": ""}
    for client in given:
        name, key, digest = str(client.get("name") or ""), str(client.get("key") or ""), str(client.get("key_sha256") or "")
        if not CLIENT.fullmatch(name):
            problems.append(f"gateway_clients has {name!r} as a name: use letters, digits and . _ - in it.")
        elif name in names:
            problems.append(f"gateway_clients has {name} twice: give each client a name of its own.")
        elif bool(key) == bool(digest):
            problems.append(f"The client {name} of gateway_clients needs a key or a key_sha256, and not both.")
        elif key and len(key) < KEY_CHARACTERS:
            problems.append(f"The key of the client {name} has {len(key)} characters, which can be guessed: make one of {KEY_CHARACTERS} or more.")
        elif digest and not DIGEST.fullmatch(digest):
            problems.append(f"The key_sha256 of the client {name} is no SHA-256: write 64 hexadecimal digits, as sha256sum prints them.")
        else:
            # As HAProxy's converters write it.
            digest = (digest or hashlib.sha256(key.encode()).hexdigest()).upper()
            if digest in digests:
                problems.append(f"The clients {digests[digest]} and {name} of gateway_clients have the same key: give each one of its own.")
            digests[digest] = name
            maps["clients"] += f"{digest} {name}\n"
            for what, quota in (("requests", "requests_per_minute"), ("concurrent", "concurrent_requests")):
                if int(client.get(quota) or 0) > 0:
                    maps[what] += f"{name} {int(client[quota])}\n"
        names.add(name)
    if not given:
        problems.append("gateway_clients is empty, so that nobody could use the gateway: list who may, each with a name and a key.")
    return maps, problems


def _access(settings) -> list[str]:
    """What is wrong with where and how the gateway listens."""
    problems = [f"{path} in gateway_paths is no path: write one such as /v1/rerank." for path in settings["paths"] if not PATH.fullmatch(path)]
    try:
        loopback = ipaddress.ip_address(settings["listen_address"]).is_loopback
    except ValueError:
        return [*problems, f"gateway_listen_address is {settings['listen_address']}, which is no address: write one of the gateway's, or 0.0.0.0."]
    if settings["certificate"]:
        return problems + certificate(settings["certificate"], settings["certificate_key"])
    if not settings["certificate_file"] and not loopback and not settings["plaintext"]:
        problems.append(
            "Keys of clients would cross the network in the clear: give the gateway a gateway_certificate and its key, or set gateway_plaintext to true."
        )
    return problems


def _shared(settings) -> list[str]:
    """What is wrong with the address that gateways share."""
    address = settings["shared_address"]
    if not address:
        return []
    problems = []
    try:
        prefixed = "/" in address and bool(ipaddress.ip_interface(address))
    except ValueError:
        prefixed = False
    if not prefixed:
        problems.append(f"gateway_shared_address is {address}, which is no address with its prefix length: write one such as 192.0.2.10/24.")
    if not INTERFACE.fullmatch(settings["shared_interface"]):
        problems.append("gateway_shared_address needs gateway_shared_interface, the gateways' interface on its network, such as eth0.")
    if not 1 <= settings["shared_router_id"] <= 255:
        problems.append(f"gateway_shared_router_id is {settings['shared_router_id']}: write a number from 1 to 255.")
    return problems


def certificate(pem: str, key_pem: str, now: datetime.datetime | None = None) -> list[str]:
    """Return why the first certificate of a PEM cannot serve with this key; [] where it can. now: UTC, naive."""
    # Here, because ansible-test imports every file without what ansible-core needs.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    now = now or datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    try:
        found = x509.load_pem_x509_certificates(pem.encode())[0]
    except ValueError:
        return ["gateway_certificate is no certificate: it begins with -----BEGIN CERTIFICATE-----."]
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError):
        return ["gateway_certificate_key is no private key without a password: it begins with -----BEGIN PRIVATE KEY----- or the like."]
    encoding = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    who, problems = found.subject.rfc4514_string() or "without a subject", []
    if found.public_key().public_bytes(*encoding) != key.public_key().public_bytes(*encoding):
        problems.append(f"gateway_certificate ({who}) does not belong to gateway_certificate_key: give the key that it was made for.")
    if found.not_valid_after_utc.replace(tzinfo=None) < now:
        problems.append(f"gateway_certificate ({who}) expired on {found.not_valid_after_utc:%Y-%m-%d}: give a new one.")
    if found.not_valid_before_utc.replace(tzinfo=None) > now:
        problems.append(f"gateway_certificate ({who}) is valid from {found.not_valid_before_utc:%Y-%m-%d}: give one that is valid now.")
    return problems
