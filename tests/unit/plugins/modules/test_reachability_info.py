"""Many servers at once: those that answer, those that refuse, and those that say nothing."""

import http.server
import socket
import threading
import time

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import reachability_info


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = int(self.path.strip("/"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *dummy):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def test_statuses(run_module, server):
    urls = [f"{server}/{status}" for status in (200, 302, 401, 404, 503)]
    result = run_module(reachability_info, check=True, urls=urls)
    assert result["changed"] is False
    assert [answer["status"] for answer in result["answers"].values()] == [200, 200, 401, 404, 503]
    assert {answer["error"] for answer in result["answers"].values()} == {None}


def test_silence_costs_its_time_once(run_module, server):
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}/{number}" for number in range(5)]
        start = time.monotonic()
        answers = run_module(reachability_info, urls=[*urls, f"{server}/200"], timeout=2)["answers"]
        assert time.monotonic() - start < 6
    assert answers[f"{server}/200"]["status"] == 200
    assert all(answers[url]["status"] is None and "timed out" in answers[url]["error"] for url in urls)


def test_nobody_there(run_module, server):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    answers = run_module(reachability_info, urls=[f"http://127.0.0.1:{port}/", "nonsense"])["answers"]
    assert answers[f"http://127.0.0.1:{port}/"]["error"] == "Connection refused"
    assert answers["nonsense"]["status"] is None
    assert answers["nonsense"]["error"]
