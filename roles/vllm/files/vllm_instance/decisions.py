# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done about an end or a hang: the next rung, a restart, or quarantine. Only states are changed here."""

from __future__ import annotations

from .host import seconds
from .state import record


def describe_rung(definition, index):
    """`rung 1 of 3 (fewer sequences: max_num_seqs 32)`."""
    rung = definition.rungs[index]
    changes = ", ".join("{} {}".format(*item) for item in sorted((rung.get("changes") or {}).items()))
    return "rung %d of %d (%s%s)" % (index, len(definition.rungs) - 1, rung.get("reason") or "no reason given", ": " + changes if changes else "")


def out_of_memory(definition, state, host, saw):
    """Take the next rung within the bound, or quarantine. Returns what was decided, as a sentence."""
    here = definition.rung(state)
    bound = min(len(definition.rungs) - 1, state["base"] + int(definition.limits["ladder_steps"]))
    if here >= bound:
        tried = "; ".join(describe_rung(definition, index) for index in range(min(state["base"], here), here + 1))
        why = "the ladder ends there" if here >= len(definition.rungs) - 1 else "limits.ladder_steps is %d" % definition.limits["ladder_steps"]
        return quarantine(definition, state, host, "oom", f"{saw}. Tried: {tried}; {why}", None)
    state["rung"] = here + 1
    state["counts"]["step_downs"] += 1
    message = f"{saw}; {describe_rung(definition, here + 1)} is next"
    record(state, host, "step_down", "oom", message)
    return message


def failed(definition, state, host, reason, saw, evidence=None):
    """Count a failure (crash, stall, unanswered or hang_at_load): a restart within the bound, or quarantine. Returns what was decided, as a sentence."""
    bound, window = int(definition.limits["restarts"]), definition.limits["restart_window_seconds"]
    failures = [failure for failure in state["failures"] if host.now() - seconds(failure[0]) <= window] + [[host.timestamp(), reason]]
    state["failures"] = failures
    if len(failures) > bound:
        often = f"{len(failures)} failures within {window:g} s ({', '.join(each for dummy, each in failures)})"
        return quarantine(definition, state, host, reason, f"{saw}. {often}", evidence)
    restarts = state["counts"]["restarts"]
    restarts[reason] = restarts.get(reason, 0) + 1
    message = f"{saw}; restart {len(failures)} of at most {bound} within {window:g} s"
    if evidence:
        message += f"; evidence in {evidence}"
    record(state, host, "restart", reason, message)
    return message


def quarantine(definition, state, host, reason, message, evidence):
    """Nothing starts the instance any more until a person releases it. Returns the message."""
    if evidence:
        message += f". Evidence in {evidence}"
    message += f". Mend the cause, then: vllm-instance release {definition.name}"
    state["status"] = "quarantined"
    state["quarantine"] = {"time": host.timestamp(), "reason": reason, "message": message, "evidence": evidence}
    record(state, host, "quarantine", reason, message)
    return "quarantined: " + message


def hang_remedy(definition, state, host, saw):
    """Put the remedy against hangs between cards in force, where there is one and it is not yet. Returns a sentence or None."""
    if state["hang_remedy"] or len(definition.gpus) < 2:
        return None
    before = definition.argv(state)
    state["hang_remedy"] = True
    if definition.argv(state) == before:
        # There is none, or the plan has it already.
        state["hang_remedy"] = False
        return None
    message = "{}; from now on with {}".format(saw, " ".join(definition.hang_argv))
    record(state, host, "hang_remedy", "stall", message)
    return message
