"""The store behind a URL: the role's own tasks, before anything is changed, against a real web server that shows a store."""

import functools
import hashlib
import http.server
import json
import threading

import lab_play
import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel

DIGEST = "sha256:" + "6" * 64
PACKAGE = {"name": "small-cuda", "version": "0.1.0", "sha256": "7c7e", "archs": ["7.5"]}
WANT = wheel.wanted(PACKAGE, f"vllm@{DIGEST}", None, {"python": "3.12", "torch": "2.6.0", "torch_cuda": "12.4"})
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: gpuhosts.inference.flash_attn_wheel, tasks_from: preflight.yml}
"""


@pytest.fixture
def site(tmp_path):
    """A store of the site with one wheel: site.root; site.prepare(**variables) prepares a controller whose own store is site.here: (status, output)."""
    root, here = tmp_path / "site", tmp_path / "here"
    (root / wheel.key(WANT)).mkdir(parents=True)
    (root / wheel.key(WANT) / "small.whl").write_bytes(b"wheel")
    manifest = {"wanted": WANT, "wheel": "small.whl", "sha256": hashlib.sha256(b"wheel").hexdigest(), "imports": ["small_cuda"]}
    (root / wheel.offer(WANT)).write_text(json.dumps(manifest))
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def prepare(*arguments, **more):
        variables = {f"flash_attn_wheel_{name}": PACKAGE[name] for name in ("version", "sha256", "archs")} | {
            "flash_attn_wheel_package": PACKAGE["name"],
            "flash_attn_wheel_image": f"vllm@{DIGEST}",
            "flash_attn_wheel_store": str(here),
            "flash_attn_wheel_site_store": url,
            "flash_attn_wheel_builder": "nowhere.invalid",
        }
        return lab_play.play(tmp_path / "play.yml", "--extra-vars", json.dumps(variables | more), *arguments, timeout=120)

    yield type("Site", (), {"root": root, "here": here, "url": url, "prepare": staticmethod(prepare), "manifest": manifest})
    server.shutdown()
    server.server_close()


def test_what_the_site_has_needs_no_builder(site):
    """Although nobody has looked into an image yet. Afterwards it is a wheel of the own store, and the site is not asked again."""
    status, output = site.prepare()
    assert status == 0, output
    found = wheel.stored(WANT, str(site.here))
    assert (found["state"], found["key"]) == ("stored", wheel.key(WANT))
    status, output = site.prepare(flash_attn_wheel_site_store="http://127.0.0.1:1")
    assert status == 0 and "changed=0" in output, output


def test_what_the_site_does_not_have_needs_its_builder(site):
    status, output = site.prepare(flash_attn_wheel_archs=["8.0"])
    assert status != 0
    assert f"small-cuda 0.1.0 for localhost is not in {site.here} and not in {site.url}, and its builder nowhere.invalid cannot be reached." in output


def test_a_wheel_that_was_tampered_with_is_not_taken(site):
    (site.root / wheel.key(WANT) / "small.whl").write_bytes(b"whee")
    status, output = site.prepare()
    assert status != 0
    assert f"{site.url}/{wheel.offer(WANT)}: The checksum for " in output and f"did not match {site.manifest['sha256']}" in output
    assert "Nothing of it was carried to any host. Mend the site's store, or empty flash_attn_wheel_site_store: the wheel is built then." in output
    assert wheel.stored(WANT, str(site.here))["state"] == "missing"


@pytest.mark.slow
def test_a_page_instead_of_a_manifest(site):
    (site.root / wheel.offer(WANT)).write_text("<html>Welcome</html>")
    status, output = site.prepare()
    assert status != 0
    assert f"{site.url}/{wheel.offer(WANT)}: What lies there is not the manifest of a wheel for {DIGEST}. Nothing of it was carried to any host." in output


@pytest.mark.slow
def test_a_site_that_does_not_answer(site):
    status, output = site.prepare(flash_attn_wheel_site_store="http://127.0.0.1:1")
    assert status != 0
    assert f"http://127.0.0.1:1/{wheel.offer(WANT)}: Status code was -1" in output and "Connection refused" in output
    assert "empty flash_attn_wheel_site_store: the wheel is built then." in output


@pytest.mark.slow
def test_a_check_fetches_nothing_and_refuses_nothing(site):
    status, output = site.prepare("--check")
    assert status == 0, output
    assert not site.here.exists()
