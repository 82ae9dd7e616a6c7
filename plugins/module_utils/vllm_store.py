# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host keeps of an instance: the files that it runs by, and every generation of them.

A service is a dict {definition, environment, unit, compose} as the filter vllm_services makes it: a dict and texts, unit and compose None where the
supervisor needs none. Paths are below a root, which is the tests' to move.

    /etc/vllm/NAME/definition.json environment compose.yaml generation     what runs now; generation, its number, is written last
    /etc/systemd/system/vllm-NAME.service
    /var/lib/vllm/NAME/generations/N/definition.json environment compose.yaml unit generation.json     generation.json is written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time

CONFIG, STATE, RUN, UNITS = "etc/vllm", "var/lib/vllm", "run/vllm", "etc/systemd/system"
RECORD = "generation.json"
PENDING, PROVED, FAILED = "pending", "proved", "failed"


class StoreError(Exception):
    """A file cannot be read or written; the text says which, and why."""


def text_of(definition):
    """A definition as its file has it."""
    return json.dumps(definition, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def fingerprint(service):
    """SHA-256 of what has to be started anew to take effect: not the ladder, not the watchdog's limits, not a unit that only calls vllm-instance."""
    definition = service["definition"]
    parts = [definition[key] for key in ("supervisor", "runtime", "command")]
    parts += [definition["rungs"][0]["argv"], (definition["image"] or {}).get("id"), definition["model"]["commit"], service["environment"]]
    # What a native engine may use stands in its unit.
    parts += [service["compose"], service["unit"] if definition["runtime"] == "native" else None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()


def write(path, text, mode=0o644):
    """Write a file whole or not at all, on disk before its name is there. Raises StoreError."""
    os.rename(stage(path, text, mode), path)


def stage(path, text, mode=0o644):
    """Write a file's content beside it, on disk; returns the path, which only has to be renamed. Raises StoreError, and leaves nothing then."""
    directory, temporary = os.path.dirname(path), None
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fchmod(target.fileno(), mode)
            os.fsync(target.fileno())
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}")
    return temporary


def read(path):
    """A file's text, None where there is none. Raises StoreError."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}")


def read_json(path):
    """A file's JSON object, None where there is none that can be used."""
    try:
        found = json.loads(read(path) or "")
    except (StoreError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def names(root="/"):
    """The instances that have a definition on this host, sorted."""
    top = os.path.join(root, CONFIG)
    found = os.listdir(top) if os.path.isdir(top) else []
    return sorted(name for name in found if os.path.exists(os.path.join(top, name, "definition.json")))


class Store:
    """One instance's files on this host."""

    def __init__(self, name, root="/"):
        self.name = name
        self.config = os.path.join(root, CONFIG, name)
        self.state = os.path.join(root, STATE, name)
        self.run = os.path.join(root, RUN)
        self.unit_path = os.path.join(root, UNITS, f"vllm-{name}.service")
        self.generations = os.path.join(self.state, "generations")

    def files(self, service):
        """{path: (text, mode)} of what a service runs by; the text is None where a file must not be."""
        return {
            os.path.join(self.config, "definition.json"): (text_of(service["definition"]), 0o644),
            os.path.join(self.config, "environment"): (service["environment"], 0o600),
            os.path.join(self.config, "compose.yaml"): (service["compose"], 0o644),
            self.unit_path: (service["unit"], 0o644),
        }

    def current(self):
        """The service by which the instance runs, None where there is none."""
        definition = read_json(os.path.join(self.config, "definition.json"))
        if definition is None:
            return None
        return {
            "definition": definition,
            "environment": read(os.path.join(self.config, "environment")) or "",
            "compose": read(os.path.join(self.config, "compose.yaml")),
            "unit": read(self.unit_path),
        }

    def differing(self, service):
        """Paths whose file is not what the service wants."""
        return [path for path, (text, mode) in self.files(service).items() if read(path) != text]

    def stage(self, service, number):
        """Write the files that the instance shall run by beside those it runs by; returns what `commit` takes.

        A disk that is full is found here, where nothing has been stopped yet. Raises StoreError, and leaves nothing then.
        """
        wanted = dict(self.files(service))
        # Last, because it says that the others are there.
        wanted[os.path.join(self.config, "generation")] = (f"{number}\n", 0o644)
        staged = {}
        try:
            for path, (text, mode) in wanted.items():
                staged[path] = None if text is None else stage(path, text, mode)
        except StoreError:
            self.discard(staged)
            raise
        return staged

    @staticmethod
    def commit(staged):
        """Put staged files in force, and remove those that are not needed."""
        for path, temporary in staged.items():
            if temporary is not None:
                os.rename(temporary, path)
            elif os.path.exists(path):
                os.unlink(path)

    @staticmethod
    def discard(staged):
        """Remove staged files."""
        for temporary in staged.values():
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)

    def generation(self):
        """The number of the generation that is installed, None where there is none."""
        return _number(read(os.path.join(self.config, "generation")))

    def running(self):
        """The number of the generation that was started last since the boot, None where none was."""
        return _number(read(os.path.join(self.run, f"{self.name}.running")))

    # -- Generations -----------------------------------------------------------------------------------------------------------------------

    def records(self):
        """The records of all generations, oldest first: {number, fingerprint, created, status, why}."""
        found = []
        for entry in os.listdir(self.generations) if os.path.isdir(self.generations) else []:
            record = read_json(os.path.join(self.generations, entry, RECORD))
            if record and entry.isdigit() and record.get("number") == int(entry):
                found.append(record)
        return sorted(found, key=lambda record: record["number"])

    def record(self, number):
        """The record of one generation, None where there is none."""
        return next((record for record in self.records() if record["number"] == number), None)

    def keep(self, service, status=PENDING, why=""):
        """Keep a service as a new generation; returns its number."""
        taken = [int(entry) for entry in os.listdir(self.generations) if entry.isdigit()] if os.path.isdir(self.generations) else []
        number = max(taken, default=0) + 1
        directory = os.path.join(self.generations, str(number))
        try:
            os.makedirs(directory, exist_ok=True)
            # An API key is in it.
            os.chmod(self.generations, 0o700)
        except OSError as error:
            raise StoreError(f"{directory} cannot be made: {error.strerror or error}")
        try:
            write(os.path.join(directory, "definition.json"), text_of(service["definition"]))
            write(os.path.join(directory, "environment"), service["environment"], 0o600)
            for name in ("unit", "compose"):
                if service[name] is not None:
                    write(os.path.join(directory, name), service[name])
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            record = {"number": number, "fingerprint": fingerprint(service), "created": created, "status": status, "why": why}
            write(os.path.join(directory, RECORD), text_of(record))
        except StoreError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return number

    def kept(self, number):
        """The service of a generation, None where it is not whole."""
        directory = os.path.join(self.generations, str(number))
        definition = read_json(os.path.join(directory, "definition.json"))
        if definition is None or self.record(number) is None:
            return None
        texts = {name: read(os.path.join(directory, name)) for name in ("environment", "unit", "compose")}
        return {"definition": definition, **texts, "environment": texts["environment"] or ""}

    def mark(self, number, status, why=""):
        """Write down what came of a generation."""
        record = self.record(number)
        if record is not None:
            write(os.path.join(self.generations, str(number), RECORD), text_of(dict(record, status=status, why=why)))

    def last_proved(self, other_than=None):
        """The newest record of a generation that was proved, and whose fingerprint is another one; None where there is none."""
        found = [record for record in self.records() if record["status"] == PROVED and record["fingerprint"] != other_than]
        return found[-1] if found else None

    def prune(self, keep):
        """Remove all but the newest generations; the installed one and the last proved one stay. Returns the numbers removed."""
        records = self.records()
        safe = {self.generation(), (self.last_proved() or {}).get("number")} | {record["number"] for record in records[-keep:]}
        removed = [record["number"] for record in records if record["number"] not in safe]
        for number in removed:
            shutil.rmtree(os.path.join(self.generations, str(number)), ignore_errors=True)
        return removed

    def remove(self):
        """Remove everything that is kept of the instance."""
        for path in (self.config, self.state):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.unit_path, os.path.join(self.run, f"{self.name}.running")):
            if os.path.exists(path):
                os.unlink(path)


def _number(text):
    text = (text or "").strip()
    return int(text) if text.isdigit() else None
