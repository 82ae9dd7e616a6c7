"""playbooks/plan.yml: no host is reachable, and none need be."""

import json

import pytest

from lab_play import play


@pytest.fixture
def plan(tmp_path):
    """plan(*arguments, **variables): run the playbook on the example fleet; returns (status, output, {host: its JSON})."""

    def run(*arguments, **variables):
        given = json.dumps({"plan_directory": str(tmp_path / "plans"), **variables})
        status, output = play("playbooks/plan.yml", "--extra-vars", given, *arguments, inventories=["inventories/example"])
        return status, output, {path.stem: json.loads(path.read_text()) for path in (tmp_path / "plans").glob("*.json")}

    return run


def test_the_example_fleet_fits(plan):
    status, output, plans = plan()
    assert status == 0, output
    assert set(plans) == {"coder01", "big01", "big02", "chat01", "chat02", "chat03"}
    coder = plans["coder01"]["plans"]["coder"]
    assert coder["verdict"] == "fits" and coder["options"]["tensor_parallel_size"] == 4
    assert "coder01/coder: Qwen/Qwen3-32B-AWQ on vLLM 0.8.5, V0, XFORMERS: FITS" in output
    assert f"{coder['kv']['tokens']} tokens" in output


def test_one_refusal_fails_the_run_and_every_plan_is_written(plan):
    low = {"name": "low", "model": "TheBloke/Llama-2-70B-AWQ", "options": {"tensor_parallel_size": 1, "gpu_memory_utilization": 0.45}}
    llama = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096, "torch_dtype": "float16",
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    }  # fmt: skip
    a100 = {"gpus": [{"name": "NVIDIA A100-PCIE-40GB", "compute_capability": "8.0", "memory_total_bytes": 40 << 30, "memory_reserved_bytes": 0}]}
    status, output, plans = plan("--limit=chat01", vllm_instances=[low], gpuhosts_models={low["model"]: llama}, gpuhosts_hardware=a100)
    assert status != 0
    assert plans["chat01"]["verdict"] == "refused"
    assert "The weights take 34.11 GiB per rank" in output and "18.00 GiB (0.45 of 40.00 GiB)" in output
    assert "Nearest plans that fit: set" in output


def test_a_config_may_be_a_file_and_a_missing_one_is_named(plan, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    model = "Qwen/Qwen3-8B-AWQ"
    instances = [{"name": "chat", "model": model}]
    status, output, dummy = plan("--limit=chat01", vllm_instances=instances, gpuhosts_models={model: str(path)})
    assert status != 0 and "unknown_architecture" in output
    status, output, dummy = plan("--limit=chat01", vllm_instances=instances, gpuhosts_models={model: "/nonexistent/config.json"})
    assert status != 0
    assert f"the config.json of {model} cannot be read from /nonexistent/config.json: [Errno 2] No such file or directory" in output


def test_check_mode_writes_the_plan_too(plan):
    status, dummy, plans = plan("--check", "--limit=coder01")
    assert status == 0 and "coder01" in plans


def test_a_model_that_fits_no_single_host_is_planned_over_two(plan):
    status, output, plans = plan("--limit=big01")
    assert status == 0, output
    big = plans["big01"]["plans"]["big"]
    assert big["verdict"] == "fits" and [host["name"] for host in big["cluster"]["hosts"]] == ["big01", "big02"]
    assert "big01 (10.0.0.31): layers 0-39 on GPU 0, 1, 2, 3, the head" in output
    assert "big02 (10.0.0.32): layers 40-79 on GPU 0, 1, 2, 3" in output
    assert "32 KiB per token to the next host; over the slowest, 10" in output
    alone = {"name": "big", "model": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"}
    status, output, plans = plan("--limit=big01", vllm_instances=[alone])
    assert status != 0 and plans["big01"]["plans"]["big"]["refusals"][0]["code"] == "weights_over_card"
