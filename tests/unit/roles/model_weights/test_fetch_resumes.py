"""The program that downloads a model, with the real client and a hub that cuts the connection half-way."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest

PROGRAM = pathlib.Path(__file__).parents[4] / "roles/model_weights/files/fetch.py"
REPO, COMMIT, NAME = "a/b", "c0ffee" * 6 + "0000", "model.safetensors"
CONTENT = bytes(range(256)) * 4096 * 48  # 48 MiB: the client writes pieces of 10


@pytest.fixture
def hub():
    """A hub of one file; `ranges` is what was asked of it, and `cut` whether it cuts the connection after half of the file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version, ranges, cut = "HTTP/1.1", [], True

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            if self.path.startswith("/api/"):
                body = json.dumps({"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": NAME}], "tags": [], "downloads": 0, "private": False}).encode()
                self.head(200, len(body), {"Content-Type": "application/json"})
                self.wfile.write(body)
                return
            etag = hashlib.sha256(CONTENT).hexdigest()
            known = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(CONTENT))}
            begin = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
            if begin:
                known["Content-Range"] = f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.head(206 if begin else 200, len(CONTENT) - begin, known)
            if self.command == "GET":
                type(self).ranges.append(begin)
                self.wfile.write(CONTENT[begin : len(CONTENT) // 2 if self.cut else None])
                self.close_connection = self.cut

        def head(self, status, length, headers):
            self.send_response(status)
            for name, value in {"Content-Length": str(length), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *dummy):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()
    server.server_close()


def fetch(hub, store):
    """The program as it runs in its container, but for the directory."""
    program = PROGRAM.read_text(encoding="utf-8").replace('pathlib.Path("/store")', f"pathlib.Path({str(store)!r})")
    request = json.dumps({"repo_id": REPO, "commit": COMMIT, "files": [NAME], "token": ""})
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(store / "home"), "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", program], input=request, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_download_that_is_cut_half_way_goes_on_from_there(hub, tmp_path):
    first = fetch(hub, tmp_path)
    assert first.returncode != 0
    assert f"Fetching {REPO} from {hub.url} failed" in first.stderr
    assert "run again, it resumes where it stopped." in first.stderr
    assert not (tmp_path / COMMIT / NAME).exists(), "nothing half-written has the file's name"
    hub.cut, before = False, len(hub.ranges)
    second = fetch(hub, tmp_path)
    assert second.returncode == 0, second.stderr
    assert hub.ranges[before:] == [2 * 10 * 1024 * 1024], "only the rest is asked for"
    assert (tmp_path / COMMIT / NAME).read_bytes() == CONTENT
