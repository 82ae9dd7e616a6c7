# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engine says over HTTP."""

from __future__ import annotations

import http.client
import json
import ssl
from urllib.parse import urlsplit

from . import vllm_metrics

MOST_BYTES = 8 << 20
TOKENS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:prompt_tokens", "vllm:generation_tokens")


class Unanswered(Exception):
    """No HTTP answer in time; the text says why."""


class Engine:
    """A server at an address. key: its API key."""

    def __init__(self, url, key=None):
        self._url = urlsplit(url)
        self._headers = {"Authorization": "Bearer " + key} if key else {}

    def healthy(self, timeout):
        """Whether /health answers 200 within so many seconds."""
        try:
            return self._ask("GET", "/health", timeout)[0] == 200
        except Unanswered:
            return False

    def metrics(self, timeout):
        """The text of /metrics. Raises Unanswered."""
        status, body = self._ask("GET", "/metrics", timeout)
        if status != 200:
            raise Unanswered("/metrics answered %d" % status)
        return body

    def complete(self, model, timeout):
        """Status of a completion of one token. Raises Unanswered."""
        request = json.dumps({"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0})
        return self._ask("POST", "/v1/completions", timeout, request)[0]

    def _ask(self, method, path, timeout, body=None):
        headers = dict(self._headers, **({"Content-Type": "application/json"} if body else {}))
        try:
            connection = self._connect(timeout)
            try:
                connection.request(method, self._url.path.rstrip("/") + path, body=body, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read(MOST_BYTES).decode("utf-8", "replace")
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unanswered(str(error) or type(error).__name__) from None

    def _connect(self, timeout):
        if self._url.scheme == "https":
            # The engine on this very host: its certificate is of the name that its clients use.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return http.client.HTTPSConnection(self._url.hostname, self._url.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=timeout)


def counts(metrics):
    """(requests in the engine, tokens read and written so far), or None where the engine does not tell: --disable-log-stats, or before the first
    request and the first ten seconds.
    """
    found = vllm_metrics.read(metrics)
    if vllm_metrics.REQUESTS[0] not in found:
        return None
    return sum(found.get(name, 0.0) for name in vllm_metrics.REQUESTS), sum(found.get(name, 0.0) for name in TOKENS)


def api_key(path):
    """VLLM_API_KEY of an environment file, None where it has none. The key goes over HTTP only: never into an argument list."""
    return environment(path).get("VLLM_API_KEY")


def environment(path):
    """The variables of an environment file; {} where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith(("#", ";")))
    return {name.strip(): _unquoted(value.strip()) for name, dummy, value in pairs}


def _unquoted(value):
    """systemd takes quotes off, Docker does not: a quoted value is written for systemd."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
