"""Whether an engine can run on cards and driver, by what was found in its image."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import image_proof

# What the program printed for the wheels of PyPI, as far as it matters here.
V0_8_5 = {
    "vllm": "0.8.5",
    "torch_cuda": "12.4",
    "extensions": {
        "_C": {"elf": {"52": 1, "70": 27, "75": 28, "80": 37, "86": 37, "89": 37, "90": 35, "90a": 18}, "ptx": {"52": 1}},
        "_flashmla_C": {"elf": {"90a": 3}, "ptx": {}},
        "_moe_C": {"elf": {"70": 3, "75": 3, "80": 10, "86": 10, "89": 10, "90": 10}, "ptx": {}},
        "vllm_flash_attn._vllm_fa2_C": {"elf": {"80": 60, "90": 60}, "ptx": {}},
    },
}
V0_33_0 = {
    "vllm": "0.33.0",
    "torch_cuda": "13.0",
    "extensions": {
        "_C_stable_libtorch": {"elf": {"75": 62, "80": 71, "120": 85}, "ptx": {"80": 19}},
        "_moe_C_stable_libtorch": {"elf": {"75": 16, "80": 23}, "ptx": {"80": 15}},
    },
}
TURING = {0: "7.5", 1: "7.5"}


def judge(probe, version="0.8.5", cards=None, driver="570.153.02", experts=False):
    return image_proof.judge(probe, "The image example.org/vllm:mine", "the right one", version, cards or TURING, driver, experts)


def without(probe, module, *archs):
    """The same image, whose module has no code for these."""
    codes = {kind: {arch: count for arch, count in counts.items() if arch not in archs} for kind, counts in probe["extensions"][module].items()}
    return probe | {"extensions": probe["extensions"] | {module: codes}}


def test_the_wheels_that_fit():
    assert judge(V0_8_5) == judge(V0_8_5, experts=True) == []
    assert judge(V0_33_0, "0.33.0", driver="580.65.06", experts=True) == []
    assert judge(V0_8_5, cards={0: "7.5", 1: "8.6", 2: "9.0", 3: None}, driver=None) == []


def test_no_code_for_a_card():
    (problem,) = judge(without(V0_8_5, "_C", "70", "75"), cards={0: "8.6", 1: "7.5", 3: "7.5"})
    assert problem.code == "no_code_for_card"
    assert problem.message == (
        "The image example.org/vllm:mine holds no code for sm_75, which GPU 1, 3 needs: its vllm._C has sm_52, sm_80, sm_86, sm_89, sm_90, sm_90a."
    )
    assert problem.remedy == "Use a vLLM that is built for compute capability 7.5; in a build of your own, 7.5 belongs into TORCH_CUDA_ARCH_LIST."
    (problem,) = judge({**V0_8_5, "extensions": {"_moe_C": V0_8_5["extensions"]["_moe_C"]}})
    assert problem.message.endswith("which GPU 0, 1 needs: it has no vllm._C.")


def test_experts_need_more():
    image = without(V0_8_5, "_moe_C", "70", "75")
    assert judge(image) == []
    (problem,) = judge(image, experts=True)
    assert "which a mixture of experts on GPU 0, 1 needs: its vllm._moe_C has sm_80" in problem.message
    assert len(judge(without(image, "_C", "70", "75"), experts=True)) == 1, "the same thing is not said twice"


@pytest.mark.parametrize(
    "elf, ptx, capability, runs",
    [
        ({"75": 1}, {}, (7, 5), True),
        ({"70": 1}, {}, (7, 5), True),
        ({"80": 1}, {}, (8, 6), True),
        ({"86": 1}, {}, (8, 0), False),
        ({"80": 1}, {}, (7, 5), False),
        ({"80": 1}, {}, (9, 0), False),
        ({"90a": 1}, {}, (9, 0), True),
        ({"100a": 1}, {}, (10, 3), False),
        ({"120": 1}, {}, (12, 1), True),
        ({"52": 1}, {"52": 1}, (7, 5), False),
        ({}, {"70": 1}, (7, 5), True),
        ({}, {"75": 1}, (7, 0), False),
    ],
)
def test_what_a_card_runs(elf, ptx, capability, runs):
    assert image_proof.runs({"elf": elf, "ptx": ptx}, capability) is runs


def test_no_code_at_all():
    cpu = {"vllm": "0.8.5.post2", "torch_cuda": None, "extensions": {"_C": {"elf": {}, "ptx": {}}}}
    for image in (cpu, cpu | {"extensions": {}}):
        (problem,) = judge(image)
        assert problem.code == "no_cuda_code"
        assert problem.remedy == "Name the right one."


@pytest.mark.parametrize(
    "found, codes",
    [
        ("0.8.5", []),
        ("0.8.5.post2", []),
        ("0.8.5+cu128", []),
        ("0.8.5rc1", ["other_engine_version"]),
        ("0.8.5.1", ["other_engine_version"]),
        ("0.19.1", ["other_engine_version"]),
        (None, ["no_engine"]),
    ],
)
def test_the_version_that_the_plan_is_for(found, codes):
    assert [problem.code for problem in judge(V0_8_5 | {"vllm": found})] == codes


@pytest.mark.parametrize(
    "found, remedy",
    [
        ("0.19.1", "Set the instance's engine_version to 0.19.1, or name the right one."),
        ("0.19.1.post1", "Set the instance's engine_version to 0.19.1, or name the right one."),
        ("0.19.10", "Name the right one."),
    ],
)
def test_another_version_has_two_ways_out(found, remedy):
    (problem,) = judge(V0_8_5 | {"vllm": found})
    assert problem.message == f"The image example.org/vllm:mine holds vLLM {found}, and the plan is for 0.8.5."
    assert problem.remedy == remedy


def test_a_driver_that_is_too_old():
    (problem,) = judge(V0_33_0, "0.33.0")
    assert problem.code == "driver_too_old"
    assert problem.message == "The image example.org/vllm:mine is built for CUDA 13.0 and needs driver 580 or later: the host has 570.153.02."
    assert problem.remedy == "Use a build for CUDA 12, or install driver 580 or later."
    assert judge(V0_8_5 | {"torch_cuda": "11.8"}) == [], "a driver runs what is older than itself"
    (problem,) = judge(V0_8_5 | {"torch_cuda": "14.1"}, driver="610.10")
    assert problem.message == "The image example.org/vllm:mine is built for CUDA 14.1 and needs a driver for CUDA 14: the host has 610.10."
    assert problem.remedy == "Use a build for CUDA 13, or install a driver for CUDA 14."
    (problem,) = judge(V0_8_5, driver="470.256.02")
    assert problem.remedy == "Install driver 550 or later."


# -- A host's instances --------------------------------------------------------------------------------------------------------------------

HOST = {"driver_version": "570.153.02", "gpus": [{"index": index, "compute_capability": "7.5"} for index in range(4)]}
IMAGES = {"0.8.5": "vllm:a", "0.19.1": "vllm:b"}
MOE = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip


def problems(*instances, proofs, models=None):
    named = [{"name": f"i{number}", "model": "a/b", **instance} for number, instance in enumerate(instances)]
    return image_proof.host_problems(named, HOST, IMAGES, proofs, models or {})


def test_an_image_of_several_instances_is_judged_once_for_the_cards_of_all():
    image = without(V0_8_5, "_C", "70", "75")
    (problem,) = problems({"gpus": [2, 3]}, {"gpus": [0]}, proofs={"vllm:a": image})
    assert "The image vllm:a holds no code for sm_75, which GPU 0, 2, 3 needs" in problem.message
    (problem,) = problems({}, proofs={"vllm:a": image})
    assert "GPU 0, 1, 2, 3" in problem.message


def test_each_engine_is_judged_by_its_own_version():
    found = problems({"gpus": [0]}, {"gpus": [1], "engine_version": "0.19.1"}, proofs={"vllm:a": V0_8_5, "vllm:b": V0_8_5})
    assert [problem.message for problem in found] == ["The image vllm:b holds vLLM 0.8.5, and the plan is for 0.19.1."]


def test_an_engine_without_a_container_is_judged_where_it_lies():
    (problem,) = problems({"runtime": "native"}, proofs={"/opt/vllm/0.8.5": V0_8_5 | {"extensions": {}}, "vllm:a": V0_8_5})
    assert problem.message.startswith("The virtual environment /opt/vllm/0.8.5 holds no code for any NVIDIA card")
    assert problem.remedy == "Name what makes vLLM 0.8.5 for CUDA in vllm_native_requirements or vllm_native_archives."
    (problem,) = problems({}, proofs={"vllm:a": V0_8_5 | {"extensions": {}}})
    assert problem.remedy == "Name an image of vLLM 0.8.5 in vllm_images, such as vllm/vllm-openai:v0.8.5."


def test_what_was_not_looked_into_is_not_judged():
    assert problems({}, proofs={}) == problems({}, proofs={"vllm:a": None}) == []


def test_a_mixture_of_experts_is_known_by_its_config():
    image = without(V0_8_5, "_moe_C", "70", "75")
    assert problems({}, proofs={"vllm:a": image}, models={"a/b": {"model_type": "nothing known"}}) == []
    (problem,) = problems({}, proofs={"vllm:a": image}, models={"a/b": MOE})
    assert "a mixture of experts" in problem.message
