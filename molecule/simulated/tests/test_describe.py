"""A box is described in the inventory by what is found on it, and planned for from that alone."""

import json
import pathlib
import shutil

import lab_play
import yaml

MODEL = "gpuhosts-lab/tiny-qwen3"


def test_a_described_box_is_planned_for_while_it_is_out_of_reach(gpu01, tmp_path):
    inventory = tmp_path / "inventory"
    shutil.copytree(lab_play.CHECKOUT / "inventories/lab", inventory)
    variables = inventory / "host_vars" / "gpu01.yml"
    variables.parent.mkdir()
    variables.write_text("# Kept.\nplace: rack 4\n")

    def describe(*arguments):
        status, output = lab_play.play("playbooks/describe.yml", *arguments, host="gpu01", inventories=[inventory])
        assert status == 0, output
        return lab_play.recap(output)["gpu01"]["changed"], yaml.safe_load(variables.read_text())

    assert describe("--check") == (1, {"place": "rack 4"})
    changed, found = describe()
    assert changed == 1 and found["place"] == "rack 4" and variables.read_text().startswith("# Kept.\n")
    assert [(card["index"], card["compute_capability"]) for card in found["gpuhosts_hardware"]["gpus"]] == [(index, "7.5") for index in range(4)]
    assert describe() == (0, found)

    config = json.loads(gpu01.machine.out(f"cat /home/llm/model/{MODEL}/config.json"))
    given = json.dumps({"gpuhosts_models": {MODEL: config}, "plan_directory": str(tmp_path), "ansible_host": "out-of-reach.invalid"})
    status, output = lab_play.play("playbooks/plan.yml", "--extra-vars", given, host="gpu01", inventories=[inventory])
    assert status == 0, output
    planned = json.loads(pathlib.Path(tmp_path, "gpu01.json").read_text())["plans"]["coder"]
    assert planned["kv"]["tokens"] == gpu01.definition()["expected"]["kv_tokens"]
