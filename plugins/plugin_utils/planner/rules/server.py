# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The API server and its metrics: options that are not what they seem."""

from __future__ import annotations

from ..facts import Facts
from ..problem import Problem
from .subject import Subject, listed

RULES = Subject()


@RULES.refusal
def task_not_for_model(f: Facts) -> Problem | None:
    """config.py ModelConfig._resolve_task: none of the architectures that the planner knows transcribes."""
    if f.given.get("task") != "transcription":
        return None
    return Problem("task_not_for_model", f"task is transcription, and {f.model.architecture} does not hear.", "Remove task.")


@RULES.refusal
def reasoning_without_parser(f: Facts) -> Problem | None:
    """entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_reasoning") or f.option("reasoning_parser"):
        return None
    return Problem("reasoning_without_parser", "enable_reasoning is true, and reasoning_parser is missing.", "Set reasoning_parser: deepseek_r1, or granite.")


@RULES.warning
def parser_without_reasoning(f: Facts) -> Problem | None:
    if "enable_reasoning" not in f.schema or f.option("enable_reasoning") or not f.option("reasoning_parser"):
        return None
    message = f"reasoning_parser has no effect in vLLM {f.lane.version} while enable_reasoning is not true."
    return Problem("parser_without_reasoning", message, "Set enable_reasoning: true.")


@RULES.refusal
def tool_choice_without_parser(f: Facts) -> Problem | None:
    """entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_auto_tool_choice") or f.option("tool_call_parser"):
        return None
    return Problem("tool_choice_without_parser", "enable_auto_tool_choice is true, and tool_call_parser is missing.", "Set tool_call_parser, such as hermes.")


@RULES.refusal
def log_outputs_without_requests(f: Facts) -> Problem | None:
    """vllm 0.19.1 entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_log_outputs") or f.option("enable_log_requests"):
        return None
    return Problem("log_outputs_without_requests", "enable_log_outputs is true, and enable_log_requests is not.", "Set enable_log_requests: true.")


@RULES.warning
def metrics_hidden(f: Facts) -> Problem | None:
    """engine/metrics.py: shown only to the version that deprecated them, as a string."""
    if f.core != "V0" or f.option("disable_log_stats") or f.option("show_hidden_metrics_for_version") == "0.7":
        return None
    wanted = [name for name, on in (("vllm:gpu_prefix_cache_hit_rate", f.prefix), ("vllm:cpu_cache_usage_perc", f.given.get("swap_space"))) if on]
    if not wanted:
        return None
    message = f"The V0 engine hides {' and '.join(wanted)}."
    return Problem("metrics_hidden", message, 'Set show_hidden_metrics_for_version: "0.7", that very string.')


@RULES.warning
def metrics_off(f: Facts) -> Problem | None:
    if not f.option("disable_log_stats"):
        return None
    return Problem(
        "metrics_off", "disable_log_stats removes the engine's metrics, and with them what monitoring and watchdog see.", "Remove disable_log_stats."
    )


@RULES.warning
def deprecated_option(f: Facts) -> Problem | None:
    names = [name for name, value in f.given.items() if value is not None and f.schema.get(name, {}).get("deprecated")]
    if not names:
        return None
    return Problem("deprecated_option", f"vLLM {f.lane.version} calls {listed(names)} deprecated.", f"Remove {listed(names)}.")
