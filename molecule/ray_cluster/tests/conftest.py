"""The two converged hosts of the scenario."""

import lab_serving
import pytest


@pytest.fixture(scope="session")
def gpu01():
    return lab_serving.Host("gpu01")


@pytest.fixture(scope="session")
def gpu02():
    return lab_serving.Host("gpu02")
