from __future__ import annotations

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import cluster, memory
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.render import host_plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner.conftest import A100, GIB, QWEN3_32B_AWQ, cards, config_of

LLAMA = config_of("deepseek-ai/DeepSeek-R1-Distill-Llama-70B")  # 16 bit: 131 GiB, and a box of four 22 GiB cards has 86


def member(number, hardware=None, **more):
    return {"hardware": hardware or cards(4), "address": f"10.0.0.{number}", "interface": "eth1", "bandwidth_gbit": 10, **more}


def members(**more):
    return {"box1": member(1), "box2": member(2), "box3": member(3), **more}


def asked(*hosts, config=LLAMA, known=None, name="", **more):
    return cluster.plan({"name": "big", "model": "a/b", "hosts": list(hosts), **more}, known or members(), config, name=name)


def refusal(found):
    assert found["verdict"] == "refused" and len(found["refusals"]) == 1, found["refusals"]
    return found["refusals"][0]


def warned(found):
    return {problem["code"]: problem["message"] for problem in found["warnings"]}


def test_what_fits_no_host_fits_two():
    assert plan({"name": "big", "model": "a/b"}, cards(4), LLAMA)["verdict"] == "refused"
    found = asked("box1", "box2")
    assert found["verdict"] == "fits"
    options = found["options"]
    assert (options["tensor_parallel_size"], options["pipeline_parallel_size"], options["distributed_executor_backend"]) == (4, 2, "ray")
    assert found["reasons"]["pipeline_parallel_size"] == "each of the 2 hosts holds a part of the layers"
    assert [(host["name"], host["layers"], host["gpus"]) for host in found["cluster"]["hosts"]] == [
        ("box1", [0, 39], [0, 1, 2, 3]),
        ("box2", [40, 79], [0, 1, 2, 3]),
    ]
    assert len(found["memory"]["per_rank"]) == 8
    arguments = " ".join(found["argv"])
    assert "--tensor-parallel-size 4 --pipeline-parallel-size 2" in arguments and "--distributed-executor-backend ray" in arguments
    # It is longer until the hosts have found each other.
    assert found["ready_seconds"] > cluster.FORMING_SECONDS


def test_the_same_cards_in_one_host_are_the_same_plan():
    shape = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}
    one = plan({"name": "big", "model": "a/b", "options": shape}, cards(8, ram=1024), LLAMA)
    assert {key: asked("box1", "box2")[key] for key in ("options", "memory", "kv")} == {key: one[key] for key in ("options", "memory", "kv")}


def test_three_hosts_share_the_layers_as_the_engine_does():
    assert [host["layers"] for host in asked("box1", "box2", "box3")["cluster"]["hosts"]] == [[0, 26], [27, 53], [54, 79]]


def test_stages_are_in_the_order_in_which_the_engine_puts_them():
    """After the head by address, and as texts: 10.0.0.10 comes before 10.0.0.9."""
    known = members(box2=member(9), box3=member(10))
    assert [host["name"] for host in asked("box1", "box2", "box3", known=known)["cluster"]["hosts"]] == ["box1", "box3", "box2"]


def test_the_link_is_said_in_numbers():
    known = members(box2=member(2, bandwidth_gbit=1))
    link = asked("box1", "box2", known=known, options={"max_num_seqs": 64, "max_num_batched_tokens": 2048})["cluster"]["link"]
    # Hidden states and residual, of 8192 numbers in half precision each.
    assert (link["host"], link["gbit_per_second"], link["bytes_per_token"]) == ("box2", 1, 2 * 8192 * 2)
    assert link["decode_seconds"] == pytest.approx(64 * 32768 * 8 / 1e9) and link["batch_seconds"] == pytest.approx(2048 * 32768 * 8 / 1e9)


def test_a_slow_link_and_one_that_is_not_known_are_warned_about():
    slow = asked("box1", "box2", known=members(box2=member(2, bandwidth_gbit=1)), options={"max_num_seqs": 128})
    assert "32 KiB for each over 1 Gbit/s of box2, which takes 34 ms" in warned(slow)["slow_link"]
    unknown = asked("box1", "box2", known=members(box2=member(2, bandwidth_gbit=None)))
    assert unknown["cluster"]["link"] is None and "link_not_known" in warned(unknown)
    assert not {"slow_link", "link_not_known"} & warned(asked("box1", "box2")).keys()


def test_the_host_with_the_fewest_cards_says_how_many_are_used():
    found = asked("box1", "box2", known=members(box1=member(1, cards(8))))
    assert found["options"]["tensor_parallel_size"] == 4 and found["cluster"]["hosts"][0]["gpus"] == [0, 1, 2, 3]
    assert warned(found)["idle_cards"] == "The hosts have cards: box1 8, box2 4. tensor_parallel_size 4 uses 4 of each; idle are 4 of box1."


def test_a_model_that_cannot_be_cut_so_often_is_cut_less_often():
    known = members(box1=member(1, cards(3)), box2=member(2, cards(3)))
    found = asked("box1", "box2", known=known, config=QWEN3_32B_AWQ)
    assert (found["verdict"], found["options"]["tensor_parallel_size"]) == ("fits", 2)
    assert found["reasons"]["tensor_parallel_size"] == "2 cards of each host share its layers, the model cannot be divided among 3"


def test_cards_of_two_sizes_are_planned_by_the_smaller():
    small = asked("box1", "box2", config=QWEN3_32B_AWQ, known=members(box2=member(2, cards(4, mib=11264))))
    both = asked("box1", "box2", config=QWEN3_32B_AWQ, known=members(box1=member(1, cards(4, mib=11264)), box2=member(2, cards(4, mib=11264))))
    assert small["verdict"] == "fits" and small["kv"]["blocks"] == both["kv"]["blocks"]
    assert "on box2 has room for" in warned(small)["uneven_ranks"] and "uneven_ranks" not in warned(both)


def test_memory_that_lacks_names_more_hosts():
    found = asked("box1", "box2", known={f"box{number}": member(number, cards(4, mib=11264)) for number in (1, 2)})
    problem = refusal(found)
    assert problem["code"] in {"weights_over_card", "no_room_for_kv_cache"}
    assert problem["remedy"].endswith("Or name more hosts: 4 would do, with others like box2.")
    assert asked("box1", "box2", "box3", "box4", known={f"box{number}": member(number, cards(4, mib=11264)) for number in (1, 2, 3, 4)})["verdict"] == "fits"


@pytest.mark.parametrize(
    "hosts, known, more, code, message",
    [
        (("box1",), {}, {}, "invalid_hosts", "hosts must name two hosts or more, each once, and it has the string 'box1'."),
        (("box1", "box1"), {}, {}, "invalid_hosts", "each once"),
        (("box1", "box9"), {}, {}, "unknown_member", "hosts names box9, which is not in the inventory."),
        (("box1", "box2"), {"box2": member(1)}, {}, "shared_address", "box1 and box2 have the same ray_cluster_address 10.0.0.1."),
        (("box1", "box2"), {"box2": member(2, address=None)}, {}, "no_address", "box2 has no ray_cluster_address."),
        (("box1", "box2"), {"box2": member(2, address="eth1")}, {}, "no_address", "box2 has the ray_cluster_address 'eth1'."),
        (("box1", "box2"), {"box2": member(2, address="127.0.0.1")}, {}, "no_address", "at which no other host reaches it"),
        (
            ("box1", "box2"),
            {"box2": member(2, address="8.8.8.8")},
            {},
            "public_address",
            "which is public, and Ray lets everybody who reaches it run programs.",
        ),
        (("box1", "box2"), {"box2": member(2, interface=None)}, {}, "no_interface", "box2 has no ray_cluster_interface."),
        (("box1", "box2"), {"box2": member(2, bandwidth_gbit=-1)}, {}, "invalid_bandwidth", "box2 has ray_cluster_bandwidth_gbit the integer -1."),
        (("box1", "box2"), {"box2": member(2, hardware={"memory_bytes": GIB})}, {}, "no_cards", "box2: The hardware has no list of cards under gpus."),
        (("box1", "box2"), {"box2": member(2, A100)}, {}, "capabilities_differ", "(box1 7.5, box2 8.0)"),
        (("box1", "box2"), {"box2": member(2, instances=[{"name": "chat", "gpus": [1]}])}, {}, "member_cards_taken", "box2 serves 'chat' on GPU 1,"),
        (("box1", "box2"), {}, {"options": {"tensor_parallel_size": 8}}, "ranks_over_cards", "tensor_parallel_size is 8, and box1 has 4 cards"),
        (("box1", "box2"), {}, {"options": {"pipeline_parallel_size": 4}}, "stages_not_hosts", "pipeline_parallel_size is 4, and hosts names 2"),
        (("box1", "box2"), {}, {"options": {"distributed_executor_backend": "mp"}}, "executor_of_one_host", "is mp, which knows one host"),
        (("box1", "box2"), {}, {"env": {"VLLM_PP_LAYER_PARTITION": "50,30"}}, "unknown_partition", "divides the layers otherwise"),
        (("box1", "box2"), {}, {"gpus": [0]}, "not_over_hosts", "hosts names several, which gpus [0] does not go with."),
        (("box1", "box2"), {}, {"supervisor": "docker"}, "not_over_hosts", "which supervisor docker does not go with."),
        (("box1", "box2"), {}, {"engine_version": "0.19.1"}, "not_over_hosts", "which engine_version 0.19.1 does not go with."),
        (("box2", "box1"), {}, {"of": "box1"}, "not_the_head", "hosts begins with box2, and the instance stands in vllm_instances of box1."),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(hosts, known, more, code, message):
    more = dict(more)
    found = asked(*hosts, known=members(**known), name=more.pop("of", ""), **more)
    problem = refusal(found)
    assert problem["code"] == code and message in problem["message"] and problem["remedy"]
    assert found["cluster"] is None and not found["argv"]


def test_a_public_address_can_be_allowed():
    known = members(box2=member(2, address="8.8.8.8", allow_public=True))
    assert asked("box1", "box2", known=known)["verdict"] == "fits"


def test_a_plan_with_the_cards_of_one_host_says_that_it_needs_the_others():
    found = plan({"name": "big", "model": "a/b", "hosts": ["box1", "box2"]}, cards(4), LLAMA)
    assert refusal(found)["code"] == "several_hosts"


def test_the_text_says_who_has_which_layers_and_what_the_link_costs():
    given = [{"name": "big", "model": "a/b", "hosts": ["box1", "box2"]}, {"name": "small", "model": "c/d", "gpus": [0], "port": 8001}]
    found = host_plan(given[:1], cards(4), {"a/b": LLAMA}, name="box1", members=members())
    assert "hosts       box1 (10.0.0.1): layers 0-39 on GPU 0, 1, 2, 3, the head" in found["text"]
    assert "link        32 KiB per token to the next host; over the slowest, 10" in found["text"]
    # Both on one card of the head: told without a word of the worker's.
    both = host_plan(given, cards(4), {"a/b": LLAMA, "c/d": QWEN3_32B_AWQ}, name="box1", members=members())
    assert [problem["code"] for problem in both["problems"]] == ["overlapping_gpus"]


def test_swap_counts_for_the_cards_of_one_host():
    given = [
        {"name": "big", "model": "a/b", "hosts": ["box1", "box2"], "options": {"swap_space": 30, "tensor_parallel_size": 2}},
        {"name": "small", "model": "c/d", "gpus": [3], "port": 8001, "options": {"swap_space": 30}},
    ]
    known = {f"box{number}": member(number, cards(4, ram=128, name="NVIDIA A100", mib=81920)) for number in (1, 2)}
    found = host_plan(given, known["box1"]["hardware"], {"a/b": LLAMA, "c/d": QWEN3_32B_AWQ}, name="box1", members=known)
    swap = [problem["message"] for problem in found["problems"] if problem["code"] == "swap_over_ram_together"]
    assert swap == ["The swap of all instances together is 90 GiB, 70% of 128 GiB RAM."]


def test_the_v0_engine_divides_its_cache_among_the_batches_in_flight():
    found = asked("box1", "box2", profile="as_given", options={"dtype": "half", "max_model_len": 60000, "gpu_memory_utilization": 0.95})
    problem = refusal(found)
    assert problem["code"] == "kv_cache_too_small" and "divided among the 2 batches that are in flight at once" in problem["message"]
    solved = asked("box1", "box2")
    assert solved["options"]["max_model_len"] <= solved["kv"]["blocks"] // 2 * solved["kv"]["block_size"]


def test_the_longest_sequence_of_a_prediction():
    shape = memory.Prediction(ranks=(), block_bytes=1, block_size=16, blocks=101, cpu_blocks=0, host_bytes=0, max_model_len=1)
    assert (shape.longest, shape._replace(parts=2).longest) == (1616, 800)
