# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A few reads from a Docker Engine over its local socket (Engine API), without its client or its Python package."""

from __future__ import annotations

import http.client
import json
import os
import socket
from urllib.parse import quote


class EngineError(Exception):
    """The engine did not answer as it should; the text says how."""


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def describe(path="/var/run/docker.sock", images=(), timeout=10):
    """What the roles need from an engine: version, storage driver, CDI, runtimes, how many containers run, and the id of each image that is there.

    Returns (description, problem). Without a socket there is no engine and no problem; C(version) is None then, and also when the engine is
    there and does not answer (time-out in seconds, per request).
    """
    silent = {"version": None, "api_version": None, "storage_driver": None, "cdi": False, "runtimes": [], "running_containers": 0}
    silent["images"] = dict.fromkeys(images)
    if not os.path.exists(path):
        return silent, None
    connection = _SocketConnection(path, timeout)
    try:
        version = _get(connection, "/version")
        info = _get(connection, "/info")
        found = {reference: _image_id(connection, reference) for reference in images}
    except PermissionError:
        return silent, f"the Docker Engine's socket {path} may not be opened: run as root (become: true)"
    except ConnectionRefusedError:
        return silent, f"nothing listens on the Docker Engine's socket {path}: the engine is installed but not running"
    except (OSError, http.client.HTTPException, ValueError, EngineError) as error:
        return silent, f"the Docker Engine at {path} gave no usable answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return {
        "version": version.get("Version"),
        "api_version": version.get("ApiVersion"),
        "storage_driver": info.get("Driver"),
        "cdi": bool(info.get("CDISpecDirs")),
        "runtimes": sorted(info.get("Runtimes") or {}),
        "running_containers": info.get("ContainersRunning") or 0,
        "images": found,
    }, None


def info(path="/var/run/docker.sock", timeout=10):
    """What the engine says of itself (GET /info); {} when it does not answer."""
    connection = _SocketConnection(path, timeout)
    try:
        return _get(connection, "/info")
    except (OSError, http.client.HTTPException, ValueError, EngineError):
        return {}
    finally:
        connection.close()


def _request(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _get(connection, path):
    status, body = _request(connection, path)
    if status != 200:
        raise EngineError("GET {} answered {}: {}".format(path, status, body[:200].decode("utf-8", "replace").strip()))
    return json.loads(body)


def _image_id(connection, reference):
    """C(sha256:...) of a local image, None when the engine does not have it, or does not take the words for a reference (400)."""
    path = "/images/{}/json".format(quote(reference, safe="/:@"))
    status, body = _request(connection, path)
    if status == 200:
        return json.loads(body).get("Id")
    if status in (400, 404):
        return None
    raise EngineError(f"GET {path} answered {status}")
