# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the option schema of a vLLM, as a Python module, to standard output.

Run it inside the engine's own image, from the root of the checkout:

    docker run --rm -v "$PWD/tools:/tools:ro" --entrypoint python3 vllm/vllm-openai:v0.8.5 \
        /tools/options_from_engine.py > plugins/plugin_utils/planner/schemas/v0_8_5.py

or, without the image, on the wheel itself, where torch (its CPU build does) and the engine's pure Python requirements are installed:

    pip download --no-deps vllm==0.19.1
    python3 tools/options_from_engine.py --wheel vllm-0.19.1-*.whl > plugins/plugin_utils/planner/schemas/v0_19_1.py

There the wheel's Python sources are used and its compiled kernels are not: empty modules stand for them. Where there is no GPU, CUDA is
taken as the platform all the same, because a few defaults depend on the platform.

It reads the parser that `python3 -m vllm.entrypoints.openai.api_server` builds, never its help text. The keys of an entry are
explained in schemas/__init__.py. A type function, an action or a nargs that this script does not know stops it: a new engine must
be understood, not guessed. The same engine always gives the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import hashlib
import importlib
import importlib.machinery
import pathlib
import re
import sys
import tempfile
import textwrap
import types
import typing
import zipfile

WIDTH = 150

# What the engine calls to read one word -> the type in the schema. Two wrappers are looked through: see `unwrapped`.
TYPES = {
    "int": "int",
    "float": "float",
    "str": "str",
    "loads": "json",
    "human_readable_int": "human_readable_int",
    "human_readable_int_or_auto": "human_readable_int_or_auto",
    "union_dict_and_str": "dict_or_str",
    "_compute_kwargs.<locals>.parse_dataclass": "config",
    "parse_reasoning_parser": "str",  # "none" is the same as not giving it
    "CompilationConfig.from_cli": "compilation_config",
    "KVTransferConfig.from_cli": "json_object",
    "PoolerConfig.from_json": "json_object",
}
# Options whose word a function without a name reads. A backend's is read in any case, with - for _; device_ids is split at its commas.
LAMBDAS = {"moe_backend": "str", "linear_backend": "str", "sparse_indexer_topk_backend": "str", "device_ids": "str"}
# Actions that read their words further.
ACTION_TYPES = {"LoRAParserAction": "lora_module", "PromptAdapterParserAction": "prompt_adapter"}
PLAIN_ACTIONS = {"_StoreAction", "_AppendAction", "DeprecatedLogConfigFileAction", *ACTION_TYPES}
# --config names a file of options, which no plan can check; the planner explains it.
LEFT_OUT = {"config"}
# Options that take any word, of which the engine knows only these: where it lists them.
REGISTERED = {
    "quantization": ("vllm.model_executor.layers.quantization", lambda module: module.QUANTIZATION_METHODS),
    "attention_backend": ("vllm.v1.attention.backends.registry", lambda module: list(module.AttentionBackendEnum.__members__)),
    "reasoning_parser": ("vllm.reasoning", lambda module: module.ReasoningParserManager.list_registered()),
}
# Modules of the wheel that are compiled, and that its Python sources import.
KERNELS = re.compile(r"vllm\.\w*_C(_\w+)?")


def stop(action, what) -> SystemExit:
    return SystemExit(f"{action.option_strings[0]}: {what} is not known to options_from_engine.py: teach it, and the planner's options.py, what it means")


def unwrapped(action) -> tuple[typing.Callable, bool]:
    """What reads one word, without vLLM's `optional_type` and `parse_type`, and whether the words "" and "None" mean null (the first)."""
    function, optional = action.type or str, False
    while function.__qualname__.startswith(("optional_type.", "parse_type.")):
        optional = optional or function.__qualname__.startswith("optional_type.")
        (function,) = [cell.cell_contents for cell in function.__closure__]
    return function, optional


def type_of(action) -> str:
    """The type of one word of the option."""
    function, optional = unwrapped(action)
    if function.__qualname__.endswith(".<lambda>") and action.dest in LAMBDAS:
        return LAMBDAS[action.dest]
    name = ACTION_TYPES.get(type(action).__name__) or TYPES.get(function.__qualname__)
    if name is None:
        raise stop(action, f"the type function {function.__qualname__}")
    # What the engine reads as JSON here it uses as a mapping: in 0.8.5 anything else falls to a deprecated key=value form.
    return "json_object" if name == "json" and (optional or isinstance(action.default, dict)) else name


def keys_of(function) -> list[str] | None:
    """The keys that a mapping may have which becomes one of the engine's config objects; None where it may have any."""
    if TYPES.get(function.__qualname__) == "config":
        (config,) = function.__defaults__
    else:
        config = getattr(sys.modules.get(function.__module__), function.__qualname__.partition(".from_")[0], None)
    if not dataclasses.is_dataclass(config) or (getattr(config, "__pydantic_config__", None) or {"extra": "forbid"}).get("extra") != "forbid":
        return None
    return sorted(field.name for field in dataclasses.fields(config) if field.init)


def is_deprecated(action) -> bool:
    return bool(getattr(action, "deprecated", False) or re.search(r"\[deprecated\]|\bis deprecated\b", action.help or "", re.IGNORECASE))


def default_of(action):
    """What the parser returns without the option, as data: {} for a config object, a sorted list for a set."""
    default = action.default
    if default == argparse.SUPPRESS:
        return None
    if dataclasses.is_dataclass(default):
        return {}
    if isinstance(default, (set, frozenset, tuple)):
        return sorted(default)
    return default.value if isinstance(default, enum.Enum) else default


def named(action) -> list[str] | None:
    """The words that the engine knows, where its parser takes any."""
    if match := re.fullmatch(r"\{(.+)\} or name registered in .*", str(action.metavar)):
        return match[1].split(",")
    if action.dest in REGISTERED and action.choices is None:
        module, listed = REGISTERED[action.dest]
        return sorted(listed(importlib.import_module(module)))
    return list(action.metavar) if isinstance(action.metavar, list) else None


def entry(action, deprecated) -> dict:
    """One option as the schema writes it: a key that would say nothing is left out."""
    kind, dashed = type(action).__name__, "--" + action.dest.replace("_", "-")
    result = {}
    others = [flag for flag in action.option_strings if flag not in (dashed, f"--no-{dashed[2:]}")]
    if kind in ("BooleanOptionalAction", "EnableDisableAction"):
        result.update(type="bool", negatable=True)
        opposites = [flag for flag in others if flag in getattr(action, "negative_option_strings", ())]
        others = [flag for flag in others if flag not in opposites]
        if opposites:
            result["opposite"] = opposites[0]
    elif kind == "_StoreTrueAction":
        result.update(type="bool")
    elif isinstance(action.default, enum.IntEnum):
        # Only the parser takes any word.
        result.update(type="int", choices=[member.value for member in type(action.default)])
    elif kind in PLAIN_ACTIONS:
        result["type"] = type_of(action)
        function, optional = unwrapped(action)
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
        elif known := named(action):
            result["known"] = known
        if keys := keys_of(function):
            result["keys"] = keys
    else:
        raise stop(action, f"the action {kind}")
    result["default"] = default_of(action)
    if others:
        result["short"] = others
    if deprecated or is_deprecated(action):
        result["deprecated"] = True
    return result


def schema(parser) -> dict[str, dict]:
    """Long name with underscores -> entry, sorted by name."""
    options = {}
    for action in parser._actions:
        if type(action).__name__ == "_HelpAction" or not action.option_strings or action.dest in LEFT_OUT:
            continue
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        if long[0] != "--" + action.dest.replace("_", "-"):
            raise stop(action, f"the destination {action.dest}")
        options[action.dest] = entry(action, action in getattr(parser, "_deprecated", ()))
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


class NoKernels:
    """An import finder: the engine's compiled modules are empty."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if KERNELS.fullmatch(name) else None

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        pass


def unpack(wheel: pathlib.Path, folder: str) -> str:
    """Make the Python sources of a wheel importable, and say what they are."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if not re.search(r"\.(so(\.[\d.]+)?|cubin|fatbin)$", name)])
    sys.path.insert(0, folder)
    sys.meta_path.insert(0, NoKernels())
    return f"the Python sources of {wheel.name} (sha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()})"


def imported(*names):
    """The first of these modules that this version has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that is there and misses one of its own requirements is another matter.
            if not name.startswith(str(error.name)):
                raise
    raise SystemExit(f"none of {', '.join(names)} is in this vLLM")


def read() -> tuple[str, str, dict]:
    """The engine's version, the name of the platform it took, and its options."""
    import vllm
    import vllm.platforms

    # Before anything else: modules bind the platform when they are imported.
    if type(vllm.platforms.current_platform).__name__ == "UnspecifiedPlatform":
        vllm.platforms._current_platform = importlib.import_module("vllm.platforms.cuda").CudaPlatform()
    arg_utils = importlib.import_module("vllm.engine.arg_utils")
    arg_utils.get_type = accepted_by_every_start(arg_utils.get_type)
    arg_utils.NEEDS_HELP = True  # some options say only there that they are deprecated
    make_arg_parser = imported("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.common.cli_args").make_arg_parser
    parser = imported("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser()
    options = schema(make_arg_parser(parser))
    return vllm.__version__, type(vllm.platforms.current_platform).__name__, options


def main():
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--wheel", type=pathlib.Path, help="read this wheel instead of the vLLM that is importable here")
    wheel = arguments.parse_args().wheel
    sys.argv = sys.argv[:1]
    # vLLM logs to standard output, where the module goes.
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        source = unpack(wheel, folder) if wheel else None
        version, platform, options = read()
    print("# Copyright: (c) 2026, The gpuhosts.inference authors")
    print("# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)")
    print(f'"""Generated by tools/options_from_engine.py from vllm {version} ({platform}). Do not edit: run the tool again.')
    print()
    if source:
        print("\n".join(textwrap.wrap(f"It read {source}, without its compiled kernels.", WIDTH, break_long_words=False)))
        print(f"The command: python3 tools/options_from_engine.py --wheel {wheel.name}")
    else:
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
