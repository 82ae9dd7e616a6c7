"""What holds of every plan, over random instances, hosts and models. molecule/parser asks the real engines the same questions, of many more."""

from __future__ import annotations

import inspect
import json
import re

import hypothesis
import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import facts, judgement, options, rules, values
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import KV, TERMS, plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner import strategies
from hypothesis import strategies as st

KEYS = {"verdict", "refusals", "warnings", "engine", "options", "reasons", "argv", "env", "hang_argv", "ready_seconds", "memory", "kv", "ladder", "lanes"}
PROPERTY = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}


def any_case():
    return st.sampled_from(options.versions()).flatmap(strategies.cases)


@st.composite
def spoilt_cases(draw):
    """A case with one part of its instance, host or model gone or something else."""
    parts = list(draw(any_case()))
    part = draw(st.integers(0, 2))
    parts[part] = draw(strategies.mutated(parts[part]))
    return tuple(parts)


def well_formed(found):
    assert set(found) == KEYS and set(found["kv"]) == set(KV)
    assert found["verdict"] in ("fits", "refused")
    assert (found["verdict"] == "refused") == bool(found["refusals"]) == (found["argv"] == [])
    fits = found["verdict"] == "fits"
    assert found["hang_argv"] in ([], ["--disable-custom-all-reduce"][:fits])
    assert (found["ready_seconds"] is not None) == fits and (not fits or found["ready_seconds"] >= 180 and found["ready_seconds"] % 10 == 0)
    for problem in found["refusals"] + found["warnings"]:
        assert set(problem) == {"code", "message", "remedy"} and all(problem.values())


@hypothesis.settings(max_examples=80, **PROPERTY)
@hypothesis.given(spoilt_cases())
def test_spoilt_input_is_never_a_traceback(case):
    well_formed(plan(*case))


@hypothesis.settings(max_examples=80, **PROPERTY)
@hypothesis.given(any_case())
def test_a_plan_is_whole(case):
    instance, host, config = case
    found = plan(*case)
    well_formed(found)
    assert json.loads(json.dumps(found)) == found
    assert plan(*case) == found
    given = {name: value for name, value in instance["options"].items() if value is not None}
    assert {name: found["options"].get(name) for name in given} == given or found["options"] == {}
    assert not set(found["reasons"]) & set(given)
    if found["verdict"] == "fits":
        assert all(set(rank) == set(TERMS) and rank["kv_cache"] > 0 for rank in found["memory"]["per_rank"])
        assert found["kv"]["tokens"] == found["kv"]["blocks"] * found["kv"]["block_size"]


@pytest.mark.parametrize("version", options.versions())
@pytest.mark.parametrize("profile", strategies.PROFILES)
@hypothesis.settings(max_examples=12, **PROPERTY)
@hypothesis.given(st.data())
def test_the_schema_reads_back_every_command_line(version, profile, data):
    found = plan(*data.draw(strategies.cases(version, profile)))
    hypothesis.assume(found["verdict"] == "fits")
    for rung in (found, *found["ladder"]):
        read = options.parse(version, rung["argv"])
        assert (read["model"], read["served_model_name"]) == ("/model/coder", ["coder"])
        for name, value in rung["options"].items():
            entry = options.schema(version)[name]
            word = value if isinstance(value, str) or entry["type"] == "bool" else None
            written = read[name]
            if isinstance(word, str) and entry["type"].startswith("human"):
                assert written == values.human_readable_int(word)
            else:
                assert written == value


@hypothesis.settings(max_examples=30, **PROPERTY)
@hypothesis.given(any_case())
def test_every_step_of_the_ladder_is_less_than_the_one_before(case):
    found = plan(*case)
    hypothesis.assume(found["ladder"])
    above = found["options"]
    for rung in found["ladder"]:
        assert rung["changes"] and rung["argv"] and rung["reason"]
        assert rung["options"] == {**above, **rung["changes"]}
        above = rung["options"]
        # What a step says stands: as it is, it is a plan that fits.
        instance = {**case[0], "profile": "as_given", "options": rung["options"]}
        instance.pop("objective", None)
        alone = plan(instance, *case[1:])
        assert alone["verdict"] == "fits" and alone["argv"] == rung["argv"] and alone["kv"] == rung["kv"]


SIZES = {
    "max_model_len": st.sampled_from([0, 1, 2048, 16384, 32768, 32769, 131072, "32K", 2**50]),
    "max_num_batched_tokens": st.sampled_from([0, 1, 512, 4096, 32768, 131072]),
    "max_num_seqs": st.sampled_from([0, 1, 8, 256, 5000]),
    "max_seq_len_to_capture": st.sampled_from([-1, 8192, 32768]),
    "enforce_eager": st.booleans(),
    "gpu_memory_utilization": st.sampled_from([0, 0.3, 0.9, 0.96, 1, 1.5]),
    "cpu_offload_gb": st.sampled_from([0, 4, 500]),
}


@hypothesis.settings(max_examples=300, **PROPERTY)
@hypothesis.given(any_case(), st.fixed_dictionaries({}, optional=SIZES), st.fixed_dictionaries({}, optional=SIZES))
def test_what_is_taken_from_a_like_judgement_is_what_would_be_found_anew(case, first, second):
    instance, host, config = case
    read = judgement.read({**instance, "profile": "as_given", "objective": None}, host, config)
    fixed = {name: value for name, value in read.instance["options"].items() if name not in facts.SIZES}
    before = judgement.Judgement(read, {**fixed, **first})
    saved, anew = before.but(second), judgement.Judgement(read, {**fixed, **first, **second})
    hypothesis.event(f"saved: {saved.like is not None}")
    assert set(SIZES) == facts.SIZES
    assert (saved.refusals, saved.warnings, saved.settings, saved.prediction) == (anew.refusals, anew.warnings, anew.settings, anew.prediction)


@pytest.mark.parametrize("rule", rules.REFUSALS, ids=lambda rule: rule.__name__)
def test_a_rule_that_reads_a_size_says_so(rule):
    read = set(re.findall(r"f\.(\w+)", inspect.getsource(rule))) | set(re.findall(r'"(\w+)"', inspect.getsource(rule).partition("return None")[0]))
    assert (rule in rules.REFUSALS_OF_SIZES) == bool(read & {*facts.SIZES, "chunked"})
