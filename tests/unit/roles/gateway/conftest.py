"""HAProxy with the role's configuration before simulated engines."""

import lab_gateway
import pytest


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """with start(*options of the engines, contexts=(4096, 4096), **variables) as gateway: a lab_gateway.Gateway."""
    return lab_gateway.launcher(tmp_path_factory.mktemp("engine"))
