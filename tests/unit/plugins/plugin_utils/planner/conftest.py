"""Hosts and models that the planner's tests plan with. Modules import them, because they build their parameters from them."""

from __future__ import annotations

import json
import pathlib

import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import model as shapes
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options, rules
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused

GIB = 1024**3
VERSIONS = ("0.8.5", "0.19.1", "0.33.0")
ROOT = pathlib.Path(__file__).parents[5]
SHAPES = json.loads((ROOT / "tests/data/models.json").read_text(encoding="utf-8"))


def config_of(name):
    """The config.json of a shape of the data."""
    shape = {key: value for key, value in SHAPES[name].items() if value is not None}
    return {**shape, **shape.get("moe", {}), **shape.get("mla", {}), "architectures": [shape.get("architecture", "")]}


def readable(name):
    """Whether a shape of the data says all that a config.json says."""
    try:
        return bool(shapes.read(config_of(name)))
    except PlanRefused:
        return False


NAMES = sorted(filter(readable, SHAPES))
QWEN3_32B_AWQ = config_of("Qwen/Qwen3-32B-AWQ")
LLAMA2_70B_AWQ = {
    **config_of("deepseek-ai/DeepSeek-R1-Distill-Llama-70B"),
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}
A100 = {
    "gpus": [{"name": "NVIDIA A100-PCIE-40GB", "compute_capability": "8.0", "memory_total_bytes": 40 * GIB, "memory_reserved_bytes": 0}],
    "memory_bytes": 256 * GIB,
}


def cards(count=4, mib=22528, capability="7.5", ram=512, name="NVIDIA GeForce RTX 2080 Ti", **more):
    """A host with so many cards of one kind. ram: in GiB. more: further keys of every card."""
    gpus = [{"index": index, "name": name, "compute_capability": capability, "memory_total_bytes": mib << 20, **more} for index in range(count)]
    return {"gpus": gpus, "memory_bytes": ram * GIB}


def article():
    """The instance of the first article, as the example inventory has it."""
    example = yaml.safe_load((ROOT / "inventories/example/host_vars/coder01.yml").read_text(encoding="utf-8"))
    return example["vllm_instances"][0]


# Its engine options alone.
RUN_SH = article()["options"]
# The script of the second article, without the flag that no engine has.
LOW_MEMORY = {
    "name": "low",
    "model": "TheBloke/Llama-2-70B-AWQ",
    "options": {
        "tensor_parallel_size": 1,
        "dtype": "float16",
        "max_model_len": 2048,
        "max_num_batched_tokens": 512,
        "max_num_seqs": 8,
        "gpu_memory_utilization": 0.45,
        "enable_chunked_prefill": True,
        "enforce_eager": True,
        "quantization": "awq",
        "swap_space": 20,
        "disable_log_stats": True,
    },
}


# -- Shapes and rules -----------------------------------------------------------------------------------------------------------------------


def quantized(method, **more):
    """What a config.json has where the checkpoint is quantised."""
    return {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128, **more}}


AWQ = quantized("awq", zero_point=True, version="gemm")
GPTQ = quantized("gptq", sym=True, desc_act=False)
GPTQ_ORDERED = quantized("gptq", sym=True, desc_act=True)
GPTQ_ASYMMETRIC = quantized("gptq", sym=False, desc_act=False)

# Shapes of public checkpoints, as their config.json has them.
QWEN3_32B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 25600,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "torch_dtype": "float16",
}
QWEN25_72B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 29568,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "torch_dtype": "float16",
}
QWEN3_30B_A3B = {
    **QWEN3_32B,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
QWEN2_VL = {
    **QWEN25_72B,
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16},
}
MISTRAL_V1 = {
    **QWEN25_72B,
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "intermediate_size": 14336,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "sliding_window": 4096,
}
GEMMA2 = {
    **QWEN25_72B,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "hidden_size": 3584,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "num_hidden_layers": 42,
    "intermediate_size": 14336,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_LITE = {
    **QWEN3_32B,
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 10944,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 0,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 102400,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
FP8_PACKED = {
    "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}}
}


def facts(given=None, model=None, version="0.8.5", **rest):
    """Of Qwen3-32B, or that with other keys in its config.json, on eight Turing cards."""
    config = {**QWEN3_32B, **(model or {})}
    assert options.check(version, given or {}) == []
    return rules.facts(version, given or {}, shapes.read(config), config=config, **{"cards": 8, **rest})
