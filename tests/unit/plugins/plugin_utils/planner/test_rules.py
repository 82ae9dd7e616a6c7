from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import model as shapes
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import rules
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import (
    AWQ,
    DEEPSEEK_LITE,
    FP8_PACKED,
    GEMMA2,
    GIB,
    GPTQ,
    GPTQ_ASYMMETRIC,
    GPTQ_ORDERED,
    MISTRAL_V1,
    QWEN25_72B,
    QWEN2_VL,
    QWEN3_30B_A3B,
    QWEN3_32B,
    RUN_SH,
    VERSIONS,
    YARN,
    facts,
    quantized,
)


def codes(given=None, model=None, version="0.8.5", **rest):
    """The codes of all problems; a refusal has a !."""
    refusals, warnings = rules.judge(facts(given, model, version, **rest))
    return {f"{problem.code}!" for problem in refusals} | {problem.code for problem in warnings}


def only(code, *arguments, **rest):
    refusals, warnings = rules.judge(facts(*arguments, **rest))
    (problem,) = [problem for problem in refusals + warnings if problem.code == code]
    return problem


def case(given=None, model=None, **rest):
    return {"given": given, "model": model, **rest}


# Code (! for a refusal) -> what fires it, and the nearest that does not.
RULES = {
    "value_out_of_range!": (case({"max_num_seqs": 0}), case({"max_num_seqs": 1})),
    "utilization_out_of_range!": (case({"gpu_memory_utilization": 1.01}), case({"gpu_memory_utilization": 1})),
    "driver_too_old!": (case(version="0.33.0", driver="570.133.20"), case(version="0.33.0", driver="580.65.06")),
    "image_wants_newer_driver": (case(version="0.19.1", driver="570.133.20"), case(version="0.19.1", driver="580.65.06")),
    "capability_too_low!": (case(version="0.33.0", capability=(7, 0)), case(capability=(7, 0))),
    "ranks_over_cards!": (case({"tensor_parallel_size": 4, "pipeline_parallel_size": 2}, cards=4), case({"tensor_parallel_size": 4}, cards=4)),
    "device_not_nvidia!": (case({"device": "neuron"}), case({"device": "cuda"})),
    "nsight_without_ray!": (
        case({"ray_workers_use_nsight": True}),
        case({"ray_workers_use_nsight": True, "distributed_executor_backend": "ray"}),
    ),
    "prompt_adapters_without_length!": (
        case({"enable_prompt_adapter": True}),
        case({"enable_prompt_adapter": True, "max_prompt_adapter_token": 16}),
    ),
    "one_process_for_many_ranks!": (
        case({"distributed_executor_backend": "uni", "tensor_parallel_size": 2}),
        case({"distributed_executor_backend": "uni", "tensor_parallel_size": 1}),
    ),
    "external_launcher!": (case({"distributed_executor_backend": "external_launcher"}), case({"distributed_executor_backend": "mp"})),
    "cuda_visible_devices_uuid!": (case(env={"CUDA_VISIBLE_DEVICES": "GPU-8f3c"}), case(env={"CUDA_VISIBLE_DEVICES": "2,3"})),
    "heads_not_divisible!": (case({"tensor_parallel_size": 3}), case({"tensor_parallel_size": 4})),
    "kv_heads_not_divisible!": (
        case({"tensor_parallel_size": 6}, {"num_attention_heads": 48, "num_key_value_heads": 4}),
        case({"tensor_parallel_size": 8}, {"num_attention_heads": 48, "num_key_value_heads": 4}),
    ),
    "intermediate_not_divisible!": (
        case({"tensor_parallel_size": 8}, {"intermediate_size": 25604}),
        case({"tensor_parallel_size": 4}, {"intermediate_size": 25604}),
    ),
    "vocabulary_not_divisible!": (case({"tensor_parallel_size": 3}, {"vocab_size": 32000}), case({"tensor_parallel_size": 3}, {"vocab_size": 32064})),
    "expert_parallel_without_experts!": (case({"enable_expert_parallel": True}), case({"enable_expert_parallel": True}, QWEN3_30B_A3B)),
    "layers_below_stages!": (case({"pipeline_parallel_size": 4}, {"num_hidden_layers": 3}), case({"pipeline_parallel_size": 3}, {"num_hidden_layers": 3})),
    "quantized_input_not_divisible!": (case({"tensor_parallel_size": 2}, {**QWEN25_72B, **AWQ}), case({"tensor_parallel_size": 1}, {**QWEN25_72B, **AWQ})),
    "quantized_output_not_packed!": (
        case({"tensor_parallel_size": 2}, {"head_dim": 4, "num_attention_heads": 6, "num_key_value_heads": 2, **quantized("gptq", group_size=-1)}),
        case({"tensor_parallel_size": 1}, {"head_dim": 4, "num_attention_heads": 6, "num_key_value_heads": 2, **quantized("gptq", group_size=-1)}),
    ),
    "kv_heads_replicated": (case({"tensor_parallel_size": 8}, {"num_key_value_heads": 4}), case({"tensor_parallel_size": 8})),
    "quantization_not_in_engine!": (
        case(None, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, version="0.33.0"),
        case(None, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, version="0.19.1"),
    ),
    "quantization_capability!": (
        case(None, {"quantization_config": {"quant_method": "fp8"}}),
        case(None, {"quantization_config": {"quant_method": "fp8"}}, capability=(8, 9)),
    ),
    "compressed_tensors_scheme!": (case(None, FP8_PACKED), case(None, FP8_PACKED, version="0.19.1")),
    "quantization_mismatch!": (case({"quantization": "awq"}, GPTQ), case({"quantization": "gptq"}, GPTQ)),
    "gptq_picks_bitblas!": (case(None, GPTQ), case({"quantization": "gptq"}, GPTQ)),
    "act_order_not_in_engine!": (case(None, GPTQ_ORDERED, version="0.33.0"), case(None, GPTQ_ORDERED, version="0.19.1")),
    "gptq_not_symmetric!": (case(None, GPTQ_ASYMMETRIC, version="0.33.0"), case(None, GPTQ_ASYMMETRIC, version="0.19.1")),
    "quantized_experts_need_wna16!": (case(None, {**QWEN3_30B_A3B, **AWQ}), case({"quantization": "moe_wna16"}, {**QWEN3_30B_A3B, **AWQ})),
    "awq_not_optimized": (case(None, AWQ), case(None, AWQ, version="0.19.1")),
    "marlin_left_aside": (case({"quantization": "awq"}, AWQ, version="0.19.1"), case(None, AWQ, version="0.19.1")),
    "eight_bit_runs_eagerly": (
        case(None, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}),
        case(None, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    ),
    "bfloat16_unsupported!": (case(None, {"torch_dtype": "bfloat16"}), case({"dtype": "half"}, {"torch_dtype": "bfloat16"})),
    "dtype_not_for_quantization!": (case({"dtype": "float32"}, AWQ), case({"dtype": "half"}, AWQ)),
    "float16_refused_by_model!": (case({"dtype": "half"}, GEMMA2, version="0.19.1"), case({"dtype": "bfloat16"}, GEMMA2, version="0.19.1", capability=(8, 6))),
    "float16_overflows": (case({"dtype": "half"}, GEMMA2), case({"dtype": "half"})),
    "float32_by_itself": (case(None, GEMMA2, version="0.33.0"), case(None, GEMMA2, version="0.33.0", capability=(8, 6))),
    "kv_cache_dtype_unsupported!": (
        case({"kv_cache_dtype": "fp8", "attention_backend": "TRITON_ATTN"}, version="0.19.1"),
        case({"kv_cache_dtype": "fp8", "attention_backend": "TRITON_ATTN"}, version="0.19.1", capability=(8, 9)),
    ),
    "v1_not_available!": (case(env={"VLLM_USE_V1": "1"}), case(env={"VLLM_USE_V1": "0"})),
    "attention_backend_refused!": (case(env={"VLLM_ATTENTION_BACKEND": "FLASHINFER"}), case(env={"VLLM_ATTENTION_BACKEND": "XFORMERS"})),
    "latent_attention_needs_flash!": (case(None, DEEPSEEK_LITE), case(None, DEEPSEEK_LITE, env={"VLLM_MLA_DISABLE": "1"})),
    "flash_attn_breaks_vision!": (case(None, QWEN2_VL, env={"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}), case(None, QWEN2_VL)),
    "flash_attn_without_effect": (case(strategy="wheel"), case(None, QWEN2_VL, strategy="wheel", capability=(8, 6))),
    "attention_backend_ignored": (case(env={"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}), case(env={"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}, capability=(8, 6))),
    "engine_picks_broken_attention": (case(version="0.19.1"), case({"attention_backend": "TRITON_ATTN"}, version="0.19.1")),
    "env_ignored": (case(version="0.19.1", env={"VLLM_ATTENTION_BACKEND": "XFORMERS"}), case(env={"VLLM_ATTENTION_BACKEND": "XFORMERS"})),
    "head_size_without_kernel!": (case(None, {"head_dim": 72}), case(None, {"head_dim": 80})),
    "block_size_without_kernel!": (case({"block_size": 64}), case({"block_size": 32})),
    "prefill_kernel_does_not_compile!": (case({"enable_prefix_caching": True}, {"head_dim": 256}), case({"max_model_len": 8192}, {"head_dim": 256})),
    "triton_tile_too_large!": (
        case({"attention_backend": "TRITON_ATTN"}, {"head_dim": 512}, version="0.33.0"),
        case(None, {"head_dim": 256}, version="0.33.0"),
    ),
    "triton_tile_unproven": (case(None, {"head_dim": 256}, version="0.33.0"), case(None, {"head_dim": 128}, version="0.33.0")),
    "multi_step_without_kernel!": (case({"num_scheduler_steps": 8}), case({"num_scheduler_steps": 8}, capability=(8, 6))),
    "context_over_model!": (case({"max_model_len": 40961}), case({"max_model_len": 40960})),
    "adapters_without_offload!": (
        case({"enable_lora": True, "cpu_offload_gb": 4}),
        case({"enable_lora": True, "cpu_offload_gb": 4}, version="0.19.1"),
    ),
    "batched_tokens_below_context!": (
        case({"max_model_len": 8192, "max_num_batched_tokens": 4096}),
        case({"max_model_len": 8192, "max_num_batched_tokens": 4096, "enable_chunked_prefill": True}),
    ),
    "chunks_not_for_pooling!": (case({"task": "embed", "enable_chunked_prefill": True}), case({"task": "embed", "enable_prefix_caching": True})),
    "batched_tokens_below_sequences!": (
        case({"max_model_len": 64, "max_num_batched_tokens": 64, "max_num_seqs": 65}),
        case({"max_model_len": 64, "max_num_batched_tokens": 64, "max_num_seqs": 64}),
    ),
    "active_over_sequences!": (
        case({"max_num_seqs": 8, "max_num_active_seqs": 9}, version="0.33.0"),
        case({"max_num_seqs": 8, "max_num_active_seqs": 8}, version="0.33.0"),
    ),
    "partial_prefills_without_chunks!": (
        case({"max_num_partial_prefills": 2, "enable_chunked_prefill": False}),
        case({"max_num_partial_prefills": 2, "enable_chunked_prefill": True}),
    ),
    "long_prefill_over_context!": (
        case({"max_model_len": 4096, "long_prefill_token_threshold": 4097}, version="0.33.0"),
        case({"max_model_len": 4096, "long_prefill_token_threshold": 4096}, version="0.33.0"),
    ),
    "partial_prefills_not_in_v1!": (case({"max_num_partial_prefills": 2}, version="0.19.1"), case({"max_num_partial_prefills": 1}, version="0.19.1")),
    "prefix_caching_with_window!": (
        case({"enable_prefix_caching": True}, MISTRAL_V1),
        case({"enable_prefix_caching": True, "disable_sliding_window": True, "max_model_len": 4096}, MISTRAL_V1),
    ),
    "rope_scaling_not_a_mapping!": (case({"rope_scaling": ["yarn"]}), case({"rope_scaling": YARN})),
    "window_and_rope_scaling!": (case({"disable_sliding_window": True}, {"rope_scaling": YARN}), case({"disable_sliding_window": True})),
    "prefix_hash_not_in_v0!": (
        case({"enable_prefix_caching": True, "prefix_caching_hash_algo": "sha256"}),
        case({"enable_prefix_caching": True, "prefix_caching_hash_algo": "sha256"}, capability=(8, 6)),
    ),
    "batch_over_all_sequences": (
        case({"max_model_len": 1024, "max_num_seqs": 2, "max_num_batched_tokens": 4096}),
        case({"max_model_len": 1024, "max_num_seqs": 4, "max_num_batched_tokens": 4096}),
    ),
    "long_context_without_chunks": (
        case({"max_model_len": 40960, "enable_chunked_prefill": False}),
        case({"max_model_len": 40960, "enable_chunked_prefill": True}),
    ),
    "chunked_prefill_by_default": (case({"max_model_len": 32769}), case({"max_model_len": 32767})),
    "unchunked_is_unofficial": (case({"enable_chunked_prefill": False, "max_model_len": 2048}, version="0.19.1"), case({"enable_chunked_prefill": False})),
    "decode_without_graphs": (case({"max_model_len": 32768}), case({"max_model_len": 32768, "max_seq_len_to_capture": 32768})),
    "prefix_caching_off_for_pictures": (case({"enable_prefix_caching": True}, QWEN2_VL), case({"enable_prefix_caching": True})),
    "pictures_are_profiled": (case(None, QWEN2_VL), case({"limit_mm_per_prompt": {"image": 1}}, QWEN2_VL)),
    "adapters_unproven": (case({"enable_lora": True}, version="0.19.1"), case({"enable_lora": True})),
    "swap_over_ram!": (
        case({"swap_space": 12, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
        case({"swap_space": 11, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
    ),
    "swap_share": (
        case({"swap_space": 7, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
        case({"swap_space": 6, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
    ),
    "swap_unused": (case({"swap_space": 8}), case({"swap_space": 8, "preemption_mode": "swap"})),
    "kv_offloading_over_ram!": (
        case({"kv_offloading_size": 60}, version="0.19.1", memory_bytes=64 * GIB),
        case({"kv_offloading_size": 40}, version="0.19.1", memory_bytes=64 * GIB),
    ),
    "offload_over_ram!": (
        case({"cpu_offload_gb": 20, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
        case({"cpu_offload_gb": 10, "tensor_parallel_size": 4}, memory_bytes=64 * GIB),
    ),
    "custom_all_reduce_falls_back": (case({"tensor_parallel_size": 4}, nvlink=False), case({"tensor_parallel_size": 4}, nvlink=True)),
    "task_not_for_model!": (case({"task": "transcription"}), case({"task": "generate"})),
    "reasoning_without_parser!": (case({"enable_reasoning": True}), case({"enable_reasoning": True, "reasoning_parser": "deepseek_r1"})),
    "parser_without_reasoning": (case({"reasoning_parser": "deepseek_r1"}), case({"reasoning_parser": "qwen3"}, version="0.19.1")),
    "tool_choice_without_parser!": (case({"enable_auto_tool_choice": True}), case({"enable_auto_tool_choice": True, "tool_call_parser": "hermes"})),
    "log_outputs_without_requests!": (
        case({"enable_log_outputs": True}, version="0.19.1"),
        case({"enable_log_outputs": True, "enable_log_requests": True}, version="0.19.1"),
    ),
    "metrics_hidden": (case({"enable_prefix_caching": True}), case({"enable_prefix_caching": True, "show_hidden_metrics_for_version": "0.7"})),
    "metrics_off": (case({"disable_log_stats": True}), case()),
    "deprecated_option": (case({"tokenizer_pool_size": 4}), case({"tensor_parallel_size": 4})),
}


@pytest.mark.parametrize("code", RULES)
def test_a_rule_fires_where_it_should_and_nowhere_near(code):
    fires, does_not = RULES[code]
    assert code in codes(**fires)
    assert code not in codes(**does_not)
    problem = only(code.rstrip("!"), **fires)
    assert problem.message.endswith(".") and problem.remedy.endswith(".")


def test_every_rule_is_in_the_table():
    names = {rule.__name__ for rule in rules.ABSURD + rules.REFUSALS + rules.WARNINGS}
    assert names == {code.rstrip("!") for code in RULES}
    assert {rule.__name__ for rule in rules.REFUSALS + rules.ABSURD} == {code.rstrip("!") for code in RULES if code.endswith("!")}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("capability", ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)))
def test_nothing_is_refused_of_a_plain_model(version, capability):
    given = {"max_model_len": 8192, "max_num_seqs": 64, "dtype": "half", "tensor_parallel_size": 4}
    refusals, dummy = rules.check(version, given, shapes.read(QWEN3_32B), config=QWEN3_32B, capability=capability, cards=4, memory_bytes=512 * GIB)
    assert refusals == []


# -- What the rules say --------------------------------------------------------------------------------------------------------------------


def test_the_article_is_not_refused_and_gets_its_warnings():
    found = facts(RUN_SH, AWQ, cards=4, memory_bytes=512 * GIB, driver="570.133.20", nvlink=False)
    assert (found.core, found.attention, found.dtype, found.quantization, found.chunked) == ("V0", "XFORMERS", "float16", "awq", False)
    refusals, warnings = rules.judge(found)
    assert refusals == []
    assert [problem.code for problem in warnings] == [
        "awq_not_optimized",
        "decode_without_graphs",
        "swap_share",
        "swap_unused",
        "custom_all_reduce_falls_back",
        "metrics_hidden",
    ]
    said = {problem.code: problem.message for problem in warnings}
    assert said["swap_share"].startswith("swap_space 64 GiB x 4 cards is 256 GiB, 50% of 512 GiB RAM")
    assert said["decode_without_graphs"].startswith("Contexts over 8192 tokens decode without CUDA graphs")


def test_a_group_that_does_not_fit_names_the_sizes_that_do():
    problem = only("quantized_input_not_divisible", {"tensor_parallel_size": 2}, {**QWEN25_72B, **AWQ})
    assert problem.message == "down_proj has 14784 inputs on each of 2 ranks, not a multiple of the quantisation's group size 128."
    assert problem.remedy == "Use tensor_parallel_size 1, or a checkpoint with a smaller group size."
    smaller = {**QWEN25_72B, **quantized("awq", group_size=32)}
    assert "quantized_input_not_divisible!" not in codes({"tensor_parallel_size": 4}, smaller)


def test_experts_take_smaller_groups():
    # 768 / 4 = 192 is no multiple of 128: moe_wna16 halves the group to 64.
    assert "quantized_input_not_divisible!" not in codes({"tensor_parallel_size": 4, "quantization": "moe_wna16"}, {**QWEN3_30B_A3B, **AWQ})
    refused = codes({"tensor_parallel_size": 4, "quantization": "moe_wna16"}, {**QWEN3_30B_A3B, **AWQ, "moe_intermediate_size": 704 - 64})
    assert "quantized_input_not_divisible!" not in refused
    assert "quantized_input_not_divisible!" in codes(
        {"tensor_parallel_size": 4, "quantization": "moe_wna16"}, {**QWEN3_30B_A3B, **AWQ, "moe_intermediate_size": 704}
    )


@pytest.mark.parametrize(
    "version, capability, given, model, method",
    [
        ("0.8.5", (7, 5), {}, AWQ, "awq"),
        ("0.8.5", (8, 6), {}, AWQ, "awq_marlin"),
        ("0.8.5", (8, 6), {"quantization": "awq"}, AWQ, "awq"),
        ("0.8.5", (7, 5), {}, GPTQ, "gptq_bitblas"),
        ("0.8.5", (7, 5), {}, GPTQ_ASYMMETRIC, "gptq"),
        ("0.8.5", (8, 0), {}, GPTQ, "gptq_marlin"),
        ("0.8.5", (8, 0), {}, GPTQ_ASYMMETRIC, "gptq"),
        ("0.8.5", (7, 5), {"quantization": "bitsandbytes"}, {}, "bitsandbytes"),
        ("0.8.5", (7, 5), {}, {}, None),
        ("0.19.1", (7, 5), {}, AWQ, "awq_marlin"),
        ("0.19.1", (7, 5), {}, GPTQ, "gptq_marlin"),
        ("0.19.1", (7, 5), {"quantization": "awq"}, AWQ, "awq"),
        ("0.33.0", (7, 5), {"quantization": "awq"}, AWQ, "auto_awq"),
        ("0.33.0", (7, 5), {}, GPTQ, "auto_gptq"),
    ],
)
def test_the_quantisation_that_the_engine_takes(version, capability, given, model, method):
    assert facts(given, model, version, capability=capability).quantization == method


@pytest.mark.parametrize(
    "given, model, core, refused",
    [
        ({"quantization": "awq_marlin"}, AWQ, "V0", "quantization_capability"),
        ({"quantization": "gptq_marlin"}, GPTQ, "V0", "quantization_capability"),
        ({"quantization": "marlin"}, AWQ, "V0", "quantization_capability"),
        ({"quantization": "awq"}, {}, "V0", "quantization_mismatch"),
        ({"quantization": "tpu_int8"}, {}, "V0", "quantization_not_in_engine"),
        ({"dtype": "bfloat16"}, AWQ, "V0", "dtype_not_for_quantization"),
    ],
)
def test_what_a_quantisation_is_refused_for(given, model, core, refused):
    found = facts(given, model)
    assert found.core == core
    assert refused in [problem.code for problem in rules.judge(found)[0]]


@pytest.mark.parametrize("backend", ("TORCH_SDPA", "TRITON_ATTN_VLLM_V1", "TRITON_MLA", "FLASHMLA", "FLASHINFER", "NONSENSE"))
def test_backends_that_turing_does_not_run(backend):
    assert "attention_backend_refused!" in codes(env={"VLLM_ATTENTION_BACKEND": backend})


@pytest.mark.parametrize("version, backend", [("0.19.1", "FLASHINFER"), ("0.19.1", "FLASH_ATTN"), ("0.33.0", "FLASHINFER"), ("0.33.0", "FLASH_ATTN")])
def test_backends_that_turing_does_not_run_in_later_engines(version, backend):
    assert "attention_backend_refused!" in codes({"attention_backend": backend}, version=version)
    assert "attention_backend_refused!" not in codes({"attention_backend": backend}, version=version, capability=(8, 6))


@pytest.mark.parametrize(
    "given, model, why",
    [
        ({"enable_prefix_caching": True}, {"head_dim": 192}, "heads of 192 elements"),
        ({"enable_chunked_prefill": True, "dtype": "float32"}, {}, "float32"),
        ({"enable_chunked_prefill": True, "block_size": 8}, {}, "block_size 8"),
        ({"enable_prefix_caching": True, "kv_cache_dtype": "fp8_e4m3"}, {}, "kv_cache_dtype fp8_e4m3"),
        ({"max_model_len": 40960}, {"head_dim": 256}, "enable_chunked_prefill use"),  # on by itself above 32768
    ],
)
def test_the_triton_prefill_kernel_on_turing(given, model, why):
    assert why in only("prefill_kernel_does_not_compile", given, model).message
    assert "prefill_kernel_does_not_compile!" not in codes(given, model, capability=(8, 6))


@pytest.mark.parametrize("head", (64, 80, 128))
@pytest.mark.parametrize("kind", ("auto", "fp8_e5m2"))
def test_what_the_triton_prefill_kernel_does_on_turing(head, kind):
    given = {"enable_prefix_caching": True, "enable_chunked_prefill": True, "kv_cache_dtype": kind}
    assert "prefill_kernel_does_not_compile!" not in codes(given, {"head_dim": head})


def test_a_longer_context_is_allowed_on_request():
    for value in ("1", "true", " TRUE "):
        assert "context_over_model!" not in codes({"max_model_len": 65536}, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": value})
    assert "context_over_model!" in codes({"max_model_len": 65536}, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "0"})


def test_a_window_is_the_longest_context_where_the_backend_cannot_slide():
    assert "context_over_model!" in codes({"dtype": "half", "max_model_len": 8192}, GEMMA2, env={"VLLM_ATTENTION_BACKEND": "XFORMERS"})
    assert "context_over_model!" not in codes({"dtype": "half", "max_model_len": 8192}, GEMMA2)


def test_a_negative_length_is_absurd_where_it_does_not_mean_auto():
    assert codes({"max_model_len": -1}) == {"value_out_of_range!"}
    assert codes({"max_model_len": -2}, version="0.19.1") == {"value_out_of_range!"}


def test_swap_is_for_each_card():
    problem = only("swap_over_ram", {"swap_space": 64, "tensor_parallel_size": 4}, memory_bytes=256 * GIB)
    assert problem.message == "swap_space 64 GiB x 4 cards is 256 GiB, 100% of 256 GiB RAM, and vLLM refuses more than 70%."
    assert problem.remedy == "Use swap_space 44 or less; it is for each card."
    assert not {"swap_over_ram!", "swap_share"} & codes({"swap_space": 64, "tensor_parallel_size": 4}, memory_bytes=None)


def test_absurd_numbers_are_said_once_and_nothing_else_is_judged():
    assert codes({"tensor_parallel_size": 0, "pipeline_parallel_size": -3, "max_num_seqs": -1}) == {"value_out_of_range!"}


# -- Reported on Turing --------------------------------------------------------------------------------------------------------------------

# What users ran into, as far as the cause lies in what the planner is given: source, case, and the problem that now says so before the start.
# Reports whose cause is a version that is no lane (triton 3.3 in the builds around 0.9), a broken build or the card's memory are not here.
REPORTED = {
    "vllm-project/vllm#8189 FlashInfer forced on a 2080 Ti": (case(env={"VLLM_ATTENTION_BACKEND": "FLASHINFER"}), "attention_backend_refused!"),
    "vllm-project/vllm#20216 #29707 AWQ in a compressed-tensors checkpoint on a 2080 Ti": (case(None, FP8_PACKED), "compressed_tensors_scheme!"),
    "QwenLM/Qwen3-VL#719 AWQ slower than GPTQ on a 2080 Ti": (case({"quantization": "awq"}, AWQ), "awq_not_optimized"),
    "vllm-project/vllm#15853 VLLM_USE_V1=1 on a T4": (case(env={"VLLM_USE_V1": "1"}), "v1_not_available!"),
    "vllm-project/vllm#1400 a bfloat16 checkpoint on a T4": (case(None, {"torch_dtype": "bfloat16"}), "bfloat16_unsupported!"),
    "vllm-project/vllm#2140 --dtype float on a 2080 Ti": (case({"dtype": "float", "enable_chunked_prefill": True}), "prefill_kernel_does_not_compile!"),
    "vllm-project/vllm#16551 pictures on 2080 Ti": (case({"dtype": "half"}, QWEN2_VL), "pictures_are_profiled"),
    "vllm-project/vllm#8094 a long context turns chunked prefill on": (case({"max_model_len": 40960}), "chunked_prefill_by_default"),
    "trietnguyeminh/Submission---EXACT--IJCNN FlashInfer chosen on a T4": (case(version="0.19.1"), "engine_picks_broken_attention"),
    "vllm-project/vllm#57712 heads of 512 on a Quadro RTX 6000": (case(None, {"head_dim": 512}, version="0.33.0"), "triton_tile_too_large!"),
    "redlinedtm-jpg/vllm-v100-2080ti-recipes AWQ experts on a 2080 Ti": (case(None, {**QWEN3_30B_A3B, **AWQ}), "quantized_experts_need_wna16!"),
    "gemma2 on a 2080 Ti, which refuses float16 and has no bfloat16": (case(None, GEMMA2, version="0.19.1"), "float32_by_itself"),
    "adapters on two T4 (Kaggle): PassManager::run failed": (case({"enable_lora": True}, version="0.19.1"), "adapters_unproven"),
    "jackypanster/qwen3-32b-awq hangs at the start on four PCIe cards": (case({"tensor_parallel_size": 4}, nvlink=False), "custom_all_reduce_falls_back"),
    "redlinedtm-jpg/vllm-v100-2080ti-recipes CUDA 13 on an older driver": (case(version="0.33.0", driver="570.133.20"), "driver_too_old!"),
    "vllm-project/vllm#5993 a prefill as long as the context": (case({"max_model_len": 40960, "enable_chunked_prefill": False}), "long_context_without_chunks"),
}

# What users ran, and it served.
STARTED = {
    "jackypanster/qwen3-32b-awq": case(RUN_SH, AWQ, cards=4, memory_bytes=512 * GIB),
    "jackypanster/deploy-DeepSeek-R1-0528-Qwen3-8B": case(
        {"tensor_parallel_size": 4, "enforce_eager": True, "dtype": "half"},
        {"torch_dtype": "bfloat16", "hidden_size": 4096, "intermediate_size": 12288},
        cards=4,
    ),
    "tutu329/server-install QwQ-32B on eight cards": case(
        {"tensor_parallel_size": 8, "dtype": "half", "max_num_seqs": 128}, {"torch_dtype": "bfloat16", "num_attention_heads": 40, "intermediate_size": 27648}
    ),
    "aivrar/vllm-windows-build#14 the profile that works": case(
        {
            "attention_backend": "TRITON_ATTN",
            "block_size": 32,
            "enforce_eager": True,
            "gpu_memory_utilization": 0.89,
            "max_num_seqs": 1,
            "max_num_batched_tokens": 2048,
        },
        version="0.33.0",
    ),
}


@pytest.mark.parametrize("source", REPORTED)
def test_what_was_reported_to_fail_is_said_before_the_start(source):
    given, code = REPORTED[source]
    assert code in codes(**given)


@pytest.mark.parametrize("source", STARTED)
def test_what_was_reported_to_serve_is_not_refused(source):
    assert not {code for code in codes(**STARTED[source]) if code.endswith("!")}


def test_awq_experts_need_what_awq_needs():
    """On a V100 the solver chose moe_wna16 for an AWQ checkpoint, and 0.8.5 refused it."""
    given, volta = {"quantization": "moe_wna16", "dtype": "half"}, (7, 0)
    assert "quantization_capability!" in codes(given, {**QWEN3_30B_A3B, **AWQ}, capability=volta)
    assert "quantization_capability!" not in codes(given, {**QWEN3_30B_A3B, **AWQ})
    assert "quantization_capability!" not in codes(given, {**QWEN3_30B_A3B, **GPTQ}, capability=volta)


@pytest.mark.parametrize(
    "asked, config, version, capability",
    [
        ("moe_wna16", {**QWEN3_30B_A3B, **GPTQ_ORDERED}, "0.8.5", (7, 5)),
        ("moe_wna16", {**QWEN3_30B_A3B, **quantized("gptq", bits=3, sym=True, desc_act=False)}, "0.8.5", (7, 5)),
        ("gptq_marlin", GPTQ_ASYMMETRIC, "0.8.5", (8, 6)),
        ("gptq_marlin", quantized("gptq", group_size=16, sym=True, desc_act=False), "0.19.1", (7, 5)),
        ("marlin", GPTQ_ASYMMETRIC, "0.8.5", (8, 6)),
        ("awq_marlin", quantized("awq", group_size=16, zero_point=True), "0.19.1", (7, 5)),
        ("gptq_marlin_24", GPTQ, "0.8.5", (8, 6)),
        ("gptq_bitblas", GPTQ_ASYMMETRIC, "0.8.5", (8, 6)),
    ],
)
def test_a_method_of_the_checkpoints_family_that_does_not_take_it(asked, config, version, capability):
    """quantization names a method that reads others of that quant_method: the engine calls it a mismatch."""
    assert "quantization_mismatch!" in codes({"quantization": asked}, config, version, capability=capability)
    assert "quantization_mismatch!" not in codes(None, config, version, capability=capability)


@pytest.mark.parametrize("stored, method", [("marlin", "marlin"), ("marlin_24", "gptq_marlin_24"), ("gptq", "gptq_marlin"), (["marlin"], "gptq_marlin")])
def test_a_checkpoint_that_is_stored_for_one_kernel(stored, method):
    config = quantized("gptq", sym=True, desc_act=False, checkpoint_format=stored)
    assert facts({}, config, capability=(8, 6)).quantization == method
    assert "quantization_mismatch!" not in codes({"quantization": method}, config, capability=(8, 6))
    assert "quantization_capability!" in codes({"quantization": method}, config)


def test_a_long_prefill_matters_to_the_oldest_engine_with_several_partial_ones():
    given = {"max_model_len": 4096, "long_prefill_token_threshold": 4097, "enable_chunked_prefill": True}
    assert "long_prefill_over_context!" not in codes(given)
    assert "long_prefill_over_context!" in codes({**given, "max_num_partial_prefills": 2})


@pytest.mark.parametrize("kind, dtype, refused", [("float16", "bfloat16", True), ("bfloat16", "half", True), ("float16", "half", False)])
def test_a_16_bit_cache_is_in_the_models_format(kind, dtype, refused):
    found = codes({"kv_cache_dtype": kind, "dtype": dtype}, version="0.33.0", capability=(8, 6))
    assert ("kv_cache_dtype_unsupported!" in found) is refused


def test_experts_in_another_order_have_no_kernel_on_turing():
    """The solver asked for moe_wna16, and the engine's own parser refused it."""
    assert "moe_wna16" not in only("gptq_picks_bitblas", None, {**QWEN3_30B_A3B, **GPTQ_ORDERED}).remedy
    assert "moe_wna16" in only("gptq_picks_bitblas", None, {**QWEN3_30B_A3B, **GPTQ}).remedy


def test_pooling_computes_prompts_whole():
    """vllm 0.8.5 engine/arg_utils.py: chunks are neither its default for a long context, nor taken."""
    found = facts({"task": "embed", "max_model_len": 40960}, {"max_position_embeddings": 40960})
    assert not found.chunked and found.max_num_batched_tokens == 40960
    assert facts({"task": "classify", "max_model_len": 512}).max_num_batched_tokens == 32768


@pytest.mark.parametrize("given", [{"quantization": "deepspeedfp"}, {"quantization": "awq"}])
def test_sixteen_bit_weights_are_quantised_by_few_methods(given):
    assert "quantization_mismatch!" in codes(given)
    assert "quantization_mismatch!" not in codes({"quantization": "bitsandbytes"})


def test_a_wheel_does_not_make_forced_flash_attention_work_for_a_vision_tower():
    given = {"env": {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}, "strategy": "wheel"}
    assert "flash_attn_breaks_vision!" in codes(None, QWEN2_VL, **given)


def test_what_a_wheel_changes_is_said():
    message = only("flash_attn_without_effect", strategy="wheel").message
    assert message == "The attention_strategy wheel changes nothing for Qwen3ForCausalLM: in vLLM 0.8.5 text models never import flash_attn."
    message = only("flash_attn_without_effect", None, QWEN2_VL, strategy="build_on_start").message
    assert message.endswith("in vLLM 0.8.5 vision towers use xFormers on compute capability 7.5.")
