#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_ready
short_description: Wait until an OpenAI-compatible endpoint really answers
version_added: "0.1.0"
description:
  - Waits until C(/health) answers 200, then checks that C(/v1/models) lists the model, and then has one chat completion made. Only a completion
    with text in it counts, because C(/health) can answer 200 while the engine is stuck.
  - Stops waiting as soon as the engine's systemd unit has failed or keeps restarting, and returns the unit's last log lines with every failure.
  - Changes nothing. In check mode, where the engine may not have been started, it does not wait and is skipped.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  url:
    description: Address of the server, without C(/v1). Proxies from the environment are not used.
    type: str
    required: true
  served_model_name:
    description: Name of the model at the endpoint.
    type: str
    required: true
  messages:
    description: The conversation to complete.
    type: list
    elements: dict
    default:
      - role: user
        content: Say hello in one short sentence.
  max_tokens:
    description: Longest answer, in tokens.
    type: int
    default: 16
  temperature:
    description: Sampling temperature.
    type: float
    default: 0.0
  stream:
    description: Also have a second completion streamed, to its end.
    type: bool
    default: false
  timeout:
    description: Seconds the server may take, from now, until C(/health) answers 200. Large models need minutes to load.
    type: int
    default: 600
  delay:
    description: Seconds between two looks.
    type: int
    default: 2
  request_timeout:
    description: Seconds a completion may take.
    type: int
    default: 120
  api_key:
    description: The server's API key.
    type: str
  unit:
    description:
      - The engine's systemd unit on this host, for example C(vllm-coder.service).
      - Without it a dead engine is waited for until O(timeout), and no log lines are returned.
    type: str
  max_restarts:
    description: How often the unit may restart while it is waited for.
    type: int
    default: 2
  log_lines:
    description: How many lines of the unit's log a failure returns.
    type: int
    default: 40
attributes:
  check_mode:
    description: Can run in check mode. It is skipped then.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  platform:
    description: The systems it runs on.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Wait for the engine and have it prove itself
  gpuhosts.inference.vllm_ready:
    url: http://127.0.0.1:8888
    served_model_name: coder
    unit: vllm-coder.service
    timeout: 1800
    stream: true
    api_key: "{{ vllm_api_key }}"
  register: ready

- name: Show the answer
  ansible.builtin.debug:
    msg: "vLLM {{ ready.version }} answered: {{ ready.answer }}"
"""

RETURN = r"""
answer:
  description: Text of the completion. For a model that spent all its tokens on thinking, the thoughts.
  returned: success
  type: str
  sample: Hello, how can I help you?
finish_reason:
  description: Why the completion ended.
  returned: success
  type: str
  sample: stop
usage:
  description: Tokens of the prompt and the completion.
  returned: success
  type: dict
  sample: {prompt_tokens: 16, completion_tokens: 9, total_tokens: 25}
version:
  description: The engine's version by C(/version). Null for a server without it.
  returned: success
  type: str
  sample: 0.8.5
models:
  description: Names that C(/v1/models) lists.
  returned: success
  type: list
  elements: str
waited_seconds:
  description: Seconds until C(/health) answered 200.
  returned: always, except in check mode
  type: float
completion_seconds:
  description: Seconds the completion took.
  returned: success
  type: float
streamed_chunks:
  description: Pieces of text the streamed completion came in.
  returned: success and O(stream=true)
  type: int
streamed_answer:
  description: Text of the streamed completion.
  returned: success and O(stream=true)
  type: str
reason:
  description:
    - What failed. V(unit_failed), the unit; V(unreachable), nothing answers at the address; V(unhealthy), what answers is not ready;
      V(model_missing), another model is served; V(completion_failed) and V(stream_failed), the completion.
  returned: failure
  type: str
  sample: unit_failed
log:
  description: Last lines of the unit's log.
  returned: failure and O(unit) is given
  type: list
  elements: str
"""

import http.client
import json
import time
from urllib.error import HTTPError, URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import open_url

# A healthy server answers /health at once; one that is loading refuses the connection.
PROBE_SECONDS = 10


class Failure(Exception):
    """The endpoint does not serve: one of the documented reasons, and a sentence."""

    def __init__(self, reason, sentence):
        super().__init__(sentence)
        self.reason = reason


class Unreachable(Exception):
    """No HTTP answer; the text says why."""


class Endpoint:
    """An OpenAI-compatible server."""

    def __init__(self, url, api_key=None):
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = "Bearer " + api_key

    def open(self, path, timeout, payload=None):
        """An open answer (status, file object). Raises Unreachable; time-out in seconds, for each wait on the socket."""
        data = None if payload is None else json.dumps(payload).encode("utf-8")
        try:
            answer = open_url(
                self.url + path,
                data=data,
                method="GET" if data is None else "POST",
                headers=self._headers,
                timeout=timeout,
                use_proxy=False,
                use_netrc=False,
                follow_redirects="none",
                http_agent="gpuhosts.inference",
            )
        except HTTPError as error:
            return error.code, error
        except URLError as error:
            raise Unreachable(str(error.reason))
        except (OSError, ValueError, http.client.HTTPException, UrlConnectionError) as error:
            raise Unreachable(str(error) or type(error).__name__)
        return answer.getcode(), answer

    def call(self, path, timeout, payload=None):
        """A whole answer (status, body as parsed JSON or as text). Raises Unreachable."""
        status, answer = self.open(path, timeout, payload)
        try:
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__)
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body


class Unit:
    """A systemd unit that is watched; without a name it is always well and has no log."""

    PROPERTIES = ("LoadState", "ActiveState", "Result", "NRestarts", "Job")

    def __init__(self, module, name, max_restarts):
        self._module = module
        self._name = name
        self._max_restarts = max_restarts
        self._restarts_before = self._restarts(self._show()) if name else 0

    def check(self):
        """Raises Failure when the engine will not come up any more."""
        if not self._name:
            return
        state = self._show()
        active = state.get("ActiveState")
        restarts = self._restarts(state)
        # The counter starts again at 0 when somebody starts the unit by hand.
        restarts = restarts - self._restarts_before if restarts >= self._restarts_before else restarts
        if state.get("LoadState") == "not-found":
            self._fail("is not known to systemd on this host: check the name, or deploy the instance")
        if active == "failed":
            self._fail("has failed (result {}): correct what its log names and start it again".format(state.get("Result")))
        if active == "inactive" and not state.get("Job"):
            self._fail("is not running and not about to be started: start it")
        if restarts > self._max_restarts:
            self._fail(f"has restarted {restarts} times while it was waited for: correct what its log names")

    def log(self, lines):
        """The last lines of its journal."""
        journalctl = self._module.get_bin_path("journalctl") if self._name else None
        if journalctl is None:
            return []
        output = self._module.run_command([journalctl, "-u", self._name, "-n", str(lines), "--no-pager", "-o", "cat"])[1]
        return output.splitlines()

    def _show(self):
        systemctl = self._module.get_bin_path("systemctl")
        if systemctl is None:
            return {}
        output = self._module.run_command([systemctl, "show", self._name, "--property=" + ",".join(self.PROPERTIES)])[1]
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    @staticmethod
    def _restarts(state):
        count = state.get("NRestarts", "")
        return int(count) if count.isdigit() else 0

    def _fail(self, what):
        raise Failure("unit_failed", f"The unit {self._name} {what}.")


def wait_until_healthy(endpoint, unit, timeout, delay):
    """Returns when /health answers 200. Raises Failure at the time-out (seconds), or earlier when the unit is past hope."""
    deadline = time.monotonic() + timeout
    while True:
        unit.check()
        try:
            status, unused = endpoint.call("/health", min(PROBE_SECONDS, max(1, timeout)))
            reason, state = "unhealthy", f"answers /health with status {status}"
            if status == 200:
                return
        except Unreachable as error:
            reason, state = "unreachable", f"cannot be reached ({error})"
        if time.monotonic() + delay >= deadline:
            raise Failure(
                reason,
                f"The engine at {endpoint.url} still {state} after {timeout} s: read its log, or give a large model more time (timeout).",
            )
        time.sleep(delay)


def list_models(endpoint, wanted, timeout):
    """Names of the served models. Raises Failure when the wanted one is not among them."""
    status, body = ask(endpoint, "/v1/models", timeout, "unhealthy")
    if status in (401, 403):
        raise Failure("unhealthy", f"The engine at {endpoint.url} refuses the API key ({status}): set api_key to the key it was started with.")
    try:
        names = [entry["id"] for entry in body["data"]]
    except (TypeError, KeyError):
        raise Failure("unhealthy", f"{endpoint.url}/v1/models answers {status} without a list of models: {error_text(body)}.")
    if wanted not in names:
        raise Failure(
            "model_missing",
            "{} serves {}, not {}: check served_model_name and the port.".format(endpoint.url, ", ".join(names) or "no model", wanted),
        )
    return names


def ask(endpoint, path, timeout, reason, payload=None):
    """Like Endpoint.call, with a Failure of the given reason where there is no answer."""
    try:
        return endpoint.call(path, timeout, payload)
    except Unreachable as error:
        raise Failure(reason, f"{endpoint.url}{path} gave no answer ({error}; limit {timeout} s): read the engine's log.")


def error_text(body):
    """The server's own words out of an error answer, whichever of the usual shapes it has, shortened."""
    if isinstance(body, dict):
        error = body.get("error", body)
        body = error.get("message", error) if isinstance(error, dict) else error
    text = body if isinstance(body, str) else json.dumps(body)
    return " ".join(text.split())[:500] or "an empty answer"


def text_of(message):
    """The text of a message or of a streamed piece: its content, or the thoughts of a model that has not got further."""
    return message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""


def complete(endpoint, request, timeout):
    """One chat completion; returns C(answer), C(finish_reason) and C(usage). Raises Failure for anything but text."""
    path = "/v1/chat/completions"
    status, body = ask(endpoint, path, timeout, "completion_failed", request)
    if status != 200:
        raise Failure("completion_failed", f"{endpoint.url}{path} answers {status}: {error_text(body)}.")
    try:
        choice = body["choices"][0]
        answer = text_of(choice["message"])
        found = {"answer": answer, "finish_reason": choice.get("finish_reason"), "usage": body.get("usage")}
    except (TypeError, KeyError, IndexError, AttributeError):
        raise Failure("completion_failed", f"{endpoint.url}{path} answers 200 without a completion: {error_text(body)}.")
    if not answer.strip():
        raise Failure("completion_failed", f"{endpoint.url}{path} answers 200 with an empty text: check the model's chat template and max_tokens.")
    return found


def stream(endpoint, request, timeout):
    """One streamed chat completion; returns (pieces of text, text). Raises Failure unless there is text and the stream ends in [DONE]."""
    where = endpoint.url + "/v1/chat/completions"
    deadline = time.monotonic() + timeout
    pieces = []
    try:
        status, answer = endpoint.open("/v1/chat/completions", timeout, dict(request, stream=True))
        if status != 200:
            raise Failure("stream_failed", "{} answers {} to a streamed request: {}.".format(where, status, answer.read(500).decode("utf-8", "replace")))
        for line in answer:
            if time.monotonic() > deadline:
                raise Failure("stream_failed", f"The stream from {where} has not ended after {timeout} s: read the engine's log.")
            event = line.decode("utf-8", "replace").strip()
            if event == "data: [DONE]":
                break
            if event.startswith("data:"):
                pieces.append(streamed_text(where, event[5:]))
        else:
            raise Failure("stream_failed", f"The stream from {where} broke off before [DONE]: read the engine's log.")
    except (Unreachable, OSError, http.client.HTTPException) as error:
        raise Failure("stream_failed", f"The stream from {where} broke off ({str(error) or type(error).__name__}): read the engine's log.")
    pieces = [piece for piece in pieces if piece]
    if not "".join(pieces).strip():
        raise Failure("stream_failed", f"The stream from {where} ended without any text: check the model's chat template and max_tokens.")
    return len(pieces), "".join(pieces)


def streamed_text(where, data):
    """The text in one event of a stream, often empty (the first names the role, the last the finish reason)."""
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise Failure("stream_failed", f"The stream from {where} reports an error: {error_text(chunk)}.")
        return "".join(text_of(choice.get("delta") or {}) for choice in chunk["choices"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Failure("stream_failed", f"The stream from {where} has an event that is no completion: {data.strip()[:200]}.")


def engine_version(endpoint, timeout):
    """The engine's version, None where the server has no /version."""
    try:
        status, body = endpoint.call("/version", timeout)
    except Unreachable:
        return None
    return body.get("version") if status == 200 and isinstance(body, dict) else None


def prove(params, endpoint, unit, result):
    """Fill the result step by step; raises Failure at the first step that fails."""
    began = time.monotonic()
    try:
        wait_until_healthy(endpoint, unit, params["timeout"], params["delay"])
    finally:
        result["waited_seconds"] = round(time.monotonic() - began, 3)
    result["models"] = list_models(endpoint, params["served_model_name"], params["request_timeout"])
    result["version"] = engine_version(endpoint, params["request_timeout"])
    request = {
        "model": params["served_model_name"],
        "messages": params["messages"],
        "max_tokens": params["max_tokens"],
        "temperature": params["temperature"],
    }
    began = time.monotonic()
    result.update(complete(endpoint, request, params["request_timeout"]))
    result["completion_seconds"] = round(time.monotonic() - began, 3)
    if params["stream"]:
        result["streamed_chunks"], result["streamed_answer"] = stream(endpoint, request, params["request_timeout"])


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "served_model_name": {"type": "str", "required": True},
            "messages": {"type": "list", "elements": "dict", "default": [{"role": "user", "content": "Say hello in one short sentence."}]},
            "max_tokens": {"type": "int", "default": 16, "no_log": False},
            "temperature": {"type": "float", "default": 0.0},
            "stream": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 600},
            "delay": {"type": "int", "default": 2},
            "request_timeout": {"type": "int", "default": 120},
            "api_key": {"type": "str", "no_log": True},
            "unit": {"type": "str"},
            "max_restarts": {"type": "int", "default": 2},
            "log_lines": {"type": "int", "default": 40},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="Check mode: {} is not waited for.".format(params["url"]))
    endpoint = Endpoint(params["url"], params["api_key"])
    unit = Unit(module, params["unit"], params["max_restarts"])
    result = {"changed": False}
    try:
        prove(params, endpoint, unit, result)
    except Failure as failure:
        if params["unit"]:
            result["log"] = unit.log(params["log_lines"])
        module.fail_json(msg=str(failure), reason=failure.reason, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
