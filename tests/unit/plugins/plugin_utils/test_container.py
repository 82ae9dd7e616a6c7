import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import container


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


@pytest.mark.parametrize("model, directory", [("Qwen/Qwen3-32B-AWQ", "qwen/Qwen3-32B-AWQ"), ("gpt2", "gpt2")])
def test_model_directory(model, directory):
    assert container.model_directory(model) == directory
