from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import lanes, options
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import RUN_SH, VERSIONS


def test_every_lane_has_a_schema_and_every_schema_a_lane():
    assert list(lanes.LANES) == options.versions() == list(VERSIONS)
    assert lanes.DEFAULT == VERSIONS[0]


def test_an_unknown_lane_names_the_known_ones():
    with pytest.raises(ValueError, match=r"vLLM 0\.9\.9 is not known: known versions are 0\.8\.5, 0\.19\.1, 0\.33\.0"):
        lanes.lane("0.9.9")


@pytest.mark.parametrize("target", ("0.19.1", "0.33.0"))
def test_every_option_that_a_later_engine_lacks_has_its_replacement(target):
    gone = set(options.schema("0.8.5")) - set(options.schema(target))
    assert gone <= set(lanes.lane(target).instead)
    assert not set(lanes.lane(target).instead) & set(options.schema(target))


def test_what_0_8_5_is_told_to_use_exists_there():
    assert not set(lanes.BEFORE_V1) & set(options.schema("0.8.5"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_options_and_values_that_a_lane_names_are_its_own(version):
    lane, schema = lanes.lane(version), options.schema(version)
    for wanted in lane.wants.values():
        assert options.check(version, dict(wanted)) == []
    methods = set(schema["quantization"].get("choices", schema["quantization"].get("known")))
    assert set(lane.quantization) <= methods
    assert {method for accepted in lane.checkpoint.values() for method in accepted} - {"marlin"} <= methods
    assert lane.half_only <= set(lane.quantization)
    if "attention_backend" in schema:
        assert set(lane.backends) <= set(schema["attention_backend"]["known"])
    assert set(lane.attention.values()) <= set(lane.backends)


def test_tables_by_capability():
    lane = lanes.lane("0.8.5")
    assert [lanes.at(lane.core, sm) for sm in (70, 75, 80, 86, 89, 90, 120)] == ["V0", "V0", "V1", "V1", "V1", "V1", "V1"]
    assert lanes.at(lanes.lane("0.19.1").attention, 75) == "FLASHINFER"
    assert lanes.at(lanes.lane("0.33.0").attention, 75) == "TRITON_ATTN"
    assert lanes.at(lanes.lane("0.19.1").wants, 75) == {"attention_backend": "TRITON_ATTN"}
    assert not lanes.at(lanes.lane("0.19.1").wants, 86)
    assert lanes.at(lane.wants, 75) is None


# -- Drivers -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version, driver, runs",
    [
        ("0.8.5", "570.133.20", True),
        ("0.8.5", "550.54.15", True),
        ("0.8.5", "535.230.02", False),
        ("0.19.1", "570.133.20", True),
        ("0.19.1", "550.163.01", False),
        ("0.33.0", "570.133.20", False),
        ("0.33.0", "580.65.06", True),
        ("0.33.0", None, True),
        ("0.33.0", "unknown", True),
    ],
)
def test_which_driver_runs_which_engine(version, driver, runs):
    assert lanes.runs_on(version, driver) is runs
    assert (lanes.driver_problem(version, driver) is None) is runs


def test_a_driver_that_is_too_old_has_two_remedies():
    problem = lanes.driver_problem("0.33.0", "570.133.20")
    assert problem.code == "driver_too_old"
    assert problem.message == "vLLM 0.33.0 is built for CUDA 13.0 and needs driver 580 or later: the host has 570.133.20."
    assert problem.remedy == "Use the engine 0.19.1, the newest that driver 570.133.20 runs, or install driver 580 or later."
    assert lanes.driver_problem("0.8.5", "470.1").remedy == "Install driver 550 or later."


def test_an_image_that_asks_for_more_than_it_needs_is_started_with_a_variable():
    problem = lanes.image_problem("0.19.1", "570.133.20", {})
    assert problem.code == "image_wants_newer_driver"
    assert 'NVIDIA_DISABLE_REQUIRE: "1"' in problem.remedy
    assert lanes.image_problem("0.19.1", "570.133.20", {"NVIDIA_DISABLE_REQUIRE": "1"}) is None
    assert lanes.image_problem("0.19.1", "575.64.03", {}) is None
    assert lanes.image_problem("0.8.5", "570.133.20", {}) is None
    assert lanes.image_problem("0.19.1", None, {}) is None


# -- From one lane to another --------------------------------------------------------------------------------------------------------------


def translated(target, given, env=None, source="0.8.5", sm=75):
    result = lanes.translate(source, target, given, env or {}, options.schema(target), sm)
    assert options.check(target, result.options) == []
    return result


def test_the_article_in_another_lane():
    result = translated("0.19.1", RUN_SH)
    kept = {name: value for name, value in RUN_SH.items() if name not in ("swap_space", "quantization")}
    assert result.options == {**kept, "attention_backend": "TRITON_ATTN"}
    assert [name for name, dummy in result.changes] == ["swap_space", "attention_backend", "quantization"]
    assert "attention_backend" not in translated("0.33.0", RUN_SH).options


def test_the_same_lane_changes_nothing():
    assert translated("0.8.5", RUN_SH) == lanes.Translation(RUN_SH, {}, [])


def test_a_faster_card_keeps_its_quantization():
    assert translated("0.19.1", RUN_SH, sm=86).options["quantization"] == "awq"


@pytest.mark.parametrize(
    "source, target, given, expected",
    [
        ("0.8.5", "0.19.1", {"swap_space": 8, "preemption_mode": "swap", "tensor_parallel_size": 4}, {"kv_offloading_size": 32, "tensor_parallel_size": 4}),
        ("0.19.1", "0.8.5", {"kv_offloading_size": 32, "tensor_parallel_size": 4}, {"swap_space": 8, "preemption_mode": "swap", "tensor_parallel_size": 4}),
        (
            "0.8.5",
            "0.33.0",
            {"max_seq_len_to_capture": 32768, "enable_reasoning": True, "reasoning_parser": "deepseek_r1"},
            {"reasoning_parser": "deepseek_r1"},
        ),
        ("0.8.5", "0.33.0", {"guided_decoding_backend": "xgrammar"}, {"structured_outputs_config": {"backend": "xgrammar"}}),
        ("0.8.5", "0.19.1", {"rope_scaling": {"rope_type": "yarn"}}, {"hf_overrides": {"rope_parameters": {"rope_type": "yarn"}}}),
        ("0.8.5", "0.19.1", {"disable_mm_preprocessor_cache": True, "task": "embed"}, {"mm_processor_cache_gb": 0, "runner": "pooling"}),
        ("0.8.5", "0.19.1", {"override_pooler_config": {"softmax": True}, "task": "transcription"}, None),
        ("0.19.1", "0.33.0", {"attention_backend": "TRITON_ATTN", "max_num_partial_prefills": 2}, {"attention_backend": "TRITON_ATTN"}),
    ],
)
def test_what_becomes_of_an_option(source, target, given, expected):
    result = lanes.translate(source, target, given, {}, options.schema(target), 86)
    changed = {name for name, dummy in result.changes}
    assert {name for name in given if name not in options.schema(target)} <= changed
    if expected is not None:
        assert result.options == expected


def test_variables_that_are_no_longer_read_are_dropped_and_named():
    result = translated("0.19.1", {}, {"VLLM_ATTENTION_BACKEND": "XFORMERS", "HF_HUB_OFFLINE": "1"})
    assert result.env == {"HF_HUB_OFFLINE": "1"}
    assert ("VLLM_ATTENTION_BACKEND", "Use the option attention_backend.") in result.changes


def test_metrics_have_the_names_of_their_engine():
    assert lanes.lane("0.8.5").metrics["kv_usage"] == "vllm:gpu_cache_usage_perc"
    assert lanes.lane("0.19.1").metrics["kv_usage"] == lanes.lane("0.33.0").metrics["kv_usage"] == "vllm:kv_cache_usage_perc"


@pytest.mark.parametrize(
    "given", [{"rope_scaling": ["yarn"]}, {"rope_scaling": {"factor": 2.0}, "hf_overrides": ["x"]}, {"rope_theta": 1.0, "hf_overrides": "x"}]
)
def test_what_is_no_mapping_has_no_equivalent(given):
    """A rule refuses it; until then it must not be in the way of saying what another lane would change."""
    translated = lanes.translate("0.8.5", "0.33.0", given, {}, options.schema("0.33.0"), 75)
    assert "rope_parameters" not in str(translated.options) and {name for name, dummy in translated.changes} >= set(given) - {"hf_overrides"}
