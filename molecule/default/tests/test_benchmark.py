"""The articles' load tests, scaled down, on the real engine: table, JSON and plots; a second time beside the first; and what ends them early."""

import json
import signal
import subprocess
import time

import lab_play
import pytest

pytestmark = pytest.mark.slow
PLAYBOOK = "playbooks/benchmark.yml"
# One run of the tool a side and round: what it costs is the start of its Python.
SMALL = {"benchmark_scenarios": {"small": {"max_concurrency": 2, "random_input_len": 200, "random_output_len": 40}}}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the results of this module are kept."""
    return tmp_path_factory.mktemp("benchmark")


def measure(kept, scenario, **variables):
    """Run the playbook on gpu01; (exit status, output, the record)."""
    extra = json.dumps({"scenario": scenario, "benchmark_directory": str(kept), **variables})
    status, output = lab_play.play(PLAYBOOK, "--extra-vars", extra, host="gpu01")
    return status, output, newest(kept, scenario)


def newest(kept, scenario):
    found = sorted((kept / "gpu01/coder" / scenario).glob("2*.json"))
    return json.loads(found[-1].read_text()) if found else None


@pytest.mark.parametrize(
    "scenario, article",
    [("article_2080ti", "63,000 tokens/s"), ("article_low_memory", "4.90/s")],
)
def test_an_articles_load_ends_with_table_json_and_plots(kept, scenario, article):
    status, output, record = measure(kept, scenario)
    assert status == 0, output
    assert f"gpu01/coder: {scenario}," in output and article in output
    assert (record["status"], record["notes"]) == ("complete", [])
    assert len(record["runs"]) == record["planned_runs"] == 6
    assert all(run["figures"]["failed"] == 0 and run["figures"]["output_throughput"] > 0 for run in record["runs"])
    (side,) = record["sides"]
    assert side["fingerprint"]["cards"] == ["NVIDIA GeForce RTX 2080 Ti, 22 GiB"] * 4 and side["fingerprint"]["driver"] == "570.153.02"
    (plot,) = (kept / "gpu01/coder" / scenario).glob("*.svg")
    assert plot.read_text().startswith("<?xml")


def test_a_second_time_is_compared_with_the_first(kept):
    first = json.loads((kept / "gpu01/coder/article_2080ti/baseline.json").read_text())
    status, output, record = measure(kept, "article_2080ti")
    assert status == 0, output
    assert record["comparison"]["baseline"] == first["started"] and not record["comparison"]["refused"]
    assert f"Compared with the baseline of {first['started']}:" in output


def test_two_configurations_are_measured_in_turn_and_the_inventorys_is_put_back(kept, on):
    before = on("gpu01").out("vllm-instance command coder")
    status, output, record = measure(kept, "small", against={"options": {"max_num_seqs": 2}}, **SMALL)
    assert status == 0, output
    assert [side["name"] for side in record["sides"]] == ["coder", "coder with max_num_seqs 2"]
    assert [(run["round"], run["side"]) for run in record["runs"]] == [(n, side["name"]) for n in (1, 2) for side in record["sides"]]
    assert record["sides"][1]["fingerprint"]["options"][-2:] == ["--max-num-seqs", "2"] and not record["notes"]
    assert on("gpu01").out("vllm-instance command coder") == before


def test_a_wrong_key_is_one_sentence(kept, on):
    """The instance gets a key, another one is given for its address; its own is found on the host."""
    keyed = {"vllm_api_key": "right-key-of-the-lab"}
    extra = json.dumps(keyed)
    assert lab_play.play("playbooks/serve.yml", "--extra-vars", extra, host="gpu01")[0] == 0
    try:
        status, output, record = measure(kept, "small", **SMALL)
        assert status == 0 and record["status"] == "complete", output
        status, output, record = measure(kept, "small", benchmark_url="http://127.0.0.1:8000", benchmark_api_key="wrong-key", **SMALL)
        assert status != 0
        assert "The API key is refused by http://127.0.0.1:8000: set benchmark_api_key to the one that it takes." in output
        assert (record["status"], len(record["runs"])) == ("partial", 0) and record["reason"].startswith("The API key is refused")
        assert "wrong-key" not in output and "right-key" not in output
    finally:
        assert lab_play.play("playbooks/serve.yml", host="gpu01")[0] == 0


def test_one_that_is_interrupted_is_kept_as_partial(kept):
    extra = json.dumps({"scenario": "soak", "benchmark_directory": str(kept), "benchmark_rounds": 50})
    words, settings = lab_play.command(PLAYBOOK, "--extra-vars", extra, host="gpu01")
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)
    try:
        deadline = time.monotonic() + 120
        while not newest(kept, "soak"):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.5)
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    record = newest(kept, "soak")
    assert record["status"] == "partial" and 0 < len(record["runs"]) < record["planned_runs"] == 50
    assert not (kept / "gpu01/coder/soak/baseline.json").exists()


def test_an_engine_that_is_gone_is_one_sentence(kept, on):
    on("gpu01").run("systemctl stop vllm-coder")
    try:
        status, output, record = measure(kept, "small", **SMALL)
        assert status != 0
        assert "The container of coder does not run: vllm-instance status coder on the host says why." in output
        assert "What was measured until then is kept as partial in" in output and record["status"] == "partial"
    finally:
        on("gpu01").run("systemctl start vllm-coder")
        assert lab_play.play("playbooks/serve.yml", host="gpu01")[0] == 0
