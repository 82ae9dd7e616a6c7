"""A model that is copied for a site without internet."""

import hashlib
import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_hub
from ansible_collections.gpuhosts.inference.plugins.modules import model_tree

FILES = {"config.json": b'{"model_type": "qwen3"}', "sub/model.safetensors": b"weights" * 1000}


@pytest.fixture
def model(tmp_path):
    """A model as the role model_weights leaves it: a link, the directory of a commit, its manifest beside it."""
    directory = tmp_path / "store/.snapshots/owner/name/0123"
    entries = {}
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entries[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory.parent / "0123.json").write_text(json.dumps({"repo_id": "Owner/Name", "revision": "main", "commit": "0123", "files": entries}))
    link = tmp_path / "store/name"
    link.symlink_to(directory)
    return link


def test_it_is_copied_once_and_is_an_endpoint(run_module, model, tmp_path):
    target = tmp_path / "bundle/Owner/Name"
    given = {"path": str(model), "target": str(target)}
    result = run_module(model_tree, **given)
    assert (result["changed"], result["copied"]) == (True, sorted(FILES))
    found = model_hub.fetch_manifest(f"tree+file://{tmp_path}/bundle", "Owner/Name", "main")
    assert set(found["files"]) == set(FILES)
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    result = run_module(model_tree, **given)
    assert (result["changed"], result["copied"]) == (False, [])


def test_a_copy_that_was_cut_off_goes_on(run_module, model, tmp_path):
    target = tmp_path / "bundle/Owner/Name"
    target.mkdir(parents=True)
    (target / "config.json").write_bytes(FILES["config.json"])
    (target / "sub").mkdir()
    (target / "sub/model.safetensors").write_bytes(b"half")
    assert run_module(model_tree, path=str(model), target=str(target))["copied"] == ["sub/model.safetensors"]


def test_files_of_another_commit_are_gone(run_module, model, tmp_path):
    target = tmp_path / "bundle/Owner/Name"
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    (target / "SHA256SUMS").write_text(f"{'0' * 64}  ./old\n")
    run_module(model_tree, path=str(model), target=str(target))
    assert not (target / "old").exists()


def test_a_file_that_has_changed_on_disk_is_refused(run_module, model, tmp_path):
    (model / "config.json").write_bytes(b'{"model_type": "qwen4"}')
    target = tmp_path / "bundle/Owner/Name"
    result = run_module(model_tree, path=str(model), target=str(target))
    assert f"{model}/config.json is not what its manifest says: run playbooks/artifacts.yml with -e model_weights_rehash=true" in result["msg"]
    assert not (target / "SHA256SUMS").exists()


def test_a_model_that_is_not_there_is_refused(run_module, tmp_path):
    result = run_module(model_tree, path=str(tmp_path / "none"), target=str(tmp_path / "target"))
    assert result["msg"].startswith(f"{tmp_path}/none cannot be copied: {tmp_path}/none does not exist.")
