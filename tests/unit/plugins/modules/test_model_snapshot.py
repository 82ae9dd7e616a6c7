"""One commit of a model on disk: verified, put in place whole, repaired, taken over."""

import hashlib
import json
import os

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import model_snapshot as snapshots
from ansible_collections.gpuhosts.inference.plugins.modules import model_snapshot

FILES = {"config.json": b"{}", "model-1.safetensors": b"weights 1", "sub/model-2.safetensors": b"weights 2"}


def manifest(commit="c0ffee", files=None):
    entries = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in (files or FILES).items()}
    entries["config.json"] = {"size": 2, "blob_id": "9e26dfeeb6e641a33dae4961196235bdb965b21b"}
    return {"repo_id": "a/B", "revision": "main", "commit": commit, "files": entries}


def write(directory, files=None):
    for name, content in (files or FILES).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def place(tmp_path, run_module):
    """place(manifest, **arguments): the module's result; place.store and place.link are where it works."""

    def run(wanted=None, **arguments):
        return run_module(model_snapshot, store=str(run.store), path=str(run.link), manifest=wanted, **arguments)

    run.store, run.link = tmp_path / ".snapshots/a/B", tmp_path / "a/B"
    return run


def test_a_whole_download_is_put_in_place(place):
    write(place.store / "c0ffee")
    write(place.store / "c0ffee/.cache/huggingface", {"x": b""})
    result = place(manifest())
    assert (result["changed"], result["complete"], result["missing"], len(result["hashed"])) == (True, True, [], 3)
    assert os.readlink(place.link) == "../.snapshots/a/B/c0ffee"
    assert snapshots.inspect(str(place.link), "main", "a/B")["complete"]
    assert result["manifest"]["files"]["config.json"]["sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert not (place.store / "c0ffee/.cache").exists()


def test_what_has_not_changed_is_not_read_again(place):
    write(place.store / "c0ffee")
    place(manifest())
    again = place(manifest())
    assert (again["changed"], again["complete"], again["hashed"]) == (False, True, [])
    assert place()["hashed"] == [], "without a manifest it is the one in place"
    assert len(place(rehash=True)["hashed"]) == 3


@pytest.mark.parametrize("damage", [b"weights X", b"wei", None])
def test_nothing_half_written_is_put_in_place(place, damage):
    write(place.store / "0ld")
    place(manifest("0ld"))
    write(place.store / "c0ffee", {name: content for name, content in FILES.items() if damage is not None or "model-1" not in name})
    if damage is not None:
        (place.store / "c0ffee/model-1.safetensors").write_bytes(damage)
    result = place(manifest())
    assert (result["changed"], result["complete"], result["missing"], result["missing_bytes"]) == (False, False, ["model-1.safetensors"], 9)
    assert os.readlink(place.link) == "../.snapshots/a/B/0ld"
    assert not (place.store / "c0ffee.json").exists()


def test_a_file_that_was_written_since_is_found_and_it_alone(place):
    write(place.store / "c0ffee")
    place(manifest())
    path = place.store / "c0ffee/model-1.safetensors"
    path.write_bytes(b"weights X")
    os.utime(path, ns=(1, 1))
    assert snapshots.inspect(str(place.link), "main", "a/B")["problems"] == ["model-1.safetensors was written after it was verified."]
    result = place(manifest())
    assert (result["missing"], result["hashed"]) == (["model-1.safetensors"], ["model-1.safetensors"])
    path.write_bytes(b"weights 1")
    assert place(manifest())["complete"]
    assert snapshots.inspect(str(place.link), "main", "a/B")["complete"]


def test_a_file_that_the_disk_has_changed_is_found_when_asked(place):
    write(place.store / "c0ffee")
    place(manifest())
    path = place.store / "c0ffee/model-1.safetensors"
    before = path.stat()
    path.write_bytes(b"weights X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place()["complete"]
    assert place(rehash=True)["missing"] == ["model-1.safetensors"]


def test_weights_that_already_lie_there_are_taken_over_without_a_copy(place):
    write(place.link)
    inode = (place.link / "model-1.safetensors").stat().st_ino
    result = place(manifest())
    assert (result["complete"], result["set_aside"]) == (True, str(place.store / "replaced"))
    assert (place.link / "model-1.safetensors").stat().st_ino == inode
    assert place.link.is_symlink()
    assert place(manifest())["hashed"] == []


def test_weights_that_lie_there_and_are_partly_wrong_stay_until_the_rest_has_come(place):
    write(place.link, dict(FILES, **{"model-1.safetensors": b"weights X"}))
    result = place(manifest())
    assert (result["complete"], result["missing"]) == (False, ["model-1.safetensors"])
    assert (place.link / "model-1.safetensors").read_bytes() == b"weights X"
    write(place.store / "c0ffee", {"model-1.safetensors": b"weights 1"})
    assert place(manifest())["complete"]
    assert (place.link / "model-1.safetensors").read_bytes() == b"weights 1"
    assert (place.store / "replaced/model-1.safetensors").read_bytes() == b"weights X"


def test_two_revisions_side_by_side(place):
    other = dict(FILES, **{"model-1.safetensors": b"weights Y"})
    write(place.store / "c0ffee")
    write(place.store / "d0d0", other)
    place(manifest())
    served = os.open(place.link / "model-1.safetensors", os.O_RDONLY)
    assert place(manifest("d0d0", other))["changed"]
    assert (place.link / "model-1.safetensors").read_bytes() == b"weights Y"
    assert os.read(served, 99) == b"weights 1", "what runs keeps its files"
    os.close(served)
    assert place(manifest())["hashed"] == [], "back again costs nothing"
    assert (place.link / "model-1.safetensors").read_bytes() == b"weights 1"


def test_a_name_that_leads_outside(place):
    wanted = manifest()
    wanted["files"]["../../x"] = {"size": 1, "sha256": "0"}
    assert place(wanted)["msg"].endswith("cannot be verified or put in place: ../../x lies outside the snapshot.")


def test_without_a_manifest(place):
    assert "cannot be verified or put in place: [Errno 2]" in place()["msg"]


def test_the_manifest_is_json_beside_the_directory(place):
    write(place.store / "c0ffee")
    place(manifest())
    assert json.loads((place.store / "c0ffee.json").read_text())["commit"] == "c0ffee"
