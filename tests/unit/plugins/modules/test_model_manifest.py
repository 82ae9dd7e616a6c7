"""What a hub says of a model before it is fetched, asked of a real server."""

import http.server
import json
import struct
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_hub
from ansible_collections.gpuhosts.inference.plugins.modules import model_manifest

REPO, COMMIT, SHA = "Qwen/Qwen3-32B-AWQ", "c0ffee", "ab" * 32
SIBLINGS = [
    {"rfilename": "config.json", "size": 2, "blobId": "9e26dfeeb6e641a33dae4961196235bdb965b21b"},
    {"rfilename": "model.safetensors", "size": 5, "blobId": "d0", "lfs": {"sha256": SHA, "size": 5}},
]
HEAD = json.dumps({"__metadata__": {}, "layers.0.q_proj.qweight": {}, "layers.0.q_proj.scales": {}}).encode()


@pytest.fixture
def hub(monkeypatch):
    """A hub with answers by path: [(status, headers, body), ...], the last one again and again; `seen` is what it was asked."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        answers = {
            f"/api/models/{REPO}/revision/main?blobs=true": [(200, {}, json.dumps({"sha": COMMIT, "siblings": SIBLINGS}).encode())],
            f"/{REPO}/resolve/{COMMIT}/config.json": [(200, {}, b"{}")],
            f"/{REPO}/resolve/{COMMIT}/model.safetensors": [(200, {}, struct.pack("<Q", len(HEAD)) + HEAD + b"tensors")],
        }
        seen = []

        def do_GET(self):
            self.seen.append(self.path)
            answers = self.answers.get(self.path, [(404, {"X-Error-Code": "RevisionNotFound"}, b"")])
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *dummy):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()
    server.server_close()


def test_commit_files_and_tensors(run_module, hub):
    result = run_module(model_manifest, repo_id=REPO, endpoint=hub.url)
    files = {"config.json": {"size": 2, "blob_id": "9e26dfeeb6e641a33dae4961196235bdb965b21b"}, "model.safetensors": {"size": 5, "sha256": SHA}}
    assert result["manifest"] == {"repo_id": REPO, "revision": "main", "commit": COMMIT, "files": files}
    assert (result["config"], result["tensor_kinds"]) == ({}, ["qweight", "scales"])


def test_the_index_is_asked_where_there_are_shards(run_module, hub):
    files = [*SIBLINGS, {"rfilename": "model.safetensors.index.json", "size": 3, "blobId": "e0"}]
    hub.answers[f"/api/models/{REPO}/revision/main?blobs=true"] = [(200, {}, json.dumps({"sha": COMMIT, "siblings": files}).encode())]
    hub.answers[f"/{REPO}/resolve/{COMMIT}/model.safetensors.index.json"] = [(200, {}, b'{"weight_map": {"a.weight": "1", "b.weight": "2"}}')]
    assert run_module(model_manifest, repo_id=REPO, endpoint=hub.url)["tensor_kinds"] == ["weight"]
    assert not any(path.endswith("/model.safetensors") for path in hub.seen)


def test_a_hub_that_throttles_is_asked_again_and_it_is_said(run_module, hub, monkeypatch):
    pauses, said = [], []
    monkeypatch.setattr(model_hub.time, "sleep", pauses.append)
    monkeypatch.setattr(model_manifest.AnsibleModule, "warn", lambda module, sentence, **more: said.append(sentence))
    hub.answers[f"/api/models/{REPO}/revision/main?blobs=true"][:0] = [(429, {"Retry-After": "7"}, b""), (429, {}, b"")]
    result = run_module(model_manifest, repo_id=REPO, endpoint=hub.url)
    assert result["manifest"]["commit"] == COMMIT
    assert pauses == [7, 15]
    assert said[0] == f"{hub.url} throttles this network address (HTTP 429): asked again after 7 s."


def test_a_hub_that_goes_on_to_throttle(run_module, hub, monkeypatch):
    monkeypatch.setattr(model_hub.time, "sleep", lambda seconds: None)
    hub.answers[f"/api/models/{REPO}/revision/main?blobs=true"] = [(429, {}, b"")]
    assert "throttles this network address (HTTP 429): wait, or use a mirror of the hub." in run_module(model_manifest, repo_id=REPO, endpoint=hub.url)["msg"]


def test_a_revision_that_does_not_exist(run_module, hub):
    message = run_module(model_manifest, repo_id=REPO, revision="v9", endpoint=hub.url)["msg"]
    assert message == f"{REPO} has no revision v9 on {hub.url}: name a branch, tag or commit that it has."


def test_a_wrong_token(run_module, hub):
    hub.answers[f"/api/models/{REPO}/revision/main?blobs=true"] = [(401, {}, b"")]
    result = run_module(model_manifest, repo_id=REPO, endpoint=hub.url, token="hf_wrong")
    assert f"refuses {REPO} (HTTP 401), and the token that was given may not read it" in result["msg"]
    assert "hf_wrong" not in json.dumps(result)


def test_a_mirror_that_does_not_know_its_files(run_module, hub):
    hub.answers[f"/api/models/{REPO}/revision/main?blobs=true"] = [(200, {}, b'{"sha": "c0ffee", "siblings": [{"rfilename": "a"}]}')]
    assert "files without sizes and hashes: it is not a hub that knows its files" in run_module(model_manifest, repo_id=REPO, endpoint=hub.url)["msg"]
