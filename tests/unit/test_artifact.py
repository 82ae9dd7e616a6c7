"""The artifact that Galaxy gets: without what only development needs, and usable where it is installed."""

import os
import pathlib
import subprocess
import tarfile

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).parents[2]
PUBLISHED = {
    "CHANGELOG.rst", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "inventories", "meta",
    "playbooks", "plugins", "requirements.txt", "requirements-plots.txt", "roles", "site.yml",
}  # fmt: skip


def run(*command, cwd):
    # Nothing of the checkout's own configuration may help.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {"ANSIBLE_COLLECTIONS_PATH": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("artifact")
    run("ansible-galaxy", "collection", "build", str(CHECKOUT), "--output-path", str(directory), cwd=directory)
    return next(directory.glob("gpuhosts-inference-*.tar.gz"))


def test_no_development_files(artifact):
    with tarfile.open(artifact) as content:
        names = content.getnames()
    assert {name.partition("/")[0] for name in names} <= PUBLISHED
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_what_an_execution_environment_needs_is_in_it(artifact):
    needs = yaml.safe_load((CHECKOUT / "meta/execution-environment.yml").read_text(encoding="utf-8"))["dependencies"]
    with tarfile.open(artifact) as content:
        assert set(needs.values()) <= set(content.getnames())
        assert b"jmespath" in content.extractfile(needs["python"]).read()


def test_it_runs_where_it_is_installed(artifact, tmp_path):
    run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "--collections-path", str(tmp_path), str(artifact), cwd=tmp_path)
    inventory = str(CHECKOUT / "inventories/example")
    assert "playbooks/site.yml" in run("ansible-playbook", "gpuhosts.inference.site", "-i", inventory, "--syntax-check", cwd=tmp_path)
    assert "vllm_flags" in run("ansible-doc", "--type", "filter", "gpuhosts.inference.vllm_flags", cwd=tmp_path)
