from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import instance, options

GOOD = {"name": "coder", "model": "Qwen/Qwen3-32B-AWQ"}


def one(**keys):
    """The problems of a good instance with these keys changed; a key of None is left out."""
    return instance.problems([{**GOOD, **keys}], gpu_count=4)


def codes(*instances, gpu_count=4):
    return [problem.code for problem in instance.problems(list(instances), gpu_count)]


def test_nothing_is_wrong_with_a_good_list():
    full = {
        **GOOD,
        "revision": "0499c3127c49de4bb1aaf2f4b2f6e4a60a0ac71f",
        "gpus": [0, 1],
        "port": 8888,
        "served_model_name": "Qwen/coder",
        "profile": "as_given",
        "options": {"max_num_seqs": 64},
        "env": {"VLLM_ATTENTION_BACKEND": "XFORMERS", "TOKENIZERS_PARALLELISM": "false"},
        "engine_version": "0.8.5",
        "cpuset_cpus": "0-27,56",
        "cpuset_mems": "0",
        "supervisor": "compose",
        "runtime": "container",
    }
    assert codes() == codes(GOOD) == codes(full) == codes(full, {**GOOD, "name": "chat", "gpus": [2]}) == []
    assert codes(dict.fromkeys(instance.KEYS) | GOOD) == []


def test_not_a_list():
    (problem,) = instance.problems({"name": "coder"})
    assert (problem.code, problem.message) == ("not_a_list", "vllm_instances must be a list, not a mapping.")


def test_not_a_mapping():
    (problem,) = instance.problems([GOOD, "chat"])
    assert (problem.code, problem.message) == ("not_a_mapping", "Instance number 2 must be a mapping, not a string.")


@pytest.mark.parametrize(
    "key, remedy",
    [
        ("prt", "Write port if that is meant"),
        ("max_num_seqs", "Write it under options if the engine's option max_num_seqs is meant"),
        ("zzzz", "use one of name, model, revision"),
    ],
)
def test_unknown_key(key, remedy):
    (problem,) = one(**{key: 1})
    assert (problem.code, problem.message) == ("unknown_key", f"Instance 'coder': {key} is not a key of an instance.")
    assert remedy in problem.remedy


@pytest.mark.parametrize("key", ["name", "model"])
def test_missing_key(key):
    (problem,) = one(**{key: None})
    assert problem.code == "missing_key"
    assert f"{key} is missing." in problem.message


def test_an_instance_without_a_name_is_told_by_its_position():
    (problem,) = instance.problems([GOOD, {"model": "Qwen/Qwen3-8B-AWQ", "gpus": [0], "port": 1}])[:1]
    assert problem.message == "Instance number 2: name is missing."


@pytest.mark.parametrize(
    "key, value",
    [
        ("name", 7),
        ("model", []),
        ("revision", 123),
        ("gpus", "0,1"),
        ("gpus", [0, "1"]),
        ("gpus", [True]),
        ("port", "8000"),
        ("port", True),
        ("served_model_name", ["a", "b"]),
        ("profile", 1),
        ("objective", "context"),
        ("options", ["--max-num-seqs"]),
        ("env", ["A=b"]),
        ("env", {"VLLM_USE_V1": 0}),
        ("engine_version", 0.9),
        ("cpuset_cpus", 0),
        ("cpuset_mems", 0),
        ("supervisor", True),
        ("runtime", ["native"]),
    ],
)
def test_wrong_type(key, value):
    (problem,) = one(**{key: value})
    assert problem.code == "wrong_type"
    assert key in problem.message


@pytest.mark.parametrize("name", ["Coder", "-coder", "_coder", "co der", "coder.1", "a/b", "", "coder\n"])
def test_invalid_name(name):
    assert [problem.code for problem in one(name=name)] == ["invalid_name"]


@pytest.mark.parametrize("name", ["c", "coder-2", "32b_awq"])
def test_valid_name(name):
    assert one(name=name) == []


@pytest.mark.parametrize("model", ["", "/models/Qwen3", "a/b/c", "a b", "../x", "Qwen/..", "Qwen/", "https://hub/a"])
def test_invalid_model(model):
    assert [problem.code for problem in one(model=model)] == ["invalid_model"]


@pytest.mark.parametrize("name", ["", "a b", "-a"])
def test_invalid_served_model_name(name):
    assert [problem.code for problem in one(served_model_name=name)] == ["invalid_served_model_name"]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_out_of_range(port):
    assert [problem.code for problem in one(port=port)] == ["port_out_of_range"]


@pytest.mark.parametrize("key", ["cpuset_cpus", "cpuset_mems"])
@pytest.mark.parametrize("numbers", ["", "all", "0-", "5-3", "0, 1", "1.5", "0\n"])
def test_invalid_cpuset(key, numbers):
    assert [problem.code for problem in one(**{key: numbers})] == [f"invalid_{key}"]


@pytest.mark.parametrize("key", ["cpuset_cpus", "cpuset_mems"])
@pytest.mark.parametrize("numbers", ["0", "0-55", "0,2,4-7", "3-3"])
def test_valid_cpuset(key, numbers):
    assert one(**{key: numbers}) == []


@pytest.mark.parametrize("keys", [{"supervisor": "docker"}, {"supervisor": "compose", "runtime": "container"}, {"runtime": "native"}])
def test_who_starts_the_engine_and_in_what(keys):
    assert one(**keys) == []


@pytest.mark.parametrize(
    "keys, code",
    [
        ({"supervisor": "podman"}, "unknown_supervisor"),
        ({"runtime": "venv"}, "unknown_runtime"),
        ({"supervisor": "compose", "runtime": "native"}, "native_needs_systemd"),
        ({"supervisor": "docker", "runtime": "native"}, "native_needs_systemd"),
    ],
)
def test_what_cannot_start_the_engine(keys, code):
    (problem,) = one(**keys)
    assert problem.code == code and "'coder'" in problem.message and problem.remedy


@pytest.mark.parametrize("strategy", ["default", "xformers", "wheel", "build_on_start", "image", None])
def test_attention_strategies(strategy):
    assert one(attention_strategy=strategy) == []


@pytest.mark.parametrize(
    "keys, code, words",
    [
        ({"attention_strategy": "flash"}, "unknown_attention_strategy", "Use one of default, xformers, wheel, build_on_start, image."),
        ({"attention_strategy": "xformers", "engine_version": "0.19.1"}, "strategy_not_for_version", "vLLM 0.19.1 has no xFormers backend."),
        ({"attention_strategy": "wheel", "engine_version": "0.33.0"}, "strategy_not_for_version", "vLLM 0.33.0 imports flash-attn 1 for no model."),
        ({"attention_strategy": "wheel", "runtime": "native"}, "wheel_needs_container", "add the package to vllm_native_requirements"),
        (
            {"attention_strategy": "xformers", "env": {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}},
            "strategy_against_env",
            "and env says VLLM_ATTENTION_BACKEND: FLASH_ATTN.",
        ),
    ],
)
def test_an_attention_strategy_that_cannot_work(keys, code, words):
    (problem,) = one(**keys)
    assert problem.code == code and words in f"{problem.message} {problem.remedy}"


@pytest.mark.parametrize("profile", ["throughput", "low_memory", "latency", "as_given", None])
def test_profiles(profile):
    assert one(profile=profile) == []


def test_unknown_profile():
    assert [problem.code for problem in one(profile="fast")] == ["unknown_profile"]


def test_objectives():
    assert one(objective={"context": 32768, "concurrency": 4, "max_gpu_memory_gib": 10.5}) == one(objective={}) == []


@pytest.mark.parametrize(
    "objective, code",
    [
        ({"speed": 1}, "unknown_objective"),
        ({"context": 0}, "invalid_objective"),
        ({"concurrency": 1.5}, "invalid_objective"),
        ({"max_gpu_memory_gib": "10"}, "invalid_objective"),
        ("context", "wrong_type"),
    ],
)
def test_an_objective_that_cannot_be_read(objective, code):
    assert [problem.code for problem in one(objective=objective)] == [code]


def test_an_objective_that_nothing_would_pursue():
    assert [problem.code for problem in one(objective={"context": 32768}, profile="as_given")] == ["objective_without_solver"]


@pytest.mark.parametrize("version, option", [("0.8.5", "host"), ("0.19.1", "uds"), ("0.19.1", "headless"), ("0.33.0", "device_ids"), ("0.33.0", "nnodes")])
def test_options_that_the_collection_sets(version, option):
    assert [problem.code for problem in one(engine_version=version, options={option: 1})] == ["option_set_by_key"]


def test_unknown_engine_version():
    (problem,) = one(engine_version="0.9.9", options={"max_batch_size": 1})
    assert (problem.code, problem.remedy) == ("unknown_engine_version", f"Use one of {', '.join(options.versions())}.")


# -- gpus ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gpus, code",
    [([], "no_gpus"), ([-1], "negative_gpus"), ([0, 1, 0], "duplicate_gpus"), ([3, 4], "gpus_out_of_range")],
)
def test_gpus(gpus, code):
    assert [problem.code for problem in one(gpus=gpus)] == [code]


def test_without_a_count_an_index_has_no_upper_limit():
    assert codes({**GOOD, "gpus": [7]}, gpu_count=None) == []
    assert codes({**GOOD, "gpus": [7]}, gpu_count=8) == []


def test_out_of_range_says_what_the_host_has():
    (problem,) = one(gpus=[3, 4, 9])
    assert problem.message == "Instance 'coder': gpus names GPU 4, 9, and the last card of the host is GPU 3."
    (problem,) = instance.problems([{**GOOD, "gpus": [0]}], gpu_count=0)
    assert problem.message == "Instance 'coder': gpus names GPU 0, and the host has no card."


@pytest.mark.parametrize(
    "a, b, shared",
    [([0, 1], [1, 2], "GPU 1"), (None, [2], "GPU 2"), ([3], None, "GPU 3"), (None, None, "all cards")],
)
def test_overlapping_gpus(a, b, shared):
    (problem,) = instance.problems([{**GOOD, "gpus": a}, {**GOOD, "name": "chat", "port": 8001, "gpus": b}], 4)
    assert problem.code == "overlapping_gpus"
    assert problem.message == f"Instance 'coder' and instance 'chat' both use {shared}."


@pytest.mark.parametrize("a, b", [([0, 1], [2, 3]), ([0], "all")])
def test_no_overlap(a, b):
    found = codes({**GOOD, "gpus": a}, {**GOOD, "name": "chat", "port": 8001, "gpus": b})
    assert "overlapping_gpus" not in found


# -- between instances ---------------------------------------------------------------------------------------------------------------------


def test_duplicate_name():
    assert codes({**GOOD, "gpus": [0]}, {**GOOD, "gpus": [1], "port": 8001}) == ["duplicate_name"]


def test_duplicate_port_also_by_default():
    a, b = {**GOOD, "gpus": [0]}, {**GOOD, "name": "chat", "gpus": [1]}
    assert codes(a, b) == codes({**a, "port": 9000}, {**b, "port": 9000}) == codes(a, {**b, "port": 8000}) == ["duplicate_port"]
    assert codes(a, {**b, "port": 8001}) == []


def test_every_pair_is_looked_at():
    three = [{**GOOD, "name": name, "gpus": [index]} for index, name in enumerate("abc")]
    assert codes(*three) == ["duplicate_port"] * 3


# -- env and options -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A-B", "1A", "", "A B", 7])
def test_invalid_env_name(name):
    assert [problem.code for problem in one(env={name: "x"})] == ["invalid_env_name"]


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\0"])
def test_invalid_env_value(value):
    assert [problem.code for problem in one(env={"A": value})] == ["invalid_env_value"]


@pytest.mark.parametrize("name", ["VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "SECRET"])
def test_secret_in_env(name):
    (problem,) = one(env={name: "hunter2"})
    assert problem.code == "secret_in_env"
    assert "vllm_api_key" in problem.remedy


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_env_set_by_key(name):
    (problem,) = one(env={name: "0"})
    assert (problem.code, problem.remedy) == ("env_set_by_key", "Use the instance's key gpus.")


@pytest.mark.parametrize("name, word", [("api_key", "vllm_api_key"), ("hf_token", "needs no token")])
def test_secret_in_options(name, word):
    (problem,) = one(options={name: "hunter2"})
    assert problem.code == "secret_in_options"
    assert word in problem.remedy


@pytest.mark.parametrize("keys", [{"env": "VLLM_API_KEY=hunter2"}, {"options": "--api-key hunter2"}, {"env": {"API_KEY": "hunter2"}}, {"api_key": "hunter2"}])
def test_no_message_shows_a_secret(keys):
    found = one(**keys)
    assert found and not any("hunter2" in problem.message + problem.remedy for problem in found)


@pytest.mark.parametrize("name", ["model", "served_model_name", "revision", "port", "host"])
def test_option_set_by_key(name):
    (problem,) = one(options={name: "x"})
    assert problem.code == "option_set_by_key"
    assert "key" in problem.remedy


def test_the_problems_of_options_say_which_instance():
    (problem,) = one(options={"max_batch_size": 2})
    assert (problem.code, problem.message) == ("unknown_option", "Instance 'coder': max_batch_size is not an option of vLLM 0.8.5.")


def test_every_sentence_ends():
    bad = {"name": "X", "model": "", "port": 0, "gpus": [-1, -1, 9], "profile": "x", "objective": {}, "env": {"A-": 1, "B": 2}, "options": {"a": 1, "host": 1}}
    for problem in instance.problems([bad, {"zzz": 1}, bad, 3], 4):
        assert problem.message.endswith(".") and problem.remedy.endswith("."), problem


# -- normalize and plain -------------------------------------------------------------------------------------------------------------------


def test_normalize_fills_every_key():
    assert instance.normalize(GOOD) == {
        "name": "coder",
        "model": "Qwen/Qwen3-32B-AWQ",
        "hosts": None,
        "revision": None,
        "gpus": None,
        "port": 8000,
        "served_model_name": "coder",
        "profile": "throughput",
        "objective": None,
        "options": {},
        "env": {},
        "engine_version": "0.8.5",
        "cpuset_cpus": None,
        "cpuset_mems": None,
        "supervisor": "systemd",
        "runtime": "container",
        "attention_strategy": "default",
    }


def test_the_strategy_xformers_is_a_variable_of_the_engine():
    full = instance.normalize(GOOD | {"attention_strategy": "xformers", "env": {"A": "1"}})
    assert full["env"] == {"VLLM_ATTENTION_BACKEND": "XFORMERS", "A": "1"}


def test_normalize_keeps_what_is_given_and_takes_null_for_missing():
    full = instance.normalize({**GOOD, "served_model_name": "x", "port": None, "options": {"b": 1, "a": None}})
    assert (full["served_model_name"], full["port"]) == ("x", 8000)
    assert list(full["options"].items()) == [("b", 1), ("a", None)]


def test_normalize_copies():
    instance.normalize(GOOD)["options"]["x"] = 1
    given = {**GOOD, "env": {"A": "b"}}
    instance.normalize(given)["env"]["A"] = "c"
    assert instance.normalize(GOOD)["options"] == {} and given["env"] == {"A": "b"}


def test_plain_returns_builtin_types():
    class Tagged(str):
        pass

    class Number(int):
        pass

    given = instance.plain({Tagged("a"): [Tagged("b"), Number(1), True, None, 0.5]})
    assert given == {"a": ["b", 1, True, None, 0.5]}
    assert [type(key) for key in given] == [str]
    assert [type(item) for item in given["a"]] == [str, int, bool, type(None), float]
