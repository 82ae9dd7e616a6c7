"""The report of a whole lab: one page of hosts that serve, of one that is down, and of what Prometheus says."""

import json

import lab_play
import pytest

pytestmark = pytest.mark.slow
DOWN = "gpu_hosts: {hosts: {gpu99: {ansible_host: gpuhosts-nowhere}}}\n"


def report(directory, *arguments, inventories=()):
    """(document, page, recap)"""
    code, output = lab_play.play(
        "playbooks/report.yml", f"-e report_path={directory}/index.html", *arguments, inventories=("inventories/lab", *inventories)
    )
    assert code == 0, output
    document = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    return document, (directory / "index.html").read_text(encoding="utf-8"), lab_play.recap(output)


def test_it_shows_the_hosts_as_they_are_and_changes_nothing(tmp_path, gpu01, gpu02):
    document, page, recap = report(tmp_path)
    assert {name: recap[name]["changed"] for name in ("gpu01", "gpu02")} == {"gpu01": 0, "gpu02": 0}
    assert {(host["name"], host["state"], host["status"]) for host in document["hosts"]} == {
        ("gpu01", "good", "coder serves"), ("gpu02", "good", "coder serves"),
    }  # fmt: skip
    assert (document["outdated"], document["alerts"], document["notes"]) == ([], None, [])
    instance = document["hosts"][0]["instances"][0]
    assert instance["memory"]["measured"]["kv_cache"] > 2**30
    assert "Memory of the card" in page or "Memory of the fullest" in page


def test_a_host_that_is_down_is_on_the_page_and_the_others_too(tmp_path, gpu01, gpu02):
    (tmp_path / "down.yml").write_text(DOWN, encoding="utf-8")
    document, page, dummy = report(tmp_path, inventories=(tmp_path / "down.yml",))
    assert [(host["name"], host["status"]) for host in document["hosts"]] == [("gpu99", "not reached"), ("gpu01", "coder serves"), ("gpu02", "coder serves")]
    assert "gpuhosts-nowhere" in document["hosts"][0]["problem"]
    assert 'id="host-gpu99"' in page


def test_what_the_inventory_wants_otherwise_is_out_of_date(tmp_path, gpu01, gpu02):
    document = report(tmp_path, "-e", json.dumps({"nvidia_driver_version": "570.172.08", "vllm_restarts": 5}))[0]
    assert {(one["host"], one["what"], one["is"]) for one in document["outdated"] if one["what"] == "driver"} == {
        ("gpu01", "driver", "570.153.02"), ("gpu02", "driver", "570.153.02"),
    }  # fmt: skip
    assert {(one["host"], one["instance"]) for one in document["outdated"] if one["what"] != "driver"} == {("gpu01", "coder"), ("gpu02", "coder")}


def test_a_prometheus_that_is_not_there_is_a_note(tmp_path, gpu01, gpu02):
    document, page, dummy = report(tmp_path, "-e report_prometheus_url=http://127.0.0.1:9")
    assert document["alerts"] is None
    assert document["notes"][0].startswith("Prometheus was not asked: http://127.0.0.1:9 on localhost: ")
    assert document["notes"][0] in page.replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'").replace("&#34;", '"')
