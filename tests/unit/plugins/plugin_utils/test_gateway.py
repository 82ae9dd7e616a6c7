"""What a gateway is told of the fleet, and what is refused."""

import datetime
import hashlib
import json
import pathlib

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.gpuhosts.inference.plugins.filter import gateway_plan as gateway_filter
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import gateway

ROLES = pathlib.Path(__file__).parents[4] / "roles"
SETTINGS = {
    "listen_address": "127.0.0.1", "certificate": "", "certificate_key": "", "certificate_file": "", "plaintext": False,
    "clients": [{"name": "alice", "key": "a" * 20}], "paths": ["/v1/completions"], "concurrency_factor": 1.0,
    "shared_address": "", "shared_interface": "", "shared_router_id": 51,
}  # fmt: skip
CODER = {"name": "coder", "model": "a/b", "port": 8888}


def step(context=8192, concurrency=4.7, sequences=None):
    return {"options": {"max_model_len": context} | ({"max_num_seqs": sequences} if sequences else {}), "kv": {"max_concurrency": concurrency}}


def host(*instances, rung=0, planned=None, **variables):
    plan = {"verdict": "fits", "ladder": [step(4096, 9.9), step(2048, 99.0, 8)]} | (planned or step())
    return {
        "ansible_host": "10.0.0.1",
        "vllm_instances": list(instances),
        "__vllm_plan": {"plans": {instance["name"]: plan for instance in instances}},
        "ansible_facts": {"gpuhosts_services": {"instances": {instance["name"]: {"state": {"rung": rung}} for instance in instances}}},
    } | variables


def plan(hosts, **settings):
    return gateway.plan(hosts, "gw01", SETTINGS | settings)


def servers(found):
    return {server["name"]: (server["address"], server["concurrency"]) for model in found["models"] for tier in model["tiers"] for server in tier["servers"]}


def test_defaults_are_those_of_the_roles():
    known = {}
    for role in ("gateway", "vllm"):
        known |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
    assert {name: known[name] for name in gateway.DEFAULTS} == gateway.DEFAULTS


def test_instances_of_one_served_name_are_replicas():
    found = plan(
        {
            "gpu01": host(CODER, {"name": "two", "served_model_name": "coder", "model": "a/b", "port": 8889}),
            "gpu02": host(CODER, ansible_host="10.0.0.2", gateway_address="fd00::2"),
            "gpu03": host({"name": "chat", "model": "c/d", "port": 8000}, ansible_host="10.0.0.3", vllm_api_key="secret"),
        }
    )
    assert found["problems"] == []
    assert servers(found) == {
        "gpu01:coder": ("10.0.0.1:8888", 4),
        "gpu01:two": ("10.0.0.1:8889", 4),
        "gpu02:coder": ("[fd00::2]:8888", 4),
        "gpu03:chat": ("10.0.0.3:8000", 4),
    }
    assert [(model["name"], model["context"], model["api_key"]) for model in found["models"]] == [("chat", 8192, True), ("coder", 8192, False)]
    assert [(model["id"], model["max_model_len"]) for model in json.loads(found["listing"])["data"]] == [("chat", 8192), ("coder", 8192)]
    assert found["maps"]["upstreams"] == "chat secret\n"


@pytest.mark.parametrize(
    ("rung", "planned", "factor", "expected"),
    [
        (0, None, 1.0, 4),
        (0, None, 2.5, 11),
        (1, None, 1.0, 9),
        # One sequence is kept for the health check; a ladder may have become shorter.
        (2, None, 1.0, 7),
        (5, None, 1.0, 7),
        (0, step(concurrency=900.0), 1.0, 255),
        (0, step(concurrency=0.4), 1.0, 1),
    ],
)
def test_requests_at_once_follow_the_plan_and_the_rung(rung, planned, factor, expected):
    assert servers(plan({"gpu01": host(CODER, rung=rung, planned=planned)}, concurrency_factor=factor))["gpu01:coder"][1] == expected


def test_replicas_with_a_longer_context_are_a_tier_of_their_own():
    (model,) = plan({"gpu01": host(CODER, planned=step(32768)), "gpu02": host(CODER), "gpu03": host(CODER, rung=1)})["models"]
    assert [(tier["context"], [server["name"] for server in tier["servers"]]) for tier in model["tiers"]] == [
        (4096, ["gpu03:coder"]), (8192, ["gpu02:coder"]), (32768, ["gpu01:coder"]),
    ]  # fmt: skip
    assert model["context"] == 32768 and len({tier["backend"] for tier in model["tiers"]}) == 3
    (model,) = plan({"gpu01": host(CODER, planned={"options": {}, "kv": {"max_concurrency": 2.0}}), "gpu02": host(CODER)})["models"]
    assert (model["context"], len(model["tiers"])) == (None, 1)


def test_names_that_differ_in_odd_characters_have_backends_of_their_own():
    hosts = {name: host({"name": "x", "model": "a/b", "served_model_name": served}) for name, served in (("g1", "a/b"), ("g2", "a:b"))}
    assert len({model["tiers"][0]["backend"] for model in plan(hosts)["models"]}) == 2


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (
            {"gpu01": host(CODER), "gpu02": host(CODER | {"model": "c/d"})},
            "coder is a/b on gpu01:coder and c/d on gpu02:coder: give one of them another served_model_name.",
        ),
        (
            {"gpu01": host(CODER), "gpu02": host(CODER | {"revision": "v2"})},
            "coder is a/b on gpu01:coder and a/b at revision v2 on gpu02:coder: give one of them another served_model_name.",
        ),
        (
            {"gpu01": host(CODER, vllm_api_key="x"), "gpu02": host(CODER)},
            "coder has one vllm_api_key on gpu01:coder and another on gpu02:coder: a gateway asks all replicas with the same.",
        ),
        (
            {"gpu01": host(CODER, vllm_listen_address="127.0.0.1")},
            "gpu01: its instance coder listens on loopback only, where gw01 cannot reach it: set vllm_listen_address to another address of gpu01.",
        ),
        (
            {"gpu01": {"vllm_instances": [CODER]}},
            "gpu01: its instance coder was not planned in this run, so that nobody knows what it can take: run without --limit, with gpu01 up.",
        ),
        (
            {"gpu01": host(CODER | {"served_model_name": "a model"})},
            "The served name 'a model' has characters that a gateway does not route by: use letters, digits and . _ : / @ + - in it.",
        ),
        ({"gpu01": host()}, "No GPU host has an instance in vllm_instances, so that there is nothing to be a gateway for."),
    ],
)
def test_a_fleet_that_cannot_be_served_as_one(hosts, message):
    assert plan(hosts)["problems"] == [message]


KEY, OTHER = "k" * 20, "o" * 20


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ([], "gateway_clients is empty, so that nobody could use the gateway: list who may, each with a name and a key."),
        ([{"name": "a", "key": KEY}, {"name": "a", "key": OTHER}], "gateway_clients has a twice: give each client a name of its own."),
        ([{"name": "a", "key": KEY}, {"name": "b", "key": KEY}], "The clients a and b of gateway_clients have the same key: give each one of its own."),
        ([{"name": "a"}], "The client a of gateway_clients needs a key or a key_sha256, and not both."),
        ([{"name": "a", "key": "short"}], "The key of the client a has 5 characters, which can be guessed: make one of 20 or more."),
        ([{"name": "a", "key_sha256": "12"}], "The key_sha256 of the client a is no SHA-256: write 64 hexadecimal digits, as sha256sum prints them."),
        ([{"name": "a b", "key": KEY}], "gateway_clients has 'a b' as a name: use letters, digits and . _ - in it."),
    ],
)
def test_clients_that_are_refused(clients, message):
    problems = gateway.clients(clients)[1]
    assert problems == [message]
    assert KEY not in message


def test_clients_become_digests_and_quotas():
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    maps, problems = gateway.clients([{"name": "a", "key": KEY, "requests_per_minute": 60}, {"name": "b", "key_sha256": digest, "concurrent_requests": "2"}])
    assert problems == []
    assert maps == {
        "clients": f"{hashlib.sha256(KEY.encode()).hexdigest().upper()} a\n{digest.upper()} b\n",
        "requests": "a 60\n",
        "concurrent": "b 2\n",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"listen_address": "0.0.0.0"},
            "Keys of clients would cross the network in the clear: give the gateway a gateway_certificate and its key, or set gateway_plaintext to true.",
        ),
        ({"listen_address": "here"}, "gateway_listen_address is here, which is no address: write one of the gateway's, or 0.0.0.0."),
        ({"paths": ["/v1/x y"]}, "/v1/x y in gateway_paths is no path: write one such as /v1/rerank."),
    ],
)  # fmt: skip
def test_ways_to_listen_that_are_refused(settings, message):
    assert plan({"gpu01": host(CODER)}, **settings)["problems"] == [message]
    for fine in ({"plaintext": True}, {"certificate_file": "/etc/tls.pem"}):
        assert plan({"gpu01": host(CODER)}, listen_address="0.0.0.0", **fine)["problems"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shared_address": "192.0.2.1"}, "gateway_shared_address is 192.0.2.1, which is no address with its prefix length: write one such as 192.0.2.10/24."),
        ({"shared_address": "here/24"}, "gateway_shared_address is here/24, which is no address with its prefix length: write one such as 192.0.2.10/24."),
        ({"shared_interface": ""}, "gateway_shared_address needs gateway_shared_interface, the gateways' interface on its network, such as eth0."),
        ({"shared_router_id": 256}, "gateway_shared_router_id is 256: write a number from 1 to 255."),
    ],
)
def test_addresses_that_cannot_be_shared(settings, message):
    fine = {"shared_address": "192.0.2.10/24", "shared_interface": "eth0"}
    assert plan({"gpu01": host(CODER)}, **fine)["problems"] == []
    assert plan({"gpu01": host(CODER)}, **fine | settings)["problems"] == [message]


def made(begins, ends):
    """PEM of certificate and key, valid between days from now."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "llm.example")])
    now, day = datetime.datetime(2026, 6, 1), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    signed = builder.not_valid_before(now + begins * day).not_valid_after(now + ends * day).sign(key, hashes.SHA256())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def test_certificates():
    now = datetime.datetime(2026, 6, 1)
    (valid, key), (old, old_key), (new, new_key) = made(-10, 10), made(-10, -1), made(1, 10)
    assert gateway.certificate(valid, key, now) == []
    assert gateway.certificate(old, old_key, now) == ["gateway_certificate (CN=llm.example) expired on 2026-05-31: give a new one."]
    assert gateway.certificate(new, new_key, now) == ["gateway_certificate (CN=llm.example) is valid from 2026-06-02: give one that is valid now."]
    assert gateway.certificate(valid, old_key, now) == [
        "gateway_certificate (CN=llm.example) does not belong to gateway_certificate_key: give the key that it was made for."
    ]
    assert gateway.certificate("nothing", key, now) == ["gateway_certificate is no certificate: it begins with -----BEGIN CERTIFICATE-----."]
    (problem,) = gateway.certificate(valid, "", now)
    assert problem.startswith("gateway_certificate_key is no private key without a password")


def test_the_filter_looks_at_the_gpu_hosts_alone():
    found = gateway_filter.gateway_plan({"gpu01": host(CODER), "localhost": {}}, ["gpu01"], "gw01", SETTINGS)
    assert list(servers(found)) == ["gpu01:coder"]
