"""The scenario's two hosts, and its playbooks on them."""

import json

import lab_play
import lab_serving
import lab_wheel
import pytest


@pytest.fixture(scope="session")
def hosts():
    return [lab_serving.Host("gpu01"), lab_serving.Host("gpu02")]


@pytest.fixture(scope="session")
def play():
    """play(playbook, host=None, wheel="small", timeout=600, **variables of the roles): a real playbook; (status, output). wheel: which inventory."""

    def run(playbook, host=None, wheel="small", timeout=600, **variables):
        inventories = ("inventories/lab", lab_wheel.INVENTORIES[wheel])
        return lab_play.play(playbook, "--extra-vars", json.dumps(variables), host=host, timeout=timeout, inventories=inventories)

    return run
