import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import container

ARTICLE = {
    "name": "coder",
    "model": "Qwen/Qwen3-32B-AWQ",
    "port": 8888,
    "cpuset_cpus": "0-55",
}


def argv(instance, **changed):
    arguments = {
        "argv": ["--model", "/model/Qwen3-32B-AWQ", "--tensor-parallel-size", "4"],
        "image": "vllm/vllm-openai:v0.8.5",
        "model_directory": "/home/llm/model/qwen/Qwen3-32B-AWQ",
        "env_file": "/etc/default/vllm-coder",
        "listen_address": "0.0.0.0",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "host": {},
    }
    return container.run_argv(instance, **(arguments | changed))


def test_the_articles_docker_run():
    assert argv(ARTICLE) == [
        "docker", "run", "--rm", "--pull=never", "--name=vllm-coder", "--device=nvidia.com/gpu=all", "--ipc=host",
        "--ulimit=memlock=-1", "--ulimit=stack=67108864", "--cpuset-cpus=0-55", "--env-file=/etc/default/vllm-coder",
        "--volume=/home/llm/model/qwen/Qwen3-32B-AWQ:/model/Qwen3-32B-AWQ:ro", "--volume=vllm-coder-cache:/root/.cache",
        "--publish=0.0.0.0:8888:8000", "vllm/vllm-openai:v0.8.5",
        "--model", "/model/Qwen3-32B-AWQ", "--tensor-parallel-size", "4",
    ]  # fmt: skip


def test_only_the_named_cards():
    devices = [argument for argument in argv(ARTICLE | {"gpus": [2, 3]}) if argument.startswith("--device")]
    assert devices == ["--device=nvidia.com/gpu=2", "--device=nvidia.com/gpu=3"]


@pytest.mark.parametrize(
    ("cards", "host", "expected"),
    [
        (None, {}, ["--device=nvidia.com/gpu=all"]),
        ([0, 2], {"docker": {"version": "26.1.5", "cdi": True}}, ["--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=2"]),
        (None, {"docker": {"version": "20.10.24", "cdi": False}}, ["--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all"]),
        (
            [0, 2],
            {"docker": {"version": "20.10.24", "cdi": False}},
            ["--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=0,nvidia.com/gpu=2"],
        ),
        ([1], {"docker": {"version": None, "cdi": False}}, ["--device=nvidia.com/gpu=1"]),
    ],
    ids=["unknown host", "CDI", "runtime, all", "runtime, some", "engine does not answer"],
)
def test_cards_by_their_cdi_names(cards, host, expected):
    assert container.gpu_argv(cards, host) == expected


def test_an_old_engine_gets_the_runtime():
    argument = argv(ARTICLE | {"gpus": [2, 3]}, host={"docker": {"version": "20.10.24", "cdi": False}})
    assert "--runtime=nvidia" in argument
    assert "--env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=2,nvidia.com/gpu=3" in argument
    assert not any(word.startswith(("--device", "--gpus")) for word in argument)


def test_no_cpuset_unless_asked():
    assert not any(argument.startswith("--cpuset-cpus") for argument in argv({"name": "a", "model": "b/c"}))


@pytest.mark.parametrize("model, directory", [("Qwen/Qwen3-32B-AWQ", "qwen/Qwen3-32B-AWQ"), ("gpt2", "gpt2")])
def test_model_directory(model, directory):
    assert container.model_directory(model) == directory
