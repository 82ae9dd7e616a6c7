"""What the engines measured when they started corrects the next plan."""

import json

from lab_play import play


def test_measured_starts_correct_the_next_plan(tmp_path):
    path = tmp_path / "ledger.json"
    arguments = ("--extra-vars", json.dumps({"gpuhosts_ledger": str(path)}))
    status, output = play("playbooks/ledger.yml", *arguments)
    assert status == 0, output
    entries = json.loads(path.read_text())
    assert {(entry["model"], entry["version"]) for entry in entries} == {("gpuhosts-lab/tiny-qwen3", "0.8.5")}
    assert all(entry["kv_cache"] and entry["predicted"]["weights"] for entry in entries)

    # Hosts of one kind measure the same, so that a second run has nothing to add.
    status, output = play("playbooks/ledger.yml", *arguments)
    assert status == 0 and "changed=1" not in output
    assert json.loads(path.read_text()) == entries


def test_a_ledger_needs_a_place():
    status, output = play("playbooks/ledger.yml")
    assert status != 0
    assert "Set gpuhosts_ledger to the path of a JSON file on the controller: it need not exist yet." in output
