from __future__ import annotations

import copy
import json
import pathlib
import random

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import model, problem

DATA = pathlib.Path(__file__).parents[4] / "data"

QWEN3_32B_AWQ = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "torch_dtype": "bfloat16",
}
DEEPSEEK = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "torch_dtype": "bfloat16",
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def codes(config, tensor_bytes=None):
    with pytest.raises(problem.PlanRefused) as refused:
        model.read(config, tensor_bytes)
    return [found.code for found in refused.value.problems]


def problems_of(config):
    """The problems of a config that may also be good."""
    try:
        model.read(config)
    except problem.PlanRefused as refused:
        return refused.problems
    return []


def quant(**given):
    return model.read({**LLAMA, "quantization_config": given}).quant


def test_a_dense_model():
    found = model.read(QWEN3_32B_AWQ)
    assert (found.layers, found.hidden, found.heads, found.kv_heads, found.head_dim) == (64, 5120, 64, 8, 128)
    assert (found.family.qk_norm, found.qkv_bias, found.tied, found.dtype) == ("head", False, False, "float16")
    assert (found.quant.layout, found.quant.bits, found.quant.group) == ("awq", 4, 128)
    assert (found.experts, found.latent, found.multimodal) == (None, None, False)


def test_a_mixture_of_experts():
    found = model.read(QWEN3_MOE)
    assert (found.experts.count, found.experts.top_k, found.experts.intermediate, found.experts.dense) == (128, 8, 768, frozenset())
    assert model.read({**QWEN3_MOE, "mlp_only_layers": [3]}).experts.dense == {3}
    assert model.read({**QWEN3_MOE, "decoder_sparse_step": 2}).experts.dense == set(range(0, 48, 2))


def test_latent_attention():
    found = model.read(DEEPSEEK)
    assert (found.latent.q_rank, found.latent.kv_rank, found.latent.rope_dim, found.rotary_dim) == (0, 512, 64, 64)
    assert (found.experts.dense, found.experts.shared_intermediate) == ({0}, 2816)


def test_defaults_of_the_configuration_classes():
    assert model.read(LLAMA).head_dim == 128
    assert model.read({**LLAMA, "num_key_value_heads": None}).kv_heads == 32
    assert model.read({**LLAMA, "torch_dtype": None}).dtype == "float32"
    assert model.read({**LLAMA, "architectures": ["Qwen2ForCausalLM"]}).qkv_bias
    assert model.read({**LLAMA, "architectures": ["GemmaForCausalLM"]}).tied
    assert model.read({**LLAMA, "attention_bias": True}).o_bias


@pytest.mark.parametrize(
    ("changes", "longest", "rows"),
    [
        ({}, 131072, 131072),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072, 131072),
        ({"max_position_embeddings": 40960, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}}, 131072, 131072),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 131072, 135168),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 32768, 131072),
        ({"model_max_length": 8192}, 8192, 8192),
        ({"max_position_embeddings": None, "seq_length": 32768}, 32768, 32768),
        ({"max_position_embeddings": None}, 2048, 2048),
    ],
)
def test_the_longest_context_is_the_one_that_the_engine_derives(changes, longest, rows):
    found = model.read({**LLAMA, **changes})
    assert (found.max_length, found.rope_positions) == (longest, rows)


def test_the_text_model_of_one_that_reads_pictures_is_found():
    nested = {key: value for key, value in LLAMA.items() if key != "architectures"}
    found = model.read({"architectures": ["Mistral3ForConditionalGeneration"], "text_config": nested, "vision_config": {"hidden_size": 1024}})
    assert (found.hidden, found.multimodal) == (4096, True)
    assert 2e8 < found.vision_parameters < 5e8
    llava = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}
    found = model.read({"architectures": ["LlavaForConditionalGeneration"], "text_config": llava, "vision_config": {}})
    assert (found.hidden, found.layers, found.vocab) == (4096, 32, 32064)
    internvl = {"architectures": ["InternVLChatModel"], "llm_config": {**LLAMA, "architectures": ["InternLM2ForCausalLM"]}}
    assert model.read(internvl).family == model.dataclasses.replace(model.FAMILIES["InternLM2ForCausalLM"], multimodal=True)


def test_quantisations():
    assert quant(quant_method="gptq", bits=8, group_size=-1, desc_act=True) == model.Quant("gptq", "gptq", 8, 0, zeros=True, act_order=True)
    assert quant(quant_method="bitsandbytes", load_in_4bit=True) == model.Quant("bitsandbytes", "bitsandbytes", 4, 64)
    assert quant(quant_method="bitsandbytes", load_in_8bit=True).bits == 8
    assert quant(quant_method="fp8", weight_block_size=[128, 128]).block == (128, 128)
    assert quant(quant_method="mxfp4").layout == "mxfp4"
    assert quant(quant_method="gguf", bits_per_weight=8.5).bits_per_weight == 8.5
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False}
    packed = quant(quant_method="compressed-tensors", config_groups={"group_0": {"weights": weights}})
    assert (packed.layout, packed.bits, packed.group, packed.zeros) == ("packed", 4, 32, True)
    eight = {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}
    assert quant(quant_method="compressed-tensors", config_groups={"group_0": eight}).layout == "int8"
    float8 = {"weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8}}
    assert quant(config_groups={"group_0": float8}).layout == "fp8"


def test_layers_that_a_quantisation_leaves_out_are_counted():
    names = ["lm_head", "model.layers.3.mlp", "model.layers.4.mlp.down_proj", "model.layers.5.self_attn", "re:.*mlp.gate$", "model.layers.7.mlp.gate"]
    assert dict(quant(quant_method="bitsandbytes", llm_int8_skip_modules=names).skipped) == {"down": 2, "experts": 1, "gate_up": 1, "o": 1, "qkv": 1}
    assert dict(quant(quant_method="fp8", modules_to_not_convert=["o_proj"]).skipped) == {"o": 32}


def test_an_unquantised_checkpoint_may_be_quantised_while_it_is_loaded():
    assert model.quantized_at_load(model.read(LLAMA), "bitsandbytes").quant.layout == "bitsandbytes"
    assert model.quantized_at_load(model.read(LLAMA), "fp8").quant.layout == "fp8"
    assert model.quantized_at_load(model.read(LLAMA), "awq").quant is None
    assert model.quantized_at_load(model.read(QWEN3_32B_AWQ), "bitsandbytes").quant.layout == "awq"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, "model_not_a_mapping"),
        ([], "model_not_a_mapping"),
        ({}, "model_not_a_mapping"),
        ("{}", "model_not_a_mapping"),
        ({"hidden_size": 4096}, "missing_architecture"),
        ({**LLAMA, "architectures": "LlamaForCausalLM"}, "missing_architecture"),
        ({**LLAMA, "architectures": []}, "missing_architecture"),
        ({**LLAMA, "architectures": [7]}, "missing_architecture"),
        ({**LLAMA, "architectures": ["MambaForCausalLM"]}, "unknown_architecture"),
        ({**LLAMA, "hidden_size": None}, "missing_model_value"),
        ({**LLAMA, "vocab_size": None}, "missing_model_value"),
        ({**LLAMA, "num_hidden_layers": None}, "missing_model_value"),
        ({**LLAMA, "intermediate_size": None}, "missing_model_value"),
        ({**LLAMA, "num_hidden_layers": -1}, "invalid_model_value"),
        ({**LLAMA, "num_hidden_layers": 0}, "invalid_model_value"),
        ({**LLAMA, "num_hidden_layers": 10**9}, "invalid_model_value"),
        ({**LLAMA, "num_hidden_layers": "32"}, "invalid_model_value"),
        ({**LLAMA, "num_hidden_layers": True}, "invalid_model_value"),
        ({**LLAMA, "num_hidden_layers": 1.5}, "invalid_model_value"),
        ({**LLAMA, "vocab_size": float("nan")}, "invalid_model_value"),
        ({**LLAMA, "hidden_size": [4096]}, "invalid_model_value"),
        ({**LLAMA, "hidden_size": 4095}, "invalid_model_value"),
        ({**LLAMA, "num_key_value_heads": 7}, "invalid_model_value"),
        ({**LLAMA, "max_position_embeddings": -5}, "invalid_model_value"),
        ({**LLAMA, "rope_scaling": "yarn"}, "invalid_model_value"),
        ({**LLAMA, "rope_scaling": {"type": "spiral"}}, "invalid_model_value"),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": -2}}, "invalid_model_value"),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": float("nan")}}, "invalid_model_value"),
        ({**QWEN3_MOE, "num_experts_per_tok": 129}, "invalid_model_value"),
        ({**QWEN3_MOE, "num_experts": None}, "missing_model_value"),
        ({**DEEPSEEK, "kv_lora_rank": None}, "missing_model_value"),
        ({**LLAMA, "quantization_config": "awq"}, "invalid_quantization"),
        ({**LLAMA, "quantization_config": {"quant_method": "aqlm"}}, "unknown_quantization"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 5}}, "invalid_quantization"),
        ({**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 8}}, "invalid_model_value"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq", "group_size": 0}}, "invalid_model_value"),
        ({**LLAMA, "quantization_config": {"quant_method": "compressed-tensors"}}, "invalid_quantization"),
        ({**LLAMA, "quantization_config": {"quant_method": "gguf", "bits_per_weight": 0}}, "invalid_quantization"),
    ],
)
def test_what_cannot_be_a_model_is_refused_with_a_code(config, code):
    assert codes(config) == [code]


@pytest.mark.parametrize("sizes", [{}, {"a": -1}, {"a": "7"}, {"a": 1.5}, {7: 7}, 0, -1, 2**51, True, "big", [1, 2], {"a": 0}])
def test_tensor_sizes_that_are_none_are_refused(sizes):
    assert codes(LLAMA, sizes) == ["invalid_tensor_bytes"]


def test_tensor_sizes_are_kept():
    assert model.read(LLAMA, {"b": 2, "a": 1}).tensor_bytes == (("a", 1), ("b", 2))
    assert model.read(LLAMA, 7).tensor_bytes == (("", 7),)
    assert len({model.read(LLAMA, 7), model.read(LLAMA)}) == 2, "caches tell them apart"


def test_no_damaged_config_ends_in_a_traceback():
    """Every value, also nested ones, replaced by something else or removed: a Model or a refusal, nothing else."""
    generator = random.Random(7)
    text = {key: value for key, value in LLAMA.items() if key != "architectures"}
    groups = {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}
    whole = [
        QWEN3_32B_AWQ,
        QWEN3_MOE,
        DEEPSEEK,
        {**LLAMA, "rope_scaling": {"type": "yarn", "factor": 4.0}, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}},
        {"architectures": ["Qwen2_5_VLForConditionalGeneration"], **text, "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 8}},
        {"architectures": ["InternVLChatModel"], "llm_config": dict(LLAMA), "vision_config": {"hidden_size": 3200}},
    ]
    junk = [None, True, -1, 0, 1, 2.5, float("inf"), float("nan"), 10**30, "", "x", [], [1], ["x"], {}, {"a": 1}, {"type": []}, [[]]]
    for dummy in range(3000):
        config = copy.deepcopy(generator.choice(whole))
        for dummy in range(generator.randint(1, 3)):
            place = config
            while nested := [key for key, value in place.items() if isinstance(value, dict)]:
                if generator.random() < 0.5:
                    break
                place = place[generator.choice(nested)]
            if place:
                place[generator.choice(list(place))] = copy.deepcopy(generator.choice(junk))
        for found in problems_of(config):
            assert found.code
            assert found.message.endswith(".")
            assert found.remedy.endswith(".")


def test_every_shape_of_the_ground_truth_can_be_read():
    for name, record in json.loads((DATA / "models.json").read_text(encoding="utf-8")).items():
        if record["architecture"] in model.FAMILIES:
            config = {**record, "architectures": [record["architecture"]], "quantization_config": None, "vision_config": None}
            config |= (record.get("moe") or {}) | (record.get("mla") or {})
            assert model.read(config).hidden == record["hidden_size"], name


@pytest.mark.parametrize("kind", [["llama"], {}, 3, True])
def test_a_model_type_that_is_no_text_is_refused(kind):
    """Later engines look it up among those that cannot run in float16: a list was a traceback."""
    with pytest.raises(problem.PlanRefused) as refused:
        model.read({**LLAMA, "model_type": kind})
    assert [each.code for each in refused.value.problems] == ["invalid_model_value"]
