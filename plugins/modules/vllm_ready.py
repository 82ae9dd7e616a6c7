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
    with plausible text in it counts, because C(/health) can answer 200 while the engine is stuck.
  - Stops waiting as soon as the engine's systemd unit, or its container, has ended or keeps restarting. A failure is told by its cause in the
    engine's log and the remedy, where the log names one, and comes with the last log lines. API keys and tokens in them are masked.
  - Compares the KV cache that the engine made with the planned one where O(expected_kv_tokens) says what was planned.
  - Changes nothing. In check mode, where the engine may not have been started, it does not wait and is skipped.
  - An action plugin of the same name runs this module in slices of O(patience) seconds and shows on the operator's screen, between two of them, how
    far the engine has come. It needs no configuration, and one execution of the module where the engine answers at once.
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
      - Without it and without O(container) a dead engine is waited for until O(timeout), and its log is not read.
    type: str
  container:
    description: The engine's container on this host where Docker starts it again and no unit does. Its log is read with C(docker logs).
    type: str
  max_restarts:
    description: How often the unit or container may restart while it is waited for.
    type: int
    default: 2
  log_lines:
    description: How many lines of the engine's log a failure returns.
    type: int
    default: 40
  expected_kv_tokens:
    description:
      - Tokens that the KV cache holds by the plan.
      - The real size is what the engine logged when it started, or, where its log does not say any more, what C(/metrics) tells.
    type: int
  kv_tolerance:
    description:
      - Share of O(expected_kv_tokens) that may be missing. A greater shortfall is a warning, and a failure where the cache does not hold one sequence
        of the longest context (C(max_model_len) at C(/v1/models)).
    type: float
    default: 0.1
  patience:
    description:
      - Seconds after which the module returns with RV(ready=false) and RV(progress) while the engine is still starting, so that its caller can tell
        somebody and call it again with O(resume).
      - The action plugin uses V(15) where nothing is said. Without the action plugin, and with V(0), the module waits to the end.
    type: int
  resume:
    description: What the call that was not ready returned as RV(resume). O(timeout) and O(max_restarts) count from the first call then.
    type: dict
attributes:
  action:
    description: Has a corresponding action plugin, so that some parts of the options can be executed on the controller.
    support: full
  async:
    description: Can be run in the background with C(async). There is no sign of life on the screen then.
    support: full
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
notes:
  - An answer is implausible when it has four characters or more besides white space and shows no sign of a model. That is one character over and over,
    other than a letter or a digit, such as V(!!!!), which is the first token of the vocabulary and what is left when half-precision numbers overflow;
    or replacement and control characters only. A noisy answer, a wrong one, and a short one are plausible.
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
    expected_kv_tokens: "{{ plan.kv.tokens }}"
  register: ready

- name: The same for an engine that Docker starts again by itself
  gpuhosts.inference.vllm_ready:
    url: http://127.0.0.1:8888
    served_model_name: coder
    container: vllm-coder

- name: Show the answer
  ansible.builtin.debug:
    msg: "vLLM {{ ready.version }} answered: {{ ready.answer }}"
"""

RETURN = r"""
ready:
  description: Whether the engine has proved itself. False only with O(patience), while it is still starting.
  returned: success
  type: bool
progress:
  description:
    - How far the start is by the engine's log. C(phase) is one of V(starting), V(loading weights), V(profiling), V(kv cache), V(capturing graphs) and
      V(serving); C(detail) says more (V(shards 3/8)) and may be empty; C(share) is how much of the phase is done, or null.
  returned: RV(ready=false), and failure while O(unit) or O(container) is waited for
  type: dict
  sample: {phase: loading weights, detail: shards 3/8, share: 0.375}
resume:
  description: What the next call needs as O(resume).
  returned: RV(ready=false)
  type: dict
kv_tokens:
  description: Tokens that the engine's KV cache holds, null where neither its log nor C(/metrics) says.
  returned: success
  type: int
  sample: 249184
memory_lines:
  description: Lines of the engine's log that tell its memory, for a ledger of starts. Empty where the log is gone.
  returned: success
  type: list
  elements: str
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
  description: Seconds until C(/health) answered 200, from the first call on.
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
    - What failed. V(unit_failed) and V(container_failed), the process; V(unreachable), nothing answers at the address; V(unhealthy), what answers is
      not ready; V(model_missing), another model is served; V(kv_size), the KV cache is too small for one sequence; V(completion_failed) and
      V(stream_failed), the completion; V(implausible_answer), its text.
  returned: failure
  type: str
  sample: unit_failed
causes:
  description:
    - Why the engine fails by its log, the most specific first, each with C(code), C(message), C(remedy) and the C(line) that shows it.
    - The failure's C(msg) has the first one's message and remedy. Empty where the log names none.
  returned: failure and O(unit) or O(container) is given
  type: list
  elements: dict
  sample:
    - code: kv_cache_too_small
      message: one sequence of max_model_len 32768 does not fit into the KV cache of 10272 tokens
      remedy: Set options.max_model_len to 10272 or less, or raise options.gpu_memory_utilization.
      line: "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (10272)."
log:
  description: Last lines of the engine's log.
  returned: failure and O(unit) or O(container) is given
  type: list
  elements: str
"""

import http.client
import json
import re
import time
import unicodedata
from urllib.error import HTTPError, URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import open_url

from ansible_collections.gpuhosts.inference.plugins.module_utils import engine_process, vllm_log

# A healthy server answers /health at once; one that is loading refuses the connection.
PROBE_SECONDS = 10
# Lines of a log that are read to find a cause, and to see how far a start is.
CAUSE_LINES = 2000
PROGRESS_LINES = 1000
# Failures of an engine that serves: what they say is better than anything in its log.
OWN_WORDS = ("model_missing", "kv_size", "implausible_answer")
# An answer is judged from this many characters on.
LEAST_CHARACTERS = 4


class Failure(Exception):
    """The endpoint does not serve: one of the documented reasons, what is wrong, and what to do where the log does not know better."""

    def __init__(self, reason, what, remedy):
        super().__init__(f"{what}: {remedy}.")
        self.reason = reason
        self.what = what


class Unreachable(Exception):
    """No HTTP answer; the text says why."""


class Patience(Exception):
    """The slice is over and the engine still starts."""


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


# Less than a slice of the action plugin, more than the watchdog takes between two looks.
GONE_SECONDS = 12


class Watch:
    """The engine's unit or container while it is waited for; without either it is always well and has no log."""

    def __init__(self, params, restarts_before=None):
        self._process = None
        if params["unit"]:
            self._process = engine_process.Unit(params["unit"])
        elif params["container"]:
            self._process = engine_process.Container(params["container"])
        self._max_restarts = params["max_restarts"]
        self._gone_since = None
        self._state = self._process.look() if self._process else {}
        self.restarts_before = restarts_before
        if restarts_before is None:
            self.restarts_before = self._process.restarts(self._state) if self._process else 0

    def check(self):
        """Raises Failure when the engine will not come up any more."""
        if not self._process:
            return
        self._state = self._process.look()
        trouble = self._process.trouble(self._state)
        if trouble and self._process.returns(self._state):
            # The watchdog removes a container to create it anew on the next step of its ladder.
            self._gone_since = self._gone_since or time.monotonic()
            if time.monotonic() - self._gone_since < GONE_SECONDS:
                return
        else:
            self._gone_since = None
        restarts = self._process.restarts(self._state)
        # The counter starts again at 0 when somebody starts it by hand.
        restarts = restarts - self.restarts_before if restarts >= self.restarts_before else restarts
        if not trouble and restarts > self._max_restarts:
            trouble = (f"has restarted {restarts} times while it was waited for", "correct what its log names")
        if trouble:
            raise Failure(f"{self._process.kind}_failed", f"The {self._process.kind} {self._process.name} {trouble[0]}", trouble[1])

    def progress(self):
        """How far the start is, None without a log."""
        return vllm_log.progress(self._process.tail(self._state, PROGRESS_LINES)) if self._process else None

    def start(self):
        """The first lines that the engine logged in this start."""
        return self._process.head(self._state) if self._process else ""

    def diagnosis(self, lines):
        """causes and log for the result of a failure."""
        if not self._process:
            return {}
        self._state = self._process.look()
        status = self._process.exit_status(self._state)
        text = self._process.tail(self._state, max(CAUSE_LINES, lines))
        causes = vllm_log.causes(text, status)
        if not causes or not text:
            # A start that has only just begun, after others that failed.
            text = self._process.history(self._state, max(CAUSE_LINES, lines)) or text
            causes = vllm_log.causes(text, status)
        return {"causes": causes, "log": vllm_log.masked(text).splitlines()[-lines:] if lines > 0 else []}


def wait_until_healthy(endpoint, watch, params, waited):
    """Returns when /health answers 200. Raises Failure at the time-out, or earlier when the engine is past hope, and Patience at the end of a slice.

    waited: seconds that earlier slices took.
    """
    began = time.monotonic()
    deadline = began - waited + params["timeout"]
    pause = began + params["patience"] if params["patience"] else None
    while True:
        watch.check()
        try:
            status, unused = endpoint.call("/health", min(PROBE_SECONDS, max(1, params["timeout"])))
            reason, state = "unhealthy", f"answers /health with status {status}"
            if status == 200:
                return
        except Unreachable as error:
            reason, state = "unreachable", f"cannot be reached ({error})"
        if time.monotonic() + params["delay"] >= deadline:
            raise Failure(
                reason,
                "The engine at {} still {} after {} s".format(endpoint.url, state, params["timeout"]),
                "read its log, or give a large model more time (timeout)",
            )
        if pause is not None and time.monotonic() + params["delay"] >= pause:
            raise Patience
        time.sleep(params["delay"])


def list_models(endpoint, wanted, timeout):
    """(names of the served models, the wanted one's longest context or None). Raises Failure when the wanted one is not among them."""
    status, body = ask(endpoint, "/v1/models", timeout, "unhealthy")
    if status in (401, 403):
        raise Failure("unhealthy", f"The engine at {endpoint.url} refuses the API key ({status})", "set api_key to the key it was started with")
    try:
        contexts = {entry["id"]: entry.get("max_model_len") for entry in body["data"]}
    except (TypeError, KeyError, AttributeError):
        raise Failure("unhealthy", f"{endpoint.url}/v1/models answers {status} without a list of models", error_text(body))
    if wanted not in contexts:
        raise Failure(
            "model_missing",
            "{} serves {}, not {}".format(endpoint.url, ", ".join(contexts) or "no model", wanted),
            "check served_model_name and the port",
        )
    return list(contexts), contexts[wanted]


def ask(endpoint, path, timeout, reason, payload=None):
    """Like Endpoint.call, with a Failure of the given reason where there is no answer."""
    try:
        return endpoint.call(path, timeout, payload)
    except Unreachable as error:
        raise Failure(reason, f"{endpoint.url}{path} gave no answer ({error}; limit {timeout} s)", "read the engine's log")


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
        raise Failure("completion_failed", f"{endpoint.url}{path} answers {status}", error_text(body).rstrip("."))
    try:
        choice = body["choices"][0]
        answer = text_of(choice["message"])
        found = {"answer": answer, "finish_reason": choice.get("finish_reason"), "usage": body.get("usage")}
    except (TypeError, KeyError, IndexError, AttributeError):
        raise Failure("completion_failed", f"{endpoint.url}{path} answers 200 without a completion", error_text(body))
    if not answer.strip():
        raise Failure("completion_failed", f"{endpoint.url}{path} answers 200 with an empty text", "check the model's chat template and max_tokens")
    check_plausible(endpoint.url + path, answer)
    return found


def check_plausible(where, answer):
    """Raises Failure for a text that no working model writes; the notes of the documentation say which."""
    text = "".join(answer.split())
    if len(text) < LEAST_CHARACTERS:
        return
    unreadable = all(character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") for character in text)
    if unreadable or (len(set(text)) == 1 and not text[0].isalnum()):
        raise Failure(
            "implausible_answer",
            f"{where} answers with {len(text)} characters that no model means ({ascii(text[:16])})",
            "half-precision numbers overflow in this model, or its weights are broken. Set options.dtype to float32 if twice the memory is there, use a "
            "checkpoint in another quantisation (AWQ and GPTQ differ in this), or another engine_version",
        )


def stream(endpoint, request, timeout):
    """One streamed chat completion; returns (pieces of text, text). Raises Failure unless there is text and the stream ends in [DONE]."""
    where = endpoint.url + "/v1/chat/completions"
    deadline = time.monotonic() + timeout
    pieces = []
    try:
        status, answer = endpoint.open("/v1/chat/completions", timeout, dict(request, stream=True))
        if status != 200:
            raise Failure("stream_failed", f"{where} answers {status} to a streamed request", answer.read(500).decode("utf-8", "replace"))
        for line in answer:
            if time.monotonic() > deadline:
                raise Failure("stream_failed", f"The stream from {where} has not ended after {timeout} s", "read the engine's log")
            event = line.decode("utf-8", "replace").strip()
            if event == "data: [DONE]":
                break
            if event.startswith("data:"):
                pieces.append(streamed_text(where, event[5:]))
        else:
            raise Failure("stream_failed", f"The stream from {where} broke off before [DONE]", "read the engine's log")
    except (Unreachable, OSError, http.client.HTTPException) as error:
        raise Failure("stream_failed", f"The stream from {where} broke off ({str(error) or type(error).__name__})", "read the engine's log")
    pieces = [piece for piece in pieces if piece]
    text = "".join(pieces)
    if not text.strip():
        raise Failure("stream_failed", f"The stream from {where} ended without any text", "check the model's chat template and max_tokens")
    check_plausible(where, text)
    return len(pieces), text


def streamed_text(where, data):
    """The text in one event of a stream, often empty (the first names the role, the last the finish reason)."""
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise Failure("stream_failed", f"The stream from {where} reports an error", error_text(chunk))
        return "".join(text_of(choice.get("delta") or {}) for choice in chunk["choices"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Failure("stream_failed", f"The stream from {where} has an event that is no completion", data.strip()[:200])


def engine_version(endpoint, timeout):
    """The engine's version, None where the server has no /version."""
    try:
        status, body = endpoint.call("/version", timeout)
    except Unreachable:
        return None
    return body.get("version") if status == 200 and isinstance(body, dict) else None


def measured_kv_tokens(endpoint, log, timeout):
    """Tokens in the KV cache: by the engine's log, otherwise by its metrics, None where neither says."""
    tokens = vllm_log.kv_tokens(log)
    if tokens is not None:
        return tokens
    try:
        status, body = endpoint.call("/metrics", timeout)
    except Unreachable:
        return None
    found = re.search(r"(?m)^vllm:cache_config_info\{(.*)\}", body) if status == 200 and isinstance(body, str) else None
    labels = dict(re.findall(r'(\w+)="(\d+)"', found.group(1))) if found else {}
    if not {"block_size", "num_gpu_blocks"} <= set(labels):
        return None
    return int(labels["block_size"]) * int(labels["num_gpu_blocks"])


def check_kv(params, tokens, context):
    """A warning, or None, about a KV cache that is smaller than planned. Raises Failure where it does not hold one sequence of the context."""
    expected = params["expected_kv_tokens"]
    if not expected or tokens is None or tokens >= expected * (1 - params["kv_tolerance"]):
        return None
    what = "The KV cache of {} holds {} tokens, {:.0%} less than the plan's {}".format(params["served_model_name"], tokens, 1 - tokens / expected, expected)
    remedy = "look for another process on its cards, and let playbooks/ledger.yml correct the next plan by this start"
    if context and tokens < context:
        raise Failure("kv_size", f"{what} and less than one sequence of {context}", f"lower options.max_model_len, or {remedy}")
    return f"{what}: {remedy}."


def prove(params, endpoint, watch, result, warn):
    """Fill the result step by step; raises Failure at the first step that fails, and Patience."""
    began = time.monotonic()
    waited = float((params["resume"] or {}).get("waited_seconds") or 0)
    try:
        wait_until_healthy(endpoint, watch, params, waited)
    finally:
        result["waited_seconds"] = round(waited + time.monotonic() - began, 3)
    result["models"], context = list_models(endpoint, params["served_model_name"], params["request_timeout"])
    result["version"] = engine_version(endpoint, params["request_timeout"])
    log = watch.start()
    result["memory_lines"] = vllm_log.memory_lines(log)
    result["kv_tokens"] = measured_kv_tokens(endpoint, log, params["request_timeout"])
    warning = check_kv(params, result["kv_tokens"], context)
    if warning:
        warn(warning)
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
    result["ready"] = True


def explained(failure, causes, progress):
    """The sentence for the operator: what is wrong, then the log's reason, or how far the start is."""
    if causes and failure.reason not in OWN_WORDS:
        return "{}: {}. {}".format(failure.what, causes[0]["message"].rstrip("."), causes[0]["remedy"])
    if progress and failure.reason == "unreachable":
        if progress["phase"] == vllm_log.PHASES[-1]:
            return f"{failure.what}, and its log says that it serves: check the port and the address in url, and the address it listens on."
        so_far = vllm_log.told(progress)
        return f"{failure.what}, its log shows no error, and it is still at: {so_far}. Give it more time (timeout), or see what it waits for."
    return str(failure)


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
            "container": {"type": "str"},
            "max_restarts": {"type": "int", "default": 2},
            "log_lines": {"type": "int", "default": 40},
            "expected_kv_tokens": {"type": "int", "no_log": False},
            "kv_tolerance": {"type": "float", "default": 0.1},
            "patience": {"type": "int"},
            "resume": {"type": "dict"},
        },
        mutually_exclusive=[("unit", "container")],
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="Check mode: {} is not waited for.".format(params["url"]))
    endpoint = Endpoint(params["url"], params["api_key"])
    watch = Watch(params, (params["resume"] or {}).get("restarts_before"))
    result = {"changed": False}
    try:
        prove(params, endpoint, watch, result, module.warn)
    except Patience:
        resume = {"waited_seconds": result["waited_seconds"], "restarts_before": watch.restarts_before}
        module.exit_json(ready=False, progress=watch.progress(), resume=resume, **result)
    except Failure as failure:
        found = watch.diagnosis(params["log_lines"])
        progress = watch.progress()
        if progress:
            found["progress"] = progress
        module.fail_json(msg=explained(failure, found.get("causes"), progress), reason=failure.reason, **dict(result, **found))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
