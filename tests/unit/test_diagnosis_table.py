"""docs/diagnosis.md says of each cause what the code says."""

import importlib.util
import pathlib

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("diagnosis_table", CHECKOUT / "tools" / "diagnosis_table.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_rules(tool):
    text = tool.DOCUMENT.read_text(encoding="utf-8")
    assert tool.written(text) == text, "run python3 tools/diagnosis_table.py"


def test_every_rule_is_in_it(tool):
    rows = tool.table()
    for rule in tool.vllm_log.RULES:
        assert f"| `{rule.code}` | " in rows
        assert tool.cell(rule.symptom) in rows
    assert "{" not in rows.replace("{what}", "")


def test_a_document_without_a_place(tool):
    with pytest.raises(ValueError, match="no place for the table"):
        tool.written("# Nothing\n")
