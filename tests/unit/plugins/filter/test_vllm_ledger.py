from __future__ import annotations

import copy
import json

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_ledger import FilterModule
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan

vllm_ledger = FilterModule().filters()["vllm_ledger"]
GIB = 1024**3
HOST = {"gpus": [{"name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": 22 * GIB}]}
MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
INSTANCE = {"name": "draft", "model": "Qwen/Qwen3-0.6B", "profile": "as_given", "options": {"dtype": "half", "max_num_seqs": 8, "max_model_len": 8192}}
PLAN = plan(INSTANCE, HOST, MODEL)
LOG = """
INFO 11-22 10:00:00 [api_server.py:1043] vLLM API server version 0.8.5
INFO 11-22 10:00:30 [worker.py:287] Memory profiling takes 3.12 seconds
INFO 11-22 10:00:30 [worker.py:287] the current vLLM instance can use total_gpu_memory (21.56GiB) x gpu_memory_utilization (0.90) = 19.41GiB
INFO 11-22 10:00:30 [worker.py:287] model weights take 1.25GiB; non_torch_memory takes 0.05GiB; PyTorch activation peak memory takes 0.60GiB; \
the rest of the memory reserved for KV Cache is 17.51GiB.
"""


def test_a_measured_start_is_added_and_corrects_the_next_plan(tmp_path):
    path = tmp_path / "ledger.json"
    ledger = vllm_ledger(str(path), LOG, INSTANCE, HOST, MODEL)
    assert [(entry["model"], entry["card"], entry["version"]) for entry in ledger] == [("Qwen/Qwen3-0.6B", "NVIDIA GeForce RTX 2080 Ti", "0.8.5")]
    assert ledger[0]["predicted"]["weights"] == PLAN["memory"]["per_rank"][0]["weights"]
    path.write_text(json.dumps(ledger))
    (rank,) = plan(INSTANCE, HOST, MODEL, json.loads(path.read_text()))["memory"]["per_rank"]
    assert rank["weights"] == int(1.25 * GIB) != PLAN["memory"]["per_rank"][0]["weights"]


def test_the_same_start_counts_once_and_a_silent_log_not_at_all():
    once = vllm_ledger([], LOG, INSTANCE, HOST, MODEL)
    assert vllm_ledger(once, LOG, INSTANCE, HOST, MODEL) == once
    assert vllm_ledger(once, "INFO: nothing of memory", INSTANCE, HOST, MODEL) == once


def test_the_card_is_the_instances_own():
    host = copy.deepcopy(HOST)
    host["gpus"].append({"name": "Tesla T4", "compute_capability": "7.5", "memory_total_bytes": 15 * GIB})
    (entry,) = vllm_ledger([], LOG, {**INSTANCE, "gpus": [1]}, host, MODEL)
    assert entry["card"] == "Tesla T4"


def test_a_plan_that_is_refused_was_never_started():
    with pytest.raises(AnsibleFilterError, match="the plan of draft does not fit"):
        vllm_ledger([], LOG, INSTANCE, HOST, {})


def test_what_was_predicted_knows_nothing_of_the_ledger():
    once = vllm_ledger([], LOG, INSTANCE, HOST, MODEL)
    twice = vllm_ledger(once, LOG.replace("1.25GiB", "1.26GiB"), INSTANCE, HOST, MODEL)
    assert len(twice) == 2 and twice[0]["predicted"] == twice[1]["predicted"]


@pytest.mark.parametrize("text, words", [("{", "cannot be read"), ("{}", "neither a list")])
def test_a_ledger_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(AnsibleFilterError, match=words):
        vllm_ledger(str(path), LOG, INSTANCE, HOST, MODEL)
