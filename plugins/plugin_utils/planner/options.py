# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's options: checked, written as a command line, and read back, by the engine's own schema.

An option map is a dict: long name with underscores -> value, such as {"max_model_len": 32768, "enable_prefix_caching": True}.
A value of None is the same as leaving the option out. What `check` passes, the engine's parser accepts.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import functools
import re
from collections.abc import Callable, Mapping

from . import lanes
from .problem import Problem
from .schemas import SCHEMAS
from .values import TYPES, shown

# Names that people copy and no schema has: what to do instead. What one engine has and another lacks is in lanes.py.
REMEDIES = {
    "config": "Write that file's keys in options instead: what the engine reads from a file, no plan can check.",
    "max_batch_size": "Use max_num_seqs, the largest number of sequences in one batch.",
    "pip": "Remove it and install a prebuilt wheel: no vLLM has this option, and argparse would read --pip as --pipeline-parallel-size.",
    "pip_install": "Remove it and install a prebuilt wheel: no vLLM has an option that installs a package.",
    "xformers": "Remove it and, to force that backend, set VLLM_ATTENTION_BACKEND: XFORMERS in the instance's env.",
}


def versions() -> list[str]:
    """The engine versions whose options are known."""
    return list(SCHEMAS)


def schema(version: str) -> dict[str, dict]:
    """The options of that engine: name -> entry, as schemas/__init__.py explains. ValueError for a version that is not known."""
    if version not in SCHEMAS:
        raise ValueError(f"The options of vLLM {version} are not known: known versions are {', '.join(versions())}.")
    return SCHEMAS[version]


@functools.lru_cache(maxsize=None)
def _defaults(version: str) -> dict:
    return {name: entry["default"] for name, entry in schema(version).items()}


def resolve(version: str, options: Mapping[str, object]) -> dict:
    """Every option of that engine: the value that is given, the engine's default otherwise. Lists and mappings are not copies."""
    return {**_defaults(version), **{name: value for name, value in options.items() if value is not None}}


# -- Check ---------------------------------------------------------------------------------------------------------------------------------

# Options whose parser takes any word while the engine knows only those the schema lists, and the option that brings others.
PLUGINS = {"tool_call_parser": "tool_parser_plugin", "reasoning_parser": "reasoning_parser_plugin", "quantization": None, "attention_backend": None}


def check(version: str, options: dict) -> list[Problem]:
    """What is wrong with an option map, in its order; an empty list when the engine's parser would accept it all.

    Of a mapping that the engine reads as one of its config classes only the keys are checked, not what stands under them.
    Codes: unknown_option, wrong_type, wrong_choice, unknown_config_key, one_way_flag, leading_dash. ValueError for a version that is not known.
    """
    entries = schema(version)
    problems = []
    for name, value in options.items():
        entry = entries.get(name)
        if entry is None:
            problems.append(_unknown(version, name))
        elif value is not None and not _is_plain(value, entry):
            problems.extend(_check_value(name, value, entry))
    for name in [name for name in PLUGINS if name in options]:
        value, plugin = options[name], PLUGINS[name]
        if not value or not isinstance(value, str) or "known" not in entries.get(name, {}):
            continue
        known = entries[name]["known"]
        # An attention backend may be written in any case.
        if value not in known and value.upper() not in known and not options.get(plugin):
            problems.append(_wrong_choice(name, value, known))
    return problems


# For each type of YAML the types of the schema that read every value back as it was written.
PLAIN = {int: ("int", "float", "human_readable_int", "human_readable_int_or_auto"), float: ("float",), str: ("str",)}


def _is_plain(value, entry: dict) -> bool:
    """Whether a value is right at first sight, as most are; the others are written and read back."""
    kind = type(value)
    if entry["type"] not in PLAIN.get(kind, ()) or "nargs" in entry:
        return False
    known = value not in ("", "None") if kind is str else -(2**63) < value < 2**63
    return known and ("choices" not in entry or value in entry["choices"])


def _unknown(version: str, name) -> Problem:
    entries, name = schema(version), str(name)
    plain = _plain(name)
    short = {_plain(flag): option for option, entry in entries.items() for flag in entry.get("short", [])}
    opposite = {_plain(entry["opposite"]): option for option, entry in entries.items() if "opposite" in entry}
    near = difflib.get_close_matches(plain, entries, n=1)
    if plain in REMEDIES:
        remedy = REMEDIES[plain]
    elif plain in opposite:
        remedy = f"Write {opposite[plain]}: false."
    elif instead := lanes.instead(version, plain):
        remedy = instead
    elif plain in entries:
        remedy = f"Write it with underscores: {plain}."
    elif plain in short:
        remedy = f"Write its long name: {short[plain]}."
    elif entries.get(plain.removeprefix("no_"), {}).get("type") == "bool":
        remedy = f"Write {plain.removeprefix('no_')}: false."
    elif near:
        remedy = f"Write {near[0]} if that is meant, otherwise remove it."
    else:
        remedy = f"Remove it, or choose an engine version that has it: known are {', '.join(versions())}."
    return Problem("unknown_option", f"{name} is not an option of vLLM {version}.", remedy)


def _plain(name: str) -> str:
    """A name as an option map writes it, without the dashes of the command line."""
    return name.lstrip("-").replace("-", "_")


def _wrong_type(name, value, noun, example) -> Problem:
    return Problem("wrong_type", f"{name} must be {noun}, not {shown(value)}.", f"Write it as in `{name}: {example}`.")


def _wrong_choice(name, value, choices) -> Problem:
    words = ", ".join(str(choice) for choice in choices if choice not in (None, "None"))
    return Problem("wrong_choice", f"{name} cannot be {shown(value)}.", f"Use one of {words}.")


def _check_value(name: str, value, entry: dict) -> list[Problem]:
    if entry["type"] == "bool":
        if not isinstance(value, bool):
            return [_wrong_type(name, value, "a boolean", "true")]
        if value is False and entry["default"] and not entry.get("negatable"):
            message = f"{name} cannot be false: it is on by default and the engine has no --no-{name.replace('_', '-')}."
            return [Problem("one_way_flag", message, "Remove it.")]
        return []
    kind, nargs = TYPES[entry["type"]], entry.get("nargs")
    if nargs == "?" and value is entry["const"]:
        return []
    many = nargs in ("+", "append")
    example = "{}" if "keys" in entry else str((entry.get("choices") or entry.get("known") or [kind.example])[0])
    example = f"[{example}]" if many else example
    noun = f"a list, each item {kind.noun}" if many else kind.noun
    if many and (not isinstance(value, list) or nargs == "+" and not value):
        return [_wrong_type(name, value, noun if value != [] else "a list with at least one item", example)]
    for item in value if many else [value]:
        try:
            if not kind.takes(item):
                raise ValueError
            word = kind.write(item)
            read = _reader(entry)(word)
        except (ValueError, TypeError, SyntaxError, argparse.ArgumentTypeError):
            return [_wrong_type(name, item, noun, example)]
        if "choices" in entry and read not in entry["choices"]:
            return [_wrong_choice(name, item, entry["choices"])]
        if unknown := sorted(set(read) - set(entry["keys"])) if "keys" in entry and read else None:
            message = f"{name} has {', '.join(unknown[:5])}, which the engine does not know."
            return [Problem("unknown_config_key", message, f"Use keys from {', '.join(entry['keys'])}.")]
        if nargs == "+" and word.startswith("-"):
            message = f"{name} has an item that starts with a dash, which the engine would read as the next option."
            return [Problem("leading_dash", message, "Write it without the dash.")]
    return []


# -- Write and read ------------------------------------------------------------------------------------------------------------------------


def render(version: str, options: dict) -> list[str]:
    """The command line of an option map, in its order: {"block_size": 16, "enforce_eager": True} -> ["--block-size", "16", "--enforce-eager"].

    The map has passed `check`; KeyError for an option that is not in the schema, ValueError for an unknown version.
    """
    entries, words = schema(version), []
    for name, value in options.items():
        if value is not None:
            words += _render(name, value, entries[name]) if type(value) in (list, dict) else _rendered(version, name, value)
    return words


@functools.lru_cache(maxsize=1024, typed=True)
def _rendered(version: str, name: str, value) -> list[str]:
    """The same words are asked for with every step of a ladder. typed: 1 and True are written in two ways."""
    return _render(name, value, schema(version)[name])


def _render(name: str, value, entry: dict) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if entry["type"] == "bool":
        return [flag] if value else [f"--no-{flag[2:]}"] if entry.get("negatable") else []
    write, nargs = TYPES[entry["type"]].write, entry.get("nargs")
    if nargs == "?" and value is entry["const"]:
        return [flag]
    if nargs == "+":
        return [flag, *(write(item) for item in value)]
    if nargs == "append":
        return [part for item in value for part in _joined(flag, write(item))]
    return _joined(flag, write(value))


def _joined(flag: str, word: str) -> list[str]:
    """A word of its own that starts with a dash would be read as an option."""
    return [f"{flag}={word}"] if word.startswith("-") else [flag, word]


def parse(version: str, argv: list[str]) -> dict:
    """The option map the engine would make of a command line, with its defaults: every option of the schema is a key.

    Like vLLM's FlexibleArgumentParser it takes `_` for `-` in names and any unambiguous beginning of a name. A mapping that the engine
    turns into a config object stays a dict. ValueError with argparse's message where the engine would print it and exit, for --config, which
    names a file, and for later engines' `--x.key value`, a second way to write a mapping.
    """
    if "--config" in argv:
        raise ValueError("--config names a file, which is not read here")
    words, later = [], "optimization_level" in schema(version)
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(name.replace("_", "-") + equals + value)
        elif later and word.startswith("-O"):
            words += ["--optimization-level", *filter(None, [word[2:].removeprefix("=")])]
        elif re.fullmatch("-O.", word):
            words += ["-O", word[2:]]
        else:
            words.append(word)
    return copy.deepcopy(vars(_parser(version).parse_args(words)))


class _Parser(argparse.ArgumentParser):
    """Raises where ArgumentParser prints its usage and exits."""

    def error(self, message):
        raise ValueError(message) from None


@functools.lru_cache(maxsize=None)
def _parser(version: str) -> _Parser:
    parser = _Parser(prog="api_server", add_help=False)
    for name, entry in schema(version).items():
        flags = ["--" + name.replace("_", "-"), *entry.get("short", [])]
        if entry["type"] == "bool":
            action = argparse.BooleanOptionalAction if entry.get("negatable") else "store_true"
            parser.add_argument(*flags, action=action, default=entry["default"])
            if "opposite" in entry:
                parser.add_argument(entry["opposite"], dest=name, action="store_false", default=entry["default"])
        elif entry.get("nargs") == "append":
            parser.add_argument(*flags, action="append", type=_reader(entry), default=entry["default"])
        else:
            parser.add_argument(
                *flags, type=_reader(entry), nargs=entry.get("nargs"), const=entry.get("const"), choices=entry.get("choices"), default=entry["default"]
            )
    return parser


def _reader(entry: dict) -> Callable[[str], object]:
    """What turns one word into a value, as vLLM's own type functions do; `optional` is its optional_type."""
    read = TYPES[entry["type"]].read
    if not entry.get("optional"):
        return read

    def optional(word):
        if word in ("", "None"):
            return None
        try:
            return read(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"Value {word} cannot be converted to {read.__name__}.") from error

    return optional
