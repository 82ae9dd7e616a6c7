"""The program that downloads files by their URLs, with the real curl and a server that can cut the connection."""

import hashlib
import http.server
import json
import pathlib
import re
import subprocess
import sys
import threading

import pytest

PROGRAM = pathlib.Path(__file__).parents[4] / "roles/model_weights/files/fetch_files.py"
CONTENTS = {"config.json": b"{}", "weights/model 1.safetensors": bytes(range(256)) * 4096}
LARGE = "weights/model 1.safetensors"


@pytest.fixture
def server():
    """`asked` is [(path, first byte, Authorization)]; `cut` ends the answer with the large file after half of it; `statuses` are answered first."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked, cut, statuses = [], False, []

        def do_GET(self):
            content = CONTENTS[self.path[1:].replace("%20", " ")]
            begin = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
            self.asked.append((self.path, begin, self.headers.get("Authorization")))
            status = self.statuses.pop(0) if self.statuses else 206 if begin else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - begin))
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if status < 400:
                self.wfile.write(content[begin : len(content) // 2 if self.cut and content == CONTENTS[LARGE] else None])

        def log_message(self, *dummy):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{found.server_port}"
    yield Handler
    found.shutdown()
    found.server_close()


def begin(server, directory, token=""):
    manifest = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in CONTENTS.items()}
    urls = {name: f"{server.url}/{name.replace(' ', '%20')}" for name in CONTENTS}
    run = subprocess.Popen([sys.executable, PROGRAM], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdin.write(json.dumps({"directory": str(directory), "manifest": manifest, "urls": urls, "files": list(CONTENTS), "token": token}))
    run.stdin.close()
    return run


def fetch(*given):
    run = begin(*given)
    message = run.stderr.read()
    return run.wait(timeout=120), message


def whole(directory):
    return all((directory / name).read_bytes() == content for name, content in CONTENTS.items())


def test_what_is_missing_comes_with_the_token(server, tmp_path):
    assert fetch(server, tmp_path / "c0", "secret") == (0, "")
    assert whole(tmp_path / "c0")
    assert {authorization for dummy, dummy, authorization in server.asked} == {"Bearer secret"}


def test_a_download_that_is_cut_half_way_goes_on_from_there(server, tmp_path):
    server.cut = True
    status, message = fetch(server, tmp_path)
    assert status != 0 and message.endswith(": run again, it resumes where it stopped.\n")
    server.cut, server.asked[:] = False, []
    assert fetch(server, tmp_path) == (0, "")
    assert whole(tmp_path)
    assert ("/weights/model%201.safetensors", len(CONTENTS[LARGE]) // 2, None) in server.asked


def test_a_file_that_is_wrong_is_fetched_anew_and_it_alone(server, tmp_path):
    fetch(server, tmp_path)
    (tmp_path / LARGE).write_bytes(b"x" * len(CONTENTS[LARGE]))
    server.asked.clear()
    assert fetch(server, tmp_path) == (0, "")
    assert whole(tmp_path)
    assert server.asked == [("/weights/model%201.safetensors", 0, None)]


def test_a_server_that_throttles_is_asked_again(server, tmp_path):
    server.statuses[:] = [429]
    assert fetch(server, tmp_path)[0] == 0
    assert whole(tmp_path)


def test_what_is_not_there_is_said(server, tmp_path):
    server.statuses[:] = [404]
    status, message = fetch(server, tmp_path)
    assert status != 0
    assert "The requested URL returned error: 404" in message


def test_two_at_once_fetch_once(server, tmp_path):
    runs = [begin(server, tmp_path) for dummy in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert whole(tmp_path)
    assert len(server.asked) == len(CONTENTS)
