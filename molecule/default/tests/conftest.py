"""The two converged hosts of the scenario."""

import os

import lab_play
import pytest

LAB = os.environ["LAB_NAME"]


@pytest.fixture(scope="session")
def on():
    """on(host): the lab_play.Machine, to run commands inside."""
    return lambda host: lab_play.Machine(f"{LAB}-{host}")
