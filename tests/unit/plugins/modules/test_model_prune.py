"""Commits of models that nothing uses are removed, and no other."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import model_prune


@pytest.fixture
def root(tmp_path):
    """Five commits: of a link, of an instance, of a generation, of nothing; and one whose download did not finish."""
    store = tmp_path / "models/.snapshots/a/B"
    for name in ("linked", "served", "generation", "unused", "unfinished"):
        (store / name).mkdir(parents=True)
        (store / name / "config.json").write_text("{}")
        if name != "unfinished":
            (store / f"{name}.json").write_text("{}")
    (tmp_path / "models/a").mkdir()
    (tmp_path / "models/a/B").symlink_to("../.snapshots/a/B/linked")
    for directory, name in (("etc/coder", "served"), ("var/coder/generations/3", "generation")):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "definition.json").write_text(json.dumps({"model": {"path": str(store / name)}}))
    return tmp_path


def prune(run_module, root, **arguments):
    return run_module(model_prune, root=str(root / "models"), definitions=[str(root / "etc"), str(root / "var")], **arguments)


def left(root):
    return sorted(path.name for path in (root / "models/.snapshots/a/B").iterdir() if path.is_dir())


def test_only_what_nothing_uses_is_removed(run_module, root):
    result = prune(run_module, root)
    assert [path.rpartition("/")[2] for path in result["removed"]] == ["unused"]
    assert left(root) == ["generation", "linked", "served", "unfinished"]
    assert prune(run_module, root)["changed"] is False


def test_check_mode_only_says_it(run_module, root):
    assert prune(run_module, root, check=True)["changed"] is True
    assert "unused" in left(root)


def test_a_definition_that_cannot_be_read_stops_it(run_module, root):
    (root / "etc/coder/definition.json").write_text("{")
    result = prune(run_module, root)
    assert "It cannot be told which models" in result["msg"]
    assert "unused" in left(root)
