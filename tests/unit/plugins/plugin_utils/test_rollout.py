"""What a rollout decides: who is due, in which waves, who passes the gate, and when it stops."""

import hashlib

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.inference.plugins.filter import rollout_waves
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import rollout

CARD = {"name": "NVIDIA GeForce RTX 2080 Ti"}


def one(name, due="it was never rolled out", healthy=True, kind="4 x 2080 Ti", silence="", generations=None):
    generations = {"coder": 1} if generations is None else generations
    return {"name": name, "silence": silence, "due": due, "healthy": healthy, "kind": kind, "generations": generations, "before": {}, "fingerprint": "f"}


def hosts(found):
    return [wave["hosts"] for wave in found]


def numbered(count, **more):
    return [one(f"gpu{number:02}", **more) for number in range(1, count + 1)]


# -- Who is due -------------------------------------------------------------------------------------------------------------------------------


def look(aim="f1", before=None, everything=False, instances=("coder",), **service):
    found = {"generation": 3, "status": "proved", "running": True, "state": {"status": "running", "rung": 0}, **service}
    facts = {"gpuhosts": {"gpus": [CARD] * 4}, "gpuhosts_services": {"instances": {"coder": found}}}
    variables = {"vllm_instances": [{"name": name} for name in instances]}
    before = {"fingerprint": "f1", "generations": {"coder": 3}} if before is None else before
    return rollout.look("gpu01", facts, "", variables, before, aim, everything)


def test_a_host_that_was_rolled_out_and_serves_is_not_due():
    found = look()
    assert (found["due"], found["healthy"], found["kind"]) == ("", True, "4 x NVIDIA GeForce RTX 2080 Ti")
    assert found["generations"] == {"coder": 3}


@pytest.mark.parametrize(
    "more, reason",
    [
        ({"before": {}}, "it was never rolled out to its end"),
        ({"before": {"fingerprint": None, "generations": {"coder": 3}}}, "it was never rolled out to its end"),
        ({"aim": "f2"}, "its inventory or the collection has changed"),
        ({"everything": True}, "all hosts were asked for"),
        ({"instances": ["coder", "chat"]}, "chat is not there"),
        ({"running": False}, "coder does not run"),
        ({"status": "pending"}, "coder was never seen to answer"),
        ({"state": {"status": "quarantined", "rung": 0}}, "coder is in quarantine"),
        ({"generation": 2}, "coder is not what was rolled out"),
    ],
)
def test_a_host_is_due_for_a_reason(more, reason):
    assert look(**more)["due"] == reason


def test_a_step_down_the_ladder_is_no_reason_to_do_anything_and_no_canary_either():
    found = look(state={"status": "running", "rung": 1})
    assert (found["due"], found["healthy"]) == ("", False)


def test_a_bare_host_and_an_instance_that_is_none():
    found = rollout.look("gpu01", {}, "", {"vllm_instances": ["coder", {}]}, {}, "f", False)
    assert (found["due"], found["healthy"], found["kind"], found["generations"]) == ("it was never rolled out to its end", False, "", {})


def test_a_fingerprint_is_of_the_code_and_of_the_variables():
    prints = {rollout.fingerprint(code, variables) for code, variables in (("a", {}), ("b", {}), ("a", {"x": 1}))}
    assert len(prints) == 3
    assert rollout.fingerprint("a", {"x": 1, "y": 2}) == rollout.fingerprint("a", {"y": 2, "x": 1})


# -- Waves ------------------------------------------------------------------------------------------------------------------------------------


def test_one_canary_then_batches_of_which_the_last_repeats():
    found = rollout.waves(numbered(8), [], [1, "3"])
    assert [wave["name"] for wave in found] == ["canary", "wave 1", "wave 2", "wave 3"]
    assert hosts(found) == [["gpu01"], ["gpu02"], ["gpu03", "gpu04", "gpu05"], ["gpu06", "gpu07", "gpu08"]]


def test_a_percentage_is_of_what_comes_after_the_canary_and_at_least_one_host():
    assert [len(wave) for wave in hosts(rollout.waves(numbered(33), [], ["25%"]))] == [1, 8, 8, 8, 8]
    assert [len(wave) for wave in hosts(rollout.waves(numbered(4), [], ["1%"]))] == [1, 1, 1, 1]
    assert [len(wave) for wave in hosts(rollout.waves(numbered(4), [], []))] == [1, 3]


def test_the_healthiest_host_of_each_kind_is_a_canary():
    looks = [
        one("ill", healthy=False),
        one("bare", healthy=False, generations={}),
        one("well"),
        one("small", kind="2 x 2080 Ti", healthy=False),
    ]
    assert hosts(rollout.waves(looks, [], ["100%"])) == [["well", "small"], ["ill", "bare"]]
    assert hosts(rollout.waves(looks[:2], [], ["100%"])) == [["bare"], ["ill"]]


def test_hosts_that_are_down_or_done_are_in_no_wave():
    looks = [one("gpu01", silence="no route to host"), one("gpu02", due=""), one("gpu03")]
    assert hosts(rollout.waves(looks, [], ["100%"])) == [["gpu03"]]
    assert rollout.waves(looks[:2], [], ["100%"]) == []


def test_canaries_can_be_named():
    assert hosts(rollout.waves(numbered(3), ["gpu03"], ["100%"])) == [["gpu03"], ["gpu01", "gpu02"]]


def test_both_may_come_from_the_command_line():
    waves = rollout_waves.FilterModule().filters()["rollout_waves"]
    assert hosts(waves(numbered(4), "gpu03,gpu04", "1, 100%")) == [["gpu03", "gpu04"], ["gpu01"], ["gpu02"]]
    with pytest.raises(AnsibleFilterError, match="rollout_batches has 'many': write a number of hosts"):
        waves(numbered(4), [], "many")


def test_where_no_named_canary_is_due_the_healthiest_is_one():
    """What has changed may be something that the named ones do not have."""
    looks = [one("gpu01", due=""), one("gpu02", healthy=False), one("gpu03"), one("gpu04")]
    assert hosts(rollout.waves(looks, ["gpu01"], ["100%"])) == [["gpu03"], ["gpu02", "gpu04"]]


def test_a_named_canary_that_is_down_is_refused():
    looks = [one("gpu01", silence="down"), one("gpu02")]
    with pytest.raises(ValueError, match=r"^None of rollout_canaries \(gpu01\) is among the hosts of this run and answers: name another, or none\.$"):
        rollout.waves(looks, ["gpu01"], ["100%"])


@pytest.mark.parametrize("batch", ["", "0", 0, "-1", "101%", "a third", "0%", 2.5, None])
def test_a_batch_that_is_none_is_refused(batch):
    with pytest.raises(ValueError, match="write a number of hosts, such as 5, or a percentage of them, such as 25%"):
        rollout.waves(numbered(3), [], [batch])


# -- Stopping ---------------------------------------------------------------------------------------------------------------------------------

WAVES = [{"name": "canary", "hosts": ["a"]}, {"name": "wave 1", "hosts": ["b", "c", "d", "e"]}]


def test_waves_that_came_through_stop_nothing():
    assert rollout.stop([], {}, 0) == ""
    assert rollout.stop(WAVES, dict.fromkeys("abcde", "done"), 0) == ""


def test_a_failed_canary_stops():
    assert rollout.stop(WAVES[:1], {"a": "rolled back"}, 0) == "1 of 1 hosts of canary failed (a), and rollout_max_fail_percentage allows 0 %"


def test_as_many_may_fail_as_is_allowed():
    states = dict.fromkeys("abcde", "done") | {"b": "failed"}
    assert rollout.stop(WAVES, states, 25) == ""
    assert "1 of 4 hosts of wave 1 failed (b)" in rollout.stop(WAVES, states, 24)


def test_lost_hosts_do_not_count_as_failed_but_somebody_has_to_come_through():
    assert rollout.stop(WAVES, {"a": "done", "e": "done"}, 0) == ""
    assert rollout.stop(WAVES, {"b": "done"}, 0) == "no host of canary came through (a)"


def test_every_canary_has_to_come_through():
    """Each stands for hosts of its kind, and one that dies may have died of what is rolled out."""
    canaries = [{"name": "canary", "hosts": ["a", "b", "c", "d"]}]
    assert rollout.stop(canaries, dict.fromkeys("abd", "done"), 0) == "not every canary came through (c did not)"
    assert rollout.stop(canaries, dict.fromkeys("abd", "done") | {"c": "failed"}, 30) == "not every canary came through (c did not)"


# -- The gate ---------------------------------------------------------------------------------------------------------------------------------


def asked(answer="Mercury", seconds=2.0, **more):
    definition = {
        "name": "coder", "engine_version": "0.8.5", "model": {"repo_id": "a/m", "commit": "c1"}, "image": {"reference": "vllm:1"},
        "expected": {"kv_tokens": 1000},
    }  # fmt: skip
    found = {"version": "0.8.5", "kv_tokens": 990, "usage": {"completion_tokens": 100}, "completion_seconds": seconds, "answer": answer}
    return [{"ansible_loop_var": "definition", "definition": definition, **found, **more}]


def gate(now, then, loss=0.2, same=True):
    return rollout.gate(rollout.measurements(now), rollout.measurements(then), loss, same)


def test_what_is_measured():
    measured = rollout.measurements(asked())[0]
    assert measured.pop("answer_sha256") == hashlib.sha256(b"Mercury").hexdigest()
    assert measured == {
        "name": "coder", "model": "a/m", "commit": "c1", "engine_version": "0.8.5", "image": "vllm:1", "kv_tokens_planned": 1000, "kv_tokens": 990,
        "tokens_per_second": 50.0,
    }  # fmt: skip
    assert rollout.measurements([{"skipped": True}]) == []
    assert rollout.measurements(asked(usage=None))[0]["tokens_per_second"] is None


def test_the_same_as_before_and_a_little_slower_pass():
    assert gate(asked(), asked()) == []
    assert gate(asked(seconds=2.4), asked()) == []
    assert gate(asked(), []) == []


def test_much_slower_is_refused():
    assert gate(asked(seconds=4.0), asked()) == [
        "coder writes 25 tokens per second, and wrote 50 before: more than the 20% that rollout_speed_loss allows are lost."
    ]
    assert gate(asked(seconds=4.0), asked(), loss=0.5) == []


def test_another_answer_is_refused_where_nothing_explains_it():
    problem = gate(asked("Venus"), asked())
    assert len(problem) == 1 and problem[0].startswith("coder answers the same question differently than before, with the same model and engine.")
    assert gate(asked("Venus"), asked(), same=False) == []
    assert gate(asked("Venus", version="0.19.1"), asked()) == []
    other = asked("Venus", seconds=9.0)
    other[0]["definition"]["model"]["commit"] = "c2"
    assert gate(other, asked()) == []
