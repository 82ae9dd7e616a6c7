# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a module of this package collects its rules, and what their sentences share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..facts import Facts
from ..problem import Problem

Rule = Callable[[Facts], Problem | None]


class Subject:
    """The rules of one module, in the order in which they stand there."""

    def __init__(self):
        self.refusals: list[Rule] = []
        self.warnings: list[Rule] = []

    def refusal(self, rule: Rule) -> Rule:
        """Register a rule that says why the engine cannot start or serve."""
        self.refusals.append(rule)
        return rule

    def warning(self, rule: Rule) -> Rule:
        """Register a rule that says what will be slower, hidden or otherwise than asked."""
        self.warnings.append(rule)
        return rule


def of_sizes(rule: Rule) -> Rule:
    """Mark a rule that reads one of facts.SIZES, or what follows from them: it is asked again for every size that a solver tries."""
    rule.of_sizes = True
    return rule


def listed(items: Iterable) -> str:
    return ", ".join(map(str, items))


def divisors(number: int, most: int) -> list[int]:
    return [divisor for divisor in range(1, most + 1) if number % divisor == 0]
