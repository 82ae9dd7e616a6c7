# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ledger of measured starts as a file on the controller. What an entry is and teaches: planner/calibration.py."""

from __future__ import annotations

import json

from ansible.errors import AnsibleFilterError


def read_ledger(ledger) -> list[dict]:
    """The entries of a ledger, which is a list of them or the path of a JSON file. A file that is not there yet has none.

    AnsibleFilterError for a file that cannot be read, and for what is neither.
    """
    if isinstance(ledger, str):
        path = ledger
        try:
            with open(path, encoding="utf-8") as source:
                ledger = json.load(source)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise AnsibleFilterError(f"The ledger {path} cannot be read: {error}. Correct it, or remove it to begin anew.") from error
    if not isinstance(ledger, (list, tuple)):
        raise AnsibleFilterError("The ledger is neither a list of measured starts nor the path of a file with one.")
    return list(ledger)
