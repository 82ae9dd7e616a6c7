# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated engine's parts: memory, settings, faults, metrics text, tokens."""

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[4] / "roles/lab/files/engine_simulated"))

from simulated_engine import card, exposition, faults, metrics, settings, sizing, startup, text  # noqa: E402

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options  # noqa: E402

QWEN3_32B = {
    "hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    "num_hidden_layers": 64, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "float16",
}
QWEN3_8B = QWEN3_32B | {"hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_hidden_layers": 36}
ARTICLE = (
    "--model /model --served-model-name coder --tensor-parallel-size 4 --quantization awq --dtype auto --max-model-len 32768 "
    "--max-num-batched-tokens 32768 --gpu-memory-utilization 0.96 --block-size 16 --enable-prefix-caching --swap-space 64 --max-num-seqs 64"
)


def resolve(arguments, config=None):
    return settings.resolve(options.parse("0.8.5", arguments.split()), config or QWEN3_32B)


def test_kv_cache_of_the_article():
    """Qwen3-32B-AWQ on four 22 GB cards, worked out by hand from the formula in sizing.py."""
    memory = sizing.memory(resolve(ARTICLE), QWEN3_32B, card.DEFAULT_TOTAL_BYTES, 19_325_298_688)
    assert memory.activation == 32768 * 2 * (4 * 5120 + 3 * 25600 // 4)
    assert memory.weights == 4_831_324_672
    assert (memory.gpu_blocks, memory.cpu_blocks) == (13823, 65536)


def test_block_size_gives_the_swap_blocks_of_a_real_log():
    """Four 2080 Ti logged `# CPU blocks: 58254` for DeepSeek-R1-0528-Qwen3-8B with --swap-space 32."""
    resolved = resolve("--model /m --tensor-parallel-size 4 --swap-space 32", QWEN3_8B)
    assert sizing.memory(resolved, QWEN3_8B, card.DEFAULT_TOTAL_BYTES, 0).cpu_blocks == 58254


def test_kv_heads_are_replicated_when_there_are_more_ranks():
    few = QWEN3_32B | {"num_key_value_heads": 2}
    assert sizing.block_bytes(resolve(ARTICLE, few), few) == 2 * 64 * 16 * 2 * 1 * 128


def test_the_sampler_decides_when_batches_are_short():
    resolved = resolve("--model /m --max-model-len 2048 --max-num-batched-tokens 2048 --max-num-seqs 256")
    assert sizing.activation_bytes(resolved, QWEN3_32B) == 37 * 256 * 151936


@pytest.mark.parametrize("blocks, message", [
    (0, "No available memory for the cache blocks"),
    (2047, r"max seq len \(32768\) is larger than the maximum number of tokens that can be stored in KV cache \(32752\)"),
])
def test_a_cache_too_small_is_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        sizing.check(resolve(ARTICLE), blocks)


@pytest.mark.parametrize("arguments, expected", [
    ("--max-model-len 32768", (32768, 32768, 256)),
    ("--max-model-len 32769", (32769, 2048, 256)),
    ("--max-model-len 1024", (1024, 2048, 256)),
    ("--max-num-seqs 8", (40960, 2048, 8)),
])
def test_defaults_of_the_scheduler(arguments, expected):
    resolved = resolve(f"--model /m {arguments}")
    assert (resolved.max_model_len, resolved.max_num_batched_tokens, resolved.max_num_seqs) == expected


@pytest.mark.parametrize("arguments, message", [
    ("--max-model-len 50000", r"User-specified max_model_len \(50000\) is greater than the derived max_model_len"),
    ("--max-model-len 8192 --max-num-batched-tokens 4096", r"max_num_batched_tokens \(4096\) is smaller than max_model_len \(8192\)"),
    ("--max-model-len 8 --max-num-batched-tokens 16", r"must be greater than or equal to max_num_seqs \(256\)"),
    ("--tensor-parallel-size 3", r"attention heads \(64\) must be divisible by tensor parallel size \(3\)"),
])
def test_refusals_before_loading(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve(f"--model /m {arguments}")


def test_yarn_extends_the_context():
    stretched = QWEN3_32B | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
    assert resolve("--model /m --max-model-len 131072", stretched).max_model_len == 131072


def test_auto_keeps_bfloat16_and_halves_float32():
    assert resolve("--model /m", QWEN3_32B | {"torch_dtype": "bfloat16"}).dtype == "bfloat16"
    assert resolve("--model /m", QWEN3_32B | {"torch_dtype": "float32"}).dtype == "float16"
    assert resolve("--model /m --dtype half", QWEN3_32B | {"torch_dtype": "bfloat16"}).dtype == "float16"


def test_visible_cards(monkeypatch):
    assert card.visible([1, 2, 3]) == [1, 2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,7,1")
    assert card.visible([1, 2, 3]) == [3, 1]


def test_faults_are_read():
    assert faults.parse("oom_at_load:2, hang, slow:2.5,oom_above:max-num-seqs=32") == {
        "oom_at_load": 2, "hang": None, "slow": 2.5, "oom_above": ("max_num_seqs", 32.0),
    }
    assert faults.parse("") == {}


@pytest.mark.parametrize("told", ["nonsense", "hang:x", "hang:-1", "slow", "slow:0", "slow:nan", "bad_answer:1", "oom_above:max_num_seqs"])
def test_wrong_faults_are_refused(told):
    with pytest.raises(ValueError, match="fault"):
        faults.parse(told)


def test_out_of_memory_counts_starts(tmp_path):
    told = faults.parse("oom_at_load:2")
    assert [faults.out_of_memory(told, {}, tmp_path / "state") for dummy in range(4)] == [True, True, False, False]


def test_out_of_memory_above_a_value(tmp_path):
    told = faults.parse("oom_above:max_num_seqs=32")
    assert faults.out_of_memory(told, {"max_num_seqs": 33}, tmp_path)
    assert not faults.out_of_memory(told, {"max_num_seqs": 32}, tmp_path)


def test_out_of_memory_reads_like_torch():
    error = startup.out_of_memory(card.DEFAULT_TOTAL_BYTES)
    assert f"{type(error).__module__}.{type(error).__qualname__}" == "torch.OutOfMemoryError"
    assert str(error).startswith("CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 21.48 GiB of which")


def test_exposition():
    family = exposition.Family("x_seconds", "histogram", "Help.", (0.5, 1))
    assert family.render() == []
    for value in (0.1, 0.5, 3):
        family.observe(value, model_name='a"b')
    assert family.render() == [
        "# HELP x_seconds Help.",
        "# TYPE x_seconds histogram",
        'x_seconds_sum{model_name="a\\"b"} 3.6',
        'x_seconds_bucket{le="0.5",model_name="a\\"b"} 2.0',
        'x_seconds_bucket{le="1.0",model_name="a\\"b"} 2.0',
        'x_seconds_bucket{le="+Inf",model_name="a\\"b"} 3.0',
        'x_seconds_count{model_name="a\\"b"} 3.0',
    ]


def test_length_buckets():
    assert metrics.lengths(100) == (1, 2, 5, 10, 20, 50, 100)


def test_tokens_are_bytes():
    assert text.decode(text.encode("冒泡")) == "冒泡"
    assert text.decode(text.encode("冒泡")[:4]) == "冒"
    assert text.decode(text.chat_prompt([{"role": "user", "content": [{"type": "text", "text": "hi"}]}])) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("limit, stop, ignore_eos, expected", [
    (9, [], False, ("abcdef", "stop", None)),
    (6, [], False, ("abcdef", "stop", None)),
    (2, [], False, ("ab", "length", None)),
    (9, ["e", "cd"], False, ("ab", "stop", "cd")),
    (9, ["a"], False, ("", "stop", "a")),
    (8, [], True, ("abcdefab", "length", None)),
])
def test_completion_ends_as_asked(limit, stop, ignore_eos, expected):
    tokens, reason, met = text.complete("abcdef", limit, stop=stop, ignore_eos=ignore_eos)
    assert (text.decode(tokens), reason, met) == expected
