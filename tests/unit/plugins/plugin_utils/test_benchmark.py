"""Benchmarks: runs, figures, comparison and table."""

import copy

import pytest

from ansible_collections.gpuhosts.inference.plugins.filter.benchmark_plan import benchmark_plan
from ansible_collections.gpuhosts.inference.plugins.filter.benchmark_plot import benchmark_plot
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import benchmark

SCENARIOS = {
    "short": {
        "max_concurrency": [1, 4],
        "random_prefix_len": 940,
        "random_input_len": 60,
        "random_output_len": 8,
        "rounds": 3,
        "table": ["output_throughput", "mean_e2el_ms", "prefix_hits", "failed"],
        "article": {"article": {"output_throughput": 57, "mean_e2el_ms": 5630, "failed": 0}},
    }
}
INSTANCES = [{"name": "coder", "model": "m", "options": {"max_num_seqs": 64}}, {"name": "other", "model": "m"}]
HOST = {"driver_version": "570.153.02", "gpus": [{"index": n, "name": "RTX 2080 Ti", "memory_total_bytes": 22 * 2**30} for n in range(4)]}


def measured(throughput=50.0, **instance):
    """What the module returns for a run."""
    return {
        "tool": {"completed": 8, "duration": 2.0, "total_input_tokens": 8000, "output_throughput": throughput, "request_throughput": 4.0,
                 "mean_e2el_ms": 1000.0, "mean_ttft_ms": 300.0, "mean_tpot_ms": 20.0},
        "errors": {},
        "metrics": {
            "before": {"vllm:request_prompt_tokens_sum": 100.0, "vllm:request_prompt_tokens_count": 1.0, "vllm:num_preemptions_total": 1.0},
            "after": {"vllm:request_prompt_tokens_sum": 18100.0, "vllm:request_prompt_tokens_count": 10.0, "vllm:num_preemptions_total": 3.0},
            "peak": {"vllm:gpu_cache_usage_perc": 0.15},
        },
        "cards": {"0": 10 * 2**30, "1": 12 * 2**30, "2": None},
        "instance": {"engine_version": "0.8.5", "image": {"id": "sha256:aa", "reference": "vllm@sha256:bb"}, "gpus": [0, 1], "rung": 0,
                     "model": {"repo_id": "m", "commit": "c1"}, "argv": ["--model", "/m", "--swap-space", "4"], "environment": {}, **instance},
    }  # fmt: skip


def record(results=None, baseline=None, against=None, name="short", reason="", **changes):
    """A record of the scenario; results: one for each run, or one for all."""
    plan = benchmark.plan(benchmark.scenario(SCENARIOS, name, **changes), benchmark.sides(INSTANCES, "coder", against))
    results = results if isinstance(results, list) else [results or measured()] * len(plan["runs"])
    settings = {"host": "coder01", "started": "2026-11-28T08:00:00Z", "reason": reason, "baseline": baseline, "tolerance": 0.1}
    return benchmark.record(plan, results, HOST, settings)


def slower(factor):
    return [measured(50.0 * factor + step) for step in range(6)]


# -- What is measured ----------------------------------------------------------------------------------------------------------------------


def test_sides_are_measured_in_turn_in_every_round():
    plan = benchmark_plan(INSTANCES, SCENARIOS, "short", against="other", rounds=2)
    assert plan["problem"] is None
    assert [(run["round"], run["side"], run["max_concurrency"]) for run in plan["runs"]] == [
        (number, side, level) for number in (1, 2) for side in ("coder", "other") for level in (1, 4)
    ]


def test_no_two_runs_of_a_side_have_the_same_prompts_and_both_sides_have_the_same():
    seeds = {}
    for run in benchmark_plan(INSTANCES, SCENARIOS, "short", against="other", seed=7)["runs"]:
        seeds.setdefault(run["side"], []).append(run["options"]["seed"])
    assert seeds["coder"] == seeds["other"] == [7, 8, 9, 10, 11, 12]


def test_the_tool_gets_its_own_options_alone():
    options = benchmark_plan(INSTANCES, SCENARIOS, "short")["runs"][1]["options"]
    assert options == {
        "random_prefix_len": 940, "random_input_len": 60, "random_output_len": 8, "dataset_name": "random", "ignore_eos": True,
        "percentile_metrics": "ttft,tpot,itl,e2el", "max_concurrency": 4, "num_prompts": 16, "seed": 1,
    }  # fmt: skip


def test_lengths_are_scaled_and_keep_their_shares():
    found = benchmark.scenario(SCENARIOS, "short", 0.1)
    assert [found[key] for key in benchmark.LENGTHS] == [94, 6, 1]


def test_keys_that_differ_are_added_to_the_instances_own():
    first, second = benchmark.sides(INSTANCES, "", {"engine_version": "0.19.1", "options": {"dtype": "half"}})
    assert first == {"name": "coder", "instance": "coder", "instances": INSTANCES}
    assert second["name"] == "coder with engine_version 0.19.1, dtype half" and second["instance"] == "coder"
    assert second["instances"] == [{"name": "coder", "model": "m", "engine_version": "0.19.1", "options": {"max_num_seqs": 64, "dtype": "half"}}, INSTANCES[1]]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"name": ""}, "No scenario is named: choose one with -e scenario=NAME, short."),
        ({"name": "long"}, "There is no scenario long: choose one with -e scenario=NAME, short."),
        ({"instance": "nobody"}, "nobody is not one of the host's instances: coder, other."),
        ({"against": "nobody"}, "nobody is not one of the host's instances: coder, other."),
        ({"against": "coder"}, "coder cannot be compared with itself: name another instance, or the keys that differ."),
        ({"against": {"model": "m"}}, "Nothing of {'model': 'm'} differs from coder as it is."),
        ({"rounds": -1}, "Scenario short: max_concurrency, prompts_per_client and rounds are at least 1."),
        ({"instances": []}, "The host serves nothing: vllm_instances is empty."),
        ({"scenarios": {"short": {"max_concurrency": 1}}}, "Scenario short has no random_input_len: how many tokens long is that?"),
        (
            {"scenarios": {"short": SCENARIOS["short"] | {"table": ["speed"]}}},
            "Scenario short: speed in its table is none of the figures " + ", ".join(benchmark.FIGURES) + ".",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said):
    given = {"instances": INSTANCES, "scenarios": SCENARIOS, "name": "short"} | arguments
    assert benchmark_plan(given.pop("instances"), **given) == {"problem": said}


def test_plots_that_cannot_be_made_are_refused_before_the_load(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = "Plots need matplotlib on the controller: pip install -r requirements-plots.txt, or set benchmark_plots to false."
    assert benchmark_plan(INSTANCES, SCENARIOS, "short", plots=True) == {"problem": said}


# -- What it comes to ----------------------------------------------------------------------------------------------------------------------


def test_figures():
    assert benchmark.figures(measured()) == {
        "prompt_throughput": 8000.0,  # 8 prompts of 2000 tokens in 2 s: the engine counted 18000 in 9, one of them the tool's own
        "output_throughput": 50.0, "request_throughput": 4.0, "mean_e2el_ms": 1000.0, "mean_ttft_ms": 300.0, "mean_tpot_ms": 20.0,
        "kv_cache_usage": 0.15, "prefix_hits": None, "preemptions": 2.0, "gpu_memory_bytes": 12 * 2**30, "failed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "names", [("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"), ("vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_hits_total")]
)
def test_prefix_hits_are_those_of_this_run(names):
    found = measured()
    found["metrics"]["before"] |= dict(zip(names, (1000.0, 0.0), strict=True))
    found["metrics"]["after"] |= dict(zip(names, (2000.0, 940.0), strict=True))
    assert benchmark.figures(found)["prefix_hits"] == 0.94


def test_an_engine_without_metrics_is_said_and_measured_all_the_same():
    found = measured()
    found["metrics"] = {"before": {}, "after": {}, "peak": {}}
    whole = record(found)
    assert whole["runs"][0]["figures"]["prompt_throughput"] == 4000.0 and whole["runs"][0]["figures"]["kv_cache_usage"] is None
    said = "The engine has no vllm: metrics (disable_log_stats is set): KV cache, prefix hits and the prompts' true length are not known."
    assert whole["notes"] == [said] and said in benchmark.text(whole)


def test_a_run_in_which_everything_failed_is_not_fast():
    found = measured(0.0)
    found["tool"] |= {"completed": 0, "mean_e2el_ms": 0.0, "mean_ttft_ms": 0.0, "mean_tpot_ms": 0.0}
    assert not record(found, baseline=record())["comparison"]["improvements"]


def test_medians_and_spread():
    whole = record([measured(value) for value in (1.0, 50.0, 2.0, 70.0, 9.0, 54.0)])
    assert whole["summary"]["coder"]["4"]["output_throughput"] == {"median": 54.0, "low": 50.0, "high": 70.0}
    assert whole["summary"]["coder"]["4"]["prefix_hits"] is None


def test_what_the_figures_depend_on_is_kept():
    (side,) = record()["sides"]
    assert {key: value for key, value in side["fingerprint"].items() if key != "scenario"} == {
        "cards": ["RTX 2080 Ti, 22 GiB"] * 2, "driver": "570.153.02", "engine": "0.8.5", "image": "sha256:aa", "model": "m", "revision": "c1",
        "options": ["--model", "/m", "--swap-space", "4"], "environment": {}, "rung": 0,
    }  # fmt: skip


def test_a_benchmark_that_ended_early_is_kept_and_marked():
    partial = record([measured()] * 2, baseline=record(), reason="Nobody answers.")
    assert (partial["status"], len(partial["runs"]), partial["planned_runs"], partial["comparison"]["baseline"]) == ("partial", 2, 6, None)
    assert "PARTIAL: 2 of 6 runs. Nobody answers." in benchmark.text(partial)
    assert "PARTIAL: 0 of 6 runs. It was interrupted." in benchmark.text(record([]))


def test_a_step_down_meanwhile_is_said():
    whole = record([measured()] * 5 + [measured(rung=1)])
    assert whole["notes"] == ["coder did not stay as it was: rung was 0, is 1."]


def test_a_difference_that_was_not_in_force_is_said():
    whole = record(against={"engine_version": "0.19.1"})
    assert whole["notes"] == ["Both sides ran with the same options: what differs was not in force, as where vllm_instances comes from the command line."]


# -- Beside a kept one ---------------------------------------------------------------------------------------------------------------------


def test_a_regression_is_named_with_what_has_changed():
    found = record([measured(value, argv=["--model", "/m", "--swap-space", "8"]) for value in (30, 30, 31, 31, 32, 32)], baseline=record(slower(1)))
    assert found["comparison"]["regressions"][-1] == "coder, 4 at once: generation throughput 53.0 tokens/s -> 31.0 tokens/s (42% worse)"
    assert found["comparison"]["changed"] == ["coder: options was 4, is 8"]
    shown = benchmark.text(found)
    assert "Compared with the baseline of 2026-11-28T08:00:00Z:\n  REGRESSION coder, 1 at once: generation throughput" in shown
    assert "  changed    coder: options was 4, is 8" in shown


def test_what_is_better_is_named():
    found = record(slower(2), baseline=record(slower(1)))["comparison"]
    assert len(found["improvements"]) == 2 and not found["regressions"]


@pytest.mark.parametrize("results", [slower(0.97), [measured(value) for value in (1, 1, 50, 50, 60, 60)], None])
def test_noise_is_no_regression(results):
    whole = record(results, baseline=record(slower(1)))
    assert not whole["comparison"]["regressions"] and "nothing is better or worse beyond the spread" in benchmark.text(whole)


def test_the_first_failed_request_is_a_regression():
    failing = measured()
    failing["errors"] = {"Bad Request": 3}
    assert "coder, 4 at once: failed requests 0 -> 3" in record(failing, baseline=record())["comparison"]["regressions"]


def test_another_load_is_not_compared():
    found = record(slower(0.1), baseline=record(slower(1)), length_scale=0.5)
    assert found["comparison"]["refused"] == [
        "coder measures another thing than the baseline: scenario was random_input_len 60 random_output_len 8 random_prefix_len 940, "
        "is random_input_len 30 random_output_len 4 random_prefix_len 470."
    ]
    assert not found["comparison"]["regressions"]
    assert "Keep this one as the new baseline with -e benchmark_new_baseline=true." in benchmark.text(found)


def test_other_cards_and_unknown_sides_are_not_compared():
    kept = record()
    other = copy.deepcopy(kept)
    other["sides"][0]["fingerprint"]["cards"] = ["A100, 40 GiB"]
    assert record(baseline=other)["comparison"]["refused"] == [
        "coder measures another thing than the baseline: cards was A100, 40 GiB, is RTX 2080 Ti, 22 GiB RTX 2080 Ti, 22 GiB."
    ]
    assert record(baseline=kept, against="other")["comparison"]["refused"] == ["other is not in the baseline."]


# -- In words ------------------------------------------------------------------------------------------------------------------------------


def test_the_table_stands_beside_the_articles():
    titles, table = benchmark.rows(record(slower(1)))
    assert titles == ["", "coder", "article"]
    assert table == [
        ["generation throughput", "53.0 tokens/s (51.0 to 55.0)", "57.0 tokens/s"],
        ["mean response time", "1.00 s", "5.63 s"],
        ["prefix cache hits", "-", "-"],
        ["failed requests", "0", "0"],
    ]
    assert benchmark.text(record()).startswith("coder01/coder: short, 4 at once, 1000 tokens in (940 shared), 8 out, median of 3 rounds (lowest to highest)\n")


def test_the_plot_is_an_svg_with_a_line_for_each_side():
    shown = benchmark_plot(record(against="other"))
    assert shown.startswith("<?xml") and ">other</text>" in shown and ">requests at once</text>" in shown
    assert shown == benchmark_plot(record(against="other"))
