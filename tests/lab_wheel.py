"""A wheel that was really compiled, in the store and on the lab's hosts: what the tests of molecule/default and molecule/flash_attn_wheel share."""

import json
import os
import shlex

import lab_play

STATE = lab_play.CHECKOUT / ".lab" / os.environ["LAB_NAME"]
SCENARIO = lab_play.CHECKOUT / "molecule/flash_attn_wheel"
# Hosts with the first start with the small extension, which is compiled in seconds; with the second with flash-attn 1.0.9.
INVENTORIES = {name: SCENARIO / f"inventory/{name}.yml" for name in ("small", "flash-attn")}


def stored(name="small-cuda"):
    """The directory of the one wheel of this name in the lab's store."""
    (manifest,) = (STATE / "wheels").glob(f"{name}-*/manifest.json")
    return manifest.parent


def read(directory):
    """Its manifest."""
    return json.loads((directory / "manifest.json").read_text())


def holds_code_for_sm_75_alone(directory):
    manifest = read(directory)
    listings = [text for listing in manifest["objdump"].values() for text in listing.values()]
    lines = [line for text in listings for line in text.splitlines()]
    assert lines and all(line.endswith(".sm_75.cubin") for line in lines), lines
    assert manifest["wanted"]["archs"] == ["7.5"] and manifest["imported"] == manifest["imports"]
    assert (manifest["torch"], manifest["cuda"], manifest["builder"]) == ("2.6.0+cu124", "12.4", "gpu01")


def is_carried(machine, directory):
    """The wheel of the store is on the host, and was proved there as far as that goes without a card."""
    manifest, path = read(directory), f"/var/lib/vllm/wheels/{directory.name}"
    assert machine.out(f"sha256sum {path}/{manifest['wheel']}").split()[0] == manifest["sha256"]
    proof = json.loads(machine.out(f"cat {path}/proof.json"))
    assert proof["forward"] is None and proof["not_run"], proof


def is_started_with(machine, container, directory):
    """The engine in the container has the wheel's modules from the wheel."""
    is_carried(machine, directory)
    assert "PYTHONPATH=/tmp/gpuhosts-wheel" in machine.out(f"docker exec {container} cat /proc/1/environ | tr '\\0' '\\n'")
    inside = f"import torch; import {read(directory)['imports'][0]} as module; print(module.__file__)"
    found = machine.out(f"docker exec --env PYTHONPATH=/tmp/gpuhosts-wheel {container} python3 -c {shlex.quote(inside)}")
    assert found.startswith("/tmp/gpuhosts-wheel/")
