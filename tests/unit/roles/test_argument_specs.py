"""Every role's argument specification says what its defaults are, by value."""

import pathlib

import pytest
import yaml

ROLES = sorted(path for path in (pathlib.Path(__file__).parents[3] / "roles").iterdir() if path.is_dir())


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specification_and_defaults_agree(role):
    options = read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read(role / "defaults/main.yml")
    # Unset is a default of its own, which a specification expresses by having none.
    assert {name: value for name, value in defaults.items() if value is not None} == {
        name: option["default"] for name, option in options.items() if "default" in option
    }
    assert {name for name, value in defaults.items() if value is None} <= {name for name, option in options.items() if not option.get("required")}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_has_a_type_a_description_and_the_roles_prefix(role):
    for name, option in read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"].items():
        assert name.startswith(role.name + "_")
        assert option.get("type"), name
        assert option.get("description"), name
        assert option["type"] != "list" or option.get("elements"), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_production_roles_do_not_know_the_lab(role):
    if role.name == "lab":
        return
    for path in role.rglob("*"):
        if path.is_file():
            assert "lab_" not in path.read_text(encoding="utf-8"), path
