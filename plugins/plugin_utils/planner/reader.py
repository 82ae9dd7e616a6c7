# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers and flags out of a checkpoint's config.json."""

from __future__ import annotations

from .problem import Problem
from .values import shown


class Reader:
    """Takes numbers out of a mapping and notes what is wrong with them."""

    def __init__(self, config: dict, problems: list[Problem]):
        self.config, self.problems = config, problems

    def number(self, keys: str, least: int, most: int, default: int | None = None) -> int:
        """The whole number under the first of the keys (separated by spaces) that is there. A wrong one is noted and stands as `least`."""
        for key in keys.split():
            value = self.config.get(key)
            if value is None:
                continue
            whole = isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
            if whole and least <= value <= most:
                return int(value)
            message = f"config.json has {key} as {shown(value)}, and it must be a whole number from {least} to {most}."
            self.problems.append(Problem("invalid_model_value", message, "Take the config.json of the checkpoint itself, unchanged."))
            return least
        if default is None:
            first = keys.split()[0]
            self.problems.append(Problem("missing_model_value", f"config.json has no {first}.", "Take the config.json of the checkpoint itself, unchanged."))
            return least
        return default

    def flag(self, key: str, default: bool) -> bool:
        value = self.config.get(key)
        return value if isinstance(value, bool) else default
