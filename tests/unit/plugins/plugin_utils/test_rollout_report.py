"""What a rollout writes down: for people, and for the next rollout."""

from ansible_collections.gpuhosts.inference.plugins.filter import rollout_look, rollout_report

report = rollout_report.FilterModule().filters()["rollout_report"]
MEASURED = {
    "name": "coder", "model": "a/m", "commit": "c1", "engine_version": "0.8.5", "image": "vllm:1", "kv_tokens_planned": 1000, "kv_tokens": 990,
    "tokens_per_second": 50.0, "answer_sha256": "a1",
}  # fmt: skip


def look(name, **more):
    return {"name": name, "silence": "", "due": "it was never rolled out", "before": {}, "fingerprint": "f2", "generations": {"coder": 1}, **more}


def done(name, **more):
    return {"name": name, "state": "done", "reason": "", "measured": [MEASURED], "rungs": {"coder": 0}, "generations": {"coder": 2}, **more}


def statuses(found):
    return {host["name"]: host["status"] for host in found["document"]["hosts"]}


def test_every_host_has_a_word_and_a_reason():
    looks = [look("a"), look("b"), look("c"), look("d", silence="no route"), look("e"), look("f", due=""), look("g")]
    results = [done("a"), done("b", state="rolled back", reason="too slow"), done("g", state="failed", reason="apt: no", measured=[])]
    found = report(looks, results, ["c"], {}, "1 of 2 hosts failed")
    assert statuses(found) == {
        "a": "done", "b": "rolled back", "c": "unreachable", "d": "unreachable", "e": "waiting", "f": "converged", "g": "failed",
    }  # fmt: skip
    assert found["bad"] == {
        "b": "rolled back: too slow",
        "c": "unreachable: it answered at first, and not any more when its wave was under way",
        "d": "unreachable: no route",
        "e": "waiting: 1 of 2 hosts failed",
        "g": "failed: apt: no",
    }
    assert found["document"]["notes"] == ["Stopped: 1 of 2 hosts failed."]
    assert [(one["label"], one["value"]) for one in found["document"]["summary"]] == [
        ("converged", "1"), ("done", "1"), ("waiting", "1"), ("failed", "1"), ("rolled back", "1"), ("unreachable", "2"),
    ]  # fmt: skip


def test_an_instance_has_plan_beside_measurement():
    host = report([look("a")], [done("a", rungs={"coder": 2})], [], {})["document"]["hosts"][0]
    assert (host["state"], host["problem"], host["fingerprint"], host["baseline"]) == ("good", None, "f2", [MEASURED])
    instance = host["instances"][0]
    assert {key: instance[key] for key in MEASURED} == MEASURED
    assert (instance["rung"], instance["state"], instance["status"]) == (2, "warning", "runs on rung 2 of its ladder")
    assert {"label": "KV cache, planned", "value": "1000 tokens"} in instance["facts"]
    assert {"label": "tokens per second", "value": "50.0"} in instance["facts"]


def test_the_text_has_a_line_for_each_host_and_says_what_is_wrong():
    found = report([look("gpu01"), look("gpu02", silence="no route")], [done("gpu01")], [], {})
    assert found["text"].splitlines() == [
        "HOST   STATE        INSTANCE  VLLM   KV PLANNED  KV MEASURED  TOKENS/S  RUNG",
        "gpu01  done         coder     0.8.5  1000        990          50.0      0",
        "gpu02  unreachable  -         -      -           -            -         -",
        "gpu02 unreachable: no route",
        "1 done, 1 unreachable",
    ]


def test_a_host_that_fails_is_held_to_what_it_could_do_before():
    before = report([look("a")], [done("a")], [], {})["document"]
    slow = {**MEASURED, "tokens_per_second": 1.0}
    after = report([look("a", before=before["hosts"][0])], [done("a", state="rolled back", reason="slow", measured=[slow])], [], before)["document"]
    assert after["hosts"][0]["baseline"] == [MEASURED]
    assert after["hosts"][0]["fingerprint"] is None
    assert after["hosts"][0]["instances"][0]["tokens_per_second"] == 1.0


def test_what_was_not_touched_keeps_what_is_known_of_it():
    before = report([look("a", fingerprint="f1"), look("b", fingerprint="f1")], [done("a"), done("b")], [], {})["document"]
    kept = {host["name"]: host for host in before["hosts"]}
    found = report([look("a", before=kept["a"])], [], [], before, "no canary came through")
    after = {host["name"]: host for host in found["document"]["hosts"]}
    assert after["b"] == kept["b"], "a host that is not part of the run"
    assert (after["a"]["status"], after["a"]["fingerprint"], after["a"]["baseline"]) == ("waiting", "f1", [MEASURED])
    assert "b" not in found["text"].split() and "1 waiting" in found["text"]


def test_until_a_wave_is_over_nothing_is_known_of_its_hosts():
    """A run that is cut off here may have changed them, and the inventory may be what it was before when the next one comes."""
    before = report([look("a", fingerprint="f1"), look("b", fingerprint="f1")], [done("a"), done("b")], [], {})["document"]
    kept = {host["name"]: host for host in before["hosts"]}
    found = report([look(name, before=kept[name]) for name in "ab"], [], [], before, begun=["a"])["document"]
    after = {host["name"]: host for host in found["hosts"]}
    assert (after["a"]["fingerprint"], after["a"]["baseline"]) == (None, [MEASURED])
    assert after["b"]["fingerprint"] == "f1"
    assert statuses(report([look("a")], [done("a")], [], before, begun=["a"]))["a"] == "done"


def test_a_host_that_was_only_down_is_what_it_was():
    before = report([look("a")], [done("a")], [], {})["document"]
    found = report([look("a", silence="no route", before=before["hosts"][0])], [], [], before)["document"]["hosts"][0]
    assert (found["status"], found["fingerprint"], found["generations"]) == ("unreachable", "f2", {"coder": 2})


def test_what_is_known_of_a_host_are_the_generations_that_were_rolled_out():
    found = report([look("a"), look("b", due=""), look("c")], [done("a"), done("c", state="failed")], [], {})["document"]["hosts"]
    assert [host["generations"] for host in found] == [{"coder": 2}, {"coder": 1}, {}]


def test_a_look_takes_the_collections_own_code():
    found = rollout_look.FilterModule().filters()["rollout_look"]({}, "gpu01", {"vllm_instances": [{"name": "coder"}]}, {})
    assert len(found["fingerprint"]) == 64 and found["due"] == "it was never rolled out to its end"
    assert rollout_look.FilterModule().filters()["rollout_look"]({}, "gpu01", {"vllm_instances": []}, found)["due"] == (
        "its inventory or the collection has changed"
    )
