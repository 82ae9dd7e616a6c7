from __future__ import annotations

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import options, values

V = "0.8.5"
VERSIONS = ("0.8.5", "0.19.1", "0.33.0")

# One value for each type of the schema, and what the engine reads it as.
SAMPLES = {
    "int": (7, 7),
    "float": (0.5, 0.5),
    "str": ("a b", "a b"),
    "human_readable_int": ("32K", 32768),
    "json": ({"a": [1, None, True]}, {"a": [1, None, True]}),
    "json_object": ({"a": {"b": 1}}, {"a": {"b": 1}}),
    "human_readable_int_or_auto": ("auto", -1),
    "dict_or_str": ({"a": {"b": 1}}, {"a": {"b": 1}}),
    "config": ({}, {}),
    "compilation_config": ({"level": 3, "use_cudagraph": True}, {"level": 3, "use_cudagraph": True}),
    "lora_module": ("sql=/lora/sql", {"name": "sql", "path": "/lora/sql"}),
    "prompt_adapter": ("tone=/tone", {"name": "tone", "local_path": "/tone"}),
}


def samples(versions=VERSIONS):
    """Every option with a valid value and what the parser makes of it, as (version, name, value, read)."""
    for version in versions:
        for name, entry in options.schema(version).items():
            if entry["type"] == "bool":
                yield version, name, True, True
                if entry.get("negatable"):
                    yield version, name, False, False
                continue
            value, read = SAMPLES[entry["type"]]
            if choices := [choice for choice in entry.get("choices", entry.get("known", [])) if choice not in (None, "None")]:
                value = read = choices[-1]
            if "keys" in entry:
                value = read = {entry["keys"][0]: 1}
            many = entry.get("nargs") in ("+", "append")
            yield version, name, [value, value] if many else value, [read, read] if many else read


def codes(given, version=V):
    return [problem.code for problem in options.check(version, given)]


# -- versions and schema -------------------------------------------------------------------------------------------------------------------


def test_an_unknown_version_names_the_known_ones():
    assert options.versions() == list(VERSIONS)
    with pytest.raises(ValueError, match=r"vLLM 0\.9\.9 are not known: known versions are 0\.8\.5, 0\.19\.1, 0\.33\.0"):
        options.schema("0.9.9")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_entry_has_a_default_and_a_type_that_options_knows(version):
    for name, entry in options.schema(version).items():
        assert "default" in entry and entry["type"] in {"bool", *values.TYPES}, name
        # Nothing that depends on the machine or the process has slipped in.
        assert not isinstance(entry["default"], set) and "0x" not in repr(entry) and "/tmp" not in repr(entry), name


def test_the_schema_knows_what_the_engine_documents():
    schema = options.schema(V)
    assert schema["block_size"]["choices"] == [1, 8, 16, 32, 64, 128]
    assert schema["gpu_memory_utilization"]["default"] == 0.9
    assert schema["max_seq_len_to_capture"]["default"] == 8192
    assert {"awq", "gptq", "moe_wna16"} <= set(schema["quantization"]["choices"])
    assert [name for name, entry in schema.items() if entry.get("deprecated")] == [
        "tokenizer_pool_extra_config",
        "tokenizer_pool_size",
        "tokenizer_pool_type",
        "use_v2_block_manager",
    ]


def test_the_schemas_of_later_engines_know_what_lanes_say_of_them():
    older, newer = options.schema("0.19.1"), options.schema("0.33.0")
    assert not {"swap_space", "max_seq_len_to_capture", "num_scheduler_steps", "enable_reasoning"} & (set(older) | set(newer))
    assert {"attention_backend", "kv_offloading_size", "max_cudagraph_capture_size", "enable_log_requests"} <= set(older) & set(newer)
    assert (older["gpu_memory_utilization"]["default"], newer["gpu_memory_utilization"]["default"]) == (0.9, 0.92)
    assert newer["gpu_memory_utilization"]["short"] == ["--device-memory-utilization"]
    assert {"TRITON_ATTN", "FLASHINFER"} <= set(older["attention_backend"]["known"]) & set(newer["attention_backend"]["known"])
    assert {"awq_marlin", "gptq_marlin", "gguf"} <= set(older["quantization"]["known"])
    assert not {"gguf", "bitsandbytes"} & set(newer["quantization"]["known"])


# -- render and parse ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version, name, value, read", list(samples()))
def test_what_check_passes_and_render_writes_parse_reads_back(version, name, value, read):
    assert codes({name: value}, version) == []
    assert options.parse(version, options.render(version, {name: value}))[name] == read


@pytest.mark.parametrize("version", VERSIONS)
def test_all_options_at_once_round_trip(version):
    given = {name: (value, read) for dummy, name, value, read in samples([version])}
    argv = options.render(version, {name: value for name, (value, read) in given.items()})
    assert options.parse(version, argv) == {name: read for name, (value, read) in given.items()}


@pytest.mark.parametrize(
    "given, argv",
    [
        ({"block_size": 16, "swap_space": 64}, ["--block-size", "16", "--swap-space", "64"]),
        ({"swap_space": 64, "block_size": 16}, ["--swap-space", "64", "--block-size", "16"]),
        ({"enable_prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"enforce_eager": True, "trust_remote_code": False}, ["--enforce-eager"]),
        ({"max_num_seqs": None, "enable_chunked_prefill": None}, []),
        ({"gpu_memory_utilization": 0.96}, ["--gpu-memory-utilization", "0.96"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["--rope-scaling", '{"rope_type":"yarn","factor":4.0}']),
        ({"allowed_origins": ["https://a", "*"]}, ["--allowed-origins", '["https://a","*"]']),
        ({"compilation_config": {"use_cudagraph": True}}, ["--compilation-config", "{'use_cudagraph': True}"]),
        ({"lora_modules": ["a=/a", {"name": "b", "path": "/b"}]}, ["--lora-modules", "a=/a", '{"name":"b","path":"/b"}']),
        ({"middleware": ["a.b", "c.d"]}, ["--middleware", "a.b", "--middleware", "c.d"]),
        ({"middleware": []}, []),
        ({"hf_token": True}, ["--hf-token"]),
        ({"seed": -1, "chat_template": "--x"}, ["--seed=-1", "--chat-template=--x"]),
    ],
)
def test_render(given, argv):
    assert codes(given) == []
    assert options.render(V, given) == argv


# What the real parser of vLLM 0.8.5 answered to these words.
@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--pip 2", "pipeline_parallel_size", 2),
        ("--gpu-mem 0.5", "gpu_memory_utilization", 0.5),
        ("-tp 4", "tensor_parallel_size", 4),
        ("--max-model-len 32k", "max_model_len", 32000),
        ("--max_model_len 32K", "max_model_len", 32768),
        ("--max-model-len 25.6k", "max_model_len", 25600),
        ("--no-enable-chunked-prefill", "enable_chunked_prefill", False),
        ("--quantization None", "quantization", None),
        ("--seed -1", "seed", -1),
        ("--hf-token", "hf_token", True),
        ("--served-model-name a b", "served_model_name", ["a", "b"]),
        ("--middleware a --middleware b", "middleware", ["a", "b"]),
        ('--limit-mm-per-prompt {"image":2}', "limit_mm_per_prompt", {"image": 2}),
        ("--tool-call-parser nonsense", "tool_call_parser", "nonsense"),
        ("-O3", "compilation_config", 3),
        ("", "swap_space", 4),
    ],
)
def test_parse_reads_as_the_engine_does(words, name, value):
    assert options.parse(V, words.split())[name] == value


# What the real parsers of vLLM 0.19.1 and 0.33.0 answered to these words.
@pytest.mark.parametrize("version", ("0.19.1", "0.33.0"))
@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--max-model-len auto", "max_model_len", -1),
        ("--max-model-len -1", "max_model_len", -1),
        ("--max-num-batched-tokens 8k", "max_num_batched_tokens", 8000),
        ("--attention-backend TRITON_ATTN", "attention_backend", "TRITON_ATTN"),
        ("--no-enforce-eager", "enforce_eager", False),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("-O3", "optimization_level", 3),
        ("-O=1", "optimization_level", 1),
        ("-O 0", "optimization_level", 0),
        ("--api-key a b", "api_key", ["a", "b"]),
        ('--hf-overrides {"a":1}', "hf_overrides", {"a": 1}),
        ("--quantization None", "quantization", None),
        ("-ep", "enable_expert_parallel", True),
        ("--gpu-mem 0.5", "gpu_memory_utilization", 0.5),
    ],
)
def test_parse_reads_as_later_engines_do(version, words, name, value):
    assert options.parse(version, words.split())[name] == value


@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--disable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-custom-all-reduce", "disable_custom_all_reduce", False),
        ("--disable-log-requests", "enable_log_requests", False),
        ("--device-memory-utilization 0.5", "gpu_memory_utilization", 0.5),
    ],
)
def test_parse_reads_the_opposites_of_the_newest_engine(words, name, value):
    assert options.parse("0.33.0", words.split())[name] == value
    with pytest.raises(ValueError):
        options.parse("0.19.1", words.split())


@pytest.mark.parametrize(
    "words, message",
    [
        ("--xformers", "unrecognized arguments: --xformers"),
        ("--max-batch-size 2", "unrecognized arguments: --max-batch-size 2"),
        ("--pip-install flash-attn", "unrecognized arguments: --pip-install flash-attn"),
        ("--enable-chunked-prefill=False", "ignored explicit argument 'False'"),
        ("--enforce-eager true", "unrecognized arguments: true"),
        ("--max-num-seqs 32K", "argument --max-num-seqs: invalid int value: '32K'"),
        ("--max-model-len 1.5K", "argument --max-model-len"),
        ("--max-num 1", "ambiguous option: --max-num could match"),
        ("--block-size 24", "argument --block-size: invalid choice: 24"),
        ("--reasoning-parser qwen3", "argument --reasoning-parser: invalid choice: 'qwen3'"),
        ("--preemption-mode None", "argument --preemption-mode: invalid choice: None"),
        ('--compilation-config {"use_cudagraph":true}', "argument --compilation-config/-O: invalid"),
        ("--max-cpu-loras x", "Value x cannot be converted to int"),
        ("--config a.yaml", "--config names a file"),
    ],
)
def test_parse_refuses_what_the_engine_refuses(words, message):
    with pytest.raises(ValueError) as refused:
        options.parse(V, words.split())
    assert message in str(refused.value)


def test_what_parse_returns_can_be_changed_without_harm():
    options.parse(V, [])["allowed_origins"].append("x")
    assert options.parse(V, [])["allowed_origins"] == ["*"]


# -- check ---------------------------------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_nothing_or_with_null():
    assert options.check(V, {}) == []
    assert options.check(V, {"max_num_seqs": None}) == []


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("max_batch_size", "Use max_num_seqs"),
        ("xformers", "VLLM_ATTENTION_BACKEND: XFORMERS"),
        ("pip", "--pipeline-parallel-size"),
        ("pip_install", "wheel"),
        ("config", "Write that file's keys in options"),
        ("max_num_seq", "Write max_num_seqs if that is meant"),
        ("tensor-parallel-size", "Write it with underscores: tensor_parallel_size."),
        ("--tensor-parallel-size", "Write it with underscores: tensor_parallel_size."),
        ("tp", "Write its long name: tensor_parallel_size."),
        ("no_enable_prefix_caching", "Write enable_prefix_caching: false."),
        ("zzzz", "Remove it"),
        (5, "Remove it"),
    ],
)
def test_an_unknown_option_gets_the_remedy_that_helps(name, remedy):
    (problem,) = options.check(V, {name: 1})
    assert problem.code == "unknown_option"
    assert problem.message == f"{name} is not an option of vLLM 0.8.5."
    assert remedy in problem.remedy


@pytest.mark.parametrize("version", VERSIONS)
def test_no_remedy_hides_an_option_that_exists(version):
    assert not set(options.REMEDIES) & set(options.schema(version))


@pytest.mark.parametrize(
    "version, name, remedy",
    [
        ("0.8.5", "attention_backend", "Set VLLM_ATTENTION_BACKEND in the instance's env instead."),
        ("0.8.5", "kv_offloading_size", "Use swap_space"),
        ("0.19.1", "swap_space", "kv_offloading_size"),
        ("0.19.1", "max_seq_len_to_capture", "max_cudagraph_capture_size"),
        ("0.19.1", "enable_reasoning", "reasoning_parser alone is enough"),
        ("0.33.0", "num_scheduler_steps", "async_scheduling"),
        ("0.33.0", "disable_prefix_caching", "Write enable_prefix_caching: false."),
        ("0.33.0", "disable_log_requests", "Write enable_log_requests: false."),
        ("0.33.0", "device_memory_utilization", "Write its long name: gpu_memory_utilization."),
        ("0.33.0", "max_num_partial_prefills", "max_num_batched_tokens"),
    ],
)
def test_an_option_of_another_lane_gets_what_to_use_instead(version, name, remedy):
    (problem,) = options.check(version, {name: 1})
    assert problem.code == "unknown_option"
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("max_num_seqs", "64", "max_num_seqs must be an integer, not the string '64'."),
        ("max_num_seqs", 64.0, "max_num_seqs must be an integer, not the number 64.0."),
        ("max_num_seqs", True, "max_num_seqs must be an integer, not the boolean true."),
        ("swap_space", "64", "swap_space must be a number, not the string '64'."),
        ("swap_space", float("nan"), "swap_space must be a number, not the number nan."),
        ("max_model_len", "32x", "max_model_len must be an integer, or one with k or K (\"32K\" is 32768), not the string '32x'."),
        ("max_model_len", 32.5, 'max_model_len must be an integer, or one with k or K ("32K" is 32768), not the number 32.5.'),
        ("max_cpu_loras", "x", "max_cpu_loras must be an integer, not the string 'x'."),
        ("show_hidden_metrics_for_version", 0.7, "show_hidden_metrics_for_version must be a string, not the number 0.7."),
        ("enforce_eager", "true", "enforce_eager must be a boolean, not the string 'true'."),
        ("enable_prefix_caching", 1, "enable_prefix_caching must be a boolean, not the integer 1."),
        ("rope_scaling", '{"factor":2}', "rope_scaling must be a mapping or a list, not the string '{\"factor\":2}'."),
        ("limit_mm_per_prompt", ["image"], "limit_mm_per_prompt must be a mapping, not a list."),
        ("hf_overrides", {"a": {1, 2}}, "hf_overrides must be a mapping or a list, not a mapping."),
        ("compilation_config", 4, "compilation_config must be a level from 0 to 3 or a mapping, not the integer 4."),
        ("middleware", "a.b", "middleware must be a list, each item a string, not the string 'a.b'."),
        ("middleware", ["a.b", 1], "middleware must be a list, each item a string, not the integer 1."),
        ("lora_modules", [], "lora_modules must be a list with at least one item, not a list."),
        ("lora_modules", ["a"], "lora_modules must be a list, each item name=path or a mapping with name and path, not the string 'a'."),
        ("lora_modules", [{"name": "a"}], "lora_modules must be a list, each item name=path or a mapping with name and path, not a mapping."),
        ("prompt_adapters", ["a=b=c"], "prompt_adapters must be a list, each item name=path, not the string 'a=b=c'."),
    ],
)
def test_wrong_type(name, value, message):
    (problem,) = options.check(V, {name: value})
    assert (problem.code, problem.message) == ("wrong_type", message)
    assert problem.remedy.startswith("Write it as in `")


@pytest.mark.parametrize("version, name", [(version, name) for version in VERSIONS for name in options.schema(version)])
def test_the_example_of_a_remedy_is_itself_valid(version, name):
    (problem,) = options.check(version, {name: object()})
    example = yaml.safe_load(problem.remedy.split("`")[1])
    assert codes(example, version) == []


@pytest.mark.parametrize(
    "name, value, remedy",
    [
        ("dtype", "int8", "Use one of auto, half, float16, bfloat16, float, float32."),
        ("block_size", 24, "Use one of 1, 8, 16, 32, 64, 128."),
        ("preemption_mode", "None", "Use one of recompute, swap."),
        ("reasoning_parser", "qwen3", "Use one of deepseek_r1, granite."),
        # Depending on the order of a set, 0.8.5 accepts it in one start and not in the next.
        ("guided_decoding_backend", "outlines", "Use one of auto, guidance, xgrammar."),
    ],
)
def test_wrong_choice(name, value, remedy):
    (problem,) = options.check(V, {name: value})
    assert (problem.code, problem.remedy) == ("wrong_choice", remedy)
    assert codes({name: options.schema(V)[name]["choices"][0]}) == []


def test_a_tool_call_parser_that_fails_after_parsing_is_a_wrong_choice_unless_a_plugin_brings_it():
    assert codes({"tool_call_parser": "qwen"}) == ["wrong_choice"]
    assert codes({"tool_call_parser": "qwen", "tool_parser_plugin": "/plugins/qwen.py"}) == []
    assert codes({"tool_call_parser": "hermes"}) == []


def test_a_word_that_the_engine_refuses_after_parsing_is_a_wrong_choice():
    for version in ("0.19.1", "0.33.0"):
        assert codes({"attention_backend": "XFORMERS"}, version) == ["wrong_choice"]
        assert codes({"attention_backend": "triton_attn"}, version) == []
        assert codes({"quantization": "gptq_bitblas"}, version) == ["wrong_choice"]
        assert codes({"reasoning_parser": "nonsense"}, version) == ["wrong_choice"]
        assert codes({"reasoning_parser": "nonsense", "reasoning_parser_plugin": "/plugins/n.py"}, version) == []
        assert codes({"reasoning_parser": "qwen3", "tool_call_parser": "hermes"}, version) == []
    assert codes({"quantization": "gguf"}, "0.19.1") == []
    assert codes({"quantization": "gguf"}, "0.33.0") == ["wrong_choice"]


def test_unknown_config_key():
    (problem,) = options.check("0.19.1", {"compilation_config": {"level": 3, "mode": 3}})
    assert problem.code == "unknown_config_key"
    assert problem.message == "compilation_config has level, which the engine does not know."
    assert "cudagraph_mode" in problem.remedy
    assert codes({"compilation_config": {"mode": 3}}, "0.19.1") == []


def test_one_way_flag():
    assert codes({"use_v2_block_manager": False}) == ["one_way_flag"]
    assert codes({"use_v2_block_manager": True, "enforce_eager": False, "use_tqdm_on_load": False}) == []


def test_leading_dash():
    assert codes({"served_model_name": ["a", "-b"]}) == ["leading_dash"]
    assert codes({"served_model_name": ["a", "b-"], "chat_template": "-b", "middleware": ["-a"]}) == []


def test_problems_come_in_the_order_of_the_options():
    assert codes({"dtype": "x", "pip": 1, "max_num_seqs": "1"}) == ["wrong_choice", "unknown_option", "wrong_type"]


def test_shown_is_short():
    assert len(values.shown("x" * 500)) < 80
    assert values.shown(None) == "null"
    assert values.shown(object()) == "a value of type object"
