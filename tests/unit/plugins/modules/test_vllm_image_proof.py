"""Looking into images: once for each, by a docker that is a small program here."""

import json

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import vllm_image_proof

IDS = {"vllm:a": "sha256:aa", "vllm:same": "sha256:aa", "vllm:b": "sha256:bb", "vllm:gone": None}


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """host(*images) runs the module; host.docker(body) says what docker does, host.calls() how it was started."""
    programs, log = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(vllm_image_proof.host_files, "IMAGE_PROOFS", f"{tmp_path}/proofs/".lstrip("/"))
    monkeypatch.setattr(vllm_image_proof.docker_socket, "describe", lambda images: ({"images": {image: IDS[image] for image in images}}, None))

    def run(*images, **arguments):
        return run_module(vllm_image_proof, images=list(images), program="print()", **arguments)

    def docker(body):
        (programs / "docker").write_text(f'#!/bin/sh\necho "$@" >> {log}\n{body}\n')
        (programs / "docker").chmod(0o755)

    run.docker, run.calls = docker, lambda: log.read_text().splitlines() if log.exists() else []
    run.proofs = tmp_path / "proofs"
    docker('echo \'{"vllm": "0.8.5"}\'')
    return run


def test_once_for_each_image(host):
    found = {"vllm": "0.8.5"}
    result = host("vllm:a", "vllm:b")
    assert result["changed"] is True and result["proofs"] == {"vllm:a": found, "vllm:b": found}
    assert json.loads((host.proofs / "aa.json").read_text()) == found
    (call, dummy) = host.calls()
    assert "--network=none" in call and call.endswith("--entrypoint=python3 sha256:aa -c print()")
    again = host("vllm:a", "vllm:same")
    assert again["changed"] is False and again["proofs"] == {"vllm:a": found, "vllm:same": found}
    assert len(host.calls()) == 2


def test_check_mode_starts_nothing(host):
    result = host("vllm:a", "vllm:gone", check=True)
    assert result["changed"] is True and result["proofs"] == {"vllm:a": None, "vllm:gone": None}
    assert not host.calls() and not host.proofs.exists()


@pytest.mark.parametrize(
    "body, said",
    [
        ("echo first >&2; echo 'exec: \"python3\": executable file not found in $PATH' >&2; exit 127", 'exec: "python3": executable file not found in $PATH'),
        ("echo Hello", "Hello"),
        ("echo '[]'", "[]"),
        ("exit 3", "status 3"),
        ("sleep 60", "no answer within 1 s"),
    ],
)
def test_an_image_that_cannot_be_read(host, body, said):
    host.docker(body)
    result = host("vllm:a", timeout=1)
    assert result["failed"] is True
    assert result["msg"].startswith("What is inside the image vllm:a cannot be read, so nobody knows whether its vLLM runs on this host's cards: ")
    assert f"cards: {said}. Name an image" in result["msg"]
    assert not host.proofs.exists()


def test_an_image_that_is_not_there(host):
    assert host("vllm:gone")["msg"] == "The image vllm:gone is not on this host: pull it first."


def test_a_kept_proof_that_is_broken_is_made_anew(host):
    host.proofs.mkdir()
    (host.proofs / "aa.json").write_text('{"vllm"')
    assert host("vllm:a")["changed"] is True
    assert host("vllm:a")["changed"] is False
