# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several small files brought to what they should be, in one execution: what the modules that write configuration share."""

from __future__ import annotations

import os
import tempfile


class ConfigFiles:
    """Writes and removes whole files of one AnsibleModule; keeps what changed, and the differences for --diff.

    In check mode nothing is touched and the same is said. An OSError ends the module with a sentence.
    """

    def __init__(self, module):
        self.written = []
        self.removed = []
        self.diff = []
        self._module = module

    @property
    def changed(self):
        """Whether anything was, or in check mode would be, changed."""
        return bool(self.written or self.removed)

    def write(self, path, content, mode="0644", secret=False):
        """Give the file this content, str or bytes; directories above it are made. secret: its content is kept out of the differences."""
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        try:
            before = self._read(path)
            changed = before != data
            if changed and not self._module.check_mode:
                self._replace(path, data)
            if os.path.exists(path):
                changed = self._module.set_mode_if_different(path, mode, changed)
        except OSError as error:
            self._module.fail_json(msg=f"{path} cannot be written: {error.strerror or error}.")
        if changed:
            self.written.append(path)
            self._differs(path, before, data, secret)

    def remove(self, path):
        """Remove the file where there is one."""
        if not os.path.lexists(path):
            return
        try:
            before = self._read(path)
            if not self._module.check_mode:
                os.unlink(path)
        except OSError as error:
            self._module.fail_json(msg=f"{path} cannot be removed: {error.strerror or error}.")
        self.removed.append(path)
        self._differs(path, before, b"", False)

    def result(self):
        """The part of a module's result that every module with files has."""
        return {"changed": self.changed, "written": self.written, "removed": self.removed, "diff": self.diff}

    def _read(self, path):
        try:
            with open(path, "rb") as source:
                return source.read()
        except FileNotFoundError:
            return None

    def _replace(self, path, data):
        """Whole or not at all: a full disk leaves the old file."""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._module.tmpdir)
        with os.fdopen(handle, "wb") as target:
            target.write(data)
        self._module.atomic_move(temporary, path)

    def _differs(self, path, before, after, secret):
        texts = ["(not shown)\n" if secret and data else (data or b"").decode("utf-8", "replace") for data in (before, after)]
        self.diff.append({"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]})
