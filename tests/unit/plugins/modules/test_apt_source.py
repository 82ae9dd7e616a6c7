"""Keys that are pinned, and everything else that apt knows about one repository: written, refused, left alone, removed."""


import http.server
import pathlib
import re
import stat
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import openpgp
from ansible_collections.gpuhosts.inference.plugins.modules import apt_source

KEY = (pathlib.Path(__file__).parents[2] / "fixtures" / "openpgp_test_key.asc").read_bytes()
FINGERPRINT = "6D21318E53F4FAFCCD22AD3F73795FD5F7A184D7"
OTHER = "EB693B3035CD5710E231E123A4B469963BF863CC"


@pytest.fixture
def server():
    """A web server on loopback: server.files maps paths to bytes, server.asked lists what was asked for, server.url is its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"not here")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.asked = []
        instance.files = {"/key.asc": KEY, "/key.gpg": openpgp.dearmour(KEY), "/two.asc": KEY + KEY, "/page": b"<html>Not found</html>"}
        instance.url = f"http://127.0.0.1:{instance.server_port}"
        threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield instance
        instance.shutdown()


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """The /etc/apt that the module sees."""
    monkeypatch.setattr(apt_source, "ROOT", str(tmp_path / "root"))
    return tmp_path / "root/etc/apt"


@pytest.fixture
def run(run_module, server, apt):
    """run(check=False, **differences): the module on the server's good key."""
    usual = {"name": "lab", "uri": "http://mirror/repos/", "key_url": server.url + "/key.asc", "key_fingerprint": FINGERPRINT}
    return lambda check=False, **more: run_module(apt_source, check=check, **(usual | more))


def test_present_then_unchanged_without_a_download(run, server, apt):
    arguments = {"key_fingerprint": "6d21 318e 53f4 fafc cd22  ad3f 7379 5fd5 f7a1 84d7", "pin": {"*nvidia* libcuda1": "570.153.02"}}
    first = run(**arguments)
    assert first["changed"] is True
    assert first["fingerprint"] == FINGERPRINT
    assert (apt / "keyrings/lab.asc").read_bytes() == KEY
    assert stat.S_IMODE((apt / "keyrings/lab.asc").stat().st_mode) == 0o644
    assert server.asked == ["/key.asc"]
    second = run(**arguments)
    assert second["changed"] is False
    assert second["diff"] == []
    assert server.asked == ["/key.asc"]


def test_the_files_of_a_flat_repository(run, apt):
    run(pin={"*nvidia* libcuda1": "570.153.02", "lib.a+b": "1.0"})
    assert (apt / "sources.list.d/lab.sources").read_text().splitlines()[1:] == [
        "Types: deb",
        "URIs: http://mirror/repos/",
        "Suites: /",
        "Signed-By: /etc/apt/keyrings/lab.asc",
    ]
    assert "Package: *nvidia* libcuda1\nPin: version 570.153.02-*\nPin-Priority: 1001\n\nPackage: lib.a+b\n" in (apt / "preferences.d/lab.pref").read_text()
    blacklist = (apt / "apt.conf.d/52lab-unattended-upgrades").read_text()
    patterns = re.findall(r'(?m)^ {4}"(.*)";$', blacklist)
    assert patterns == [".*nvidia.*$", "lib[.]a[+]b$", "libcuda1$"]
    # As unattended-upgrades asks.
    assert [bool(re.match(patterns[0], name)) for name in ("libnvidia-ml1", "nvidia-smi", "python3")] == [True, True, False]


def test_a_repository_with_components(run, apt):
    run(suites=["noble", "noble-updates"], components=["stable"])
    assert "Suites: noble noble-updates\nComponents: stable\nSigned-By:" in (apt / "sources.list.d/lab.sources").read_text()


def test_a_pin_is_left_alone_replaced_and_removed(run, apt):
    run(pin={"a": "1"})
    assert run()["changed"] is False
    changed = run(pin={"a": "2"})
    assert changed["written"] == [str(apt / "preferences.d/lab.pref")]
    assert "-Pin" not in changed["diff"][0]["after"] and "Pin: version 2-*" in changed["diff"][0]["after"]
    assert sorted(run(pin={})["removed"]) == [str(apt / "apt.conf.d/52lab-unattended-upgrades"), str(apt / "preferences.d/lab.pref")]


def test_what_older_ways_left_is_removed(run, apt):
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "trusted.gpg.d").mkdir()
    ours = "deb [signed-by=/usr/share/keyrings/cuda.gpg arch=amd64] https://example.org/cuda/repos/ubuntu2404/x86_64/ /\n"
    (apt / "sources.list.d/cuda-a.list").write_text("# deb https://example.org/other /\n" + ours)
    (apt / "sources.list.d/cuda-shared.list").write_text(ours + "deb https://example.org/other /\n")
    (apt / "sources.list.d/cuda-b.sources").write_text("Types: deb\nURIs: https://example.org/cuda/repos/a/\n https://example.org/cuda/repos/b/\nSuites: /\n")
    (apt / "sources.list.d/cuda-empty.list").write_text("# nothing\n")
    (apt / "trusted.gpg.d/cuda.gpg").write_bytes(b"key")
    obsolete = {"/etc/apt/sources.list.d/cuda*": "/cuda/repos/", "/etc/apt/trusted.gpg.d/cuda*": ""}
    wanted = [str(apt / name) for name in ("sources.list.d/cuda-a.list", "sources.list.d/cuda-b.sources", "trusted.gpg.d/cuda.gpg")]
    assert run(check=True, obsolete=obsolete)["removed"] == wanted
    assert (apt / "trusted.gpg.d/cuda.gpg").exists()
    assert run(obsolete=obsolete)["removed"] == wanted
    assert sorted(path.name for path in (apt / "sources.list.d").iterdir()) == ["cuda-empty.list", "cuda-shared.list", "lab.sources"]
    assert run(obsolete=obsolete)["changed"] is False


def test_a_binary_key_is_written_as_armour(run, server, apt):
    run(key_url=server.url + "/key.gpg")
    assert (apt / "keyrings/lab.asc").read_bytes() == KEY


def test_check_mode_says_changed_and_downloads_nothing(run, server, apt):
    assert run(check=True)["changed"] is True
    assert server.asked == []
    assert not apt.exists()
    run()
    assert run(check=True)["changed"] is False


def test_another_key_is_refused_and_nothing_is_written(run, server, apt):
    (apt / "keyrings").mkdir(parents=True)
    (apt / "keyrings/lab.asc").write_text("what was here before")
    result = run(key_fingerprint=OTHER, pin={"a": "1"})
    assert result["failed"] is True
    assert result["msg"].startswith(f"The key at {server.url}/key.asc has the fingerprint {FINGERPRINT}, not the pinned {OTHER}: ")
    assert result["found"] == [FINGERPRINT]
    assert [path.name for path in apt.rglob("*") if path.is_file()] == ["lab.asc"]
    assert (apt / "keyrings/lab.asc").read_text() == "what was here before"


def test_one_more_key_is_refused(run, server, apt):
    assert "has 2 primary keys" in run(key_url=server.url + "/two.asc")["msg"]
    assert not apt.exists()


def test_a_file_with_one_more_key_is_replaced(run, apt):
    (apt / "keyrings").mkdir(parents=True)
    (apt / "keyrings/lab.asc").write_bytes(KEY + KEY)
    assert run()["changed"] is True
    assert (apt / "keyrings/lab.asc").read_bytes() == KEY


def test_wrong_addresses(run, server, apt):
    assert "is not a usable key: it is not OpenPGP data" in run(key_url=server.url + "/page")["msg"]
    assert "cannot be downloaded (HTTP Error 404" in run(key_url=server.url + "/none")["msg"]
    assert "cannot be downloaded ([Errno 111] Connection refused): check the address" in run(key_url="http://127.0.0.1:1/key.asc")["msg"]
    server.files["/large"] = b"x" * (apt_source.MAXIMUM_BYTES + 1)
    assert "is larger than" in run(key_url=server.url + "/large")["msg"]
    assert not apt.exists()


def test_mode_is_repaired(run, apt):
    run()
    (apt / "keyrings/lab.asc").chmod(0o600)
    assert run(check=True)["written"] == [str(apt / "keyrings/lab.asc")]
    assert run()["changed"] is True
    assert stat.S_IMODE((apt / "keyrings/lab.asc").stat().st_mode) == 0o644


def test_bad_arguments(run, run_module):
    assert "missing" in run_module(apt_source, name="lab", uri="http://127.0.0.1/")["msg"]
    assert "40 hex digits" in run(key_fingerprint="3BF863CC")["msg"]
