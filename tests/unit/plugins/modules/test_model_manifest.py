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

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            self.seen.append(self.path)
            answers = self.answers.get(self.path, [(404, {"X-Error-Code": "RevisionNotFound"}, b"")])
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

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


# -- ModelScope, and trees of files --------------------------------------------------------------------------------------------------------

LISTED = [
    {"Type": "tree", "Path": "figures", "Size": 0, "Sha256": ""},
    {"Type": "blob", "Path": "config.json", "Size": 2, "Sha256": SHA.upper()},
    {"Type": "blob", "Path": "model.safetensors", "Size": 5, "Sha256": SHA},
]
BY_CONTENTS = {"config.json": {"size": 2, "sha256": SHA}, "model.safetensors": {"size": 5, "sha256": SHA}}
WEIGHTS = struct.pack("<Q", len(HEAD)) + HEAD


def modelscope(hub, revision="master"):
    where = f"/api/v1/models/{REPO}/repo"
    hub.answers[f"{where}/files?Revision={revision}&Recursive=True"] = [(200, {}, json.dumps({"Code": 200, "Data": {"Files": LISTED}}).encode())]
    hub.answers[f"{where}?Revision={revision}&FilePath=config.json"] = [(200, {}, b"{}")]
    hub.answers[f"{where}?Revision={revision}&FilePath=model.safetensors"] = [(200, {}, WEIGHTS)]
    return f"modelscope+{hub.url}"


def tree(hub):
    hub.answers[f"/{REPO}/SHA256SUMS"] = [(200, {}, f"{SHA}  ./config.json\n{SHA} *model.safetensors\n".encode())]
    hub.answers[f"/{REPO}/config.json"] = [(200, {"Content-Length": "2"}, b"{}")]
    hub.answers[f"/{REPO}/model.safetensors"] = [(200, {"Content-Length": str(len(WEIGHTS))}, WEIGHTS)]
    return f"tree+{hub.url}/"


def test_modelscope(run_module, hub):
    result = run_module(model_manifest, repo_id=REPO, endpoint=modelscope(hub))
    assert result["manifest"]["files"] == BY_CONTENTS
    assert (result["config"], result["tensor_kinds"]) == ({}, ["qweight", "scales"])
    assert result["urls"]["model.safetensors"] == f"{hub.url}/api/v1/models/{REPO}/repo?Revision=master&FilePath=model.safetensors"
    tagged = run_module(model_manifest, repo_id=REPO, revision="v1", endpoint=modelscope(hub, "v1"))
    assert tagged["manifest"]["commit"] == result["manifest"]["commit"], "the contents make the commit"


def test_a_tree_of_files(run_module, hub):
    result = run_module(model_manifest, repo_id=REPO, endpoint=tree(hub))
    assert result["manifest"]["files"] == {**BY_CONTENTS, "model.safetensors": {"size": len(WEIGHTS), "sha256": SHA}}
    assert (result["config"], result["tensor_kinds"]) == ({}, ["qweight", "scales"])
    assert result["urls"]["config.json"] == f"{hub.url}/{REPO}/config.json"


def test_a_tree_in_a_directory(run_module, tmp_path):
    directory = tmp_path / REPO
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "SHA256SUMS").write_text(f"{SHA}  config.json\n")
    result = run_module(model_manifest, repo_id=REPO, endpoint=f"tree+file://{tmp_path}")
    assert result["manifest"]["files"] == {"config.json": BY_CONTENTS["config.json"]}
    assert result["urls"] == {"config.json": f"file://{directory}/config.json"}


def test_a_commit_pins_what_a_tree_holds(run_module, hub):
    commit = run_module(model_manifest, repo_id=REPO, endpoint=tree(hub))["manifest"]["commit"]
    assert run_module(model_manifest, repo_id=REPO, revision=commit, endpoint=tree(hub))["manifest"]["commit"] == commit
    message = run_module(model_manifest, repo_id=REPO, revision="c0ffee" * 6 + "0000", endpoint=tree(hub))["msg"]
    assert f"has commit {commit} of {REPO}, not c0ffeec0ffee" in message
    assert "its files are not those that were pinned" in message


@pytest.mark.parametrize(
    "sums, revision, message",
    [
        (b"nonsense", "main", "is not a list as sha256sum writes it: write it anew, inside of the model's directory."),
        (b"", "main", "is not a list as sha256sum writes it"),
        (f"{SHA}  config.json\n".encode(), "v9", "is a tree of files, which has no revision v9: leave revision out, or name a commit."),
        (f"{SHA}  unsized\n".encode(), "main", "is served without its length"),
    ],
)
def test_a_tree_that_cannot_be_used(run_module, hub, sums, revision, message):
    endpoint = tree(hub)
    hub.answers[f"/{REPO}/SHA256SUMS"] = [(200, {}, sums)]
    hub.answers[f"/{REPO}/unsized"] = [(200, {}, b"")]
    assert message in run_module(model_manifest, repo_id=REPO, revision=revision, endpoint=endpoint)["msg"]


def test_a_modelscope_that_has_no_hashes(run_module, hub):
    endpoint = modelscope(hub)
    hub.answers[f"/api/v1/models/{REPO}/repo/files?Revision=master&Recursive=True"] = [(200, {}, b'{"Data": {"Files": [{"Path": "a", "Size": 1}]}}')]
    assert "files without sizes and hashes" in run_module(model_manifest, repo_id=REPO, endpoint=endpoint)["msg"]
