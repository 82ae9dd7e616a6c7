# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables of this collection's roles, as their argument specifications name them."""

from __future__ import annotations

import functools
import pathlib

from ansible.module_utils.common.yaml import yaml_load

ROLES = pathlib.Path(__file__).parents[2] / "roles"


@functools.lru_cache
def role_variables() -> dict[str, list[str]]:
    """Return role -> names of its variables, of all its entry points."""
    found = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        entries = yaml_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
        found[path.parts[-3]] = sorted({name for entry in entries for name in entry.get("options", {})})
    return found
