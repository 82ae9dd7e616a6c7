"""HAProxy itself, with the role's configuration, before two simulated engines."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import socket
import time

import haproxy
import lab_engine
import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import haproxy_map

KEY = "a-key-of-20-characters"
ENGINE_KEY = "the-engines-own-key"
CHAT = {"model": "coder", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


class Gateway:
    """A started gateway, its engines, and ways to ask it."""

    def __init__(self, port, process, engines):
        self.port, self.process, self.engines = port, process, engines
        self.admin = str(process.socket)

    def ask(self, path="/v1/chat/completions", body=None, method=None, key=KEY, headers=None):
        """(status, headers, body as JSON where it is that)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            data = json.dumps(body).encode() if body is not None else None
            connection.request(
                method or ("POST" if body is not None else "GET"), path, data,
                {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}) | (headers or {}),
            )  # fmt: skip
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, response.headers, json.loads(text) if text[:1] == "{" else text

    def admin_command(self, command):
        return haproxy_map.ask(self.admin, command)

    def lines(self):
        """The access log."""
        return self.process.log.read_text().splitlines()


@pytest.fixture(scope="module")
def start(written, host, tmp_path_factory):
    """with start(engines=2, options=(), **variables) as gateway."""
    engine = lab_engine.launcher(tmp_path_factory.mktemp("engine"))

    @contextlib.contextmanager
    def started(*options, count=2, key=ENGINE_KEY, settings=None, given=None, **variables):
        with contextlib.ExitStack() as stack:
            engines = [stack.enter_context(engine("--max-model-len", "4096", *options, env={"VLLM_API_KEY": key} if key else None)) for _ in range(count)]
            hosts = {
                f"gpu{number:02}": host(
                    {"name": "coder", "model": "Qwen/Qwen3-8B", "port": each.port, "profile": "as_given", "options": {"max_model_len": 4096, "max_num_seqs": 64}},
                    ansible_host="127.0.0.1", vllm_api_key=key,
                )
                for number, each in enumerate(engines, 1)
            }  # fmt: skip
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            directory = tmp_path_factory.mktemp("gateway")
            path = written(directory, hosts, gateway_listen_address="127.0.0.1", gateway_port=port, **variables)
            process = stack.enter_context(haproxy.Running(path, directory / "gpuhosts.sock"))
            yield Gateway(port, process, engines)

    return started


@pytest.fixture(scope="module")
def gateway(start):
    with start(gateway_concurrency_factor=8) as running:
        yield running


def test_models_are_listed_and_answer(gateway):
    status, _headers, listing = gateway.ask("/v1/models")
    assert (status, [(model["id"], model["max_model_len"]) for model in listing["data"]]) == (200, [("coder", 4096)])
    status, _headers, answer = gateway.ask(body=CHAT)
    assert status == 200 and answer["usage"]["completion_tokens"] == 4
