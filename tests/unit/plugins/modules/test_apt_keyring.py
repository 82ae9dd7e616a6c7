"""Keys that are pinned: taken, refused, left alone."""

import http.server
import pathlib
import stat
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import openpgp
from ansible_collections.gpuhosts.inference.plugins.modules import apt_keyring

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
def keyrings(tmp_path):
    return tmp_path / "etc/apt/keyrings"


def test_present_then_unchanged_without_a_download(run_module, server, keyrings):
    arguments = {"path": str(keyrings / "lab.asc"), "url": server.url + "/key.asc", "fingerprint": "6d21 318e 53f4 fafc cd22  ad3f 7379 5fd5 f7a1 84d7"}
    first = run_module(apt_keyring, **arguments)
    assert first["changed"] is True
    assert first["fingerprint"] == FINGERPRINT
    assert (keyrings / "lab.asc").read_bytes() == KEY
    assert stat.S_IMODE((keyrings / "lab.asc").stat().st_mode) == 0o644
    assert server.asked == ["/key.asc"]
    second = run_module(apt_keyring, **arguments)
    assert second["changed"] is False
    assert server.asked == ["/key.asc"]


@pytest.mark.parametrize("name", ["/key.asc", "/key.gpg"])
def test_the_form_follows_the_name_of_the_file(run_module, server, keyrings, name):
    run_module(apt_keyring, path=str(keyrings / "lab.gpg"), url=server.url + name, fingerprint=FINGERPRINT)
    run_module(apt_keyring, path=str(keyrings / "lab.asc"), url=server.url + name, fingerprint=FINGERPRINT)
    assert (keyrings / "lab.gpg").read_bytes() == openpgp.dearmour(KEY)
    assert (keyrings / "lab.asc").read_bytes() == KEY


def test_check_mode_says_changed_and_downloads_nothing(run_module, server, keyrings):
    arguments = {"path": str(keyrings / "lab.asc"), "url": server.url + "/key.asc", "fingerprint": FINGERPRINT}
    assert run_module(apt_keyring, check=True, **arguments)["changed"] is True
    assert server.asked == []
    assert not keyrings.exists()
    run_module(apt_keyring, **arguments)
    assert run_module(apt_keyring, check=True, **arguments)["changed"] is False
    assert run_module(apt_keyring, check=True, state="absent", path=arguments["path"])["changed"] is True
    assert (keyrings / "lab.asc").exists()


def test_another_key_is_refused_and_the_old_file_stays(run_module, server, keyrings):
    keyrings.mkdir(parents=True)
    (keyrings / "lab.asc").write_text("what was here before")
    result = run_module(apt_keyring, path=str(keyrings / "lab.asc"), url=server.url + "/key.asc", fingerprint=OTHER)
    assert result["failed"] is True
    assert result["msg"].startswith(f"The key at {server.url}/key.asc has the fingerprint {FINGERPRINT}, not the pinned {OTHER}: ")
    assert result["found"] == [FINGERPRINT]
    assert (keyrings / "lab.asc").read_text() == "what was here before"


def test_one_more_key_is_refused(run_module, server, keyrings):
    result = run_module(apt_keyring, path=str(keyrings / "lab.asc"), url=server.url + "/two.asc", fingerprint=FINGERPRINT)
    assert "has 2 primary keys" in result["msg"]
    assert not keyrings.exists()


def test_a_file_with_one_more_key_is_replaced(run_module, server, keyrings):
    keyrings.mkdir(parents=True)
    (keyrings / "lab.asc").write_bytes(KEY + KEY)
    assert run_module(apt_keyring, path=str(keyrings / "lab.asc"), url=server.url + "/key.asc", fingerprint=FINGERPRINT)["changed"] is True
    assert (keyrings / "lab.asc").read_bytes() == KEY


def test_wrong_addresses(run_module, server, keyrings):
    path = str(keyrings / "lab.asc")
    assert "is not a usable key: it is not OpenPGP data" in run_module(apt_keyring, path=path, url=server.url + "/page", fingerprint=FINGERPRINT)["msg"]
    assert "cannot be downloaded (HTTP Error 404" in run_module(apt_keyring, path=path, url=server.url + "/none", fingerprint=FINGERPRINT)["msg"]
    refused = run_module(apt_keyring, path=path, url="http://127.0.0.1:1/key.asc", fingerprint=FINGERPRINT)["msg"]
    assert "cannot be downloaded ([Errno 111] Connection refused): check the address" in refused
    server.files["/large"] = b"x" * (apt_keyring.MAXIMUM_BYTES + 1)
    assert "is larger than" in run_module(apt_keyring, path=path, url=server.url + "/large", fingerprint=FINGERPRINT)["msg"]
    assert not keyrings.exists()


def test_mode_is_repaired(run_module, server, keyrings):
    arguments = {"path": str(keyrings / "lab.asc"), "url": server.url + "/key.asc", "fingerprint": FINGERPRINT}
    run_module(apt_keyring, **arguments)
    (keyrings / "lab.asc").chmod(0o600)
    assert run_module(apt_keyring, check=True, **arguments)["changed"] is True
    assert run_module(apt_keyring, **arguments)["changed"] is True
    assert stat.S_IMODE((keyrings / "lab.asc").stat().st_mode) == 0o644


def test_absent(run_module, keyrings):
    keyrings.mkdir(parents=True)
    (keyrings / "lab.asc").write_bytes(KEY)
    assert run_module(apt_keyring, state="absent", path=str(keyrings / "lab.asc"))["changed"] is True
    assert not (keyrings / "lab.asc").exists()
    assert run_module(apt_keyring, state="absent", path=str(keyrings / "lab.asc"))["changed"] is False


def test_bad_arguments(run_module, keyrings):
    path = str(keyrings / "lab.asc")
    assert "missing" in run_module(apt_keyring, path=path, url="http://127.0.0.1/")["msg"]
    assert "40 hex digits" in run_module(apt_keyring, path=path, url="http://127.0.0.1/", fingerprint="3BF863CC")["msg"]
