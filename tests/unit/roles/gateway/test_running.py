"""HAProxy itself, with the role's configuration, before two simulated engines."""

import collections
import concurrent.futures
import contextlib
import csv
import http.client
import json
import re

import pytest
from ansible_collections.community.general.plugins.modules import haproxy as haproxy_module
from ansible_collections.gpuhosts.inference.plugins.modules import haproxy_map
from lab_gateway import CHAT, ENGINE_KEY, KEY


@pytest.fixture(scope="module")
def gateway(start):
    with start(gateway_concurrency_factor=8) as running:
        yield running


def test_models_are_listed_and_answer(gateway):
    status, _headers, listing = gateway.ask("/v1/models")
    assert (status, [(model["id"], model["max_model_len"]) for model in listing["data"]]) == (200, [("coder", 4096)])
    status, _headers, answer = gateway.ask(body=CHAT)
    assert status == 200 and answer["usage"]["completion_tokens"] == 4


# -- What passes ---------------------------------------------------------------------------------------------------------------------------

# Every route that vLLM 0.8.5 registers, as its build_app() lists them with the profiler, LoRA loading and the development mode switched on.
ENGINE_ROUTES = [
    "/health", "/load", "/ping", "/tokenize", "/detokenize", "/v1/models", "/version", "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
    "/pooling", "/score", "/v1/score", "/v1/audio/transcriptions", "/rerank", "/v1/rerank", "/v2/rerank", "/start_profile", "/stop_profile",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/invocations", "/metrics", "/metrics/", "/server_info", "/sleep", "/wake_up", "/is_sleeping",
    "/reset_prefix_cache", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc",
]  # fmt: skip
OPEN = {"/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"}


@pytest.mark.parametrize("path", sorted(set(ENGINE_ROUTES) - OPEN))
def test_every_other_route_of_the_engine_is_closed(gateway, path):
    for spelled in (path, path.replace("/", "//", 1), f"/v1/..{path}", f"/v1/models/..{path}", f"{path}?a=b", path.replace("e", "%65", 1)):
        for method in ("GET", "POST"):
            status, _headers, answer = gateway.ask(spelled, CHAT if method == "POST" else None, method=method)
            assert (status, answer["error"]["code"]) == (403, "path_closed"), (method, spelled)


def test_a_path_is_switched_on_by_its_name(start):
    with start(contexts=(4096,), gateway_paths=["/v1/chat/completions", "/tokenize"]) as running:
        assert running.ask("/tokenize", {"model": "coder", "prompt": "Hi"})[2]["count"] == 2
        assert running.ask("/v1/completions", {"model": "coder", "prompt": "Hi"})[0] == 403


def test_methods_are_those_of_the_api(gateway):
    assert gateway.ask("/v1/models", {})[0] == 405
    assert gateway.ask("/v1/chat/completions", method="GET")[0] == 405


# -- Keys ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "a-key-of-20-character", KEY + "x", ENGINE_KEY])
def test_without_a_clients_key_nothing_is_answered(gateway, key):
    for path in ("/v1/models", "/v1/chat/completions"):
        status, headers, answer = gateway.ask(path, None if path == "/v1/models" else CHAT, key=key)
        assert (status, headers["WWW-Authenticate"], answer["error"]["code"]) == (401, "Bearer", "invalid_api_key")


def test_no_key_is_in_the_configuration_or_the_log(gateway):
    gateway.ask(body=CHAT)
    gateway.ask(body=CHAT, key="unknown-key-of-somebody")
    directory = gateway.process.path.parent
    texts = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    for secret, allowed in ((KEY, set()), ("unknown-key-of-somebody", set()), (ENGINE_KEY, {"upstreams.map"})):
        assert {name for name, text in texts.items() if secret in text} == allowed
    gateway.lines()[-2].endswith("POST /v1/chat/completions")
    assert " alice coder-" in texts["haproxy.log"]


def test_a_key_is_revoked_at_once_and_without_a_reload(gateway, run_module):
    clients = gateway.process.path.parent / "clients.map"
    kept = clients.read_text()
    kept_open = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)

    def ask():
        kept_open.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        return kept_open.getresponse()

    with contextlib.closing(kept_open):
        response = ask()
        response.read()
        assert response.status == 200
        arguments = {"socket": gateway.admin, "maps": [str(clients), str(clients.with_name("requests.map"))]}
        assert run_module(haproxy_map, **arguments)["changed"] is False
        try:
            clients.write_text("".join(line for line in kept.splitlines(keepends=True) if not line.endswith(" alice\n")))
            assert run_module(haproxy_map, check=True, **arguments)["replaced"] == [str(clients)]
            assert gateway.ask("/v1/models")[0] == 200
            assert run_module(haproxy_map, **arguments)["replaced"] == [str(clients)]
            # Also on a connection that was open before.
            response = ask()
            response.read()
            assert response.status == 401
            assert gateway.ask("/v1/models")[0] == 401
            assert gateway.ask("/v1/models", key="another-of-20-characters")[0] == 200
        finally:
            clients.write_text(kept)
            run_module(haproxy_map, **arguments)
    assert gateway.ask("/v1/models")[0] == 200


def test_maps_that_haproxy_cannot_be_given(gateway, run_module, tmp_path):
    (tmp_path / "a.map").write_text("a b\n")
    unknown = {"socket": gateway.admin, "maps": [str(tmp_path / "a.map")]}
    assert run_module(haproxy_map, **unknown)["msg"] == f"HAProxy at {gateway.admin} was not started with {tmp_path}/a.map: reload it."
    gone = {"socket": str(tmp_path / "none.sock"), "maps": [str(tmp_path / "a.map")]}
    assert run_module(haproxy_map, **gone)["msg"].endswith("none.sock: No such file or directory. Is it running?")


def test_quotas_are_the_clients_own(start):
    clients = [{"name": "few", "key": KEY, "requests_per_minute": 3}, {"name": "many", "key": "another-of-20-characters"}]
    with start(contexts=(4096,), gateway_clients=clients) as running:
        answers = [running.ask(body=CHAT) for dummy in range(5)]
        assert [status for status, *dummy in answers] == [200, 200, 200, 429, 429]
        _status, headers, answer = answers[-1]
        assert (headers["Retry-After"], answer["error"]["message"]) == ("60", "The key has used up its 3 requests of a minute.")
        assert running.ask(body=CHAT, key="another-of-20-characters")[0] == 200


def test_requests_at_once_are_counted_for_each_client(start):
    with start(contexts=(4096,), gateway_clients=[{"name": "one", "key": KEY, "concurrent_requests": 1}]) as running, pool(2) as threads:
        running.engines[0].tell("slow:20")
        first = threads.submit(running.ask, body=CHAT | {"max_tokens": 60, "ignore_eos": True})
        running.engines[0].wait(lambda: "scur" and int(stat(running)["one"]) == 1)
        status, headers, answer = running.ask(body=CHAT)
        assert (status, headers["Retry-After"], answer["error"]["code"]) == (429, "5", "concurrency_limit_exceeded")
        assert first.result()[0] == 200
        assert running.ask(body=CHAT)[0] == 200


def pool(threads):
    return concurrent.futures.ThreadPoolExecutor(threads)


def stat(running):
    """Requests that run, of each client."""
    table = running.admin_command("show table clients")
    words = [dict(word.split("=") for word in line.split() if "=" in word) for line in table.splitlines() if "key=" in line]
    return collections.defaultdict(int, {entry["key"]: entry["conn_cur"] for entry in words})


# -- What a request may be -----------------------------------------------------------------------------------------------------------------


def test_the_engine_gets_its_own_key_and_not_the_clients(start):
    # The engine asks for its own key under /v1: an answer is the proof.
    with start(contexts=(4096,)) as running:
        assert running.ask(body=CHAT)[0] == 200
    with start(contexts=(4096,), key="") as running:
        assert running.ask(body=CHAT)[0] == 200


@pytest.mark.parametrize(
    "body, status, code, message",
    [
        ({"model": 'oth"er', "messages": []}, 404, "model_not_found", 'The model oth"er does not exist. There are: coder.'),
        ({"messages": []}, 400, "model_missing", "The request is no JSON with a model."),
        (CHAT | {"max_tokens": 4097}, 400, "context_length_exceeded", "The context of this model has 4096 tokens, and the request asks for more."),
        (CHAT | {"max_tokens": None, "max_completion_tokens": 4097}, 400, "context_length_exceeded", None),
        ({"model": "coder", "messages": [{"role": "user", "content": "x" * 4097 * 32}]}, 400, "context_length_exceeded", None),
        ({"model": "coder", "messages": [{"role": "user", "content": "x" * 2**20}]}, 413, "request_too_large", None),
    ],
)
def test_what_no_replica_can_answer_is_refused_before_it_gets_there(gateway, body, status, code, message):
    before = [engine.log() for engine in gateway.engines]
    found, _headers, answer = gateway.ask(body=body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert message in (None, answer["error"]["message"])
    assert "POST" not in "".join(engine.log()[len(text) :].replace("POST /v1/completions", "") for engine, text in zip(gateway.engines, before, strict=True))


def test_a_body_without_a_length_is_refused(gateway):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError):
            connection.request("POST", "/v1/completions", iter([b"{}"]), {"Authorization": f"Bearer {KEY}"}, encode_chunked=True)
        assert connection.getresponse().status == 411


def test_the_model_is_found_behind_a_long_prompt(gateway):
    """Where the openai client puts it; a body of 100 KB is 25,000 tokens of text, and within the bound of bytes."""
    body = {"messages": [{"role": "user", "content": "x" * 100_000}], "model": "coder", "max_tokens": 1}
    status, _headers, answer = gateway.ask(body=body)
    # The engine counts its own tokens: what comes back is its refusal.
    assert status == 400 and "maximum context length is 4096 tokens" in answer["message"]


# -- Degradation ---------------------------------------------------------------------------------------------------------------------------


def test_streams_come_piece_by_piece(gateway):
    for engine in gateway.engines:
        engine.tell("slow:20")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        with contextlib.closing(connection):
            body = CHAT | {"stream": True, "max_tokens": 20, "ignore_eos": True}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
            response = connection.getresponse()
            pieces = [line for line in iter(response.readline, b"") if line.startswith(b"data: ") and sum(map(running_requests, gateway.engines))]
        # Most were read while the engine was still at it.
        assert len(pieces) > 10
    finally:
        for engine in gateway.engines:
            engine.tell("")


def running_requests(engine):
    return int(engine.metrics().get('vllm:num_requests_running{model_name="coder"}', "0").partition(".")[0])


def slow(gateway, tokens):
    for engine in gateway.engines:
        engine.tell(f"slow:{tokens}" if tokens else "")


def begins(number):
    """A conversation whose first 1024 bytes are those of this number alone."""
    return {"model": "coder", "messages": [{"role": "system", "content": f"beginning {number:02} " * 90}], "max_tokens": 1}


def shares(gateway, since):
    """Requests of each beginning by engine: {number: [of the first, of the second]}."""
    counts = collections.defaultdict(lambda: [0] * len(gateway.engines))
    for index, (engine, length) in enumerate(zip(gateway.engines, since, strict=True)):
        for number in re.findall(r"Received request chatcmpl-\w+: prompt: .{0,60}?beginning (\d\d) ", engine.log()[length:]):
            counts[number][index] += 1
    return counts


def test_a_beginning_goes_to_one_replica_until_that_is_full(start):
    with start(gateway_concurrency_factor=8) as running, pool(8) as threads:
        since = [len(engine.log()) for engine in running.engines]
        assert {status for status, *dummy in threads.map(lambda number: running.ask(body=begins(number % 20)), range(400))} == {200}
        found = shares(running, since)
        assert (len(found), sum(map(sum, found.values()))) == (20, 400)
        assert sum(map(max, found.values())) >= 0.95 * 400
        # Beginnings are spread, too.
        assert {counts.index(max(counts)) for counts in found.values()} == {0, 1}
    # Two at once is all that a replica takes here: eight of one beginning need both, and a queue.
    with start(gateway_concurrency_factor=1) as running, pool(8) as threads:
        slow(running, 20)
        since = [len(engine.log()) for engine in running.engines]
        assert {status for status, *dummy in threads.map(lambda dummy: running.ask(body=begins(1) | {"max_tokens": 10}), range(40))} == {200}
        assert min(shares(running, since)["01"]) > 0


def test_a_session_counts_instead_of_the_beginning(start):
    with start(gateway_concurrency_factor=8) as running:
        since = [len(engine.log()) for engine in running.engines]
        for number in range(20):
            assert running.ask(body=begins(number), headers={"X-Session-Id": "one"})[0] == 200
        assert {tuple(map(bool, counts)) for counts in shares(running, since).values()} in ({(True, False)}, {(False, True)})


def test_a_long_request_goes_to_the_replica_with_room_for_it_and_a_short_one_does_not(start):
    with start(contexts=(2048, 4096), gateway_check_seconds=1) as running:
        since = [len(engine.log()) for engine in running.engines]
        for number, tokens in enumerate((16, 2500, 16, 2600)):
            status, dummy, answer = running.ask(body=begins(number) | {"max_tokens": tokens})
            assert status == 200, answer
        assert shares(running, since) == {"00": [1, 0], "01": [0, 1], "02": [1, 0], "03": [0, 1]}
        # Without replicas of its own a short one goes there too.
        running.engines[0].process.kill()
        running.engines[1].wait(lambda: state(running)["gpu01:coder"].startswith("DOWN"))
        assert running.ask(body=begins(0))[0] == 200
        status, dummy, answer = running.ask(body=begins(0) | {"max_tokens": 5000})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_what_waits_too_long_is_told_to_come_again(start):
    with start(contexts=(4096,), gateway_queue_seconds=1) as running, pool(8) as threads:
        slow(running, 5)
        answers = list(threads.map(lambda dummy: running.ask(body=CHAT | {"max_tokens": 20, "ignore_eos": True}), range(8)))
        assert {status for status, *dummy in answers} == {200, 429}
        _status, headers, answer = max(answers, key=lambda answer: answer[0])
        assert (headers["Retry-After"], answer["error"]["code"]) == ("10", "busy")
        slow(running, 0)
        assert running.ask(body=CHAT)[0] == 200


def test_a_replica_that_dies_under_load_loses_no_request(start):
    """Nothing of these answers is sent before their end."""
    with start(gateway_concurrency_factor=8) as running, pool(8) as threads:
        slow(running, 100)
        asked = [threads.submit(running.ask, body=CHAT | {"max_tokens": 30, "ignore_eos": True}) for dummy in range(60)]
        running.engines[0].wait(lambda: running_requests(running.engines[0]) > 1)
        running.engines[0].process.kill()
        assert {future.result()[0] for future in asked} == {200}
        running.engines[1].process.kill()
        status, headers, answer = running.ask(body=CHAT)
        assert status in (429, 503)
        running.engines[1].wait(lambda: running.ask(body=CHAT)[0] == 503)
        status, headers, answer = running.ask(body=CHAT)
        assert (headers["Retry-After"], answer["error"]["code"]) == ("30", "model_unavailable")


@pytest.mark.slow
def test_a_replica_that_only_looks_healthy_is_left_out_and_comes_back(start):
    with start(gateway_check_seconds=1, gateway_check_timeout_seconds=2) as running:
        first = running.engines[0]
        first.tell("bad_answer")
        first.wait(lambda: state(running)["gpu01:coder"].startswith("DOWN"))
        assert first.request("GET", "/health")[0] == 200
        assert {running.ask(body=begins(number))[0] for number in range(20)} == {200}
        first.tell("")
        first.wait(lambda: state(running)["gpu01:coder"] == "UP")
        first.tell("hang")
        first.wait(lambda: state(running)["gpu01:coder"].startswith("DOWN"))
        assert running.ask(body=CHAT)[0] == 200


def state(running):
    """Server -> its state."""
    rows = list(csv.DictReader(running.admin_command("show stat").lstrip("# ").splitlines()))
    return {row["svname"]: row["status"] for row in rows if ":" in row["svname"]}


def test_a_host_is_taken_out_and_in_again_by_the_module_that_the_drain_tasks_use(start, run_module):
    with start(gateway_concurrency_factor=8) as running, pool(1) as threads:
        session = {"X-Session-Id": "one"}
        slow(running, 40)
        stream = threads.submit(running.ask, body=CHAT | {"max_tokens": 60, "ignore_eos": True}, headers=session)
        found = []
        running.engines[0].wait(lambda: found.extend(index for index, engine in enumerate(running.engines) if running_requests(engine)) or found)
        number = found[0]
        server = f"gpu{number + 1:02}:coder"
        out = {"socket": running.admin, "host": server, "state": "disabled"}
        assert run_module(haproxy_module, **out, wait=True, wait_interval=1)["state_after"][0]["status"] == "MAINT"
        # What sticks to it goes elsewhere, and what runs there ends.
        since = len(running.engines[number].log())
        assert running.ask(body=CHAT, headers=session)[0] == 200
        assert "POST /v1/chat" not in running.engines[number].log()[since:]
        assert stream.result()[0] == 200
        assert run_module(haproxy_module, **out)["state_after"][0]["scur"] == "0"
        assert run_module(haproxy_module, socket=running.admin, host=server, state="enabled", wait=True, wait_interval=1)["changed"] is True
        assert state(running)[server].startswith("UP")
