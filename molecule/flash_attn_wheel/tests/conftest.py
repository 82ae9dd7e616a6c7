"""The scenario's two hosts, and its playbooks on them."""

import functools
import json
import os
import pathlib

import lab_play
import lab_serving
import pytest

SCENARIO = pathlib.Path(__file__).parents[1]
WHEEL = os.environ["WHEEL"]


@pytest.fixture(scope="session")
def hosts():
    return [lab_serving.Host("gpu01"), lab_serving.Host("gpu02")]


@pytest.fixture(scope="session")
def play():
    """play(playbook, *arguments, host=None, **variables of the roles): a real playbook on the scenario's inventory; (status, output)."""
    run = functools.partial(lab_play.play, inventories=("inventories/lab", SCENARIO / f"inventory/{WHEEL}.yml"))
    return lambda playbook, *arguments, host=None, **variables: run(playbook, *arguments, "--extra-vars", json.dumps(variables), host=host)


@pytest.fixture(scope="session")
def store():
    """The directory of the wheel in the store."""
    (directory,) = (lab_play.CHECKOUT / ".lab" / os.environ["LAB_NAME"] / "wheels").iterdir()
    return directory
