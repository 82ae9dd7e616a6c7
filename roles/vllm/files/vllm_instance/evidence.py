# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a hang leaves to look at, taken before the engine is ended: /var/lib/vllm/NAME/evidence/<time>-<reason>/.

Every piece is optional and bounded in time. summary.json says of each whether it is there, and why not.
"""

from __future__ import annotations

import json
import os
import re
import shutil

from . import child, engine, vllm_log
from .host import WARNING, Failed

KEPT = 5
SECONDS = 120
LOG_LINES = 400
# What the watchdog's own questions leave in an engine's log hides what it said before.
READ_LINES = 20 * LOG_LINES
OWN_QUESTION = re.compile(r'"GET /(?:health|metrics) HTTP/')
PROCESSES = "pid,ppid,stat,wchan:32,pcpu,etime,args"
# In the container, where the numbers of its processes are its own.
PY_SPY = """
command -v py-spy > /dev/null || { echo "py-spy is not in the image" >&2; exit 127; }
for process in /proc/[0-9]*; do
  words=$(tr '\\0' ' ' 2> /dev/null < "$process/cmdline") || continue
  case "$words" in *py-spy*) ;; *python*|*VLLM*|*vllm*) echo "== $words"; timeout 15 py-spy dump --pid "${process#/proc/}" 2>&1 ;; esac
done
"""


def capture(host, definition, start, reason, saw):
    """Take what can be had. Returns the folder, None where nothing could be kept.

    start: a supervisors.Start. reason: one word. saw: the sentence that led here.
    """
    deadline = host.monotonic() + SECONDS
    try:
        folder = _folder(host, definition.name, reason)
    except OSError as error:
        host.say(definition.name, f"no evidence could be kept: {error}", WARNING)
        return None
    hidden = _secrets(host, definition)
    pieces = {}
    for name, seconds, take in _pieces(definition, start):
        left = min(seconds, deadline - host.monotonic())
        try:
            if left <= 0:
                raise Failed(f"not taken, for the others took {SECONDS} s")
            _write(folder / name, _masked(take(left), hidden))
            pieces[name] = "taken"
        except (Failed, engine.Unanswered, OSError) as problem:
            pieces[name] = _masked(f"missing: {problem}", hidden)
        except Exception as error:  # pylint: disable=broad-except
            # Whatever a broken driver or engine makes of its answer: the restart must come.
            pieces[name] = _masked(f"missing: {type(error).__name__}: {error}", hidden)
    summary = {"time": host.timestamp(), "instance": definition.name, "reason": reason, "saw": saw, "pieces": pieces}
    try:
        _write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
        _forget(host, definition.name)
    except OSError as error:
        host.say(definition.name, f"{folder} is not complete, or older ones cannot be removed: {error}", WARNING)
    return str(folder)


def _pieces(definition, start):
    """(file, seconds it may take, function of the seconds left that returns text), the quickest first."""
    yield "metrics.txt", 5, engine.Engine(definition.url).metrics
    yield "log.txt", 20, lambda left: _log(start)
    yield "processes.txt", 10, lambda left: _processes(definition, start, left)
    yield "nvidia-smi.txt", 15, lambda left: _output(["nvidia-smi"], left)
    yield "nvidia-smi-q.txt", 20, lambda left: _output(["nvidia-smi", "-q"], left)
    yield "py-spy.txt", 60, lambda left: _py_spy(definition, start, left)


def _log(start):
    lines = [line for line in start.log(READ_LINES).splitlines() if not OWN_QUESTION.search(line)]
    return "\n".join(lines[-LOG_LINES:]) + "\n"


def _output(command, seconds):
    """Both outputs of a command, its failure among them: a tool that complains is evidence too."""
    found = child.run(command, seconds)
    return found.output + found.errors + (f"exit status {found.status}\n" if found.status else "")


def _processes(definition, start, seconds):
    if definition.runtime == "container":
        return child.output(["docker", "top", definition.container, "-eo", PROCESSES], seconds)
    return child.output(["ps", "-o", PROCESSES, "-p", ",".join(map(str, start.processes()))], seconds)


def _py_spy(definition, start, seconds):
    if definition.runtime == "container":
        command = ["docker", "exec", "--user", "0", "--privileged", definition.container, "sh", "-c", PY_SPY]
        found = child.run(command, seconds)
        if found.status and "py-spy is not" not in found.errors:
            # A host that gives no container so many rights gives some to none.
            command.remove("--privileged")
            found = child.run(command, seconds)
        if found.status and not found.output:
            raise Failed(found.errors.strip() or f"exit status {found.status}")
        return found.output + found.errors
    tool = shutil.which("py-spy", path=os.pathsep.join([os.path.dirname(definition.command[0]), os.environ.get("PATH", "")]))
    if tool is None:
        raise Failed("py-spy is neither beside the engine's python nor on the path")
    return "".join(f"== {pid}\n" + _output([tool, "dump", "--pid", str(pid)], seconds / 2) for pid in start.processes())


def _secrets(host, definition):
    """Values of the environment file that must stand nowhere."""
    found = engine.environment(host.etc(definition.name) / "environment")
    return sorted((value for name, value in found.items() if vllm_log.SECRET_NAME.search(name) and len(value) > 3), key=len, reverse=True)


def _masked(text, hidden):
    for value in hidden:
        text = text.replace(value, "***")
    return vllm_log.masked(text)


def _folder(host, name, reason):
    """A new folder that only root can read: prompts may stand in a log."""
    base = host.lib(name) / "evidence"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = host.timestamp().replace("-", "").replace(":", "")
    for number in range(1, 100):
        folder = base / f"{stamp}-{reason}{'' if number == 1 else f'-{number}'}"
        try:
            folder.mkdir(mode=0o700)
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{base} has too many folders of {stamp}")


def _write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", errors="replace") as stream:
        stream.write(text)


def _forget(host, name):
    """Keep the last folders only."""
    for folder in sorted(path for path in (host.lib(name) / "evidence").iterdir() if path.is_dir())[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
