"""The program that downloads a model, with a hub client that does as the test says."""

import importlib.util
import io
import json
import pathlib
import sys
import types

import pytest

PROGRAM = pathlib.Path(__file__).parents[4] / "roles/model_weights/files/fetch.py"
ERRORS = ("GatedRepoError", "HfHubHTTPError", "RepositoryNotFoundError", "RevisionNotFoundError")


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """The program, loaded beside a client whose hub holds one model of two files."""
    errors = types.ModuleType("huggingface_hub.errors")
    for name in ERRORS:
        setattr(errors, name, type(name, (Exception,), {}))
    hub = types.ModuleType("huggingface_hub")
    hub.errors = errors
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights"}

    class HfApi:
        def model_info(self, repo_id, revision, files_metadata, token):
            siblings = [types.SimpleNamespace(rfilename=name, size=len(content), lfs=None) for name, content in hub.files.items()]
            return types.SimpleNamespace(sha="c0ffee", siblings=siblings)

    def snapshot_download(repo_id, revision, local_dir, token):
        assert revision == "c0ffee", "what is listed is what is downloaded, even when the branch moves meanwhile"
        for name, content in hub.files.items():
            (local_dir / name).write_bytes(content)

    hub.HfApi, hub.snapshot_download = HfApi, snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    spec = importlib.util.spec_from_file_location("fetch", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "MODEL", tmp_path)
    monkeypatch.setattr(program, "MANIFEST", tmp_path / ".gpuhosts.json")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"repo_id": "a/b", "revision": "main", "token": ""})))
    program.hub = hub
    return program


def test_a_complete_download_has_a_manifest(fetch, tmp_path):
    fetch.main()
    manifest = json.loads((tmp_path / ".gpuhosts.json").read_text())
    assert manifest["commit"] == "c0ffee"
    assert manifest["revision"] == "main"
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {"config.json": 2, "model.safetensors": 7}


def test_an_interrupted_download_has_none(fetch, tmp_path, monkeypatch):
    (tmp_path / ".gpuhosts.json").write_text("{}")
    monkeypatch.setattr(fetch, "snapshot_download", lambda *given, **named: (dummy for dummy in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch.main()
    assert not (tmp_path / ".gpuhosts.json").exists()


def test_a_short_file_is_named(fetch, tmp_path, monkeypatch):
    def cut(repo_id, revision, local_dir, token):
        (local_dir / "config.json").write_bytes(b"{}")
        (local_dir / "model.safetensors").write_bytes(b"wei")

    monkeypatch.setattr(fetch, "snapshot_download", cut)
    with pytest.raises(SystemExit, match="These files of a/b are not as large as the hub says: model.safetensors"):
        fetch.main()
    assert not (tmp_path / ".gpuhosts.json").exists()


@pytest.mark.parametrize(
    "error, sentence",
    [
        ("RevisionNotFoundError", "http://hub.example has no revision main of a/b: correct `revision`."),
        ("GatedRepoError", "a/b is gated on http://hub.example: accept its terms there, and set model_weights_token."),
        ("RepositoryNotFoundError", "http://hub.example has no model a/b"),
        ("HfHubHTTPError", "run again, it resumes where it stopped."),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(fetch, monkeypatch, error, sentence):
    def refuse(*given, **named):
        raise getattr(fetch.hub.errors, error)("no")

    monkeypatch.setattr(fetch, "snapshot_download", refuse)
    with pytest.raises(SystemExit, match=sentence.replace(".", r"\.")):
        fetch.main()
