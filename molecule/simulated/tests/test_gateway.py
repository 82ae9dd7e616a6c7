"""Two replicas behind a gateway on one of the hosts, asked by the official client."""

import collections
import concurrent.futures
import csv
import datetime
import functools
import ipaddress
import itertools
import json
import re
import subprocess
import threading

import lab_play
import openai
import pytest
import yaml

pytestmark = pytest.mark.slow
ON = ("inventories/lab", "molecule/simulated/gateway")
BOTH = (*ON, "molecule/simulated/gateway_shared")
ALICE, BOB = "lab-key-of-alice-0123456789", "lab-key-of-bob-0123456789"
SOCKET = "/run/haproxy/gpuhosts.sock"
HELLO = [{"role": "user", "content": "Hello"}]
SETTINGS = {"gateway_port": 8443, "gateway_check_seconds": 2, "gateway_plaintext": False}


# A line for HAProxy's socket on standard input.
ADMIN = f"""python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect("{SOCKET}"); s.sendall(sys.stdin.buffer.read()); \
[sys.stdout.write(d.decode()) for d in iter(lambda: s.recv(65536), b"")]'"""


@pytest.fixture(scope="session")
def certificate():
    """certificate(days): PEM of certificate and key, for the name gateway.test, self-signed, valid from ten days ago."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(days):
        key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.test")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        builder = builder.not_valid_before(now - datetime.timedelta(days=10)).not_valid_after(now + datetime.timedelta(days=days))
        signed = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.test")]), critical=False).sign(key, hashes.SHA256())
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return {"gateway_certificate": signed.public_bytes(serialization.Encoding.PEM).decode(), "gateway_certificate_key": private.decode()}

    return made


@pytest.fixture(scope="module")
def converge(certificate):
    """converge(**variables): playbooks/gateway.yml with TLS; (status, output)."""
    valid = certificate(30)

    def run(inventories=ON, **variables):
        return lab_play.play("playbooks/gateway.yml", "--extra-vars", json.dumps(SETTINGS | valid | variables), inventories=inventories)

    return run


@pytest.fixture(scope="module")
def gateway(gpu01, gpu02, converge):
    """The host that is the gateway."""
    code, output = converge()
    assert code == 0, output
    # Both replicas have been seen to answer.
    gpu01.until(f"test $(echo 'show stat' | {ADMIN} | grep -c ',coder-.*,UP,\\|:coder,.*,UP,') = 2")
    return gpu01


def address(host):
    text = subprocess.run(
        ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", host.machine.container],
        capture_output=True,
        text=True,
        check=True,
    )
    return text.stdout.strip()


@pytest.fixture(scope="module")
def client(gateway):
    """client(key): the official client; it does not try again by itself."""
    return lambda key=ALICE: openai.OpenAI(
        base_url=f"https://{address(gateway)}:8443/v1", api_key=key, max_retries=0, timeout=60, http_client=openai.DefaultHttpxClient(verify=False)
    )


def servers(gateway):
    """Server -> its row of HAProxy's statistics."""
    rows = csv.DictReader(gateway.machine.run(ADMIN, text="show stat\n").stdout.lstrip("# ").splitlines())
    return {row["svname"]: row for row in rows if ":" in row["svname"]}


def process(gateway):
    return gateway.machine.out("systemctl show --property MainPID,ExecMainStartTimestampMonotonic haproxy")


def test_the_client_lists_completes_and_streams(client):
    asked = client()
    assert [model.id for model in asked.models.list()] == ["coder"]
    answer = asked.chat.completions.create(model="coder", messages=HELLO, max_tokens=8)
    assert answer.usage.completion_tokens == 8
    pieces = [chunk.choices[0].delta.content for chunk in asked.chat.completions.create(model="coder", messages=HELLO, max_tokens=8, stream=True)]
    assert len(pieces) > 8
    assert asked.completions.create(model="coder", prompt="Hello", max_tokens=3).usage.completion_tokens == 3


def test_errors_are_those_of_the_client(client):
    with pytest.raises(openai.AuthenticationError):
        client("a-key-that-nobody-has-given").models.list()
    with pytest.raises(openai.NotFoundError, match="The model other does not exist. There are: coder"):
        client().chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="The context of this model has 32768 tokens, and the request asks for more"):
        client().chat.completions.create(model="coder", messages=HELLO, max_tokens=32769)
    with pytest.raises(openai.PermissionDeniedError, match="not open here"):
        client().audio.transcriptions.create(model="coder", file=b"x")
    with pytest.raises(openai.APIStatusError, match="1048576 are the most") as refused:
        client().chat.completions.create(model="coder", messages=[{"role": "user", "content": "x" * 2**21}])
    assert refused.value.status_code == 413


def test_every_path_of_the_engine_but_the_open_ones_is_closed(gateway, gpu02):
    program = "from simulated_engine.server import ROUTES; print(*ROUTES)"
    routes = gpu02.machine.out(f"docker exec vllm-coder python3 -c '{program}'").split()
    assert {"/invocations", "/metrics", "/tokenize", "/v1/chat/completions"} <= set(routes)
    for path in set(routes) - {"/v1/models", "/v1/chat/completions", "/v1/completions"}:
        for method in ("GET", "POST"):
            code = gateway.machine.out(f"curl -sk -o /dev/null -w '%{{http_code}}' -X {method} -H 'Authorization: Bearer {ALICE}' https://127.0.0.1:8443{path}")
            assert code in ("403", "404"), (method, path)


def test_a_thousand_requests_with_twenty_beginnings(gateway, gpu02, client):
    """95 % of each one's requests at one replica, seen in the engines' own logs."""
    asked = client()
    since = gateway.machine.out("date --iso-8601=ns")

    def ask(number):
        content = f"beginning {number % 20:02} " * 90
        return asked.chat.completions.create(model="coder", messages=[{"role": "system", "content": content}], max_tokens=1).usage.completion_tokens

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(1000))) == {1}
    counts = collections.defaultdict(list)
    for host in (gateway, gpu02):
        log = host.machine.out(f"docker logs --since {since} vllm-coder 2>&1 | grep -o 'Received request chatcmpl.\\{{0,150\\}}' || true")
        found = collections.Counter(re.findall(r"prompt: .*?beginning (\d\d)", log))
        for number in range(20):
            counts[number].append(found[f"{number:02}"])
    assert sum(map(sum, counts.values())) == 1000
    share = min(max(found) / sum(found) for found in counts.values())
    print(f"smallest share of a beginning's requests at one replica: {share:.1%}")
    assert share >= 0.95


def test_a_replica_that_is_killed_under_load_loses_no_request(gateway, gpu02, client):
    """Answers that are not streamed begin at their end: each of them has to come."""
    asked, killed = client(), threading.Event()

    def ask(number):
        messages = [{"role": "user", "content": f"{number} " * 100}]
        if number == 60:
            gpu02.machine.run("docker kill vllm-coder")
            killed.set()
        return asked.chat.completions.create(model="coder", messages=messages, max_tokens=100, extra_body={"ignore_eos": True}).usage.completion_tokens

    for host in (gateway, gpu02):
        host.fault("slow:100")
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = collections.Counter(threads.map(ask, range(150)))
    gateway.fault("")
    assert killed.is_set() and answers == {100: 150}
    # It comes back by itself: systemd starts the engine, and a completion is the proof.
    gpu02.until("curl -sf http://127.0.0.1:8888/health")
    gateway.until(f"(echo 'show stat' | {ADMIN} | grep -q 'gpu02:coder,.*,UP,')")


def test_a_host_is_drained_and_put_back(gateway, gpu02, client):
    playbook = lab_play.CHECKOUT / "molecule/simulated/drain.yml"
    go = functools.partial(lab_play.play, playbook, inventories=ON, host="gpu02")
    gpu02.fault("slow:20")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        asked = client()
        running = [
            threads.submit(
                lambda n: len(list(asked.completions.create(model="coder", prompt=f"{n}", max_tokens=150, stream=True, extra_body={"ignore_eos": True}))),
                number,
            )
            for number in range(4)
        ]
        gateway.until(f"(echo 'show stat' | {ADMIN} | grep -q 'gpu02:coder,[0-9]*,[0-9]*,[1-9]')")
        code, output = go("--extra-vars=to=drain")
        assert code == 0, output
        row = servers(gateway)["gpu02:coder"]
        assert (row["status"], row["scur"]) == ("MAINT", "0")
        assert all(future.result() >= 150 for future in running), "streams ended by themselves"
    served = row["stot"]
    for dummy in range(10):
        client().completions.create(model="coder", prompt="x", max_tokens=1)
    assert servers(gateway)["gpu02:coder"]["stot"] == served
    gpu02.fault("")
    code, output = go("--extra-vars=to=undrain")
    assert code == 0, output
    assert servers(gateway)["gpu02:coder"]["status"].startswith("UP")


def test_a_client_is_taken_off_the_list_and_nothing_is_restarted(gateway, client, converge):
    before, bob = process(gateway), client(BOB)
    assert list(bob.models.list())
    code, output = converge(gateway_clients=[{"name": "alice", "key": ALICE}])
    assert code == 0, output
    assert BOB not in output and ALICE not in output
    with pytest.raises(openai.AuthenticationError):
        bob.models.list()
    assert list(client().models.list())
    assert process(gateway) == before
    assert "reload" not in gateway.machine.out("journalctl -u haproxy -n 3 -o cat").lower()
    code, output = converge()
    assert code == 0, output
    assert list(bob.models.list())


def test_a_new_configuration_cuts_no_stream(gateway, client, converge):
    for_a_while = client().completions.create(model="coder", prompt="x", max_tokens=400, stream=True, extra_body={"ignore_eos": True})
    gateway.fault("slow:40")
    first = next(for_a_while)
    code, output = converge(gateway_queue_seconds=31)
    assert code == 0, output
    assert "timeout queue 31s" in gateway.machine.out("cat /etc/gpuhosts-gateway/haproxy.cfg")
    assert first and len(list(for_a_while)) >= 399
    gateway.fault("")


@pytest.mark.parametrize(
    "variables, message",
    [
        (
            {"gateway_clients": [{"name": "alice", "key": ALICE}, {"name": "alice", "key": BOB}]},
            "gateway_clients has alice twice: give each client a name of its own.",
        ),
        ("expired", "gateway_certificate (CN=gateway.test) expired on "),
        ("foreign", "gateway_certificate (CN=gateway.test) does not belong to gateway_certificate_key: give the key that it was made for."),
        ({"gateway_paths": ["/v1/completions'"]}, "is no path: write one such as /v1/rerank."),
        # What the role itself lets pass, HAProxy refuses.
        ({"gateway_session_header": "a b"}, "failed to validate"),
    ],
)
def test_what_cannot_serve_is_refused_and_the_gateway_serves_on(gateway, client, converge, certificate, variables, message):
    if variables == "expired":
        variables = certificate(-1)
    elif variables == "foreign":
        variables = {"gateway_certificate_key": certificate(30)["gateway_certificate_key"]}
    before, text = process(gateway), gateway.machine.out("cat /etc/gpuhosts-gateway/haproxy.cfg")
    code, output = converge(**variables)
    assert code != 0 and message in output
    assert "PRIVATE KEY" not in output
    assert (process(gateway), gateway.machine.out("cat /etc/gpuhosts-gateway/haproxy.cfg")) == (before, text)
    assert list(client().models.list())
    code, output = converge()
    assert code == 0, output


def test_a_second_run_of_the_site_stays_within_the_budget(gateway, certificate, converge):
    code, output = converge()
    assert code == 0, output
    code, output = converge()
    counts = lab_play.recap(output)
    assert code == 0 and {count["changed"] for count in counts.values()} == {0}, output
    assert BOB not in gateway.machine.out("journalctl -u haproxy -o cat; cat /etc/gpuhosts-gateway/*")


def test_no_key_is_in_the_log_of_a_verbose_run(converge):
    code, output = lab_play.play("playbooks/gateway.yml", "-vvv", "--extra-vars", '{"gateway_queue_seconds": 33, "gateway_port": 8443}', inventories=ON)
    assert code == 0, output
    assert ALICE not in output and BOB not in output


def coder(seqs, **more):
    """The lab's own instance, with as many sequences at once."""
    (found,) = yaml.safe_load((lab_play.CHECKOUT / "inventories/lab/group_vars/gpu_hosts.yml").read_text())["vllm_instances"]
    return found | {"options": found["options"] | {"max_num_seqs": seqs}} | more


@pytest.fixture(scope="module")
def roll_out(tmp_path_factory, converge):
    """roll_out(instance, ...): playbooks/rollout.yml, gpu01 first; (status, output), and roll_out.report() what became of each host."""
    report = tmp_path_factory.mktemp("rollout") / "report.json"
    # What is measured here is a simulated engine on a machine that is doing other things too.
    calm = {"rollout_canaries": ["gpu01"], "rollout_report": str(report), "rollout_speed_loss": 0.95}

    def run(*instances, inventories=ON, host=None, **more):
        words = ("--extra-vars", json.dumps(calm | SETTINGS | {"vllm_instances": instances} | more))
        return lab_play.play("playbooks/rollout.yml", *words, inventories=inventories, host=host)

    code, output = converge()
    assert code == 0, output
    run.report = lambda: {host["name"]: host for host in json.loads(report.read_text())["hosts"]}
    yield run
    assert run(coder(64))[0] == 0, "the lab has what its inventory says again"


def test_a_rollout_changes_a_host_while_it_has_no_requests(gateway, client, roll_out):
    over, asked, out = threading.Event(), client(), []

    def ask(number):
        """How many answers came; one that does not ends the test."""
        answers = 0
        while not over.is_set():
            answers += asked.completions.create(model="coder", prompt=f"{number}", max_tokens=20, extra_body={"ignore_eos": True}).usage.completion_tokens == 20
        return answers

    def watch():
        while not over.wait(0.5):
            out.append(frozenset(name for name, row in servers(gateway).items() if row["status"] == "MAINT"))

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        running = [threads.submit(ask, number) for number in range(4)]
        watching = threads.submit(watch)
        try:
            code, output = roll_out(coder(32))
        finally:
            over.set()
        assert code == 0, output
        answers = [future.result() for future in running]
        watching.result()
    assert {name: host["status"] for name, host in roll_out.report().items()} == {"gpu01": "done", "gpu02": "done"}
    assert [host for host, dummy in itertools.groupby(out) if host] == [{"gpu01:coder"}, {"gpu02:coder"}], "one after the other, each once"
    assert {row["status"] for row in servers(gateway).values()} == {"UP"}, "a check has found that they complete"
    print(f"{sum(answers)} answers while both hosts were changed")
    assert min(answers) > 10


def test_a_rollout_goes_on_without_gateways_that_do_not_run(gateway, roll_out, tmp_path):
    """One that cannot be reached, and one where HAProxy is stopped."""
    gone = tmp_path / "gone.yml"
    words = {"ansible_connection": "ansible.builtin.ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    gone.write_text(json.dumps({"gateways": {"hosts": {"gone": words}}}))
    gateway.machine.run("systemctl stop haproxy")
    code, output = roll_out(coder(48), inventories=(*ON, str(gone)))
    gateway.machine.run("systemctl start haproxy")
    assert code == 0, output
    assert "gpu01, gone cannot be reached, or no gateway runs there" in output
    assert {name: host["status"] for name, host in roll_out.report().items()} == {"gpu01": "done", "gpu02": "done"}
    gateway.until(f"test $(echo 'show stat' | {ADMIN} | grep -c ':coder,.*,UP,') = 2")


def test_a_host_that_a_gateway_does_not_take_back_goes_back(gateway, gpu02, roll_out):
    """Its port has changed, and the gateway has not been told."""
    code, output = roll_out(coder(48, port=8899))
    assert code != 0
    found = roll_out.report()
    assert {name: host["status"] for name, host in found.items()} == {"gpu01": "rolled back", "gpu02": "waiting"}, output
    assert "The gateways do not give gpu01 requests: their checks have not found that coder completes a prompt" in found["gpu01"]["problem"]
    assert "playbooks/gateway.yml has to tell them" in found["gpu01"]["problem"]
    gateway.until(f"test $(echo 'show stat' | {ADMIN} | grep -c ':coder,.*,UP,') = 2")


def test_a_host_that_dies_while_it_is_out_comes_back_by_its_check(gateway, gpu02, roll_out):
    killed = threading.Event()

    def kill():
        gateway.until(f"(echo 'show stat' | {ADMIN} | grep -q 'gpu02:coder,.*,MAINT,')", seconds=300)
        subprocess.run(["docker", "kill", gpu02.machine.container], check=True, capture_output=True)
        killed.set()

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        killing = threads.submit(kill)
        code, output = roll_out(coder(64))
        killing.result()
    assert code != 0 and killed.is_set()
    assert {name: host["status"] for name, host in roll_out.report().items()} == {"gpu01": "done", "gpu02": "unreachable"}, output
    assert servers(gateway)["gpu02:coder"]["status"] != "MAINT"
    subprocess.run(["docker", "start", gpu02.machine.container], check=True, capture_output=True)
    gpu02.machine.wait_for_units()
    gateway.until(f"(echo 'show stat' | {ADMIN} | grep -q 'gpu02:coder,.*,UP,')")


def test_a_host_goes_back_also_where_an_instance_was_removed(gateway, roll_out):
    one, chat = {"host": "localhost,gpu01"}, coder(64, name="chat", port=8889, gpus=[1])
    code, output = roll_out(coder(64, gpus=[0]), chat, **one)
    assert code == 0, output
    code, output = roll_out(coder(32, gpus=[0], env={"GPUHOSTS_SIMULATED_FAULT": "slow:8"}), rollout_speed_loss=0.5, **one)
    assert code != 0
    assert roll_out.report()["gpu01"]["status"] == "rolled back" and "could not be rolled back" not in output, output
    argv = json.loads(gateway.machine.out("cat /etc/vllm/coder/definition.json"))["rungs"][0]["argv"]
    assert argv[argv.index("--max-num-seqs") + 1] == "64" and not gateway.machine.has("/etc/vllm/chat/definition.json")


def test_two_gateways_share_an_address_which_stays_where_it_moved_to(gateway, gpu02, converge):
    # The last but one of the lab's network, which gives addresses from its beginning.
    shared = ipaddress.ip_interface(gateway.machine.out("ip -brief -4 address show eth0").split()[-1])
    shared = f"{shared.network.broadcast_address - 1}/{shared.network.prefixlen}"
    address = shared.partition("/")[0]
    code, output = converge(BOTH, gateway_shared_address=shared)
    assert code == 0, output
    has = f"ip -brief address show eth0 | grep -qw {address}"
    answers = f"curl -skf --max-time 2 -H 'Authorization: Bearer {ALICE}' https://{address}:8443/v1/models | grep -q coder"
    gateway.until(answers)
    first, second = (gateway, gpu02) if gateway.machine.run(has, check=False).returncode == 0 else (gpu02, gateway)
    assert [one.machine.run(has, check=False).returncode == 0 for one in (first, second)] == [True, False]
    first.machine.run("systemctl stop haproxy")
    second.until(f"{has} && {answers}")
    # A gateway that has come back does not take the address, with its streams, from the other.
    first.machine.run("systemctl start haproxy && sleep 6")
    assert [one.machine.run(has, check=False).returncode == 0 for one in (first, second)] == [False, True]
    first.until(answers)
    code, output = converge(BOTH, gateway_shared_address=shared)
    assert code == 0 and {count["changed"] for count in lab_play.recap(output).values()} == {0}, output
    code, output = converge(BOTH, gateway_shared_address=f"{address}/99")
    assert code != 0 and "which is no address with its prefix length" in output
    second.until(f"{has} && {answers}")
    code, output = converge(BOTH)
    assert code == 0, output
    for host in (gateway, gpu02):
        assert host.machine.run(f"{has} || systemctl is-active keepalived || ls /etc/keepalived/keepalived.conf", check=False).returncode != 0
    gpu02.machine.run("systemctl disable --now haproxy && rm -r /etc/gpuhosts-gateway")
