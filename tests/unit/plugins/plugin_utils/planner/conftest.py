"""Hosts and models that the planner's tests plan with. Modules import them, because they build their parameters from them."""

from __future__ import annotations

import json
import pathlib

import yaml

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import model
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.problem import PlanRefused

GIB = 1024**3
ROOT = pathlib.Path(__file__).parents[5]
SHAPES = json.loads((ROOT / "tests/data/models.json").read_text(encoding="utf-8"))


def config_of(name):
    """The config.json of a shape of the data."""
    shape = {key: value for key, value in SHAPES[name].items() if value is not None}
    return {**shape, **shape.get("moe", {}), **shape.get("mla", {}), "architectures": [shape.get("architecture", "")]}


def readable(name):
    """Whether a shape of the data says all that a config.json says."""
    try:
        return bool(model.read(config_of(name)))
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
