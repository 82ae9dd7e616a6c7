# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tokens, prompts and answers. A token is one byte of UTF-8, so counts are exact and both directions are trivial."""

from __future__ import annotations

import itertools

# The marks of a ChatML prompt are one token each, numbered after the 256 bytes.
SPECIAL = {256: "<|endoftext|>", 257: "<|im_start|>", 258: "<|im_end|>"}
EXCERPT = 60
GARBAGE = "!" * 32


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(tokens: list[int]) -> str:
    """The text of any tokens; a character that is cut is left out. KeyError for an unknown token."""
    parts = (SPECIAL[token].encode() if token > 255 else bytes([token]) for token in tokens)
    return b"".join(parts).decode(errors="ignore")


def chat_prompt(messages: list[dict]) -> list[int]:
    """ChatML: each message between its marks, then the head of the assistant's answer."""
    tokens = []
    for message in messages:
        tokens += [257, *encode(f"{message['role']}\n{content(message)}"), 258, *encode("\n")]
    return [*tokens, 257, *encode("assistant\n")]


def content(message: dict) -> str:
    """A message's text: its content, or the text parts of a list of parts."""
    value = message.get("content") or ""
    if isinstance(value, str):
        return value
    return "".join(part.get("text", "") for part in value if isinstance(part, dict))


def answer(prompt: str) -> str:
    """Always the same for the same prompt, and honest about where it comes from."""
    excerpt = " ".join(prompt.split())
    if len(excerpt) > EXCERPT:
        excerpt = excerpt[:EXCERPT] + "..."
    return f"This answer comes from a simulated engine, no model was run. The prompt reads: {excerpt}"


def complete(text: str, max_tokens: int, *, stop: list[str], ignore_eos: bool) -> tuple[list[int], str, str | None]:
    """Cut or repeat `text` as the request says. Returns tokens, finish_reason (stop, length) and the stop string met."""
    cuts = [(text.index(mark), mark) for mark in stop if mark and mark in text]
    met = min(cuts, default=(0, None))
    if cuts:
        text = text[: met[0]]
    tokens = encode(text)
    if ignore_eos and not cuts:
        return list(itertools.islice(itertools.cycle(tokens), max_tokens)), "length", None
    if len(tokens) > max_tokens:
        return tokens[:max_tokens], "length", None
    return tokens, "stop", met[1]
