"""Every role's argument specification says what its defaults are, by value."""

import pathlib
import re

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
        if path.is_file() and path.suffix != ".pyc":
            assert "lab_" not in path.read_text(encoding="utf-8"), path


def expressions(path):
    """Every Jinja expression of a role's file: what stands in braces, and the conditions of tasks."""
    text = path.read_text(encoding="utf-8")
    yield from re.findall(r"\{[{%](.*?)[}%]\}", text, re.DOTALL)
    nodes = [] if path.suffix == ".j2" else [yaml.safe_load(text)]
    while nodes:
        node = nodes.pop()
        nodes += list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        for key in ("when", "that", "until", "changed_when", "failed_when") if isinstance(node, dict) else ():
            conditions = node.get(key, [])
            yield from (str(condition) for condition in (conditions if isinstance(conditions, list) else [conditions]))


BOOLEANS = [
    (role, name)
    for role in ROLES
    for name, option in read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"].items()
    if option["type"] == "bool"
]


@pytest.mark.parametrize("role, name", BOOLEANS, ids=[name for dummy, name in BOOLEANS])
def test_booleans_may_come_as_words(role, name):
    """`-e x=no` is a text, which is true by itself: an argument specification checks the value and does not convert it."""
    used = 0
    for path in (path for part in ("tasks", "vars", "handlers", "templates") for path in sorted((role / part).glob("*"))):
        for expression in expressions(path):
            used += len(re.findall(rf"\b{name}\b", expression))
            # Handed on as it is, to a module or a role that converts it; asked whether it is set at all; or converted here.
            if expression.strip() != name:
                # In quotes it is a name, not a value.
                for rest in re.findall(rf"(?<!')\b{name}\b(.*)", expression, re.DOTALL):
                    assert re.match(r" is (not )?none|( \| default\([^)]*\))? \| bool\b", rest), f"{path.name}: {expression.strip()}"
    assert used, "no expression of the role has it"
