"""The programs of the role, imported as the container's Python does."""

import importlib
import pathlib
import sys

import pytest

WHEEL = pathlib.Path(__file__).parents[4] / "roles/flash_attn_wheel/files/wheel"


@pytest.fixture
def programs(monkeypatch):
    """programs.build, programs.start, programs.prove."""
    monkeypatch.syspath_prepend(str(WHEEL))
    names = ("build", "start", "prove")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield type("Programs", (), {name: importlib.import_module(name) for name in names})
    for name in names:
        sys.modules.pop(name, None)
