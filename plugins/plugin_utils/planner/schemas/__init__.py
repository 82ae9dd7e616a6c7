# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of each known engine, one generated module for each version.

A module holds OPTIONS: the engine's long name with underscores -> entry. An entry is a dict:

    type        bool, int, float, str, human_readable_int ("32k" is 32000, "32K" is 32768), json (any JSON), json_object,
                compilation_config, lora_module, prompt_adapter: how the engine reads one word
    default     what the engine's parser returns when the option is not given
    negatable   bool only: `--no-x` exists beside `--x`. Without it only `--x` exists
    optional    the words "" and "None" mean null
    choices     the values the parser accepts
    known       the values that work, where the parser accepts any word and the engine fails later
    nargs       "+": one or more words; "append": the option is repeated; "?": the word may be missing, then `const` stands for it
    short       other names, such as -tp
    deprecated  the engine says so

A key that would say nothing is absent. tools/options_from_engine.py writes these modules.

v0_8_5 was written from the CPU build 0.8.5.post2. Its Python sources are those of the CUDA wheel of 0.8.5, byte for byte, but for the two
files that set its version and platform, and no choice in the parser depends on the platform.
"""

from __future__ import annotations

from . import v0_8_5

SCHEMAS = {"0.8.5": v0_8_5.OPTIONS}
