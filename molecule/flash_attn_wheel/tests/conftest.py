"""The scenario's two hosts, and its playbooks on them."""

import json
import os
import pathlib

import lab_play
import lab_serving
import pytest

SCENARIO = pathlib.Path(__file__).parents[1]
STORE = lab_play.CHECKOUT / ".lab" / os.environ["LAB_NAME"] / "wheels"


@pytest.fixture(scope="session")
def hosts():
    return [lab_serving.Host("gpu01"), lab_serving.Host("gpu02")]


@pytest.fixture(scope="session")
def play():
    """play(playbook, host=None, wheel="small", timeout=600, **variables of the roles): a real playbook; (status, output). wheel: which inventory."""

    def run(playbook, host=None, wheel="small", timeout=600, **variables):
        inventories = ("inventories/lab", SCENARIO / f"inventory/{wheel}.yml")
        return lab_play.play(playbook, "--extra-vars", json.dumps(variables), host=host, timeout=timeout, inventories=inventories)

    return run


@pytest.fixture(scope="session")
def stored():
    """stored(name): the directory of a wheel in the store."""

    def find(name="small-cuda"):
        (directory,) = STORE.glob(f"{name}-*")
        return directory

    return find
