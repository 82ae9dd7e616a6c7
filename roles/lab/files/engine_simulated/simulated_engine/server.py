# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HTTP: routes, the API key, streaming, and the access log. One thread per connection, HTTP/1.1 with keep-alive."""

from __future__ import annotations

import http.server
import json
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus

from . import VERSION, exposition, faults, logs
from .api import Api, ApiError, Job, parse_body
from .engine import Engine, EngineDead

KEEP_ALIVE_SECONDS = 5


class Server(http.server.ThreadingHTTPServer):
    """Bound before the engine is loaded and answering only after, like the real server.

    SO_REUSEPORT is set as there: a second server on the same host port is not refused, it takes part of the traffic.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_port = True
    request_queue_size = 2048

    def __init__(self, address: tuple[str, int], api_key: str | None, access_log: bool) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler, bind_and_activate=False)
        self.api_key, self.access_log = api_key, access_log
        self.api: Api | None = None
        self.server_bind()

    def server_bind(self) -> None:
        """Without http.server's reverse look-up of the host name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def open(self, api: Api) -> None:
        """Start to accept connections; `serve_forever` answers them."""
        self.api = api
        self.server_activate()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = KEEP_ALIVE_SECONDS
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def version_string(self) -> str:
        return "uvicorn"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `_log_access` writes uvicorn's line."""

    @property
    def _engine(self) -> Engine:
        return self.server.api.engine

    def _answer(self, method: str) -> None:
        self._raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        try:
            if not self._authorised(path):
                self._send_json(401, {"error": "Unauthorized"})
            elif path not in ROUTES:
                self._send_json(404, {"detail": "Not Found"})
            elif method not in ROUTES[path]:
                self._send_json(405, {"detail": "Method Not Allowed"})
            else:
                ROUTES[path][method](self)
        except ApiError as error:
            self._send_json(error.status, error.body)
        except EngineDead as error:
            logs.vllm("ERROR", "engine.py:160", repr(error))
            self._send(500, b"", None)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def _authorised(self, path: str) -> bool:
        """The key guards only what starts with /v1 (build_app in api_server.py)."""
        key = self.server.api_key
        return not key or not path.startswith("/v1") or self.headers.get("Authorization") == f"Bearer {key}"

    def _body(self) -> dict:
        if self.headers.get_content_type() != "application/json":
            raise _Detail(415, "Unsupported Media Type: Only 'application/json' is allowed")
        return parse_body(self._raw)

    def _serve(self, start: Callable[[dict], Job]) -> None:
        """Run a completion request."""
        job = start(self._body())
        if "bad_answer" in self._engine.told:
            self._send(500, b"Internal Server Error", "text/plain; charset=utf-8")
        elif job.stream:
            self._send_events(self.server.api.events(job))
        else:
            self._send_json(200, self.server.api.answer(job))

    def chat(self) -> None:
        self._serve(self.server.api.chat)

    def completion(self) -> None:
        self._serve(self.server.api.completion)

    def invocations(self) -> None:
        self._serve(self.server.api.chat if "messages" in self._body() else self.server.api.completion)

    def tokenize(self) -> None:
        self._send_json(200, self.server.api.tokenize(self._body()))

    def detokenize(self) -> None:
        self._send_json(200, self.server.api.detokenize(self._body()))

    def models(self) -> None:
        self._send_json(200, self.server.api.models())

    def health(self) -> None:
        self._send(200, b"", None)

    def version(self) -> None:
        self._send_json(200, {"version": VERSION})

    def load(self) -> None:
        """Always 0: the real one counts only with --enable-server-load-tracking."""
        self._send_json(200, {"server_load": 0})

    def metrics(self) -> None:
        self._send(200, self._engine.report().encode(), exposition.CONTENT_TYPE)

    def show_fault(self) -> None:
        self._send_json(200, {"fault": self._engine.told})

    def set_fault(self) -> None:
        """Replace the faults in force. Those that act at load are refused: nothing would come of them."""
        try:
            told = faults.parse(str(self._body().get("fault", "")), faults.WHILE_SERVING)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        self._engine.tell(told)
        self.show_fault()

    def _send_json(self, status: int, body: dict) -> None:
        self._send(status, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str | None) -> None:
        self._log_access(status)
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_events(self, events: Iterator[dict]) -> None:
        """Server-sent events in chunked encoding. Whatever ends the connection early aborts the request."""
        first = next(events)
        self._log_access(200)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._send_event(json.dumps(first, ensure_ascii=False, separators=(",", ":")))
            for event in events:
                self._send_event(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            self._send_event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except EngineDead:
            self.close_connection = True
        finally:
            events.close()

    def _send_event(self, data: str) -> None:
        payload = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload))

    def _log_access(self, status: int) -> None:
        if self.server.access_log:
            host, port = self.client_address[:2]
            logs.uvicorn(f'{host}:{port} - "{self.requestline}" {status} {HTTPStatus(status).phrase}', access=True)


class _Detail(ApiError):
    """An error in FastAPI's own shape."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.body = {"detail": detail}


ROUTES: dict[str, dict[str, Callable[[Handler], None]]] = {
    "/health": {"GET": Handler.health},
    "/ping": {"GET": Handler.health, "POST": Handler.health},
    "/version": {"GET": Handler.version},
    "/load": {"GET": Handler.load},
    "/metrics": {"GET": Handler.metrics},
    "/tokenize": {"POST": Handler.tokenize},
    "/detokenize": {"POST": Handler.detokenize},
    "/invocations": {"POST": Handler.invocations},
    "/v1/models": {"GET": Handler.models},
    "/v1/chat/completions": {"POST": Handler.chat},
    "/v1/completions": {"POST": Handler.completion},
    "/simulated/fault": {"GET": Handler.show_fault, "POST": Handler.set_fault},
}
