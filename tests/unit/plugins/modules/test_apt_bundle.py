"""The tree of repositories, by an apt that says what it would fetch and a web server that has it."""

import hashlib
import http.server
import threading

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import apt_bundle

DEB = b"a package"
PACKAGES = b"Package: tool\n"
DIGEST = hashlib.sha256(PACKAGES).hexdigest()
POLICY = "tool:\n  Installed: (none)\n  Candidate: 1\n  Version table:\n     1 500\nlocal:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"


@pytest.fixture
def server(monkeypatch):
    """A web server: server.files maps paths to bytes, server.asked lists what was asked for, server.name is its name in the tree."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        release = f"SHA256:\n {DIGEST} {len(PACKAGES)} main/binary-amd64/Packages\n {'0' * 64} 1 main/binary-amd64/Packages.xz\n"
        instance.asked = []
        instance.name = f"127.0.0.1:{instance.server_port}"
        instance.files = {
            "/debian/pool/tool_1%3a1_amd64.deb": DEB,
            "/debian/dists/x/InRelease": release.encode(),
            "/debian/dists/x/main/binary-amd64/Packages": PACKAGES,
            "/key.asc": b"key",
        }
        threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield instance
        instance.shutdown()


@pytest.fixture
def collect(run_module, server, monkeypatch, tmp_path):
    """collect(**arguments): the module's result on a host that has the packages tool, and local from nowhere."""
    fetched = f"'http://{server.name}/debian/pool/tool_1%3a1_amd64.deb' tool_1%3a1_amd64.deb {len(DEB)} SHA256:{hashlib.sha256(DEB).hexdigest()}\n"
    index = "".join(f"http://{server.name}/debian/dists/x/{key} {key}\n" for key in ("main/binary-amd64/Packages", "main/i18n/Translation-en"))
    answers = {"update": "", "--show": "ii  tool\nii  local\nrc  gone\n", "policy": POLICY, "install": fetched, "indextargets": index}

    def run(command, timeout):
        collect.commands.append(command)
        return 0, next(answer for word, answer in answers.items() if word in command), ""

    monkeypatch.setattr(apt_bundle.child, "run", run)

    def collect(**arguments):
        return run_module(apt_bundle, path=str(tmp_path / "apt"), files=[f"http://{server.name}/key.asc"], **arguments)

    collect.commands = []
    return collect


def test_packages_indices_and_keys_lie_where_their_addresses_say(collect, server, tmp_path):
    result = collect()
    tree = tmp_path / "apt" / server.name
    assert (tree / "debian/pool/tool_1:1_amd64.deb").read_bytes() == DEB, "a web server takes the address's %3a for a colon"
    assert (tree / "debian/dists/x/main/binary-amd64/Packages").read_bytes() == PACKAGES, "Packages.xz is listed, and the server has none"
    assert (tree / f"debian/dists/x/main/binary-amd64/by-hash/SHA256/{DIGEST}").read_bytes() == PACKAGES
    assert (tree / "debian/dists/x/InRelease").exists() and (tree / "key.asc").exists()
    assert (result["changed"], result["packages"], result["bytes"], result["left_out"]) == (True, 1, len(DEB), ["local"])
    (install,) = [command for command in collect.commands if "install" in command]
    assert install[-1] == "tool" and apt_bundle.BARE in install, "as if nothing was installed"


def test_a_second_time_nothing_but_the_index_is_asked_for(collect, server):
    collect()
    server.asked.clear()
    assert collect()["changed"] is False
    assert [path for path in server.asked if path.endswith((".deb", "Packages"))] == []


def test_a_package_that_is_not_what_the_index_says_is_refused_and_not_kept(collect, server, tmp_path):
    server.files["/debian/pool/tool_1%3a1_amd64.deb"] = b"another"
    result = collect()
    assert f"/debian/pool/tool_1%3a1_amd64.deb has the SHA-256 {hashlib.sha256(b'another').hexdigest()}, and its index says" in result["msg"]
    assert not list((tmp_path / "apt").rglob("*.deb*"))


def test_what_no_repository_has_is_named(collect):
    assert collect(extra=["local"])["msg"] == "No repository of this host has local: add one, or leave it out."


@pytest.mark.parametrize("address", ["file:/srv/x.deb", "http://host/../../etc/passwd"])
def test_an_address_that_leads_out_of_the_tree_is_refused(tmp_path, address):
    with pytest.raises(apt_bundle.Unfit, match="cannot lie in a tree of web addresses"):
        apt_bundle.Tree(str(tmp_path), 1).path(address)
