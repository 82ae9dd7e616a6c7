# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the option schema of the vLLM that is importable here, as a Python module, to standard output.

Run it inside the engine's own image, from the root of the checkout:

    docker run --rm -v "$PWD/tools:/tools:ro" --entrypoint python3 vllm/vllm-openai:v0.8.5 \
        /tools/options_from_engine.py > plugins/plugin_utils/planner/schemas/v0_8_5.py

It reads the parser that `python3 -m vllm.entrypoints.openai.api_server` builds, never its help text. The keys of an entry are
explained in schemas/__init__.py. A type function, an action or a nargs that this script does not know stops it: a new engine must
be understood, not guessed. The same engine always gives the same bytes.
"""

from __future__ import annotations

import contextlib
import enum
import re
import sys
import textwrap
import typing

WIDTH = 150

# What the engine calls to read one word -> the type in the schema. `optional_type(f)` is looked through: see `type_of`.
TYPES = {
    "int": "int",
    "float": "float",
    "str": "str",
    "loads": "json",
    "human_readable_int": "human_readable_int",
    "CompilationConfig.from_cli": "compilation_config",
    "KVTransferConfig.from_cli": "json_object",
    "PoolerConfig.from_json": "json_object",
}
# Actions that read their words further.
ACTION_TYPES = {"LoRAParserAction": "lora_module", "PromptAdapterParserAction": "prompt_adapter"}
PLAIN_ACTIONS = {"_StoreAction", "_AppendAction", *ACTION_TYPES}


def stop(action, what) -> SystemExit:
    return SystemExit(f"{action.option_strings[0]}: {what} is not known to options_from_engine.py: teach it, and the planner's options.py, what it means")


def type_of(action) -> tuple[str, bool]:
    """The type of one word of the option, and whether the words "" and "None" mean null (vLLM's `optional_type`)."""
    function, optional = action.type or str, False
    if function.__qualname__.startswith("optional_type."):
        (function,), optional = [cell.cell_contents for cell in function.__closure__], True
    name = ACTION_TYPES.get(type(action).__name__) or TYPES.get(function.__qualname__)
    if name is None:
        raise stop(action, f"the type function {function.__qualname__}")
    # optional_type(json.loads) takes JSON objects only; anything else falls to a deprecated key=value form.
    return ("json_object" if name == "json" and optional else name), optional


def is_deprecated(action) -> bool:
    return bool(getattr(action, "deprecated", False) or re.search(r"\[deprecated\]|\bis deprecated\b", action.help or "", re.IGNORECASE))


def entry(action) -> dict:
    """One option as the schema writes it: a key that would say nothing is left out."""
    kind = type(action).__name__
    result = {}
    if kind == "BooleanOptionalAction":
        result.update(type="bool", negatable=True)
    elif kind == "_StoreTrueAction":
        result.update(type="bool")
    elif kind in PLAIN_ACTIONS:
        result["type"], optional = type_of(action)
        if optional:
            result["optional"] = True
        if action.nargs not in (None, "+", "?"):
            raise stop(action, f"nargs={action.nargs!r}")
        if nargs := "append" if kind == "_AppendAction" else action.nargs:
            result["nargs"] = nargs
        if action.nargs == "?":
            result["const"] = action.const
        if action.choices is not None:
            result["choices"] = list(action.choices)
        elif match := re.fullmatch(r"\{(.+)\} or name registered in .*", str(action.metavar)):
            result["known"] = match[1].split(",")
    else:
        raise stop(action, f"the action {kind}")
    result["default"] = action.default.value if isinstance(action.default, enum.Enum) else action.default
    short = [flag for flag in action.option_strings if not flag.startswith("--")]
    if short:
        result["short"] = short
    if is_deprecated(action):
        result["deprecated"] = True
    return result


def schema(parser) -> dict[str, dict]:
    """Long name with underscores -> entry, sorted by name."""
    options = {}
    for action in parser._actions:
        if type(action).__name__ == "_HelpAction":
            continue
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        if long[0] != "--" + action.dest.replace("_", "-"):
            raise stop(action, f"the destination {action.dest}")
        options[action.dest] = entry(action)
    return dict(sorted(options.items()))


def lines_of(name, fields):
    """The source lines of one entry: one line where it fits, otherwise one per key."""
    line = f"    {name!r}: {fields!r},"
    if len(line) <= WIDTH:
        return [line]
    lines = [f"    {name!r}: {{"]
    for key, value in fields.items():
        line = f"        {key!r}: {value!r},"
        if len(line) > WIDTH:
            items = textwrap.wrap(", ".join(map(repr, value)) + ",", WIDTH - 12, break_long_words=False, break_on_hyphens=False)
            lines += [f"        {key!r}: [", *(f"            {item}" for item in items), "        ],"]
        else:
            lines.append(line)
    return [*lines, "    },"]


def accepted_by_every_start(get_type):
    """vLLM's `get_type(type_hints, type)`, made deterministic.

    It returns the first match in a set, whose order changes from process to process. Where a field names several Literals (0.8.5:
    guided_decoding_backend, one for each core) the accepted choices so change from start to start. The schema holds those which
    every start accepts.
    """

    def chosen(type_hints, kind):
        literals = [set(typing.get_args(hint)) for hint in type_hints if kind is typing.Literal and typing.get_origin(hint) is kind]
        return typing.Literal[tuple(sorted(set.intersection(*literals)))] if len(literals) > 1 else get_type(type_hints, kind)

    return chosen


def main():
    # vLLM logs to standard output, where the module goes.
    with contextlib.redirect_stdout(sys.stderr):
        import vllm
        from vllm.engine import arg_utils
        from vllm.entrypoints.openai.cli_args import make_arg_parser
        from vllm.platforms import current_platform
        from vllm.utils import FlexibleArgumentParser

        arg_utils.get_type = accepted_by_every_start(arg_utils.get_type)
        options = schema(make_arg_parser(FlexibleArgumentParser()))
    print("# Copyright: (c) 2026, The gpuhosts.inference authors")
    print("# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)")
    print(f'"""Generated by tools/options_from_engine.py from vllm {vllm.__version__} ({type(current_platform).__name__}). Do not edit: run the tool again.')
    print()
    print("The command, run inside the engine's image: python3 tools/options_from_engine.py")
    print("The keys of an entry are explained in schemas/__init__.py.")
    print('"""')
    print()
    print("from __future__ import annotations")
    print()
    print("OPTIONS = {")
    for name, fields in options.items():
        print("\n".join(lines_of(name, fields)))
    print("}")


if __name__ == "__main__":
    main()
