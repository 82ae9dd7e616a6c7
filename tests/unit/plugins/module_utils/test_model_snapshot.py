"""Snapshots of models: complete, not finished, damaged, of something else."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_snapshot

FILES = {"config.json": '{"model_type": "qwen3"}', "model-00001-of-00002.safetensors": "a" * 100, "sub/tokenizer.json": "{}"}


@pytest.fixture
def snapshot(tmp_path):
    directory = tmp_path / "model"
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    manifest = {
        "repo_id": "Qwen/Qwen3-32B-AWQ",
        "revision": "main",
        "commit": "0499ecfbe2c7c1b7b3d7e8d4a4ea7e5a0a9a1a11",
        "files": {name: {"size": len(text), "sha256": None} for name, text in FILES.items()},
    }
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return directory


def test_complete(snapshot):
    result = model_snapshot.inspect(str(snapshot), repo_id="Qwen/Qwen3-32B-AWQ", revision="main")
    assert result["complete"] is True
    assert result["problems"] == []
    assert result["bytes"] == sum(map(len, FILES.values()))
    assert result["files"] == 3
    assert result["commit"].startswith("0499ec")
    assert result["config"] == {"model_type": "qwen3"}


def test_the_commit_is_also_a_revision(snapshot):
    assert model_snapshot.inspect(str(snapshot), revision="0499ecfbe2c7c1b7b3d7e8d4a4ea7e5a0a9a1a11")["complete"]


def test_another_model_and_revision(snapshot):
    result = model_snapshot.inspect(str(snapshot), revision="v2", repo_id="Qwen/Qwen3-8B")
    assert not result["complete"]
    assert result["problems"] == [
        "It holds Qwen/Qwen3-32B-AWQ, not Qwen/Qwen3-8B.",
        "It holds revision main (commit 0499ecfbe2c7c1b7b3d7e8d4a4ea7e5a0a9a1a11), not v2.",
    ]
    assert result["config"] is None


def test_missing_and_short_files(snapshot):
    (snapshot / "sub/tokenizer.json").unlink()
    (snapshot / "model-00001-of-00002.safetensors").write_text("a" * 99)
    result = model_snapshot.inspect(str(snapshot))
    assert not result["complete"]
    assert result["problems"] == ["model-00001-of-00002.safetensors has 99 bytes instead of 100.", "sub/tokenizer.json is missing."]
    assert result["bytes"] == 99 + len(FILES["config.json"])


def test_links_into_a_blob_store_are_followed(snapshot):
    shard = snapshot / "model-00001-of-00002.safetensors"
    shard.rename(snapshot.parent / "blob")
    shard.symlink_to(snapshot.parent / "blob")
    assert model_snapshot.inspect(str(snapshot))["complete"]


def test_a_download_that_did_not_finish(snapshot):
    (snapshot.parent / "model.json").unlink()
    result = model_snapshot.inspect(str(snapshot))
    assert not result["complete"]
    assert "its download did not finish" in result["problems"][0]
    assert result["config"] == {"model_type": "qwen3"}


def test_no_directory(tmp_path):
    result = model_snapshot.inspect(str(tmp_path / "none"))
    assert result["complete"] is False
    assert result["problems"] == ["{} does not exist.".format(tmp_path / "none")]
    assert (result["commit"], result["config"], result["bytes"]) == (None, None, 0)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": {}}', '{"files": {"a": {"size": "1"}}}', '{"files": [1]}'])
def test_a_manifest_that_cannot_be_used(snapshot, text):
    (snapshot.parent / "model.json").write_text(text)
    result = model_snapshot.inspect(str(snapshot))
    assert not result["complete"]
    assert len(result["problems"]) == 1


@pytest.mark.parametrize("name", ["/etc/hostname", "../blob", "sub/../../blob"])
def test_names_that_lead_outside(snapshot, name):
    (snapshot.parent / "model.json").write_text(json.dumps({"files": {name: {"size": 1}}}))
    assert model_snapshot.inspect(str(snapshot))["problems"] == [f"{name} lies outside the snapshot."]
