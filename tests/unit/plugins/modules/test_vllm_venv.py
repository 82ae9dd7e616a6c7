"""A virtual environment for the engine: by a python3 that is a small program here, and from real archives."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import vllm_venv

PROGRAM = "import json; print(json.dumps({'vllm': '0.8.5'}))"
REQUIREMENTS = "vllm==0.8.5 --hash=sha256:00\n"
# Makes a directory as venv does. pip "installs" what the requirements name; python3 -c is the real one.
PYTHON = f"""#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
[ "$1 $2" = "-m venv" ] || exit 9
mkdir -p "$3/bin" "$3/lib/python3.12/site-packages"
cat > "$3/bin/python3" <<'INNER'
#!/bin/sh
case "$1 $2" in
  "-m pip")
    echo "$*" >> "$CALLS"
    [ ! -e "$FAULT" ] || {{ cat "$FAULT" >&2; exit 1; }}
    root=$(cd "$(dirname "$0")/.." && pwd)
    for argument; do last=$argument; done
    sed -n 's/==\\([^ ]*\\).*/-\\1/p' "${{last#--requirement=}}" | while read -r name; do mkdir -p "$root/lib/python3.12/site-packages/$name.dist-info"; done ;;
  *) exec {sys.executable} "$@" ;;
esac
INNER
chmod +x "$3/bin/python3"
"""


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """host(**arguments) runs the module for the path host.path; host.calls() is how python3 and pip were started."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").write_text(PYTHON)
    (programs / "python3").chmod(0o755)
    calls, fault = programs / "calls", tmp_path / "fault"
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("FAULT", str(fault))

    def run(**arguments):
        defaults = {} if "archive_sha256" in arguments else {"requirements": REQUIREMENTS, "python": str(programs / "python3")}
        return run_module(vllm_venv, **{"path": str(run.path), "program": PROGRAM, **defaults, **arguments})

    run.path, run.fault, run.python = tmp_path / "opt/vllm/0.8.5", fault, programs / "python3"
    run.calls = lambda: calls.read_text().splitlines() if calls.exists() else []
    run.directories = lambda: sorted(path.name for path in run.path.parent.iterdir() if path.is_dir() and not path.is_symlink())
    return run


def installed(host):
    return sorted(path.name for path in host.path.glob("lib/python3*/site-packages/*.dist-info"))


def test_made_once(host):
    said = host(check=True)
    assert said["changed"] is True and said["proof"] is None and not host.path.parent.exists()
    made = host(index_url="https://index.example/simple")
    assert made["changed"] is True and made["proof"] == {"vllm": "0.8.5"}
    assert os.path.realpath(host.path) == made["directory"] == f"{host.path}-{made['fingerprint'][:12]}"
    assert installed(host) == ["vllm-0.8.5.dist-info"]
    (venv, pip) = host.calls()
    assert venv == f"-m venv {made['directory']}"
    assert "--no-deps --index-url=https://index.example/simple" in pip
    again = host()
    # Some releases of ansible-core return the invocation.
    assert {**again, "invocation": None} == {**made, "changed": False, "invocation": None}
    assert host(check=True)["changed"] is False
    assert len(host.calls()) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "gpuhosts.json").unlink(),
        lambda path: (path / "gpuhosts.json").write_text("{}"),
        lambda path: (path / "gpuhosts.json").write_text("[1]"),
        lambda path: (path / "bin/python3").unlink(),
        lambda path: (path / "lib/python3.12/site-packages/vllm-0.8.5.dist-info").rename(path / "lib/python3.12/site-packages/vllm-0.8.6.dist-info"),
        lambda path: (path / "bin/python3").write_text("#!/bin/sh\necho 3.99\n"),
    ],
)
def test_what_is_not_as_it_was_is_made_anew(host, damage):
    host()
    damage(host.path)
    assert host()["changed"] is True
    assert installed(host) == ["vllm-0.8.5.dist-info"]
    assert host()["changed"] is False


def test_more_packages_than_ours_are_nobodys_business(host):
    host()
    (host.path / "lib/python3.12/site-packages/py_spy-0.4.dist-info").mkdir()
    assert host()["changed"] is False


def test_a_change_leaves_the_one_before_in_place_and_no_older_one(host):
    first = host()
    second = host(requirements="vllm==0.8.5\nnumpy==2.2.6\n")
    assert second["changed"] is True and len(host.directories()) == 2
    assert os.path.realpath(host.path) == second["directory"] != first["directory"]
    third = host(requirements="vllm==0.8.5\nnumpy==2.2.5\n")
    assert host.directories() == sorted(os.path.basename(made["directory"]) for made in (second, third))
    assert host(requirements="vllm==0.8.5\nnumpy==2.2.6\n")["changed"] is True, "the way back is a change, too"


def test_pip_that_fails_changes_nothing_that_serves(host):
    served = host()
    host.fault.write_text("WARNING: something\nERROR: No matching distribution found for numpy==9\nnote: more\n")
    failed = host(requirements="numpy==9\n")
    assert failed["failed"] is True
    assert failed["msg"].startswith(f"pip does not install the engine in {host.path}-")
    assert ": No matching distribution found for numpy==9. Correct vllm_native_requirements or vllm_native_index_url" in failed["msg"]
    assert os.path.realpath(host.path) == served["directory"]
    host.fault.unlink()
    assert host(requirements="numpy==9\n")["changed"] is True, "what was half made is made anew"


def test_a_python_that_makes_no_virtual_environment(host):
    host.python.write_text("#!/bin/sh\necho 'The virtual environment was not created: ensurepip is not available.'; exit 1\n")
    assert host()["msg"].endswith("ensurepip is not available. Install python3-venv, or name another vllm_native_python.")


def test_a_directory_of_somebody_else(host):
    host.path.mkdir(parents=True)
    assert host()["msg"] == f"{host.path} is not a link to a virtual environment of this collection: move it away, then run again."


def test_a_program_that_cannot_look_inside(host):
    served = host()
    failed = host(requirements="numpy==1\n", program="raise SystemExit('nothing to see')")
    assert failed["msg"] == f"What is inside {host.path} cannot be read: nothing to see."
    assert os.path.realpath(host.path) == served["directory"], "the link is back"


# -- Archives ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    """archive(python) packs a virtual environment whose python3 is a link to that; returns the module's arguments."""

    def pack(python=sys.executable):
        content = tmp_path / "content"
        (content / "bin").mkdir(parents=True)
        (content / "lib/python3.12/site-packages/vllm-0.8.5.dist-info").mkdir(parents=True)
        (content / "bin/python3").symlink_to(python)
        subprocess.run(["tar", "--create", "--gzip", f"--file={tmp_path}/venv.tar.gz", f"--directory={content}", "."], check=True)
        path = tmp_path / "venv.tar.gz"
        return {"archive": str(path), "archive_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    return pack


def test_unpacked_once_and_the_archive_is_not_needed_any_more(host, archive):
    arguments = archive()
    made = host(**arguments)
    assert made["changed"] is True and made["proof"] == {"vllm": "0.8.5"} and made["fingerprint"] == arguments["archive_sha256"]
    assert installed(host) == ["vllm-0.8.5.dist-info"]
    assert json.loads((host.path / "gpuhosts.json").read_text())["packages"] == {"vllm": "0.8.5"}
    assert host(archive_sha256=arguments["archive_sha256"])["changed"] is False
    assert host.calls() == []


def test_an_archive_that_is_not_the_one_wanted(host, archive):
    wrong = host(**{**archive(), "archive_sha256": "0" * 64})
    assert f"and {'0' * 64} is wanted: correct vllm_native_archives, or the file." in wrong["msg"]
    assert host(archive_sha256="0" * 64)["msg"] == f"The archive of {host.path} is not on the host."


def test_an_archive_without_its_python(host, archive):
    missing = host(**archive("/nonexistent/python3"))
    assert missing["msg"].startswith(f"The Python in {host.path} does not run: {host.path}/bin/python3 is missing.")


def test_a_file_that_is_no_archive(host, tmp_path):
    (tmp_path / "text").write_text("no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    assert host(archive=str(tmp_path / "text"), archive_sha256=digest)["msg"].startswith(f"The archive of {host.path} cannot be unpacked: ")
