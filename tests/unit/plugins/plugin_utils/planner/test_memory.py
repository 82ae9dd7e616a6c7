from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import random
import sys

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import activation, hardware, memory, model, quantization, weights
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import settings as engine

ROOT = pathlib.Path(__file__).parents[5]
GIB = 1024**3
MIB = 1024**2


def load_accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", ROOT / "tools" / "accuracy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


accuracy = load_accuracy()
SHAPES = json.loads((ROOT / "tests" / "data" / "models.json").read_text(encoding="utf-8"))

LLAMA_70B_AWQ = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
}


def shape(name):
    return model.read(accuracy.config_of(SHAPES[name]) if name in SHAPES else LLAMA_70B_AWQ)


def cards(count=1, gib=21.48, capability=(7, 5)):
    return tuple(hardware.Card(index, "card", capability, int(gib * GIB)) for index in range(count))


def settings(found, given=None, version="0.8.5", **options):
    count = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
    return engine.settings(options, found, given or cards(count), version)


def predicted(name, given=None, **options):
    found = shape(name)
    chosen = settings(found, given, **options)
    return memory.predict(found, given or cards(chosen.tensor_parallel_size * chosen.pipeline_parallel_size), chosen)


# -- Weights -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ranks", "size", "kv"),
    [
        ("Qwen/Qwen3-32B-AWQ", 1, 19_325_298_688, 262_144),
        ("Qwen/Qwen3-32B-AWQ", 4, 4_832_339_968, 65_536),
        ("Llama-2-70B-AWQ", 1, 36_613_668_864, 327_680),
        ("Llama-2-70B-AWQ", 4, 9_155_395_584, 81_920),
    ],
)
def test_parameters_equal_the_engines_own_byte_for_byte(name, ranks, size, kv):
    """The sizes were taken from the parameters of the engine's real model classes."""
    found = shape(name)
    assert weights.parameter_bytes(found, ranks) == size
    assert memory.kv_block_bytes(found, settings(found, tensor_parallel_size=ranks), found.layers) == kv * 16


def test_weights_are_the_parameters_the_rotary_table_and_the_allocators_rounding():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    exact = weights.parameter_bytes(found) + weights.rotary_bytes(found)
    # down_proj has 43 MiB, and keeps the rest of its segment of 44 MiB, in each of 36 layers.
    assert 36 * MIB <= sum(weights.weights(found)) - exact < 40 * MIB


def test_the_allocator_rounds_as_torch_does():
    assert weights.allocated([(1, [1])]) == 512
    assert weights.allocated([(1, [MIB])]) == MIB
    assert weights.allocated([(1, [43 * MIB])]) == 44 * MIB
    assert weights.allocated([(1, [42.5 * MIB])]) == 42.5 * MIB
    # Three of 6 MiB share a segment of 20 MiB; what is left serves a fourth of 2 MiB.
    assert weights.allocated([(1, [6 * MIB] * 3 + [2 * MIB])]) == 20 * MIB
    # A small tensor in a block of which less than 1 MiB would be left keeps the whole block.
    assert weights.allocated([(1, [10.5 * MIB, 1.2 * MIB])]) == 10.5 * MIB + 1.5 * MIB


@pytest.mark.parametrize("seed", range(4))
def test_layers_that_are_counted_take_what_layers_written_out_take(seed):
    dice = random.Random(seed)
    for attempt in range(50):
        kinds = [
            [int(dice.choice([0.3, 1.2, 2, 3.3, 5.2, 7, 12, 31]) * dice.uniform(0.9, 1.1) * MIB) for tensor in range(dice.randint(1, 8))] for kind in "abc"
        ]
        parts = [(dice.choice([1, 2, 7, 64]), sizes) for sizes in kinds]
        assert weights.allocated(parts) == weights.allocated([(1, [size for times, sizes in parts for size in sizes * times])])


@pytest.mark.parametrize(
    ("quant", "sizes"),
    [
        (None, (4096 * 1024 * 2,)),
        (quantization.Quant("awq", "awq", 4, 128, zeros=True), (2097152, 16384, 65536)),
        (quantization.Quant("gptq", "gptq", 4, 128, zeros=True), (2097152, 16384, 65536, 16384)),
        (quantization.Quant("gptq", "gptq", 8, 128, zeros=True), (4194304, 32768, 65536, 16384)),
        (quantization.Quant("gptq", "gptq", 4, 0, zeros=True), (2097152, 512, 2048, 16384)),
        (quantization.Quant("compressed-tensors", "packed", 4, 128), (2097152, 65536, 0, 0)),
        (quantization.Quant("bitsandbytes", "bitsandbytes", 4, 64), (2097152, 65536, 1024, 64, 1024)),
        (quantization.Quant("bitsandbytes", "bitsandbytes", 4, 64, nested=False), (2097152, 262144, 64)),
        (quantization.Quant("bitsandbytes", "bitsandbytes", 8, 64), (4194304, 4096)),
        (quantization.Quant("fp8", "fp8", 8, 0), (4194304, 4096)),
        (quantization.Quant("fp8", "fp8", 8, 0, block=(128, 128)), (4194304, 1024)),
        (quantization.Quant("compressed-tensors", "int8", 8, 0), (4194304, 4096)),
        (quantization.Quant("mxfp4", "mxfp4", 4, 32), (2097152, 131072)),
        (quantization.Quant("gguf", "gguf", 8, 0, bits_per_weight=8.5), (4456448,)),
    ],
)
def test_one_matrix(quant, sizes):
    assert weights.linear(quant, 4096, 1024, 2) == sizes


def test_marlin_keeps_no_zero_points_of_a_symmetric_matrix():
    quant = quantization.Quant("gptq", "gptq", 4, 128, zeros=True)
    assert weights.linear(quant, 4096, 1024, 2, repacked=True) == (2097152, 65536)


def test_act_order_scales_of_a_row_parallel_matrix_are_not_cut():
    quant = quantization.Quant("gptq", "gptq", 4, 128, zeros=True, act_order=True)
    assert weights.linear(quant, 1024, 1024, 2, full_inputs=4096)[2] == 4096 // 128 * 1024 * 2


def test_pipeline_stages_get_the_layers_that_the_engine_gives_them():
    assert weights.stage_layers(64, 4) == ((0, 16), (16, 32), (32, 48), (48, 64))
    assert weights.stage_layers(62, 4) == ((0, 15), (15, 31), (31, 47), (47, 62))
    assert weights.stage_layers(7, 2) == ((0, 4), (4, 7))


def test_stages_hold_the_whole_model_between_them():
    found = shape("Qwen/Qwen2.5-7B-Instruct")
    assert sum(weights.parameter_bytes(found, stages=4, stage=stage) for stage in range(4)) == weights.parameter_bytes(found)
    tied = shape("Qwen/Qwen2.5-3B-Instruct")
    table = weights.padded_vocabulary(tied, 1) * tied.hidden * 2
    assert sum(weights.parameter_bytes(tied, stages=2, stage=stage) for stage in range(2)) == weights.parameter_bytes(tied) + table


def test_the_vocabulary_is_padded_and_kv_heads_are_replicated():
    found = dataclasses.replace(shape("meta-llama/Llama-3.1-8B-Instruct"), vocab=32001)
    assert weights.padded_vocabulary(found, 1) == 32064
    assert weights.padded_vocabulary(found, 4) == 8016
    assert [weights.kv_heads_per_rank(found, ranks) for ranks in (1, 4, 8, 16)] == [8, 2, 1, 1]


def test_layers_left_in_16_bit_weigh_more():
    plain = shape("unsloth/QwQ-32B-unsloth-bnb-4bit")
    mixed = dataclasses.replace(plain, quant=dataclasses.replace(plain.quant, skipped=(("down", 2), ("gate_up", 1))))
    down, gate_up = plain.intermediate * plain.hidden, 2 * plain.intermediate * plain.hidden
    expected = 2 * down * (2 - 0.5 - 1 / 64) + gate_up * (2 - 0.5 - 1 / 64)
    assert weights.parameter_bytes(mixed) - weights.parameter_bytes(plain) == pytest.approx(expected, rel=0.001)
    both = sum(weights.parameter_bytes(mixed, stages=2, stage=stage) for stage in range(2))
    assert weights.parameter_bytes(mixed) <= both <= weights.parameter_bytes(mixed) * 1.03


def test_true_tensor_sizes_replace_the_estimate():
    config = accuracy.config_of(SHAPES["meta-llama/Llama-3.1-8B-Instruct"])
    found = model.read(config)
    exact = weights.parameter_bytes(found)
    assert sum(weights.weights(model.read(config, exact))) == pytest.approx(sum(weights.weights(found)), rel=0.005)
    assert sum(weights.weights(model.read(config, exact + GIB))) - sum(weights.weights(found)) == pytest.approx(GIB, rel=0.05)
    table = 128256 * 4096 * 2
    names = {"model.embed_tokens.weight": table, "lm_head.weight": table, "model.norm.weight": 8192, "model.layers.0.x": exact - 2 * table - 8192}
    assert sum(weights.weights(model.read(config, names))) == pytest.approx(sum(weights.weights(found)), rel=0.005)
    halved = {**names, "model.layers.0.x": names["model.layers.0.x"] // 2}
    assert weights.weights(model.read(config, halved))[0] == pytest.approx(weights.weights(found)[0] / 2, rel=0.01)


def test_a_gguf_file_is_counted_by_its_size():
    config = {**accuracy.config_of(SHAPES["Llama-3.2-3B-Instruct Q8_0 GGUF"]), "quantization_config": {"quant_method": "gguf"}}
    found, size = model.read(config, 3_421_898_816), 3_421_898_816
    assert size + weights.rotary_bytes(found) <= sum(weights.weights(found)) <= 1.02 * (size + weights.rotary_bytes(found))


def test_what_is_made_of_the_matrices_of_latent_attention_weighs_too():
    """16 bit: nothing but the products of 0.7. In fp8 a 16-bit copy of kv_b_proj as well, or nothing where MLA is off."""
    found = shape("deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct")
    sizes = {copies: weights.parameter_bytes(found, copies=copies) for copies in ("none", "expanded", "absorbed")}
    assert sizes["none"] == sizes["expanded"]
    assert sizes["absorbed"] - sizes["none"] == 27 * 16 * 2048 * (64 + 512 + 512) * 2
    block = quantization.Quant(method="fp8", bits=8, layout="fp8", block=(128, 128))
    narrow = dataclasses.replace(found, quant=block)
    sizes = {copies: weights.parameter_bytes(narrow, copies=copies) for copies in ("none", "expanded", "absorbed")}
    assert sizes["expanded"] - sizes["none"] == 27 * 512 * 16 * (128 + 128) * 2
    assert sizes["absorbed"] - sizes["expanded"] > 27 * 16 * 2048 * (64 * 2 + 512 + 512)


@pytest.mark.parametrize(
    ("version", "env", "copies"),
    [
        ("0.7.0", {}, "none"),
        ("0.7.1", {}, "absorbed"),
        ("0.7.3", {}, "absorbed"),
        ("0.8.5", {}, "expanded"),
        ("0.8.5", {"VLLM_MLA_DISABLE": "1"}, "none"),
        ("0.8.5", {"VLLM_MLA_DISABLE": "0"}, "expanded"),
        ("0.19.1", {}, "expanded"),
    ],
)
def test_latent_attention_by_release_and_environment(version, env, copies):
    found = shape("deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct")
    chosen = engine.settings({}, found, cards(), version, env)
    assert weights.latent_copies(chosen) == copies
    assert memory.kv_block_bytes(found, chosen, 1) / 16 / 2 in ((576, 640) if copies != "none" else (2 * 16 * 192, 2 * 16 * 256))


def test_offloaded_weights_leave_the_card_for_ram():
    whole, moved = predicted("Qwen/Qwen2.5-7B-Instruct"), predicted("Qwen/Qwen2.5-7B-Instruct", cpu_offload_gb=4)
    assert whole.ranks[0].weights - moved.ranks[0].weights == 4 * GIB
    assert moved.host_bytes - whole.host_bytes == 4 * GIB
    most = predicted("Qwen/Qwen2.5-7B-Instruct", cpu_offload_gb=100)
    assert most.ranks[0].weights / GIB == pytest.approx(2.06, abs=0.05)  # embedding, head and rotary table stay


# -- Activation ----------------------------------------------------------------------------------------------------------------------------

WORKSPACE = 8_519_680


def test_the_mlp_of_a_family_that_holds_its_first_product():
    """T * 2 * (4h + 3I): logged as 2.52 GiB."""
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    size, name = activation.activation(found, settings(found, max_num_seqs=128), 75)
    assert (size, name) == (32768 * 2 * (4 * 2048 + 3 * 11008) + 32768 * 24 + WORKSPACE, "mlp")


def test_the_mlp_of_a_family_that_drops_it():
    """T * 2 * (3h + 3I)."""
    found = shape("meta-llama/Llama-3.1-8B-Instruct")
    chosen = settings(found, max_model_len=20000, max_num_seqs=4)
    assert activation.activation(found, chosen, 75) == (20000 * 2 * (3 * 4096 + 3 * 14336) + 20000 * 24 + WORKSPACE, "mlp")


def test_several_ranks_cut_the_mlp_and_add_one_tensor_of_the_hidden_size():
    """T * 2 * (5h + 3I/4): logged as 0.46 GiB on ranks 1 to 3."""
    found = shape("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B")
    chosen = settings(found, tensor_parallel_size=4, max_num_batched_tokens=8192, max_model_len=65536)
    size, name = activation.activation(found, chosen, 75, samples=False)
    assert (size, name) == (8192 * 2 * (5 * 4096 + 3 * 3072) + 8192 * 24 + WORKSPACE, "mlp")
    assert size / GIB == pytest.approx(0.46, abs=0.005)


@pytest.mark.parametrize(("seqs", "each"), [(1, 38), (2, 50), (127, 50), (128, 38), (256, 38), (1024, 38)])
def test_the_sampler_sorts_few_sequences_in_a_way_that_needs_more(seqs, each):
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    chosen = settings(found, max_num_seqs=seqs, max_model_len=2048)
    assert activation.sampler(found, chosen) == seqs * 151936 * each


def test_the_sampler_runs_on_the_first_rank_of_the_last_stage():
    found = shape("Qwen/Qwen2.5-7B-Instruct")
    chosen = settings(found, max_model_len=2048, tensor_parallel_size=2, pipeline_parallel_size=2)
    prediction = memory.predict(found, cards(4), chosen)
    assert [rank.peak for rank in prediction.ranks] == ["mlp", "mlp", "sampler", "mlp"]


def test_awq_expands_its_largest_matrix_below_8_0_from_256_tokens_on():
    found = shape("Qwen/Qwen2.5-32B-Instruct-AWQ")
    chosen = settings(found, max_num_seqs=2, max_model_len=4096)
    plain = dataclasses.replace(found, quant=None)
    # gate_up: 3h + 2I and its own matrix; down: 4h + 3I and its own.
    gate_up = 4096 * 2 * (3 * 5120 + 2 * 27648) + 5120 * 2 * 27648 * 2
    down = 4096 * 2 * (4 * 5120 + 3 * 27648) + 5120 * 27648 * 2
    assert activation.activation(found, chosen, 75)[0] == max(gate_up, down) + 4096 * 24 + WORKSPACE
    late = chosen._replace(release=(0, 9, 2))
    assert activation.activation(found, late, 80) == activation.activation(plain, late, 80)
    few = chosen._replace(max_num_batched_tokens=255)
    assert activation.activation(found, few, 75)[0] == activation.activation(plain, few, 75)[0]


def test_awq_as_asked_for_expands_on_newer_cards_too():
    found = shape("Qwen/Qwen2.5-32B-Instruct-AWQ")
    asked = settings(found, cards(1, 44, (8, 9)), max_num_seqs=2, quantization="awq")
    assert activation.activation(found, asked, 89)[0] > activation.activation(found, asked._replace(plain_kernels=False), 89)[0]


def test_marlin_runs_on_7_5_in_the_later_lanes():
    found = shape("Qwen/Qwen2.5-32B-Instruct-AWQ")
    assert [engine.marlin(settings(found, version=version), 75) for version in ("0.8.5", "0.19.1", "0.33.0")] == [False, True, True]


@pytest.mark.parametrize(("version", "copied", "sums"), [("0.7.3", True, True), ("0.8.2", False, True), ("0.9.2", False, False)])
@pytest.mark.parametrize("tokens", [512, 2048, 8192])
def test_marlins_buffers_by_release(version, copied, sums, tokens):
    """Before 0.8 every product has a copy of its input, before 0.9 sums of up to 1024 tokens in float32."""
    found, hidden, width = shape("Qwen/Qwen2.5-32B-Instruct-AWQ"), 5120, 27648
    chosen = settings(found, cards(capability=(8, 6)), version=version, max_num_seqs=1, max_model_len=1024, max_num_batched_tokens=tokens)
    sums = 4 * min(1024, tokens) if sums else 0
    gate_up = tokens * 2 * (3 * hidden + 2 * width + hidden * copied) + sums * 2 * width
    down = tokens * 2 * (4 * hidden + 3 * width + width * copied) + sums * hidden
    assert activation.activation(found, chosen, 86) == (max(gate_up, down) + tokens * 24 + WORKSPACE, "mlp")


def test_marlin_copies_its_input_where_the_order_is_another():
    found = shape("Qwen/Qwen2.5-32B-Instruct-AWQ")
    ordered = dataclasses.replace(found, quant=dataclasses.replace(found.quant, act_order=True))
    chosen = settings(found, cards(capability=(8, 6)), max_num_seqs=1, max_model_len=8192, max_num_batched_tokens=8192)
    assert activation.activation(ordered, chosen, 86)[0] - activation.activation(found, chosen, 86)[0] == 8192 * 27648 * 2


def test_the_experts_work_in_chunks():
    """Two buffers: the first and the last product share one. At most 32768 tokens at a time."""
    found = shape("Qwen/Qwen3-30B-A3B")
    chosen = settings(found, max_model_len=32768, max_num_seqs=2, tensor_parallel_size=4)
    work = 32768 * 8 * (2048 + 192) * 2
    size, name = activation.activation(found, chosen, 75)
    assert name == "experts"
    assert size - work == 32768 * (2 * (3 * 2048 + 128) + 8 * 12) + 32768 * 24 + WORKSPACE
    smaller = chosen._replace(moe_chunk=24576)
    assert size - activation.activation(found, smaller, 75)[0] == 8192 * 8 * (2048 + 192) * 2
    older = chosen._replace(release=(0, 7, 3))
    assert activation.activation(found, older, 75)[0] - size == 32768 * 8 * 384 * 2


@pytest.mark.parametrize(("tokens", "top_k", "added"), [(32768, 8, 32768 * 7168 * 4), (16384, 8, 0), (32768, 4, 0)])
def test_many_experts_outputs_are_added_up_in_float32(tokens, top_k, added):
    """Beside the output of the last product, if those outputs are 2 GiB or more and the engine's own kernel does not take so many."""
    found = shape("Qwen/Qwen3-30B-A3B")
    wide = dataclasses.replace(found, hidden=7168, experts=dataclasses.replace(found.experts, top_k=top_k))
    chosen = settings(wide, max_model_len=tokens, max_num_seqs=2, tensor_parallel_size=4)
    work = tokens * top_k * (7168 + 192) * 2
    rest = tokens * (2 * (3 * 7168 + 128) + top_k * 12) + WORKSPACE
    assert 0 <= activation.activation(wide, chosen, 75)[0] - work - added - rest <= tokens * 24


def test_expert_chunks_are_read_from_the_environment():
    found = shape("Qwen/Qwen3-30B-A3B")
    assert engine.settings({}, found, cards(), "0.8.5", {"VLLM_FUSED_MOE_CHUNK_SIZE": "4096"}).moe_chunk == 4096
    assert engine.settings({}, found, cards(), "0.8.5", {"VLLM_FUSED_MOE_CHUNK_SIZE": "many"}).moe_chunk == 32768


def test_the_backend_decides_about_attentions_copies():
    found = shape("google/gemma-2b-it")
    chosen = settings(found, max_num_seqs=2, max_model_len=8192)
    wide = dataclasses.replace(found, intermediate=16)
    xformers = activation.activation(wide, chosen, 75)[0]
    assert xformers > activation.activation(wide, chosen._replace(attention="FLASH_ATTN"), 75)[0]


def test_an_offloaded_layer_is_brought_back_while_it_runs():
    found = shape("Qwen/Qwen2.5-7B-Instruct")
    chosen = settings(found, max_num_seqs=2, max_model_len=4096)
    moved = chosen._replace(cpu_offload_bytes=4 * GIB)
    layer = (weights.parameter_bytes(found) - 2 * 152064 * 3584 * 2 - 3584 * 2) // 28
    assert activation.activation(found, moved, 75)[0] - activation.activation(found, chosen, 75)[0] == layer


def test_hopper_has_a_larger_workspace():
    assert activation.cublas_workspace(90) - activation.cublas_workspace(75) == 32 * MIB - WORKSPACE


@pytest.mark.parametrize(
    ("version", "capability", "gib"),
    [("0.6.4", (7, 5), 0.33), ("0.6.6", (7, 5), 0.10), ("0.7.3", (7, 5), 0.05), ("0.8.5", (7, 5), 0.05), ("0.6.6", (9, 0), 0.12), ("0.8.5", (7, 0), 0.08)],
)
def test_what_lies_outside_torch(version, capability, gib):
    """Until 0.6.5 the CUDA context is in it."""
    chosen = settings(shape("Qwen/Qwen2.5-3B-Instruct"), cards(1, capability=capability), version=version)
    assert memory.non_torch(chosen._replace(core="V0"), capability[0] * 10 + capability[1]) == pytest.approx(gib * GIB, abs=2)


# -- The engine's defaults -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "chunked", "tokens"),
    [
        ({}, False, 32768),
        ({"max_model_len": 1024}, False, 2048),
        ({"max_model_len": 32768}, False, 32768),
        ({"max_model_len": 32769}, True, 2048),
        ({"max_model_len": 32769, "enable_chunked_prefill": False}, False, 32769),
        ({"max_model_len": 4096, "enable_chunked_prefill": True}, True, 2048),
        ({"max_num_batched_tokens": 512, "max_model_len": 65536}, True, 512),
        ({"max_model_len": 65536, "enable_lora": True}, False, 65536),
    ],
)
def test_v0_profiles_as_many_tokens_as_the_engines_defaults_say(options, chunked, tokens):
    chosen = settings(shape("Qwen/Qwen2.5-3B-Instruct"), **options)
    assert (chosen.core, chosen.enable_chunked_prefill, chosen.max_num_batched_tokens, chosen.max_num_seqs) == ("V0", chunked, tokens, 256)


@pytest.mark.parametrize(
    ("version", "capability", "gib", "core", "attention", "tokens", "seqs", "utilization", "swap"),
    [
        ("0.8.5", (7, 5), 21.48, "V0", "XFORMERS", 32768, 256, 0.9, 4),
        ("0.8.2", (8, 9), 44.0, "V1", "FLASH_ATTN", 2048, 1024, 0.9, 0),
        ("0.8.5", (8, 9), 44.0, "V1", "FLASH_ATTN", 2048, 256, 0.9, 0),
        ("0.8.5", (9, 0), 79.2, "V1", "FLASH_ATTN", 8192, 1024, 0.9, 0),
        ("0.19.1", (7, 5), 21.48, "V1", "TRITON_ATTN", 2048, 256, 0.9, 0),
        ("0.33.0", (7, 5), 21.48, "V1", "TRITON_ATTN", 2048, 256, 0.92, 0),
    ],
)
def test_each_lane_has_its_own_defaults(version, capability, gib, core, attention, tokens, seqs, utilization, swap):
    chosen = settings(shape("Qwen/Qwen2.5-3B-Instruct"), cards(1, gib, capability), version=version)
    assert (chosen.core, chosen.attention, chosen.max_num_batched_tokens, chosen.max_num_seqs) == (core, attention, tokens, seqs)
    assert (chosen.gpu_memory_utilization, chosen.swap_bytes) == (utilization, swap * GIB)


@pytest.mark.parametrize(("written", "read"), [("32K", 32768), ("32k", 32000), (8192, 8192), ("auto", 40960), (-1, 40960), (None, 40960)])
def test_lengths_are_read_as_the_engine_reads_them(written, read):
    chosen = settings(shape("Qwen/Qwen3-8B"), version="0.19.1", max_model_len=written)
    assert chosen.max_model_len == read


def test_a_utilization_of_nothing_is_not_taken_for_the_default():
    assert predicted("Qwen/Qwen3-8B", gpu_memory_utilization=0.0).ranks[0].kv_cache < 0


def test_the_dtype_is_half_where_the_card_has_no_bfloat16():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    assert settings(found).dtype == "float16"
    assert settings(found, cards(1, 44, (8, 9))).dtype == "bfloat16"
    assert settings(found, dtype="half").activation_bytes == 2


def test_an_environment_variable_brings_v0_back_on_newer_cards():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    assert engine.settings({}, found, cards(1, 44, (8, 9)), "0.8.5", {"VLLM_USE_V1": "0"}).core == "V0"


def test_versions_are_compared_by_their_numbers():
    assert engine.release("0.8.5.post1") == (0, 8, 5)
    assert engine.release("0.10.0") > engine.release("0.9.2")


# -- Blocks and the rest -------------------------------------------------------------------------------------------------------------------


def test_the_smallest_card_sets_the_blocks_of_all():
    found = shape("Qwen/Qwen2.5-7B-Instruct")
    chosen = settings(found, tensor_parallel_size=2, max_model_len=4096)
    small = (*cards(1, 10.57), *cards(1, 21.48))
    prediction = memory.predict(found, small, chosen)
    assert prediction.blocks == prediction.ranks[0].blocks < prediction.ranks[1].blocks
    assert prediction.tokens == prediction.blocks * 16
    assert prediction.max_concurrency == prediction.tokens / 4096


def test_latent_attention_keeps_one_vector_for_each_token():
    found = shape("deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct")
    assert memory.kv_block_bytes(found, settings(found), 27) == 27 * 16 * 576 * 2
    assert memory.kv_block_bytes(found, settings(found, version="0.7.2"), 27) == 27 * 16 * 640 * 2


def test_an_8_bit_cache_has_half_the_bytes():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    assert memory.kv_block_bytes(found, settings(found, kv_cache_dtype="fp8_e5m2"), 36) * 2 == memory.kv_block_bytes(found, settings(found), 36)


@pytest.mark.parametrize(("seqs", "sizes"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (10, 5), (192, 27), (256, 35), (512, 67), (10**6, 1027)])
def test_graphs_are_captured_for_as_many_sizes_as_the_engine_counts(seqs, sizes):
    assert memory.graph_sizes(settings(shape("Qwen/Qwen2.5-3B-Instruct"), max_num_seqs=seqs)) == sizes


def test_eager_has_no_graphs():
    assert predicted("Qwen/Qwen2.5-3B-Instruct", enforce_eager=True).ranks[0].cuda_graphs == 0


def test_graphs_lie_outside_the_budget_until_the_engine_charges_them():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    for version, charged in (("0.8.5", False), ("0.19.1", False), ("0.33.0", True)):
        rank = memory.predict(found, cards(), settings(found, version=version)).ranks[0]
        rest = rank.budget - rank.weights - rank.activation - rank.non_torch - rank.kv_cache
        assert rest == (rank.cuda_graphs if charged else 0)
    kept = engine.settings({}, found, cards(), "0.33.0", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"})
    assert not kept.charges_graphs


def test_swap_is_taken_for_every_rank():
    prediction = predicted("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", tensor_parallel_size=4, swap_space=64)
    assert prediction.host_bytes == 256 * GIB
    assert prediction.cpu_blocks == 64 * GIB // prediction.block_bytes


def test_blocks_in_ram_equal_the_log():
    prediction = predicted("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", tensor_parallel_size=4, swap_space=32)
    assert prediction.cpu_blocks == 58254


def test_too_few_cards_are_an_error_of_the_caller():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    with pytest.raises(ValueError, match="4 x 1 ranks"):
        memory.predict(found, cards(2), settings(found, cards(2), tensor_parallel_size=4))


def test_a_correction_is_applied():
    found = shape("Qwen/Qwen2.5-3B-Instruct")
    chosen = settings(found)
    plain, taught = (memory.predict(found, cards(), chosen, memory.Correction(*given)).ranks[0] for given in ((), (MIB, 1.5, 2 * MIB)))
    assert (taught.weights - plain.weights, taught.non_torch - plain.non_torch) == (MIB, 2 * MIB)
    assert taught.activation == int(plain.activation * 1.5)
    assert plain.kv_cache - taught.kv_cache == 3 * MIB + taught.activation - plain.activation


def test_more_of_anything_never_needs_less():
    """Over random settings: more tokens, sequences or context need no less, more ranks no more weights, and nothing raises."""
    generator = random.Random(11)
    names = [name for name, record in SHAPES.items() if record.get("hidden_size") and "DeepSeek-R1" not in name]
    for dummy in range(300):
        found = shape(generator.choice(names))
        ranks = generator.choice([1, 2, 4])
        chosen = settings(found, tensor_parallel_size=ranks, max_num_seqs=generator.randint(128, 1024), max_num_batched_tokens=generator.randint(512, 32768))
        sm = generator.choice([75, 80, 89])
        size = activation.activation(found, chosen, sm)[0]
        for change in ({"max_num_batched_tokens": chosen.max_num_batched_tokens * 2}, {"max_num_seqs": chosen.max_num_seqs * 2}):
            assert activation.activation(found, chosen._replace(**change), sm)[0] >= size
        assert sum(weights.weights(found, ranks * 2)) < sum(weights.weights(found, ranks))


# -- Judging -------------------------------------------------------------------------------------------------------------------------------


def verdict(name, given=None, **options):
    found = shape(name)
    chosen = settings(found, given, **options)
    used = given or cards(chosen.tensor_parallel_size * chosen.pipeline_parallel_size)
    refusals, warnings = memory.shortfalls(found, chosen, memory.predict(found, used, chosen))
    return refusals, warnings


def test_weights_over_the_budget_are_refused_in_numbers():
    """The 70B script: weights 34.1 GiB, 0.45 of a 40 GB card."""
    refusals, dummy = verdict("Llama-2-70B-AWQ", cards(1, 40), gpu_memory_utilization=0.45)
    assert refusals[0].code == "no_room_for_kv_cache"
    assert "34.1" in refusals[0].message
    assert "18.00 GiB" in refusals[0].message
    assert "tensor_parallel_size to 2" in refusals[0].remedy


def test_the_mask_of_block_sparse_attention_is_what_does_not_fit():
    """1024 GiB for 128k positions below 8.0 (t046), whatever the number of ranks; newer cards make none."""
    name = "microsoft/Phi-3-small-128k-instruct"
    found = shape(name)
    chosen = settings(found, max_model_len=4096, tensor_parallel_size=4)
    prediction = memory.predict(found, cards(4), chosen)
    assert prediction.mask == 1024 * GIB
    refusals, dummy = memory.shortfalls(found, chosen, prediction)
    assert [problem.code for problem in refusals] == ["weights_over_card"]
    assert "mask of 1024.00 GiB" in refusals[0].message
    assert "8.0" in refusals[0].remedy
    newer = cards(4, capability=(8, 6))
    assert memory.predict(found, newer, settings(found, newer, tensor_parallel_size=4)).mask == 0


def test_weights_over_the_card_are_refused():
    refusals, dummy = verdict("Qwen/Qwen2.5-72B-Instruct")
    assert [found.code for found in refusals] == ["weights_over_card"]


def test_a_context_that_the_cache_cannot_hold_is_refused_with_the_one_that_it_can():
    refusals, dummy = verdict("meta-llama/Llama-3.1-8B-Instruct", cards(1, 23.58), max_model_len=131072)
    assert [found.code for found in refusals] == ["kv_cache_too_small"]
    assert "Set max_model_len to " in refusals[0].remedy


def test_an_automatic_context_takes_what_there_is():
    given = cards(1, 23.58)
    assert verdict("meta-llama/Llama-3.1-8B-Instruct", given, version="0.19.1")[0][0].code == "kv_cache_too_small"
    assert verdict("meta-llama/Llama-3.1-8B-Instruct", given, version="0.19.1", max_model_len="auto") == ([], [])


def test_what_lacks_less_than_the_prediction_errs_is_only_warned_about():
    found = shape("meta-llama/Llama-3.1-8B-Instruct")
    chosen = settings(found, cards(1, 23.58), max_num_batched_tokens=2048, max_model_len=32768)
    tokens = memory.predict(found, cards(1, 23.58), chosen).tokens
    close = chosen._replace(max_model_len=tokens + 512)
    refusals, warnings = memory.shortfalls(found, close, memory.predict(found, cards(1, 23.58), close))
    assert (refusals, [problem.code for problem in warnings]) == ([], ["kv_cache_too_small"])


def test_graphs_that_find_no_room_are_warned_about():
    dummy, warnings = verdict("Qwen/Qwen2.5-3B-Instruct", gpu_memory_utilization=1.0)
    assert [found.code for found in warnings] == ["no_room_for_cuda_graphs"]


def test_pictures_are_not_in_the_prediction_and_the_plan_says_so():
    dummy, warnings = verdict("Qwen/Qwen2.5-VL-3B-Instruct", max_model_len=4096)
    assert [found.code for found in warnings] == ["vision_not_counted"]
