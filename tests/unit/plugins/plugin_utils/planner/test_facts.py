from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import (
    DEEPSEEK_LITE,
    GEMMA2,
    GIB,
    MISTRAL_V1,
    YARN,
    facts,
)


@pytest.mark.parametrize(
    "version, capability, given, env, model, core, attention",
    [
        ("0.8.5", (7, 5), {}, {}, {}, "V0", "XFORMERS"),
        ("0.8.5", (8, 6), {}, {}, {}, "V1", "FLASH_ATTN"),
        ("0.8.5", (8, 6), {}, {"VLLM_USE_V1": "0"}, {}, "V0", "FLASH_ATTN"),
        ("0.8.5", (8, 6), {"kv_cache_dtype": "fp8"}, {}, {}, "V0", "XFORMERS"),
        ("0.8.5", (9, 0), {"kv_cache_dtype": "fp8"}, {}, {}, "V1", "FLASH_ATTN"),
        ("0.8.5", (9, 0), {"kv_cache_dtype": "fp8"}, {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}, {}, "V0", "XFORMERS"),
        ("0.8.5", (9, 0), {"kv_cache_dtype": "fp8"}, {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN_VLLM_V1"}, {}, "V1", "FLASH_ATTN_VLLM_V1"),
        ("0.8.5", (12, 0), {"kv_cache_dtype": "fp8"}, {}, {}, "V0", "XFORMERS"),
        ("0.8.5", (8, 6), {}, {"VLLM_ATTENTION_BACKEND": "XFORMERS"}, {}, "V0", "XFORMERS"),
        ("0.8.5", (8, 6), {"pipeline_parallel_size": 2}, {}, {}, "V0", "FLASH_ATTN"),
        ("0.8.5", (8, 6), {"enforce_eager": True, "preemption_mode": "swap"}, {}, {"head_dim": 80}, "V0", "XFORMERS"),
        ("0.8.5", (8, 6), {}, {}, DEEPSEEK_LITE, "V1", "TRITON_MLA"),
        ("0.8.5", (7, 5), {}, {"VLLM_MLA_DISABLE": "1"}, DEEPSEEK_LITE, "V0", "XFORMERS"),
        ("0.19.1", (7, 5), {}, {}, {}, "V1", "FLASHINFER"),
        ("0.19.1", (7, 5), {}, {}, {"head_dim": 80}, "V1", "TRITON_ATTN"),
        ("0.19.1", (7, 5), {"attention_backend": "TRITON_ATTN"}, {}, {}, "V1", "TRITON_ATTN"),
        ("0.19.1", (7, 5), {"attention_config": {"backend": "TRITON_ATTN"}}, {}, {}, "V1", "TRITON_ATTN"),
        ("0.19.1", (8, 9), {}, {}, {}, "V1", "FLASH_ATTN"),
        ("0.19.1", (10, 0), {}, {}, {}, "V1", "FLASHINFER"),
        ("0.33.0", (7, 5), {}, {}, {}, "V1", "TRITON_ATTN"),
        ("0.33.0", (12, 0), {}, {}, {}, "V1", "FLASH_ATTN"),
    ],
)
def test_the_core_and_the_attention_that_the_engine_takes(version, capability, given, env, model, core, attention):
    found = facts(given, model, version, capability=capability, env=env)
    assert (found.core, found.attention) == (core, attention)


@pytest.mark.parametrize(
    "length, chunked, batched",
    [(32767, False, 32767), (32768, False, 32768), (32769, True, 2048), (1024, False, 2048)],
)
def test_chunked_prefill_changes_at_32769(length, chunked, batched):
    found = facts({"max_model_len": length})
    assert (found.chunked, found.max_num_batched_tokens, found.max_num_seqs) == (chunked, batched, 256)


@pytest.mark.parametrize(
    "version, card, expected",
    [("0.8.5", 24, (2048, 256)), ("0.8.5", 80, (8192, 1024)), ("0.19.1", 24, (2048, 256)), ("0.33.0", 80, (8192, 1024))],
)
def test_the_defaults_of_v1(version, card, expected):
    found = facts(None, None, version, capability=(8, 6), card_bytes=card * GIB)
    assert (found.max_num_batched_tokens, found.max_num_seqs) == expected
    assert found.chunked and found.prefix


def test_later_engines_lower_a_default_that_another_number_rules_out():
    assert facts({"max_model_len": 16, "max_num_seqs": 4}, version="0.19.1").max_num_batched_tokens == 64
    assert facts({"max_num_batched_tokens": 64}, version="0.19.1").max_num_seqs == 64
    assert facts({"max_num_batched_tokens": 64}).max_num_seqs == 256


@pytest.mark.parametrize(
    "version, given, model, derived",
    [
        ("0.8.5", {}, {}, 40960),
        ("0.8.5", {"rope_scaling": YARN}, {}, 131072),
        ("0.8.5", {"hf_overrides": {"rope_scaling": YARN}}, {}, 131072),
        ("0.8.5", {}, {"rope_scaling": YARN}, 131072),
        ("0.19.1", {"hf_overrides": {"rope_parameters": YARN}}, {}, 131072),
        ("0.33.0", {}, {"rope_scaling": YARN}, 40960),
        ("0.33.0", {"hf_overrides": {"rope_parameters": YARN, "max_position_embeddings": 131072}}, {}, 131072),
        ("0.8.5", {}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, 81920),
        ("0.8.5", {}, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}}, 40960),
        ("0.8.5", {"disable_sliding_window": True}, MISTRAL_V1, 4096),
        ("0.19.1", {"disable_sliding_window": True, "hf_overrides": {"rope_parameters": YARN}}, MISTRAL_V1, 131072),
        ("0.33.0", {"disable_sliding_window": True, "hf_overrides": {"rope_parameters": YARN}}, MISTRAL_V1, 4096),
    ],
)
def test_the_longest_context(version, given, model, derived):
    assert facts(given, model, version).derived == derived


@pytest.mark.parametrize("value, length", [("32K", 32768), ("32k", 32000), (8192, 8192), ("auto", 40960), (-1, 40960), (None, 40960)])
def test_a_length_as_the_engine_reads_it(value, length):
    assert facts({"max_model_len": value}, version="0.19.1").max_model_len == length


@pytest.mark.parametrize(
    "version, capability, given, model, dtype",
    [
        ("0.8.5", (7, 5), {}, {"torch_dtype": "bfloat16"}, "bfloat16"),
        ("0.8.5", (7, 5), {}, {"torch_dtype": "float32"}, "float16"),
        ("0.19.1", (7, 5), {}, {"torch_dtype": "bfloat16"}, "float16"),
        ("0.19.1", (8, 6), {}, {"torch_dtype": "float32"}, "bfloat16"),
        ("0.19.1", (7, 5), {}, GEMMA2, "float32"),
        ("0.33.0", (7, 5), {"dtype": "bfloat16"}, {}, "bfloat16"),
    ],
)
def test_the_number_format_that_the_engine_takes(version, capability, given, model, dtype):
    assert facts(given, model, version, capability=capability).dtype == dtype
