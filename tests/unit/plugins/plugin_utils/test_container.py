import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import container
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused

ARTICLE = {
    "name": "coder",
    "model": "Qwen/Qwen3-32B-AWQ",
    "port": 8888,
    "cpuset_cpus": "0-55",
    "options": {"tensor_parallel_size": 4, "quantization": "awq", "enable_prefix_caching": True},
}


def argv(instance, **changed):
    arguments = {
        "image": "vllm/vllm-openai:v0.8.5",
        "model_root": "/home/llm/model",
        "env_file": "/etc/default/vllm-coder",
        "listen_address": "0.0.0.0",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "host": {},
        "model": {},
    }
    return container.run_argv(instance, **(arguments | changed))


def test_the_articles_docker_run():
    assert argv(ARTICLE) == [
        "docker", "run", "--rm", "--pull=never", "--name=vllm-coder", "--device=nvidia.com/gpu=all", "--ipc=host",
        "--ulimit=memlock=-1", "--ulimit=stack=67108864", "--cpuset-cpus=0-55", "--env-file=/etc/default/vllm-coder",
        "--volume=/home/llm/model/qwen/Qwen3-32B-AWQ:/model/Qwen3-32B-AWQ:ro", "--volume=vllm-coder-cache:/root/.cache",
        "--publish=0.0.0.0:8888:8000", "vllm/vllm-openai:v0.8.5",
        "--model", "/model/Qwen3-32B-AWQ", "--served-model-name", "coder",
        "--tensor-parallel-size", "4", "--quantization", "awq", "--enable-prefix-caching",
    ]  # fmt: skip


def test_only_the_named_cards():
    devices = [argument for argument in argv(ARTICLE | {"gpus": [2, 3]}) if argument.startswith("--device")]
    assert devices == ["--device=nvidia.com/gpu=2", "--device=nvidia.com/gpu=3"]


def test_no_cpuset_unless_asked():
    assert not any(argument.startswith("--cpuset-cpus") for argument in argv({"name": "a", "model": "b/c"}))


def test_an_option_the_engine_does_not_have_is_refused():
    with pytest.raises(PlanRefused, match="max_batch_size"):
        argv(ARTICLE | {"options": {"max_batch_size": 2}})


@pytest.mark.parametrize("model, directory", [("Qwen/Qwen3-32B-AWQ", "qwen/Qwen3-32B-AWQ"), ("gpt2", "gpt2")])
def test_model_directory(model, directory):
    assert container.model_directory(model) == directory
