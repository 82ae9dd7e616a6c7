# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engine refuses, and what it does that its user would not expect: one small function for each rule, one module for each subject.

`check` runs them all. A rule sees Facts: the options as the engine resolves them, the card, the model. What differs between engines and cards
is data in lanes.py; a rule asks for the core, the backend or a capability, never for a version, unless that version alone has the quirk.
Sources are the files of vllm 0.8.5 unless another version is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..facts import Facts, facts
from ..model import Model
from ..problem import Problem
from . import attention, dtype, host, interconnect, parallel, quantization, ram, scheduling, server

# In this order their problems are said.
SUBJECTS = (host, parallel, quantization, dtype, attention, scheduling, ram, interconnect, server)
ABSURD = [host.value_out_of_range]
REFUSALS = [rule for subject in SUBJECTS for rule in subject.RULES.refusals]
REFUSALS_OF_SIZES = [rule for rule in REFUSALS if hasattr(rule, "of_sizes")]
CODES_OF_SIZES = frozenset(rule.__name__ for rule in REFUSALS_OF_SIZES)
WARNINGS = [rule for subject in SUBJECTS for rule in subject.RULES.warnings]
BY_NAME = {rule.__name__: rule for rule in (*REFUSALS, *WARNINGS)}


def check(version: str, given: Mapping[str, object], model: Model, **rest) -> tuple[list[Problem], list[Problem]]:
    """The refusals and the warnings, in the order of the rules. The arguments are those of `facts`.

    The option map has passed options.check, env maps names to strings. Whether the memory suffices is not judged here.
    """
    return judge(facts(version, given, model, **rest))


def judge(found: Facts) -> tuple[list[Problem], list[Problem]]:
    """The same for facts that are already known. Where the numbers are impossible, nothing else is judged: every rule computes with them."""
    absurd = impossible(found)
    return (absurd, []) if absurd else (refusals(found), warnings(found))


def impossible(found: Facts) -> list[Problem]:
    """What is wrong with the numbers themselves; the other rules compute with them."""
    return [problem for rule in ABSURD if (problem := rule(found))]


def refusals(found: Facts) -> list[Problem]:
    """Why the engine cannot start or serve."""
    return [problem for rule in REFUSALS if (problem := rule(found))]


def size_refusals(found: Facts) -> list[Problem]:
    """The same of the rules that depend on facts.SIZES."""
    return [problem for rule in REFUSALS_OF_SIZES if (problem := rule(found))]


def warnings(found: Facts) -> list[Problem]:
    """What will be slower, hidden or otherwise than asked."""
    return [problem for rule in WARNINGS if (problem := rule(found))]
