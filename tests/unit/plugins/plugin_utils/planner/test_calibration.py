from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import calibration, hardware, memory, model, settings

GIB = 1024**3
CASES = json.loads((pathlib.Path(__file__).parents[4] / "data" / "memory_logs.json").read_text(encoding="utf-8"))


def gib(number):
    return int(number * GIB)


V0_LOG = """\
INFO 06-09 13:47:58 [api_server.py:1043] vLLM API server version 0.8.5
INFO 06-09 13:48:14 [llm_engine.py:240] Initializing a V0 LLM engine (v0.8.5) with config: model='/models/DeepSeek-R1-0528-Qwen3-8B'
\x1b[1;36m(VllmWorkerProcess pid=101)\x1b[0;0m INFO 06-09 13:48:40 [model_runner.py:1140] Model loading took 3.8517 GiB and 12.063246 seconds
INFO 06-09 13:48:41 [model_runner.py:1140] Model loading took 3.8517 GiB and 12.612310 seconds
(VllmWorkerProcess pid=101) INFO 06-09 13:48:49 [worker.py:287] Memory profiling takes 7.62 seconds
(VllmWorkerProcess pid=101) INFO 06-09 13:48:49 [worker.py:287] the current vLLM instance can use total_gpu_memory (21.49GiB) x \
gpu_memory_utilization (0.93) = 19.98GiB
(VllmWorkerProcess pid=101) INFO 06-09 13:48:49 [worker.py:287] model weights take 3.85GiB; non_torch_memory takes 0.18GiB; PyTorch activation \
peak memory takes 0.46GiB; the rest of the memory reserved for KV Cache is 15.49GiB.
INFO 06-09 13:48:50 [worker.py:287] Memory profiling takes 7.90 seconds
INFO 06-09 13:48:50 [worker.py:287] the current vLLM instance can use total_gpu_memory (21.48GiB) x gpu_memory_utilization (0.93) = 19.98GiB
INFO 06-09 13:48:50 [worker.py:287] model weights take 3.85GiB; non_torch_memory takes 0.20GiB; PyTorch activation peak memory takes 1.45GiB; the \
rest of the memory reserved for KV Cache is 14.49GiB.
INFO 06-09 13:48:50 [executor_base.py:112] # cuda blocks: 26370, # CPU blocks: 58254
INFO 06-09 13:48:50 [executor_base.py:117] Maximum concurrency for 65536 tokens per request: 6.44x
INFO 06-09 13:49:30 [model_runner.py:1592] Graph capturing finished in 31 secs, took 0.63 GiB
"""
V064_LOG = """\
INFO 12-02 09:12:33 model_runner.py:1077] Loading model weights took 14.9888 GB
INFO 12-02 09:12:35 worker.py:232] Memory profiling results: total_gpu_memory=23.58GiB initial_memory_usage=15.34GiB peak_torch_memory=17.06GiB \
memory_usage_post_profile=15.38GiB non_torch_memory=0.35GiB kv_cache_size=3.81GiB gpu_memory_utilization=0.90
INFO 12-02 09:12:35 gpu_executor.py:113] # GPU blocks: 1952, # CPU blocks: 2048
"""
V1_LOG = """\
(APIServer pid=1) INFO 11-02 10:00:00 [api_server.py:1839] vLLM API server version 0.11.0
(EngineCore_DP0 pid=66) INFO 11-02 10:00:40 [gpu_model_runner.py:2653] Model loading took 14.9889 GiB and 5.1 seconds
(EngineCore_DP0 pid=66) INFO 11-02 10:01:10 [gpu_worker.py:298] Available KV cache memory: 51.38 GiB
(EngineCore_DP0 pid=66) INFO 11-02 10:01:11 [kv_cache_utils.py:1087] GPU KV cache size: 420,912 tokens
(EngineCore_DP0 pid=66) INFO 11-02 10:01:31 [gpu_model_runner.py:3480] Graph capturing finished in 20 secs, took 0.55 GiB
(EngineCore_DP0 pid=66) INFO 11-02 10:01:31 [gpu_worker.py:391] Free memory on device (78.66/79.18 GiB) on startup. Desired GPU memory \
utilization is (0.9, 71.26 GiB). Actual usage is 14.99 GiB for weight, 4.76 GiB for peak activation, 0.13 GiB for non-torch memory, and 0.55 GiB \
for CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=54000000000` to fit into requested memory.
"""


def test_a_v0_log_tells_the_terms_of_the_rank_that_sets_the_blocks():
    assert calibration.parse(V0_LOG) == {
        "core": "V0",
        "version": "0.8.5",
        "total": gib(21.48),
        "budget": gib(19.98),
        "weights": gib(3.85),
        "non_torch": gib(0.20),
        "activation": gib(1.45),
        "kv_cache": gib(14.49),
        "cuda_graphs": gib(0.63),
        "gpu_blocks": 26370,
        "cpu_blocks": 58254,
        "kv_tokens": None,
    }


def test_the_older_v0_line_has_the_weights_in_its_peak():
    found = calibration.parse(V064_LOG)
    assert (found["core"], found["total"], found["non_torch"], found["kv_cache"]) == ("V0", gib(23.58), gib(0.35), gib(3.81))
    assert found["activation"] == gib(17.06) - gib(14.9888)
    assert (found["gpu_blocks"], found["budget"]) == (1952, None)


def test_a_v1_log():
    found = calibration.parse(V1_LOG)
    assert (found["core"], found["version"], found["total"], found["kv_cache"]) == ("V1", "0.11.0", gib(79.18), gib(51.38))
    assert (found["weights"], found["activation"], found["non_torch"], found["cuda_graphs"]) == (gib(14.99), gib(4.76), gib(0.13), gib(0.55))
    assert found["kv_tokens"] == 420912


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
@pytest.mark.parametrize("log", [V0_LOG, V064_LOG, V1_LOG])
def test_lines_may_end_in_carriage_returns(log, ending):
    assert calibration.parse(log.replace("\n", ending)) == calibration.parse(log)


def test_the_last_start_of_a_log_counts():
    assert calibration.parse(V0_LOG + V1_LOG) == calibration.parse(V1_LOG)
    assert calibration.parse(V1_LOG + V0_LOG) == calibration.parse(V0_LOG)


@pytest.mark.parametrize("text", ["", "no engine here", "\x00\xff", "model weights take manyGiB", "total_gpu_memory (x)", None, 7])
def test_a_log_without_terms_tells_nothing(text):
    found = calibration.parse(text)
    assert set(found) == {*calibration.TERMS, *calibration.COUNTS, "core", "version"}
    assert all(value is None for value in found.values())


def test_a_log_that_breaks_off_tells_what_it_has():
    assert calibration.parse(V0_LOG[: V0_LOG.index("(VllmWorkerProcess pid=101) INFO 06-09 13:48:49")])["weights"] == gib(3.8517)


QUOTED = [case for case in CASES if "model weights take" in (case["quote"] or "") and "total_gpu_memory (" in case["quote"]]


@pytest.mark.parametrize("case", QUOTED, ids=lambda case: case["id"])
def test_lines_that_people_have_published(case):
    found = calibration.parse(case["quote"])
    assert found["total"] == gib(case["total_gpu_memory_gib"])
    assert found["weights"] == gib(case["weights_gib"])


# -- The ledger ----------------------------------------------------------------------------------------------------------------------------

START = {"model": "Qwen/Qwen3-8B", "card": "RTX 2080 Ti", "tensor_parallel_size": 4, "version": "0.8.5"}


def prediction():
    shape = {
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 151936,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    }
    found = model.read(shape)
    cards = tuple(hardware.Card(index, "RTX 2080 Ti", (7, 5), gib(21.48)) for index in range(4))
    options = {"max_model_len": 65536, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.93, "tensor_parallel_size": 4, "swap_space": 32}
    return memory.predict(found, cards, settings.settings(options, found, cards, "0.8.5"))


def measured(**changes):
    return {**START, "weights": 4000, "activation": 1500, "non_torch": 300, "predicted": {"weights": 3900, "activation": 1000, "non_torch": 200}, **changes}


def learned(*ledger):
    return calibration.correction(list(ledger), **START)


def planned():
    """The same prediction as a plan has it."""
    found = prediction()
    ranks = [{term: getattr(rank, term) for term in calibration.TERMS} for rank in found.ranks]
    return {"memory": {"per_rank": ranks}, "kv": {"blocks": found.blocks}}


def test_an_entry_keeps_predicted_beside_measured():
    found = calibration.entry(V0_LOG, planned(), model="Qwen/Qwen3-8B", card="RTX 2080 Ti", tensor_parallel_size=4, pipeline_parallel_size=1)
    assert set(found) == set(calibration.KEYS)
    assert (found["version"], found["tensor_parallel_size"], found["weights"]) == ("0.8.5", 4, gib(3.85))
    for term in ("weights", "activation", "non_torch", "kv_cache"):
        assert found["predicted"][term] == pytest.approx(found[term], abs=0.02 * GIB)
    assert found["predicted"]["gpu_blocks"] == pytest.approx(found["gpu_blocks"], rel=0.002)


def test_an_entry_without_a_prediction_teaches_nothing():
    assert calibration.correction([calibration.entry(V0_LOG, **START)], **START) == memory.Correction()


def test_a_measured_start_corrects_the_next_plan():
    assert learned(measured()) == memory.Correction(weights=100, activation=1.5, non_torch=100)


def test_several_starts_count_by_their_median():
    assert learned(measured(), measured(weights=3910), measured(weights=3920)).weights == 20


@pytest.mark.parametrize("changes", [{"model": "other"}, {"card": "Tesla T4"}, {"tensor_parallel_size": 2}, {"version": "0.19.1"}])
def test_other_starts_teach_nothing(changes):
    assert learned(measured(**changes)) == memory.Correction()


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": 9000, "activation": 90000, "non_torch": 10**11},
        {"weights": None, "activation": None, "non_torch": None},
        {"weights": "4000", "activation": True, "non_torch": -1},
        {"predicted": None},
        {"predicted": {"weights": 0, "activation": 0, "non_torch": 0}},
        {"predicted": "none"},
    ],
)
def test_terms_that_cannot_be_believed_are_passed_over(changes):
    assert learned(measured(**changes)) == memory.Correction()


@pytest.mark.parametrize("ledger", [None, {}, "ledger", [None, 7, "x", []]])
def test_a_ledger_that_is_none_teaches_nothing(ledger):
    assert calibration.correction(ledger, **START) == memory.Correction()


def test_a_corrected_prediction_equals_the_log():
    entry = calibration.entry(V0_LOG, planned(), **START)
    taught = calibration.correction([entry], **START)
    rank = min(prediction().ranks, key=lambda found: found.kv_cache)
    assert rank.weights + taught.weights == entry["weights"]
    assert int(rank.activation * taught.activation) == pytest.approx(entry["activation"], abs=1)


def test_measured_and_predicted_are_listed_for_a_report():
    rows = calibration.measured_beside(calibration.parse(V0_LOG), prediction().ranks[0])
    assert [term for term, dummy, dummy in rows] == list(calibration.TERMS)
