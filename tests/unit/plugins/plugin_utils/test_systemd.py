import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import systemd


@pytest.mark.parametrize(
    "argument, quoted",
    [
        ("--port=8000", "--port=8000"),
        ("vllm/vllm-openai@sha256:6cf9", "vllm/vllm-openai@sha256:6cf9"),
        ("", '""'),
        ("two words", '"two words"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('{"a": "b\\c"}', '"{\\"a\\": \\"b\\\\c\\"}"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("a;b", '"a;b"'),
    ],
)
def test_quote(argument, quoted):
    assert systemd.quote(argument) == quoted


def test_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        systemd.quote("a\0b")
