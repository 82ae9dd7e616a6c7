"""Write the requirements of an engine that runs without a container: roles/vllm/files/native/VERSION.txt.

    tools/native_requirements.py 0.8.5    (needs uv and pip)

uv resolves the engine's own metadata, once for all Python versions. pip then says which file it would install with each of them, and by these
files' SHA-256 they are pinned: for Linux on x86_64, from PyPI.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

DIRECTORY = pathlib.Path(__file__).parents[1] / "roles/vllm/files/native"
INDEX = "https://pypi.org/simple"
PYTHONS = ("3.10", "3.11", "3.12")  # Ubuntu 22.04, Debian 12, Ubuntu 24.04
# The engine, and releases of its time where its own metadata has no upper bound and a new major, or a change of a private part, is in the way.
WANTED = {
    "0.8.5": ["vllm==0.8.5", "transformers==4.51.3", "setuptools<80", "opencv-python-headless<5"],
}


def resolve(wanted: list[str]) -> list[tuple[str, str]]:
    """(name==version, marker) of everything that has to be installed."""
    where = f'sys_platform == "linux" and platform_machine == "x86_64" and python_version < "3.{int(PYTHONS[-1][2:]) + 1}"'
    command = ["uv", "pip", "compile", "--quiet", "--no-config", "--index-url", INDEX, "--universal", "--fork-strategy=fewest", "--no-annotate", "--no-header"]
    lines = "".join(f"{requirement}; {where}\n" for requirement in wanted)
    found = subprocess.run([*command, f"--python-version={PYTHONS[0]}", "-"], input=lines, text=True, capture_output=True, check=True).stdout
    pairs = [tuple(map(str.strip, line.partition(";")[::2])) for line in found.splitlines()]
    return [(pin, marker) for pin, marker in pairs if not re.search(r"implementation_name == 'pypy'", marker)]


def pythons(marker: str) -> list[str]:
    """The Python versions for which a marker of uv's holds."""
    if match := re.search(r"python_full_version (<|>=) '(3\.\d+)'", marker):
        return [python for python in PYTHONS if (int(python[2:]) < int(match[2][2:])) == (match[1] == "<")]
    if match := re.search(r"python_full_version == '(3\.\d+)\.\*'", marker):
        return [match[1]]
    return list(PYTHONS)


def hashes(pins: list[str], python: str) -> dict[str, str]:
    """Name -> SHA-256 of the file that pip would install with that Python."""
    platforms = [f"--platform={tag}_x86_64" for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux2014", "manylinux2010", "manylinux1")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report=-", "--no-deps", "--only-binary=:all:"]
    command += [f"--index-url={INDEX}", f"--python-version={python}", "--implementation=cp", *platforms, "--target=/nonexistent", *pins]
    report = json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout)
    return {normal(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"] for item in report["install"]}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(version: str) -> None:
    pins = [(pin, pythons(marker)) for pin, marker in resolve(WANTED[version])]
    found = {python: hashes([pin for pin, wanted in pins if python in wanted], python) for python in PYTHONS}
    lines = [
        f"# vLLM {version} for Linux on x86_64 with Python {', '.join(PYTHONS)}: written by tools/native_requirements.py, the files on PyPI by their SHA-256."
    ]
    for pin, wanted in pins:
        marker = "" if wanted == list(PYTHONS) else " ; " + " or ".join(f'python_version == "{python}"' for python in wanted)
        digests = sorted({found[python][normal(pin.partition("==")[0])] for python in wanted})
        lines.append(pin + marker + "".join(f" \\\n  --hash=sha256:{digest}" for digest in digests))
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{version}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
