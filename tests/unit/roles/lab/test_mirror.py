"""The mirror's data and generators: packages, model, hub, cards and PCI tree. Building the image is the lab's own test."""

import configparser
import hashlib
import importlib.machinery
import importlib.util
import itertools
import json
import pathlib
import re
import struct
import sys

import pytest

MIRROR = pathlib.Path(__file__).parents[4] / "roles/lab/files/mirror"
KERNEL = "6.1.0-test"
# What the stand-ins may take from Debian main and Ubuntu main: present in every simulated host or small.
DISTRIBUTION = {"kmod", "python3"}


def load(name, file=None):
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name, str(MIRROR / (file or name + ".py")))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


build_repositories, cards, make_hub, make_model, pci_tree = map(
    load, ("build_repositories", "cards", "make_hub", "make_model", "pci_tree")
)


@pytest.fixture(scope="module")
def table():
    return json.loads((MIRROR / "packages.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packages(table):
    """{repository: [package]}"""
    expanded = list(build_repositories.expand(table, KERNEL))
    return {path: [p for name, p in expanded if name in settings["sets"]] for path, settings in table["repositories"].items()}


# ---- packages -------------------------------------------------------------------------------------------------------

DEBIAN, UBUNTU = "cuda/repos/debian12/x86_64", "cuda/repos/ubuntu2404/x86_64"
TOOLKIT = "libnvidia-container/stable/deb/amd64"


@pytest.mark.parametrize(
    ("repository", "name", "version"),
    [
        (DEBIAN, "cuda-drivers-570", "570.153.02-1"),
        (DEBIAN, "nvidia-open-570", "570.153.02-1"),
        (DEBIAN, "nvidia-driver-cuda", "570.153.02-1"),
        (DEBIAN, "nvidia-kernel-open-dkms", "570.172.08-1"),
        (DEBIAN, "nvidia-kernel-dkms", "575.57.08-1"),
        (DEBIAN, "nvidia-persistenced", "570.153.02-1"),
        (DEBIAN, "cuda-toolkit-12-8", "12.8.1-1"),
        (DEBIAN, "cuda-nvcc-12-8", "12.8.93-1"),
        (DEBIAN, "cuda-cudart-12-8", "12.8.90-1"),
        (UBUNTU, "nvidia-open-570", "570.153.02-0ubuntu1"),
        (UBUNTU, "nvidia-dkms-570-open", "570.153.02-0ubuntu1"),
        (UBUNTU, "nvidia-utils-570", "570.133.20-0ubuntu1"),
        (UBUNTU, "cuda-compiler-12-9", "12.9.1-1"),
        ("cuda/repos/ubuntu2204/x86_64", "nvidia-driver-575", "575.57.08-0ubuntu1"),
        (TOOLKIT, "nvidia-container-toolkit", "1.17.8-1"),
        (TOOLKIT, "libnvidia-container1", "1.17.4-1"),
        ("kernel", "linux-headers-" + KERNEL, "1-1"),
    ],
)
def test_a_package_is_there(packages, repository, name, version):
    assert (name, version) in [(p["name"], p["version"]) for p in packages[repository]]


def test_no_package_twice(packages):
    for group in packages.values():
        names = [(p["name"], p["version"]) for p in group]
        assert len(names) == len(set(names))


def satisfied(relation, group):
    """Whether some package of the group has the name, or provides it, in a version that an `=` asks for."""
    name, version = re.fullmatch(r"(\S+)(?: \((?:=|>=|<<) ([^)]+)\))?", relation).groups()
    if name in DISTRIBUTION:
        return version is None
    for package in group:
        provided = dict((entry.rstrip(")").split(" (= ") + [None])[:2] for entry in package.get("provides", []))
        if package["name"] == name and (version is None or " (= " not in relation or package["version"] == version):
            return True
        if name in provided and version in (None, provided[name]):
            return True
    return False


def test_every_dependency_is_in_the_same_repository(packages):
    for repository, group in packages.items():
        for package in group:
            for relation in package.get("depends", []) + package.get("recommends", []):
                assert any(satisfied(one, group) for one in relation.split(" | ")), (repository, package["name"], relation)


@pytest.mark.parametrize("repository", [DEBIAN, UBUNTU])
def test_a_release_of_the_driver_has_one_of_each_payload(packages, repository):
    """The closure of a meta-package has one nvidia-smi, one module and one persistence daemon."""
    for meta in ("cuda-drivers-570", "nvidia-open-570"):
        group = {p["name"]: p for p in packages[repository] if p["version"].startswith("570.153.02-")}
        names, pending = set(), [meta]
        while pending:
            name = pending.pop()
            if name in group and name not in names:
                names.add(name)
                pending += [relation.split()[0] for relation in group[name].get("depends", []) if " | " not in relation]
        payloads = sorted(group[name]["payload"] for name in names if group[name]["payload"])
        assert payloads == ["kernel-support", "module", "nvidia-smi", "persistenced"]


def test_every_payload_exists_and_is_used(table):
    used = {entry["payload"] for group in table["sets"].values() for entry in group["packages"].values() if "payload" in entry}
    assert used == {path.name for path in (MIRROR / "payload").iterdir()}


def test_the_control_file_says_that_it_is_a_stand_in(packages):
    package = next(p for p in packages[DEBIAN] if p["name"] == "nvidia-driver-cuda")
    text = build_repositories.control(package)
    assert "Package: nvidia-driver-cuda\nVersion: " in text
    assert "\nConflicts: nvidia-smi\n" in text
    assert text.endswith("\n") and "stand-in of the gpuhosts.inference lab" in text


def test_a_tree_is_laid_out(packages, tmp_path):
    package = next(p for p in packages[DEBIAN] if (p["name"], p["version"]) == ("nvidia-driver-cuda", "570.153.02-1"))
    build_repositories.lay_out(package, MIRROR / "payload", tmp_path)
    script = tmp_path / "usr/bin/nvidia-smi"
    assert script.stat().st_mode & 0o777 == 0o755
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")
    assert 'LIBRARY_VERSION, CUDA_VERSION = "570.153.02", "12.8"' in script.read_text(encoding="utf-8")


def test_nothing_is_left_to_fill_in(packages, tmp_path):
    for number, package in enumerate(p for p in packages[DEBIAN] + packages[TOOLKIT] if p["payload"]):
        tree = tmp_path / str(number)
        build_repositories.lay_out(package, MIRROR / "payload", tree)
        for path in tree.rglob("*"):
            assert not re.search(r"@\w+@", str(path.relative_to(tree)))
            assert not path.is_file() or path.is_symlink() or not re.search(r"@\w+@", path.read_text(encoding="utf-8")), path


def test_configuration_files_are_declared(packages, tmp_path):
    package = next(p for p in packages[DEBIAN] if p["name"] == "nvidia-kernel-support")
    build_repositories.lay_out(package, MIRROR / "payload", tmp_path)
    assert (tmp_path / "DEBIAN/conffiles").read_text(encoding="utf-8") == "/etc/tmpfiles.d/gpuhosts-lab.conf\n"
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(tmp_path / "usr/lib/systemd/system/gpuhosts-lab-boot.service")
    assert unit["Service"]["Type"] == "oneshot"


# ---- model and hub --------------------------------------------------------------------------------------------------


def test_the_model_is_the_same_bytes_everywhere():
    files = make_model.files()
    assert hashlib.sha256(files["model.safetensors"]).hexdigest() == "9dfee74e500ac814500415c3887a3c46b0542af7e31990cd53681c3c683e3a26"
    assert make_model.files() == files


def test_the_weights_are_a_safetensors_file():
    content = make_model.files()["model.safetensors"]
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    assert offsets[0][0] == 0 and offsets[-1][1] == len(content) - 8 - length
    assert all(one[1] == other[0] for one, other in itertools.pairwise(offsets))
    assert header["model.embed_tokens.weight"]["shape"] == [512, 64]


def test_only_letters_space_and_newline_have_an_embedding():
    content = make_model.files()["model.safetensors"]
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    start, end = header["model.embed_tokens.weight"]["data_offsets"]
    numbers = struct.unpack("<%de" % ((end - start) // 2), content[8 + length + start : 8 + length + end])
    readable = {token for token in range(512) if any(numbers[token * 64 : token * 64 + 64])}
    assert readable == set(b"abcdefghijklmnopqrstuvwxyz \n")


def test_the_tokenizer_has_a_token_a_byte():
    document = json.loads(make_model.files()["tokenizer.json"])
    assert sorted(document["model"]["vocab"].values()) == list(range(256))
    assert [token["content"] for token in document["added_tokens"]] == make_model.SPECIAL


@pytest.fixture
def hub(tmp_path):
    make_model.main(tmp_path / "model")
    commit = make_hub.main("gpuhosts-lab/tiny-qwen3", tmp_path / "model", tmp_path / "hub")
    return tmp_path / "hub", commit


def test_the_hub_describes_its_files(hub):
    directory, commit = hub
    answer = json.loads((directory / "api/model.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{40}", commit) and answer["sha"] == commit
    for sibling in answer["siblings"]:
        content = (directory / "files/gpuhosts-lab/tiny-qwen3" / sibling["rfilename"]).read_bytes()
        assert sibling["size"] == len(content)
        if sibling["rfilename"] == "model.safetensors":
            assert sibling["lfs"]["sha256"] == hashlib.sha256(content).hexdigest()
        else:
            assert sibling["blobId"] == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_the_commit_follows_from_the_contents(hub, tmp_path):
    dummy, commit = hub
    assert make_hub.main("gpuhosts-lab/tiny-qwen3", tmp_path / "model", tmp_path / "again") == commit
    (tmp_path / "model/README.md").write_text("another\n", encoding="utf-8")
    assert make_hub.main("gpuhosts-lab/tiny-qwen3", tmp_path / "model", tmp_path / "changed") != commit


def test_the_hub_has_an_etag_for_every_file(hub):
    directory, commit = hub
    text = (directory / "hub.conf").read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    assert "add_header X-Repo-Commit %s;" % commit in text
    assert all("/%s$" % re.escape(name) in text for name in make_model.files())
    for code in ("EntryNotFound", "RevisionNotFound", "RepoNotFound"):
        assert "X-Error-Code %s always" % code in text


# ---- cards and PCI tree ---------------------------------------------------------------------------------------------


def test_an_engine_sees_total_minus_reserved():
    """21.48 GiB and 10.57 GiB, as vLLM logs them on real cards."""
    for model, gib in (("2080ti-22g", "21.48"), ("2080ti-11g", "10.57")):
        card = cards.describe(model, 1)["gpus"][0]
        assert "%.2f" % ((card["memory_total_mib"] - card["memory_reserved_mib"]) / 1024) == gib


def test_cards_are_told_apart_and_stay_the_same():
    one, other = cards.describe("2080ti-22g", 8, "gpu01"), cards.describe("2080ti-22g", 8, "gpu02")
    uuids = [card["uuid"] for card in one["gpus"] + other["gpus"]]
    assert len(set(uuids)) == 16
    assert cards.describe("2080ti-22g", 8, "gpu01") == one
    assert len({card["pci_bus_id"] for card in one["gpus"]}) == 8


def test_more_cards_than_slots():
    with pytest.raises(ValueError, match="9 cards: a simulated host has at most 8"):
        cards.describe("2080ti-22g", 9)


def test_the_pci_tree_is_the_kernels(tmp_path):
    pci_tree.write(cards.describe("2080ti-22g", 4), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000:1a:00.0", "0000:1b:00.0", "0000:3d:00.0", "0000:3e:00.0"]
    device = {path.name: path.read_text(encoding="utf-8").strip() for path in (tmp_path / "0000:3d:00.0").iterdir()}
    assert device["vendor"] == "0x10de" and device["device"] == "0x1e07" and device["class"] == "0x030000"
    assert device["numa_node"] == "1" and device["max_link_speed"] == "8.0 GT/s PCIe" and device["max_link_width"] == "16"


def test_a_card_falls_off_the_bus(tmp_path):
    description = cards.describe("2080ti-22g", 4)
    pci_tree.write(description, tmp_path)
    del description["gpus"][2]
    pci_tree.write(description, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000:1a:00.0", "0000:1b:00.0", "0000:3e:00.0"]
