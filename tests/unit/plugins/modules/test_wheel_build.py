"""A build in a container, by a docker that is a small program here."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import wheel_build

BUILT = {"state": "built", "wheel": "dist/x.whl", "sha256": "964c"}


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """host() runs the module. host.docker(body) says what docker does, host.says(status) what the program has said, host.calls() what docker was asked.

    The container runs as long as the file host.running is there.
    """
    programs, log, directory, running = tmp_path / "bin", tmp_path / "calls", tmp_path / "build", tmp_path / "running"
    for path in (programs, directory / "dist"):
        path.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(wheel_build, "DELAY", 0.01)
    (directory / "dist/x.whl").touch()

    def docker(start="", logs=""):
        body = f'inspect) [ -e {running} ] && echo true || {{ echo "no such container" >&2; exit 1; }};; run) {start};; logs) {logs};;'
        (programs / "docker").write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase $1 in {body} esac\n')
        (programs / "docker").chmod(0o755)

    def run(**arguments):
        given = {"name": "flash-1", "image": "vllm:a", "directory": str(directory), "spec": {"jobs": [2, 1]}, "program": "print()", "patience": 0}
        return run_module(wheel_build, **given | arguments)

    def says(status):
        (directory / "status.json").write_text(json.dumps(status))
        return f"echo '{json.dumps(status)}' > {directory}/status.json"

    run.docker, run.says, run.directory, run.running = docker, says, directory, running
    run.calls = lambda: [line for line in log.read_text().splitlines() if not line.startswith(("inspect", "rm"))] if log.exists() else []
    docker()
    return run


def test_a_build_in_a_container_without_network_cards_and_rights(host):
    host.docker(host.says(BUILT))
    (host.directory / "status.json").unlink()
    result = host(memory_bytes=1024)
    assert result["changed"] is True and result["built"] is True and result["status"] == BUILT
    (call,) = host.calls()
    assert "--network=none --cap-drop=ALL --security-opt=no-new-privileges" in call
    assert call.endswith(f"--memory=1024 --memory-swap=1024 --name=flash-1 --volume={host.directory}:/build --entrypoint=python3 vllm:a /build/build.py /build")
    assert json.loads((host.directory / "spec.json").read_text()) == {"jobs": [2, 1]}


def test_what_was_built_is_not_built_again(host):
    host.says(BUILT)
    result = host()
    assert result["changed"] is False and result["status"] == BUILT and host.calls() == []


def test_a_wheel_that_is_gone_is_built_again(host):
    host.says(BUILT)
    (host.directory / "dist/x.whl").unlink()
    host.docker(f"touch {host.directory}/dist/x.whl; {host.says(BUILT)}")
    assert host()["changed"] is True and len(host.calls()) == 1


def test_a_slice_ends_with_how_far_it_is_and_the_next_goes_on(host):
    progress = {"state": "running", "step": 3, "steps": 9, "jobs": 2}
    host.docker(f"touch {host.running}; {host.says(progress)}")
    first = host()
    assert first["built"] is False and first["status"] == progress
    assert host(resume=first["resume"])["status"] == progress
    host.running.unlink()
    host.says(BUILT)
    assert host(resume=first["resume"])["status"] == BUILT
    assert len(host.calls()) == 1, "started once"


def test_a_run_that_was_cut_off_is_taken_up(host):
    host.running.touch()
    host.says({"state": "running", "step": 3, "steps": 9, "jobs": 2})
    assert host()["built"] is False and host.calls() == []


def test_a_failure_is_the_programs_sentence_and_where_the_log_is(host):
    host.docker(host.says({"state": "failed", "error": "It does not compile."}))
    result = host()
    assert result["failed"] is True
    assert result["msg"] == f"It does not compile.\nAll that was printed is in {host.directory}/build.log."


def test_a_container_that_was_killed(host):
    host.docker(host.says({"state": "running"}), "echo bye")
    message = host()["msg"]
    assert message.startswith("The build ended before it was complete: bye") and message.endswith("Run again, it goes on.")


def test_an_image_that_does_not_start(host):
    host.docker("echo 'No such image: vllm:a' >&2; exit 125")
    assert host()["msg"] == "The image vllm:a cannot be started to build a wheel in it: No such image: vllm:a"


def test_a_build_that_takes_too_long_is_ended(host):
    host.running.touch()
    result = host(resume={"waited_seconds": 11}, timeout=10)
    assert result["msg"] == "The wheel was not built within 10 s. Run again, it goes on where it was; or allow more time."


def test_check_mode_starts_nothing(host):
    result = host(check=True)
    assert result["changed"] is True and host.calls() == [] and not (host.directory / "spec.json").exists()
