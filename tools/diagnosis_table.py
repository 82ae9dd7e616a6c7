# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write the table of symptoms in docs/diagnosis.md from the rules of plugins/module_utils/vllm_log.py.

python3 tools/diagnosis_table.py
"""

import pathlib
import re
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = CHECKOUT / "docs" / "diagnosis.md"
BEGIN, END = "<!-- table: tools/diagnosis_table.py -->\n", "<!-- end of table -->\n"

sys.path.insert(0, str(CHECKOUT / "plugins" / "module_utils"))

import vllm_log  # noqa: E402


def table():
    """The rules as a Markdown table, each once, the most specific first."""
    lines = ["| cause | in the log | what to do |", "|---|---|---|"]
    for rule in (*vllm_log.RULES, vllm_log.HANG, vllm_log.UNKNOWN):
        remedy = re.sub(r"\{\w+\}", "…", rule.remedy).replace(" (to …)", "")
        line = f"| `{rule.code}` | {cell(rule.symptom)} | {cell(remedy)} |"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines) + "\n"


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def written(document):
    """The document with the table as it is now. ValueError where it has no place for it."""
    before, begin, rest = document.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    return before + begin + table() + end + after


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
