"""Who fetches a model, who gets it from whom, and what a checkpoint has to hold."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.filter import model_checkpoint_problems, model_distributions

distributions = model_distributions.FilterModule().filters()["model_distributions"]
problems = model_checkpoint_problems.FilterModule().filters()["model_checkpoint_problems"]
AWQ = {"quantization_config": {"quant_method": "awq"}}


def fact(complete, repo_id="a/b", revision="main"):
    return {repo_id: {"complete": complete, "wanted": {"repo_id": repo_id, "revision": revision, "path": "/m"}}}


def test_one_host_of_a_bare_fleet_asks_the_hub():
    found = {host: fact(False) for host in ("gpu01", "gpu02", "gpu03")}
    assert distributions(found) == [{"repo_id": "a/b", "revision": "main", "seed": "gpu01", "from_hub": True, "receivers": ["gpu02", "gpu03"]}]
    assert distributions(found, ["gpu03", "other"])[0]["seed"] == "gpu03"


def test_a_host_that_has_the_model_is_the_seed_and_the_hub_is_not_asked():
    found = {"gpu01": fact(False), "gpu02": fact(True), "gpu03": fact(True)}
    assert distributions(found, ["gpu01"]) == [{"repo_id": "a/b", "revision": "main", "seed": "gpu02", "from_hub": False, "receivers": ["gpu01"]}]
    assert distributions(found, ["gpu03"])[0]["seed"] == "gpu03"


def test_another_revision_is_another_model():
    found = {"gpu01": fact(True), "gpu02": fact(False, revision="v2")}
    assert distributions(found) == [{"repo_id": "a/b", "revision": "v2", "seed": "gpu02", "from_hub": True, "receivers": []}]


def test_a_converged_fleet_has_nothing_to_do():
    assert distributions({"gpu01": fact(True), "gpu02": {}}) == []


@pytest.mark.parametrize(
    "options, config, kinds, sentence",
    [
        ({"quantization": "awq"}, {}, ["weight"], "config.json of a/b has no quantization_config: the checkpoint is not quantised, and the engine would end "),
        ({}, AWQ, ["bias", "weight"], "coder asks for awq, and a/b has no tensor named qweight (it has bias, weight): the engine would end with KeyError"),
        ({}, AWQ, ["qweight", "weight"], None),
        ({"quantization": "awq"}, AWQ, None, None),
        ({}, {}, ["weight"], None),
        ({}, {"quantization_config": {"quant_method": "fp8"}}, ["weight"], None),
    ],
)
def test_a_checkpoint_that_is_not_what_it_is_taken_for(options, config, kinds, sentence):
    found = problems([{"name": "coder", "model": "a/b", "options": options}, {"name": "other", "model": "c/d"}], "a/b", config, kinds)
    assert [sentence in text for text in found] == [True] * (sentence is not None)
