"""All models of a host in one call, against a hub that answers like the real one in every way that matters here."""

import http.server
import json
import socket
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_hub
from ansible_collections.gpuhosts.inference.plugins.modules import model_facts

CONFIG = {"model_type": "qwen3", "num_hidden_layers": 64}
REPO = "Qwen/Qwen3-32B-AWQ"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers by path; `seen` is [(path, Authorization)]."""

    answers, seen = {}, []

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.answers.get(self.path, (404, {}, b"{}"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *dummy):
        pass


def serve():
    handler = type("Handler", (Hub,), {"answers": {}, "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, handler


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    server, handler = serve()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    handler.answers[f"/{REPO}/resolve/main/config.json"] = (200, {}, json.dumps(CONFIG).encode())
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(run_module):
    """models(entries, **arguments): the facts."""

    def run(entries, **arguments):
        result = run_module(model_facts, models=entries, **arguments)
        assert result["changed"] is False
        return result["ansible_facts"]["gpuhosts_models"]

    return run


def entry(directory, repo_id=REPO, **more):
    return {"repo_id": repo_id, "path": str(directory), **more}


def download(directory, repo_id=REPO, revision="main"):
    text = json.dumps({"model_type": "from disk"})
    directory.mkdir()
    (directory / "config.json").write_text(text)
    files = {"config.json": {"size": len(text), "sha256": None}}
    directory.with_name(directory.name + ".json").write_text(json.dumps({"repo_id": repo_id, "revision": revision, "commit": "0499ec", "files": files}))


def test_a_complete_model_costs_the_hub_nothing(models, hub, tmp_path):
    download(tmp_path / "model")
    found = models([entry(tmp_path / "model")], endpoint=hub.url)[REPO]
    assert (found["complete"], found["problems"], found["error"]) == (True, [], None)
    assert (found["config"], found["config_source"]) == ({"model_type": "from disk"}, "disk")
    assert found["wanted"] == {"repo_id": REPO, "revision": "main", "path": str(tmp_path / "model")}
    assert (found["path"], found["revision"], found["commit"], found["files"]) == (str(tmp_path / "model"), "main", "0499ec", 1)
    assert hub.seen == []


@pytest.mark.parametrize("check", [False, True])
def test_a_model_that_is_not_there_is_described_by_the_hub(run_module, hub, tmp_path, check):
    result = run_module(model_facts, check=check, models=[entry(tmp_path / "none")], endpoint=hub.url + "/")
    found = result["ansible_facts"]["gpuhosts_models"][REPO]
    assert (found["complete"], found["config"], found["config_source"], found["error"]) == (False, CONFIG, "hub", None)
    assert not (tmp_path / "none").exists()


def test_another_revision_on_disk_is_not_what_is_wanted(models, hub, tmp_path):
    download(tmp_path / "model", revision="v1")
    found = models([entry(tmp_path / "model")], endpoint=hub.url)[REPO]
    assert (found["complete"], found["revision"], found["config_source"]) == (False, "v1", "hub")


def test_one_bad_model_leaves_the_others(models, hub, tmp_path):
    found = models([entry(tmp_path / "a", "no/such"), entry(tmp_path / "b"), entry(tmp_path / "c", revision="v9")], endpoint=hub.url)
    assert list(found) == ["no/such", REPO]
    assert found["no/such"]["error"] == f"{hub.url} has no no/such at revision main (HTTP 404): check both names; a private model needs a token."
    assert found[REPO]["config"] == CONFIG
    assert found[REPO]["wanted"]["revision"] == "main"


def test_without_a_hub(models, tmp_path):
    assert models([entry(tmp_path / "none")])[REPO]["error"] == f"{REPO} has no config.json on this host, and no hub was named to ask for it."


def test_a_revision_with_slashes(models, hub, tmp_path):
    hub.answers[f"/{REPO}/resolve/refs%2Fpr%2F1/config.json"] = (200, {}, b"{}")
    assert models([entry(tmp_path / "none", revision="refs/pr/1")], endpoint=hub.url)[REPO]["config"] == {}


def test_the_token_goes_to_the_hub_and_nowhere_else(models, hub, tmp_path):
    server, elsewhere = serve()
    path = f"/{REPO}/resolve/main/config.json"
    hub.answers[path] = (307, {"Location": "/api/resolve-cache/config.json"}, b"")
    hub.answers["/api/resolve-cache/config.json"] = (302, {"Location": f"http://127.0.0.1:{server.server_port}/blob"}, b"")
    elsewhere.answers["/blob"] = (200, {}, json.dumps(CONFIG).encode())
    found = models([entry(tmp_path / "none")], endpoint=hub.url, token="hf_secret")[REPO]
    server.shutdown()
    assert found["config"] == CONFIG
    assert hub.seen == [(path, "Bearer hf_secret"), ("/api/resolve-cache/config.json", "Bearer hf_secret")]
    assert elsewhere.seen == [("/blob", None)]


@pytest.mark.parametrize(
    "status, headers, body, token, sentence",
    [
        (401, {}, b"", "", f"refuses {REPO} (HTTP 401), and no token was given: the model is gated or private"),
        (403, {"X-Error-Code": "GatedRepo"}, b"", "hf_secret", f"refuses {REPO} (HTTP 403), and the token that was given may not read it"),
        (401, {"X-Error-Code": "RepoNotFound"}, b"", "", f"has no {REPO} at revision main (HTTP 401)"),
        (404, {"X-Error-Code": "EntryNotFound"}, b"", "", f"{REPO} at revision main has no config.json on"),
        (404, {"X-Error-Code": "RevisionNotFound"}, b"", "", f"{REPO} has no revision main on"),
        (429, {}, b"", "", "throttles this network address (HTTP 429)"),
        (502, {}, b"", "", f"answers HTTP 502 for the config.json of {REPO}"),
        (302, {"Location": f"/{REPO}/resolve/main/config.json"}, b"", "", "cannot be reached (more than 5 redirects)"),
        (200, {}, b"<html>", "", "is not a JSON object"),
        (200, {}, b"[]", "", "is not a JSON object"),
        (200, {}, b" " * (model_hub.MAXIMUM_BYTES + 1), "", "is larger than 4194304 bytes"),
    ],
)
def test_what_a_hub_may_answer(models, hub, tmp_path, status, headers, body, token, sentence):
    hub.answers[f"/{REPO}/resolve/main/config.json"] = (status, headers, body)
    found = models([entry(tmp_path / "none")], endpoint=hub.url, token=token)[REPO]
    assert (found["config"], found["config_source"]) == (None, None)
    assert sentence in found["error"]


def test_a_hub_that_does_not_answer_is_asked_once(models, monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = models([entry(tmp_path, "a/a"), entry(tmp_path, "b/b")], endpoint=endpoint, timeout=1)
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert found["a/a"]["error"] == found["b/b"]["error"]
    assert found["a/a"]["error"].startswith(f"The hub {endpoint} cannot be reached (")


def test_a_hub_whose_name_is_not_known(models, monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    error = models([entry(tmp_path / "none")], endpoint="http://hub.invalid")[REPO]["error"]
    assert error.startswith("The hub http://hub.invalid cannot be reached (")
    assert "check the address, the proxy and the network" in error
