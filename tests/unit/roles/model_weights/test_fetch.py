"""The program that downloads a model, with a hub client that does as the test says."""

import importlib.util
import io
import json
import pathlib
import sys
import types

import pytest

PROGRAM = pathlib.Path(__file__).parents[4] / "roles/model_weights/files/fetch.py"
ERRORS = ("HfHubHTTPError", "GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError")


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """The program, loaded beside a client; `asked` is what the client was told."""
    errors = types.ModuleType("huggingface_hub.errors")
    for name in ERRORS:
        setattr(errors, name, type(name, (Exception,), {}))
    hub = types.ModuleType("huggingface_hub")
    hub.errors, hub.asked = errors, []
    hub.snapshot_download = lambda repo_id, **named: hub.asked.append((repo_id, named))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    spec = importlib.util.spec_from_file_location("fetch", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "STORE", tmp_path)
    request = {"repo_id": "a/b", "commit": "c0ffee", "files": ["model[1].safetensors"], "token": "hf_secret"}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    program.hub = hub
    return program


def test_only_what_is_missing_is_asked_for_at_the_commit(fetch, tmp_path):
    wrong = tmp_path / "c0ffee/model[1].safetensors"
    wrong.parent.mkdir()
    wrong.write_text("wrong")
    fetch.main()
    patterns = ["model[[]1].safetensors"]
    assert fetch.hub.asked == [("a/b", {"revision": "c0ffee", "local_dir": tmp_path / "c0ffee", "allow_patterns": patterns, "token": "hf_secret"})]
    assert not wrong.exists(), "the client would keep it"


def test_a_hub_that_throttles_is_asked_again_and_it_is_said(fetch, monkeypatch, capsys):
    pauses, answers = [], [{"Retry-After": "3"}, {}, None]

    def download(*given, **named):
        headers = answers.pop(0)
        if headers is not None:
            error = fetch.hub.errors.HfHubHTTPError("429")
            error.response = types.SimpleNamespace(status_code=429, headers=headers)
            raise error

    monkeypatch.setattr(fetch, "snapshot_download", download)
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    fetch.main()
    assert pauses == [3, 30]
    assert "http://hub.example throttles this network address (HTTP 429): asked again after 3 s." in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, sentence",
    [
        ("RevisionNotFoundError", "http://hub.example has no revision c0ffee of a/b: correct `revision`."),
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
