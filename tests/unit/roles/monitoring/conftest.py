"""Prometheus' own programs, as the distribution has them: `make .cache/prometheus` unpacks them without installing anything."""

import pathlib
import shutil

import pytest

CHECKOUT = pathlib.Path(__file__).parents[4]
UNPACKED = CHECKOUT / ".cache/prometheus/usr/bin"


@pytest.fixture(scope="session")
def program():
    """program(name): the path of promtool, prometheus or prometheus-node-exporter."""

    def find(name):
        path = shutil.which(name, path=str(UNPACKED)) or shutil.which(name)
        if path is None:
            pytest.fail(f"{name} is neither in {UNPACKED} nor on the path: run make .cache/prometheus (Debian, Ubuntu), or install Prometheus.")
        return path

    return find
