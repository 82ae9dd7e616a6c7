"""Hypothesis strategies for what a plan is made of: hosts, models and instances, as people have and write them, with the edges of every range.

What they draw is plausible: a good share of it fits. `mutated` spoils it.
"""

from __future__ import annotations

import json
import pathlib

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options as engine_options
from hypothesis import strategies as st

GIB = 1024**3
ROOT = pathlib.Path(__file__).parents[5]
PROFILES = ("as_given", "throughput", "low_memory", "latency")

# -- Hosts ---------------------------------------------------------------------------------------------------------------------------------

# (name, compute capability, MiB)
CARDS = (
    ("NVIDIA GeForce RTX 2080 Ti", "7.5", 11264),
    ("NVIDIA GeForce RTX 2080 Ti", "7.5", 22528),
    ("Tesla T4", "7.5", 15360),
    ("Tesla V100-SXM2-32GB", "7.0", 32768),
    ("NVIDIA GeForce RTX 3090", "8.6", 24576),
    ("NVIDIA A100-SXM4-80GB", "8.0", 81920),
    ("NVIDIA GeForce RTX 4090", "8.9", 24564),
    ("NVIDIA L40S", "8.9", 46068),
    ("NVIDIA H100 80GB HBM3", "9.0", 81559),
)
# Which of these run an engine of that version.
DRIVERS = {"0.8.5": ("550.163.01", "570.153.02", "580.95.05"), "0.19.1": ("570.153.02", "580.95.05"), "0.33.0": ("580.95.05",)}


@st.composite
def hosts(draw, version="0.8.5"):
    """What gpu_facts would say of a host, without what no plan reads."""
    name, capability, mib = draw(st.sampled_from(CARDS[:3] * 2 + CARDS))
    card = {"name": name, "compute_capability": capability, "memory_total_bytes": mib << 20}
    card |= draw(st.sampled_from([{}, {"memory_reserved_bytes": 273 << 20}]))
    return {
        "gpus": [{"index": index, **card} for index in range(draw(st.sampled_from([1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8])))],
        "memory_bytes": draw(st.sampled_from([32, 64, 128, 256, 512, 1024])) * GIB,
        "driver_version": draw(st.sampled_from(DRIVERS[version])),
        "nvlink": draw(st.sampled_from([None, True, False])),
    }


# -- Models --------------------------------------------------------------------------------------------------------------------------------

# architecture -> model_type, by which the engine reads a config.json. Left out are those whose configuration class comes with the checkpoint.
DENSE = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Phi3ForCausalLM": "phi3",
    "PhiForCausalLM": "phi",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "OPTForCausalLM": "opt",
}
EXPERTS = {"MixtralForCausalLM": "mixtral", "Qwen2MoeForCausalLM": "qwen2_moe", "Qwen3MoeForCausalLM": "qwen3_moe"}
LATENT = {"DeepseekV3ForCausalLM": "deepseek_v3"}
MODEL_TYPES = {**DENSE, **EXPERTS, **LATENT}
SHAPE_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size")


def known_shapes() -> list[dict]:
    """The public models of tests/data/models.json whose config.json an engine reads by itself, without their quantisation."""
    found = []
    for shape in json.loads((ROOT / "tests/data/models.json").read_text(encoding="utf-8")).values():
        architecture = shape["architecture"].replace("V2/V3", "V3")
        if architecture not in MODEL_TYPES:
            continue
        keys = (*SHAPE_KEYS, "tie_word_embeddings", "torch_dtype", "max_position_embeddings", "sliding_window")
        config = {key: shape[key] for key in keys if shape.get(key) is not None}
        nested = {**(shape.get("moe") or {}), **(shape.get("mla") or {})}
        found.append({"architectures": [architecture], **config, **{key: value for key, value in nested.items() if not key.startswith("kv_bytes")}})
    return found


SHAPES = known_shapes()


@st.composite
def random_shapes(draw):
    """A shape that nobody has published."""
    architecture = draw(st.sampled_from([*DENSE, *EXPERTS, *LATENT]))
    head_dim, kv_heads = draw(st.sampled_from([64, 80, 96, 128])), draw(st.sampled_from([1, 2, 4, 8, 16]))
    groups = draw(st.sampled_from([1, 2, 4, 5, 7, 8]))
    heads = kv_heads * groups
    config = {
        "architectures": [architecture],
        "hidden_size": heads * head_dim,
        "num_hidden_layers": draw(st.sampled_from([1, 2, 12, 24, 32, 40])),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": draw(st.sampled_from([1024, 4096, 11008, 13824, 14336, 18944, 27648, 29568])),
        "vocab_size": draw(st.sampled_from([512, 32000, 50257, 128256, 151936])),
        "tie_word_embeddings": draw(st.booleans()),
        "torch_dtype": draw(st.sampled_from(["bfloat16", "bfloat16", "float16", "float32"])),
        "max_position_embeddings": draw(st.sampled_from([2048, 4096, 8192, 32768, 40960, 131072])),
    }
    if architecture in EXPERTS:
        config["num_local_experts" if architecture.startswith("Mixtral") else "num_experts"] = draw(st.sampled_from([8, 16, 64]))
        config["num_experts_per_tok"] = draw(st.sampled_from([1, 2, 8]))
        if not architecture.startswith("Mixtral"):
            config |= {"moe_intermediate_size": draw(st.sampled_from([512, 768, 1536])), "decoder_sparse_step": 1}
    if architecture in LATENT:
        config |= {"n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1}
        config |= {"q_lora_rank": draw(st.sampled_from([None, 1536])), "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    if architecture == "MistralForCausalLM":
        config["sliding_window"] = draw(st.sampled_from([None, 4096]))
    return config


def quantizations(version="0.8.5"):
    """A quantization_config as the tools write it that make such checkpoints; None for 16 bit."""
    group = st.sampled_from([32, 64, 128, 128, -1])
    awq = st.builds(lambda size: {"quant_method": "awq", "bits": 4, "group_size": size, "zero_point": True, "version": "gemm"}, group)
    gptq = st.fixed_dictionaries(
        {
            "quant_method": st.just("gptq"),
            "bits": st.sampled_from([4, 4, 8]),
            "group_size": group,
            "desc_act": st.booleans(),
            "sym": st.sampled_from([True, True, False]),
        }
    )
    fp8 = st.sampled_from(
        [
            {"quant_method": "fp8", "activation_scheme": "dynamic"},
            {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
            {"quant_method": "fp8", "activation_scheme": "static"},
        ]
    )
    bitsandbytes = st.builds(
        lambda nested: {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": "float16",
            "bnb_4bit_use_double_quant": nested,
        },
        st.booleans(),
    )
    every = [st.none(), st.none(), st.none(), awq, awq, gptq, gptq, fp8, compressed_tensors()]
    return st.one_of(every if version == "0.33.0" else [*every, bitsandbytes])


@st.composite
def compressed_tensors(draw):
    """W4A16, W8A8-int8 and W8A8-fp8, as llm-compressor writes them."""
    kind = draw(st.sampled_from(["packed", "int8", "float8"]))
    weights = {"num_bits": 4 if kind == "packed" else 8, "type": "float" if kind == "float8" else "int", "symmetric": True, "dynamic": False}
    if kind == "packed":
        weights |= {"strategy": "group", "group_size": draw(st.sampled_from([32, 128]))}
    else:
        weights |= {"strategy": "channel", "group_size": None}
    activations = {"num_bits": 8, "type": weights["type"], "symmetric": True, "dynamic": True, "strategy": "token", "group_size": None}
    return {
        "quant_method": "compressed-tensors",
        "format": {"packed": "pack-quantized", "int8": "int-quantized", "float8": "float-quantized"}[kind],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None if kind == "packed" else activations}},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


@st.composite
def models(draw, version="0.8.5"):
    """A checkpoint's config.json."""
    shape = draw(st.one_of(st.sampled_from(SHAPES), random_shapes()))
    architecture = shape["architectures"][0]
    config = {"model_type": MODEL_TYPES[architecture], **shape}
    if architecture == "OPTForCausalLM":
        config |= {"ffn_dim": config.pop("intermediate_size"), "word_embed_proj_dim": config["hidden_size"], "do_layer_norm_before": True}
    quantization = draw(quantizations(version))
    if quantization is not None:
        config["quantization_config"] = quantization
    return {key: value for key, value in config.items() if value is not None or key in ("sliding_window", "q_lora_rank")}


# -- Instances -----------------------------------------------------------------------------------------------------------------------------

COUNTS = (1, 2, 7, 8, 16, 64, 128, 256, 1024)
# The options that a plan decides, judges or computes with, and what people set beside them: values that they write, and the edges.
VALUES = {
    "tensor_parallel_size": (1, 2, 3, 4, 8),
    "pipeline_parallel_size": (1, 2, 4),
    "data_parallel_size": (1, 2),
    "max_model_len": (1, 15, 16, 512, 2048, 4096, 8191, 8192, 8193, 16384, 32768, 32769, 131072, "4k", "8K"),
    "max_num_batched_tokens": (1, 16, 256, 512, 2048, 4096, 8192, 32768, 65536),
    "max_num_seqs": COUNTS,
    "gpu_memory_utilization": (0.01, 0.3, 0.5, 0.85, 0.9, 0.95, 0.96, 1, 1.0),
    "swap_space": (0, 0.5, 1, 4, 16, 64),
    "cpu_offload_gb": (0, 1, 8.5, 20),
    "max_seq_len_to_capture": (0, 1, 2048, 8192, 32768),
    "num_scheduler_steps": (1, 2, 8),
    "max_num_partial_prefills": (1, 2),
    "max_long_partial_prefills": (1, 2),
    "long_prefill_token_threshold": (0, 512, 100000),
    "max_logprobs": (0, 20, 100),
    "seed": (0, 42),
    "max_loras": (1, 4),
    "max_lora_rank": (8, 16, 64),
    "max_cpu_loras": (1, 4),
    "rope_scaling": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, {"rope_type": "linear", "factor": 2.0}),
    "rope_theta": (10000.0, 1e6),
    "generation_config": ("auto", "vllm"),
    "override_generation_config": ({"temperature": 0.2},),
    "show_hidden_metrics_for_version": ("0.7",),
    "compilation_config": (0, 3, {"level": 0}),
    "num_gpu_blocks_override": (512, 100000),
    "scheduler_delay_factor": (0.0, 0.5),
    "distributed_executor_backend": ("mp", "uni", "external_launcher"),
    "model_impl": ("auto", "vllm"),
    # Later engines have more, each for a model or a card of its own.
    "kv_cache_dtype": ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"),
    "kv_offloading_size": (1, 8.5),
    "max_cudagraph_capture_size": (0, 1, 64, 512),
    "kv_cache_memory_bytes": ("1G",),
    "stream_interval": (1, 4),
    "max_log_len": (0, 100),
    "max_num_active_seqs": (1, 16, 512),
    "max_prompt_adapter_token": (0, 16),
}
# Options of these types whose values are the schema's own.
CHOSEN = (
    "attention_backend",
    "async_scheduling",
    "block_size",
    "calculate_kv_scales",
    "collect_detailed_traces",
    "device",
    "disable_async_output_proc",
    "disable_cascade_attn",
    "disable_chunked_mm_input",
    "disable_custom_all_reduce",
    "disable_fastapi_docs",
    "disable_frontend_multiprocessing",
    "disable_log_requests",
    "disable_log_stats",
    "disable_sliding_window",
    "disable_uvicorn_access_log",
    "dtype",
    "enable_auto_tool_choice",
    "enable_chunked_prefill",
    "enable_expert_parallel",
    "enable_log_outputs",
    "enable_log_requests",
    "enable_lora",
    "enable_prefix_caching",
    "enable_prompt_adapter",
    "enable_prompt_tokens_details",
    "enable_reasoning",
    "enable_request_id_headers",
    "enable_server_load_tracking",
    "enable_sleep_mode",
    "enforce_eager",
    "fully_sharded_loras",
    "guided_decoding_backend",
    "load_format",
    "multi_step_stream_outputs",
    "optimization_level",
    "performance_mode",
    "preemption_mode",
    "prefix_caching_hash_algo",
    "quantization",
    "ray_workers_use_nsight",
    "reasoning_parser",
    "return_tokens_as_token_ids",
    "runner",
    "scheduling_policy",
    "task",
    "tokenizer_mode",
    "tool_call_parser",
    "trust_remote_code",
    "use_v2_block_manager",
    "uvicorn_log_level",
)
# Drawn more often than the others, because plans turn on them.
OFTEN = ("tensor_parallel_size", "max_model_len", "max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization", "dtype", "enable_chunked_prefill")
ENV = {
    "VLLM_USE_V1": ("0", "1"),
    "VLLM_ATTENTION_BACKEND": ("XFORMERS", "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN_VLLM_V1", "TRITON_MLA"),
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": ("1",),
    "VLLM_MLA_DISABLE": ("0", "1"),
    "NCCL_P2P_DISABLE": ("1",),
}


def values(version: str, name: str) -> tuple:
    """What is drawn for an option of that engine."""
    entry = engine_options.schema(version)[name]
    if entry["type"] == "bool":
        return (True, False)
    known = [value for value in entry.get("choices", entry.get("known", [])) if value not in (None, "None")]
    return VALUES.get(name) or tuple(known) or (16, 32)


@st.composite
def option_maps(draw, version="0.8.5"):
    """Up to six options of the engine, among those of VALUES and CHOSEN. Later engines' reasoning parsers read the tokenizer: not drawn."""
    schema = engine_options.schema(version)
    names = sorted(name for name in {*VALUES, *CHOSEN} if name in schema and not (name == "reasoning_parser" and version != "0.8.5"))
    chosen = draw(st.lists(st.sampled_from(names + [name for name in OFTEN for dummy in range(8)]), max_size=6, unique=True))
    drawn = {name: draw(st.sampled_from(values(version, name))) for name in chosen}
    return {name: value for name, value in drawn.items() if not engine_options.check(version, {name: value})}


@st.composite
def instances(draw, host, version="0.8.5", profile=None):
    """One entry of vllm_instances for that host."""
    instance = {
        "name": "coder",
        "model": "org/coder",
        "engine_version": version,
        "profile": profile or draw(st.sampled_from(PROFILES)),
        "options": draw(option_maps(version)),
    }
    if instance["profile"] == "as_given" and float(host["gpus"][0]["compute_capability"]) < 8 and draw(st.integers(0, 3)):
        # As everybody with such cards learns to write it.
        instance["options"] = {"dtype": "half", **instance["options"]}
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(sorted(ENV)))
        instance["env"] = {name: draw(st.sampled_from(ENV[name]))}
    if draw(st.integers(0, 3)) == 0:
        indices = range(len(host["gpus"]))
        instance["gpus"] = sorted(draw(st.sets(st.sampled_from(indices), min_size=1)))
    if instance["profile"] != "as_given" and draw(st.booleans()):
        objectives = {"context": (512, 4096, 32768), "concurrency": (1, 4, 16), "max_gpu_memory_gib": (8, 20)}
        objectives = {name: st.sampled_from(values) for name, values in objectives.items()}
        instance["objective"] = draw(st.fixed_dictionaries({}, optional=objectives))
    return instance


@st.composite
def cases(draw, version="0.8.5", profile=None):
    """(instance, host, config.json) for the arguments of plan()."""
    host = draw(hosts(version))
    return draw(instances(host, version, profile)), host, draw(models(version))


# -- Spoilt --------------------------------------------------------------------------------------------------------------------------------

ODD = (None, 0, -1, 1, 3, 10**30, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), True, False, "", "x", "half", "32K", [], [1], [None], {}, {"a": 1})


@st.composite
def mutated(draw, value):
    """The value with one part of it, at any depth, gone or something else."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 5)):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = draw(st.sampled_from(keys))
        copy = value.copy()
        if draw(st.integers(0, 3)) == 0:
            del copy[key]
        else:
            copy[key] = draw(mutated(value[key]))
        return copy
    return draw(st.sampled_from(ODD))
