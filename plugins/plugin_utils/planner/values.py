# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values of the engine's options: what their types take from YAML, how one is written as a word of a command line, read back, and told."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

# -- How the engine reads one word ---------------------------------------------------------------------------------------------------------


def human_readable_int(word: str) -> int:
    """vLLM's own: "32k" is 32000, "32K" is 32768, "25.6k" is 25600; decimals only with k, m and g. Later engines read t and T as well."""
    word = word.strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kmg])", word):
        return int(float(match[1]) * 1000 ** ("kmg".index(match[2]) + 1))
    if match := re.fullmatch(r"(\d+)([KMG])", word):
        return int(match[1]) * 1024 ** ("KMG".index(match[2]) + 1)
    return int(word)


def human_readable_int_or_auto(word: str) -> int:
    """The same, and "auto" is -1: the longest context that fits."""
    return -1 if word.strip().lower() in ("-1", "auto") else human_readable_int(word)


def dict_or_str(word: str) -> dict | str:
    """A mapping where it is written in braces, otherwise the word itself."""
    return json_object(word) if re.fullmatch(r"(?s)\s*{.*}\s*", word) else word


def json_object(word: str) -> dict:
    value = json.loads(word)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def compilation_config(word: str) -> int | dict:
    """vLLM 0.8.5, CompilationConfig.from_cli: a level, or a mapping written as a Python literal (JSON's true and null do not parse)."""
    value = int(word) if word in ("0", "1", "2", "3") else ast.literal_eval(word)
    if not isinstance(value, dict) and word not in ("0", "1", "2", "3"):
        raise ValueError("neither a level nor a mapping")
    return value


def lora_module(word: str) -> dict:
    """`name=path`, or a JSON object with name, path and perhaps base_model_name."""
    if "=" in word and "," not in word:
        name, path = word.split("=")
        return {"name": name, "path": path}
    value = json_object(word)
    if not {"name", "path"} <= set(value) <= {"name", "path", "base_model_name"}:
        raise ValueError("not name, path and base_model_name")
    return value


def prompt_adapter(word: str) -> dict:
    """`name=path`."""
    name, path = word.split("=")
    return {"name": name, "local_path": path}


# -- What a value must be ------------------------------------------------------------------------------------------------------------------


def is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value) -> bool:
    return is_int(value) or isinstance(value, float) and math.isfinite(value)


def _word(value) -> str:
    """A value as one word of a command line: mappings and lists as compact JSON."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _literal_word(value) -> str:
    """The same for compilation_config, which reads Python literals. Through JSON, so that keys are strings."""
    return repr(json.loads(_word(value))) if isinstance(value, dict) else str(value)


@dataclass(frozen=True)
class Type:
    """A type of the schema. `noun` and `example` are for people, `takes` is what YAML must give, `write` makes its word, `read` reads it."""

    noun: str
    example: str
    takes: Callable[[object], bool]
    read: Callable[[str], object]
    write: Callable[[object], str] = _word


TYPES = {
    "int": Type("an integer", "64", is_int, int),
    "float": Type("a number", "0.9", is_number, float),
    "str": Type("a string", '"text"', lambda value: isinstance(value, str), str),
    "human_readable_int": Type(
        'an integer, or one with k or K ("32K" is 32768)', "32768", lambda value: is_int(value) or isinstance(value, str), human_readable_int
    ),
    "human_readable_int_or_auto": Type(
        'an integer, one with k or K ("32K" is 32768), or "auto"',
        "32768",
        lambda value: is_int(value) or isinstance(value, str),
        human_readable_int_or_auto,
    ),
    "json": Type("a mapping or a list", "{key: value}", lambda value: isinstance(value, (dict, list)), json.loads),
    "json_object": Type("a mapping", "{key: value}", lambda value: isinstance(value, dict), json_object),
    "config": Type("a mapping", "{}", lambda value: isinstance(value, dict), json_object),
    "dict_or_str": Type("a mapping or a string", "{key: value}", lambda value: isinstance(value, (dict, str)), dict_or_str),
    "compilation_config": Type(
        "a level from 0 to 3 or a mapping", "{level: 3}", lambda value: is_int(value) or isinstance(value, dict), compilation_config, _literal_word
    ),
    "lora_module": Type("name=path or a mapping with name and path", "sql=/lora/sql", lambda value: isinstance(value, (str, dict)), lora_module),
    "prompt_adapter": Type("name=path", "tone=/adapters/tone", lambda value: isinstance(value, str), prompt_adapter),
}


def kind_of(value) -> str:
    """What a value is, without the value: a string."""
    for kind, noun in ((bool, "a boolean"), (str, "a string"), (int, "an integer"), (float, "a number"), (dict, "a mapping"), (list, "a list")):
        if isinstance(value, kind):
            return noun
    return "null" if value is None else f"a value of type {type(value).__name__}"


def shown(value) -> str:
    """A value in words, short enough for a sentence: the string '64'."""
    if not isinstance(value, (str, int, float)):
        return kind_of(value)
    text = str(value).lower() if isinstance(value, bool) else repr(str(value)) if isinstance(value, str) else str(value)
    return f"the {kind_of(value).partition(' ')[2]} {text if len(text) <= 60 else text[:57] + '...'}"
