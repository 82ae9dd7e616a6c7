"""The entry point of a container with a wheel: what it starts the engine with, and what keeps it from starting one."""

import hashlib
import json
import os
import types

import pytest

CHECKSUM = hashlib.sha256(b"wheel").hexdigest()


@pytest.fixture
def container(tmp_path, programs, monkeypatch):
    """container(way, directory, what) starts; container.events is what was done in which order."""
    events = []
    monkeypatch.setattr(programs.start, "INSTALLED", str(tmp_path / "installed"))
    monkeypatch.setattr(programs.build, "install", lambda path, into: events.append(("install", os.path.basename(path), into)))
    monkeypatch.setattr(programs.build, "import_beside_torch", lambda into, modules: events.append(("import", *modules)))
    monkeypatch.setattr(programs.start.os, "execve", lambda path, argv, environment: events.append(("exec", *argv[1:], environment["PYTHONPATH"])))
    monkeypatch.setenv("PYTHONPATH", "/opt/x")

    def start(way, directory, what):
        programs.start.main(way, str(directory), str(what), "-m", "vllm", "--port", "8000")

    start.events, start.installed = events, str(tmp_path / "installed")
    return start


@pytest.fixture
def carried(tmp_path):
    directory = tmp_path / "wheel"
    directory.mkdir()
    (directory / "x.whl").write_bytes(b"wheel")
    (directory / "manifest.json").write_text(json.dumps({"wheel": "x.whl", "imports": ["flash_attn_cuda"], "wanted": {"name": "flash-attn"}}))
    return directory


def test_the_wheel_is_installed_imported_and_stands_before_the_images_own_packages(container, carried):
    container("wheel", carried, CHECKSUM)
    assert container.events == [
        ("install", "x.whl", container.installed),
        ("import", "flash_attn_cuda"),
        ("exec", "-m", "vllm", "--port", "8000", f"{container.installed}:/opt/x"),
    ]


@pytest.mark.parametrize("content, found", [(b"whee", hashlib.sha256(b"whee").hexdigest()), (None, "none: it is not there")])
def test_another_wheel_than_the_definitions_starts_nothing(container, carried, content, found):
    (carried / "x.whl").write_bytes(content) if content else (carried / "x.whl").unlink()
    with pytest.raises(SystemExit) as ended:
        container("wheel", carried, CHECKSUM)
    assert str(ended.value) == (
        f"ERROR: The wheel x.whl is not the one that was proved: its SHA-256 is {found}, not {CHECKSUM}. Run site.yml, which carries it anew."
    )
    assert container.events == []


def test_a_wheel_for_another_python_is_refused_by_pip(container, carried, programs, monkeypatch):
    def install(path, into):
        raise programs.build.Failed("python3 -m pip: ERROR: x.whl is not a supported wheel on this platform.")

    monkeypatch.setattr(programs.build, "install", install)
    with pytest.raises(SystemExit, match="not a supported wheel on this platform"):
        container("wheel", carried, CHECKSUM)


@pytest.fixture
def sources(tmp_path, programs, monkeypatch, container):
    """sources(**spec) writes them; a build writes its number as the wheel."""
    directory = tmp_path / "sources"
    directory.mkdir()
    (directory / "small.tar.gz").write_bytes(b"sources")
    built = []

    def build(cache, spec, tell):
        assert os.path.exists(os.path.join(cache, spec["source"]))
        built.append(spec)
        with open(os.path.join(cache, "x.whl"), "w", encoding="utf-8") as wheel:
            wheel.write(str(len(built)))
        return {"wheel": "x.whl", "sha256": hashlib.sha256(str(len(built)).encode()).hexdigest()}

    def write(**spec):
        (directory / "spec.json").write_text(json.dumps({"source": "small.tar.gz", "name": "small", "imports": ["small_cuda"], **spec}))
        return directory

    write.built = built
    monkeypatch.setattr(programs.build, "build", build)
    return write


def test_it_compiles_once_and_the_next_start_takes_what_is_cached(container, sources, tmp_path):
    for dummy in range(2):
        container("build", sources(), tmp_path / "cache")
    assert len(sources.built) == 1
    assert [event[0] for event in container.events] == ["install", "import", "exec"] * 2


def test_other_sources_and_a_damaged_cache_are_compiled_anew(container, sources, tmp_path):
    container("build", sources(), tmp_path / "cache")
    (tmp_path / "cache/x.whl").write_text("cut")
    container("build", sources(), tmp_path / "cache")
    container("build", sources(archs=["8.0"]), tmp_path / "cache")
    assert len(sources.built) == 3


# -- The proof on a host -------------------------------------------------------------------------------------------------------------------


def prove(programs, capsys, directory, card, monkeypatch):
    monkeypatch.setattr(programs.build, "install", lambda path, into: None)
    monkeypatch.setattr(programs.build, "import_beside_torch", lambda into, modules: None)
    monkeypatch.setattr(programs.prove, "on_card", lambda name: card)
    programs.prove.main(str(directory), CHECKSUM)
    return json.loads((directory / "proof.json").read_text()), capsys.readouterr().out


def test_a_forward_pass_on_a_card_is_kept(programs, capsys, carried, monkeypatch):
    proof, told = prove(programs, capsys, carried, ({"64": 0.0004, "128": 0.0006}, None), monkeypatch)
    assert proof == {"forward": {"64": 0.0004, "128": 0.0006}}
    assert told == "imported beside torch; forward pass: 0.0004 with head size 64, 0.0006 with head size 128\n"


def test_without_a_card_the_forward_pass_is_reported_as_not_run(programs, capsys, carried, monkeypatch):
    proof, told = prove(programs, capsys, carried, (None, "PyTorch sees no card here"), monkeypatch)
    assert proof == {"forward": None, "not_run": "PyTorch sees no card here"}
    assert told == "imported beside torch; forward pass: not run, for PyTorch sees no card here\n"


@pytest.mark.parametrize("difference", [0.011, float("nan")])
def test_a_difference_above_the_tolerance_fails(programs, monkeypatch, difference):
    class Tensor:
        """As much of a tensor as is asked for: every result is one again, whose largest element is the difference."""

        def item(self):
            return difference

        def __getattr__(self, name):
            return lambda *arguments, **more: self

        def __sub__(self, other):
            return self

    torch = types.SimpleNamespace(manual_seed=lambda seed: None, randn=lambda *shape, device: Tensor())
    monkeypatch.setattr(programs.prove, "reference", lambda torch, *parts: Tensor())
    with pytest.raises(programs.build.Failed, match=r"head size 64 differs from the reference by .*, above 0.01: do not use this wheel"):
        programs.prove.forward(torch, lambda *parts: Tensor(), "cuda")
