"""A Docker Engine's answers, from a small server behind a socket."""

import http.server
import json
import os
import socketserver
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import docker_socket

ANSWERS = {
    "/version": {"Version": "28.3.2", "ApiVersion": "1.51"},
    "/info": {"Driver": "overlay2", "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"], "Runtimes": {"runc": {}, "nvidia": {}}, "ContainersRunning": 2},
    "/images/vllm/vllm-openai:v0.8.5/json": {"Id": "sha256:6cf9"},
}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def engine(tmp_path):
    answers = dict(ANSWERS)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps(answers.get(self.path, {"message": "No such image"})).encode()
            self.send_response(200 if self.path in answers else 400 if self.path.endswith("@/json") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "socket"

        def log_message(self, *args):
            pass

    path = str(tmp_path / "docker.sock")
    with Server(path, Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield path, answers
        server.shutdown()


def test_an_engine(engine):
    path, answers = engine
    found, problem = docker_socket.describe(path, ["vllm/vllm-openai:v0.8.5", "other@sha256:00"])
    assert problem is None
    assert found == {
        "version": "28.3.2",
        "api_version": "1.51",
        "storage_driver": "overlay2",
        "cdi": True,
        "runtimes": ["nvidia", "runc"],
        "running_containers": 2,
        "images": {"vllm/vllm-openai:v0.8.5": "sha256:6cf9", "other@sha256:00": None},
    }


def test_one_reference_that_is_none_hides_nothing_else(engine):
    found, problem = docker_socket.describe(engine[0], ["vllm/vllm-openai@", "vllm/vllm-openai:v0.8.5"])
    assert problem is None
    assert found["images"] == {"vllm/vllm-openai@": None, "vllm/vllm-openai:v0.8.5": "sha256:6cf9"}


def test_an_engine_without_cdi(engine):
    path, answers = engine
    answers["/info"] = {"Driver": "overlay2"}
    assert docker_socket.describe(path)[0]["cdi"] is False


def test_an_engine_that_errs(engine):
    path, answers = engine
    del answers["/info"]
    found, problem = docker_socket.describe(path, ["a"])
    assert found["version"] is None
    assert found["images"] == {"a": None}
    assert "GET /info answered 404" in problem


def test_no_engine(tmp_path):
    assert docker_socket.describe(str(tmp_path / "none.sock"), ["a"]) == (
        {"version": None, "api_version": None, "storage_driver": None, "cdi": False, "runtimes": [], "running_containers": 0, "images": {"a": None}},
        None,
    )


def test_a_socket_nobody_listens_on(tmp_path):
    path = str(tmp_path / "docker.sock")
    Server(path, http.server.BaseHTTPRequestHandler).server_close()
    found, problem = docker_socket.describe(path)
    assert found["version"] is None
    assert "nothing listens" in problem


def test_an_engine_that_hangs(tmp_path):
    path = str(tmp_path / "docker.sock")
    with Server(path, http.server.BaseHTTPRequestHandler):
        found, problem = docker_socket.describe(path, timeout=0.2)
    assert found["version"] is None
    assert "timed out" in problem
    assert os.path.exists(path)
