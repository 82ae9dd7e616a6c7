# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Print the memory that the planner predicts beside the memory that the engine logged, for a file of real starts.

    tools/accuracy.py [--cases FILE] [--models FILE] [--markdown FILE]

The files are lists and mappings as tests/data/README.md explains; CASES and MODELS in the environment name others. --markdown writes the
table as a page for docs/.

Scored are the cases of the V0 engine and of quality A, which have every term. Of starts that are near-duplicates (the same model, card and
logged terms) the first is counted. The error of a case is |predicted - logged KV cache| as a share of the card's budget, which is the total
times gpu_memory_utilization.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    importlib.import_module("conftest")  # makes the collection importable

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import hardware, memory, model, problem

GIB = 1024**3
DATA = ROOT / "tests" / "data"
OPTIONS = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_dtype",
    "block_size",
    "enforce_eager",
    "enable_chunked_prefill",
    "swap_space",
    "cpu_offload_gb",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One case with what the planner says about it. predicted is None where error says why there is no prediction."""

    case: dict
    settings: memory.Settings | None = None
    prediction: memory.Prediction | None = None
    refusals: tuple = ()
    warnings: tuple = ()
    error: str = ""

    @property
    def rank(self) -> memory.Rank:
        """The rank that has the least left: the one that the engine's log is about."""
        return min(self.prediction.ranks, key=lambda rank: rank.kv_cache)

    @property
    def kv_error(self) -> float | None:
        """Signed, as a share of the budget; positive where too much KV cache is predicted."""
        if self.prediction is None or self.case.get("kv_gib") is None:
            return None
        return (self.rank.kv_cache - self.case["kv_gib"] * GIB) / self.rank.budget

    @property
    def weights_error(self) -> float | None:
        if self.prediction is None or not self.case.get("weights_gib"):
            return None
        return self.rank.weights / (self.case["weights_gib"] * GIB) - 1


def config_of(record: dict) -> dict:
    """The config.json that a shape of tests/data/models.json stands for."""
    config = {key: value for key, value in record.items() if value is not None}
    architecture = config.pop("architecture", "").replace("DeepseekV2/V3", "DeepseekV2")
    config["architectures"] = [architecture]
    config["vision_config"] = config.pop("vision", None)
    if re.match(r"Qwen\d.*VL", architecture):
        config["rope_scaling"] = {"type": "mrope"}
    config.update(config.pop("moe", {}))
    config.update(config.pop("mla", {}))
    config["quantization_config"] = _quantization(config.get("quantization_config"))
    return {key: value for key, value in config.items() if value is not None}


def _quantization(given: dict | None) -> dict | None:
    """The quantisation of a shape in the words of config.json: the shapes write compressed-tensors in one line."""
    if not given:
        return None
    kind, bits = str(given.get("type", "")), given.get("bits", 4)
    if given.get("quant_method") == "compressed-tensors" or "quant_method" not in given:
        group_size = given.get("group_size") or (128 if bits == 4 else None)
        weights = {"num_bits": bits, "type": "float" if kind.startswith("fp8") else "int", "group_size": group_size}
        group = {"weights": weights, "input_activations": {"num_bits": 8} if "w8a8" in kind or kind.startswith("fp8") else None}
        return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    return given


def _whole(value) -> int | None:
    """The number of a field; None where it only tells the default."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = re.match(r"\d+", value)
        return int(match[0]) if match else None
    return value


def _version(case: dict) -> str:
    match = re.match(r"\d+\.\d+(\.\d+)?", case.get("vllm_version") or "")
    return match[0] if match else "0.8.5"


# What nvidia-smi reports as the total of a card, in MiB, for cases whose log does not say what the engine saw. They are judged, not scored.
CARD_MIB = {
    "T4": 15360, "2080 Ti 11GB": 11264, "2080 Ti": 22528, "L4": 23034, "3090": 24576, "4090": 24564, "5090": 32607, "A100-PCIE-40GB": 40960, "24 GB": 24576,
    "H100": 81559, "80 GB": 81920,
}  # fmt: skip


def cards_of(case: dict) -> tuple[hardware.Card, ...]:
    """The cards of a case, with the total that the engine logged; without one, what the card's name says less an estimate of the reserve."""
    arch = re.search(r"\d+", case.get("gpu_arch") or "")
    arch = int(arch[0]) if arch else 80
    total = case.get("total_gpu_memory_gib")
    count = (_whole(case.get("tensor_parallel")) or 1) * (_whole(case.get("pipeline_parallel")) or 1)
    if total is None:
        size = next((size << 20 for name, size in CARD_MIB.items() if name in (case.get("gpu_name") or "")), None)
        if size is None:
            raise LookupError("the card's total is not known")
        total = (size - hardware.reserved_estimate(size)) / GIB
    return tuple(hardware.Card(index, case.get("gpu_name") or "", divmod(arch, 10), int(total * GIB)) for index in range(count))


def judge(case: dict, records: dict) -> Outcome:
    """What the planner predicts for a case, through the same functions that a plan uses."""
    try:
        name = (case.get("self_check") or {}).get("model_record") or case["model"]
        record = records.get(name)
        if record is None or not record.get("hidden_size"):
            raise LookupError("the model's shape is not known")
        shape = model.read(config_of(record))
        cards = cards_of(case)
        options = {key: case.get(key) for key in OPTIONS}
        options = {key: value if isinstance(value, bool) or key == "kv_cache_dtype" else _whole(value) for key, value in options.items()}
        options["kv_cache_dtype"] = str(options["kv_cache_dtype"] or "auto").split()[0]
        options["gpu_memory_utilization"] = case.get("gpu_memory_utilization") if isinstance(case.get("gpu_memory_utilization"), float) else None
        options["dtype"] = dtype if (dtype := str(case.get("dtype") or "auto").split()[0]) in memory.ACTIVATION_BYTES else "auto"
        options["tensor_parallel_size"], options["pipeline_parallel_size"] = _whole(case.get("tensor_parallel")), _whole(case.get("pipeline_parallel"))
        options["enable_lora"] = "LoRA" in str(case.get("other_flags"))
        for method in ("bitsandbytes", "fp8"):
            if method in str(case.get("quantization")):
                shape = model.quantized_at_load(shape, method)
        env = {} if str(case.get("engine")).startswith("V1") else {"VLLM_USE_V1": "0"}
        nvlink = bool(hardware.NVLINK_NAMES.search(case.get("gpu_name") or ""))
        settings = memory.settings(options, shape, cards, _version(case), env, nvlink)
        prediction = memory.predict(shape, cards, settings)
        refusals, warnings = memory.shortfalls(shape, settings, prediction)
        return Outcome(case, settings, prediction, tuple(refusals), tuple(warnings))
    except LookupError as reason:
        return Outcome(case, error=str(reason).strip("'"))
    except problem.PlanRefused as refused:
        return Outcome(case, error=refused.problems[0].message)


def scored(outcomes: list[Outcome]) -> list[Outcome]:
    """The cases that count: V0, quality A, every term logged, near-duplicates once."""
    found, seen = [], set()
    for outcome in outcomes:
        case = outcome.case
        if outcome.kv_error is None or case.get("total_gpu_memory_gib") is None or case.get("quality") != "A" or not str(case.get("engine")).startswith("V0"):
            continue
        keys = ("model", "total_gpu_memory_gib", "tensor_parallel", "pipeline_parallel", "weights_gib", "non_torch_gib", "activation_gib", "outcome")
        key = tuple(str(case.get(name)) for name in keys) + (() if case.get("activation_gib") is not None else (str(case.get("kv_gib")),))
        if key not in seen:
            seen.add(key)
            found.append(outcome)
    return found


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed, between neighbours in proportion."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Median, 90th percentile and worst error of the KV cache, and the same of the weights, in percent."""
    result = {"cases": len(outcomes)}
    for name in ("kv", "weights"):
        errors = [abs(error) * 100 for outcome in outcomes if (error := getattr(outcome, f"{name}_error")) is not None]
        if errors:
            result |= {f"{name}_median": statistics.median(errors), f"{name}_p90": percentile(errors, 0.9), f"{name}_worst": max(errors)}
    return result


# Starts of the project's own cases that failed, and that the planner does not refuse, because the cause is not in what it is given.
NOT_IN_THE_INPUTS = {
    "t019": "the model refuses half and falls back to float32: a rule of dtypes, not of memory",
    "i009": "it starts with 8 sequences, and how many V1 of 0.8.1 profiles by default the planner does not know",
    "i013": "the utilisation is not told",
    "v011": "another process held the memory",
    "q014": "the sampler's warm-up needs memory outside the budget, after the cache is allocated",
    "t046": "the kernel of block-sparse attention makes a dense mask",
}

# -- Tables --------------------------------------------------------------------------------------------------------------------------------

COLUMNS = ("case", "engine", "card", "model", "weights GiB", "non-torch GiB", "activation GiB", "KV cache GiB", "KV error %", "peak", "outcome", "planner")


def row(outcome: Outcome) -> list[str]:
    case = outcome.case
    ranks = (_whole(case.get("tensor_parallel")) or 1, _whole(case.get("pipeline_parallel")) or 1)
    card = f"{case.get('gpu_name') or '-'} x{ranks[0] * ranks[1]}".replace("|", "/")
    cells = [case["id"], f"{str(case.get('engine'))[:2]} {_version(case)}", card[:28], str(case.get("model"))[:44]]
    if outcome.prediction is None:
        return [*cells, *["-"] * 6, str(case.get("outcome")), f"no prediction: {outcome.error}"]
    rank = outcome.rank
    for key, value in (("weights", rank.weights), ("non_torch", rank.non_torch), ("activation", rank.activation), ("kv", rank.kv_cache)):
        measured = case.get(f"{key}_gib")
        cells.append(f"{value / GIB:.2f} / {'-' if measured is None else f'{measured:.2f}'}")
    error = outcome.kv_error
    cells += ["-" if error is None else f"{error * 100:+.2f}", rank.peak, str(case.get("outcome"))]
    codes = [problem.code for problem in outcome.refusals]
    said = f"refused: {', '.join(codes)}" if codes else ", ".join(f"warned: {problem.code}" for problem in outcome.warnings) or "fits"
    reason = None if codes or case.get("outcome") == "started" else NOT_IN_THE_INPUTS.get(case["id"])
    cells.append(f"{said}; not in the inputs: {reason}" if reason else said)
    return cells


def text_table(rows: list[list[str]]) -> str:
    table = [list(COLUMNS), *rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table)


def markdown_table(rows: list[list[str]]) -> str:
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def summary_text(outcomes: list[Outcome]) -> str:
    found = summary(outcomes)
    if not found["cases"]:
        return "No case has every term."
    lines = [f"{found['cases']} cases"]
    for name, label in (("kv", "KV cache, share of the budget"), ("weights", "weights")):
        if f"{name}_median" in found:
            median, p90, worst = (found[f"{name}_{kind}"] for kind in ("median", "p90", "worst"))
            lines.append(f"{label}: median error {median:.2f} %, 90th percentile {p90:.2f} %, worst {worst:.2f} %")
    return "\n".join(lines)


PAGE = """# Predicted and measured memory

Written by `tools/accuracy.py --markdown docs/accuracy.md`; do not edit. Every number pair is predicted / logged. The cases are public start-up
logs; tests/data/README.md names their sources. The KV error is the difference as a share of the card's budget, positive where the plan expects
more KV cache than there was.

## Scored cases

V0 engine, every term logged, near-duplicates counted once.

{scored_summary}

{scored_table}

## All other cases

Other engines, logs with gaps, and starts that failed. Where a start failed for a reason that is not among the planner's inputs, the last
column names it. A card whose total the log does not tell is taken at its nominal size less an estimate of the driver's share.

{other_table}
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Predicted beside measured memory, for a file of real starts.")
    parser.add_argument("--cases", type=pathlib.Path, default=os.environ.get("CASES") or DATA / "memory_logs.json")
    parser.add_argument("--models", type=pathlib.Path, default=os.environ.get("MODELS") or DATA / "models.json")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the table as this page")
    arguments = parser.parse_args(argv)
    cases = json.loads(pathlib.Path(arguments.cases).read_text(encoding="utf-8"))
    records = json.loads(pathlib.Path(arguments.models).read_text(encoding="utf-8"))
    outcomes = [judge(case, records) for case in cases]
    counted = scored(outcomes)
    chosen = {outcome.case["id"] for outcome in counted}
    others = [outcome for outcome in outcomes if outcome.case["id"] not in chosen]
    print(text_table([row(outcome) for outcome in outcomes]))
    print(f"\nScored: {summary_text(counted)}")
    if arguments.markdown:
        tables = (markdown_table([row(outcome) for outcome in part]) for part in (counted, others))
        page = PAGE.format(scored_summary=summary_text(counted).replace("\n", "\n\n"), scored_table=next(tables), other_table=next(tables))
        arguments.markdown.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
