# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the planner says when something is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    code: what kind, in snake_case, for programs and tests. message: what is wrong, one sentence. remedy: what to do, one sentence.
    """

    code: str
    message: str
    remedy: str


class PlanRefused(ValueError):
    """The plan is impossible. `problems` is the list of Problem that says why; str() gives them one to a line."""

    def __init__(self, problems: list[Problem]):
        super().__init__("\n".join(f"{problem.message} {problem.remedy}" for problem in problems))
        self.problems = problems
