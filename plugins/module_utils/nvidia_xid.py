# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Xid lines: the NVIDIA driver's reports of card errors in the kernel log."""

from __future__ import annotations

import os
import re

_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+), ?(.*)")


def parse_records(records):
    """Xids in kernel log records as C(/dev/kmsg) gives them: C(priority,sequence,microseconds since boot,flags;message)."""
    found = []
    for record in records:
        head, separator, message = record.partition(";")
        match = _XID.search(message.split("\n")[0])
        if not match:
            continue
        bus_id, code, text = match.groups()
        stamp = head.split(",")[2:3]
        found.append(
            {
                "pci_bus_id": bus_id.lower() if "." in bus_id else bus_id.lower() + ".0",
                "code": int(code),
                "seconds_since_boot": int(stamp[0]) // 1000000 if stamp and stamp[0].isdigit() else None,
                "message": text.strip(),
            }
        )
    return found


def read_records(path="/dev/kmsg"):
    """All records still in the kernel's ring buffer; none where it may not be read (containers, ordinary users)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    records = []
    try:
        while True:
            try:
                record = os.read(descriptor, 8192)
            except BrokenPipeError:  # The record was overwritten before it was read; the next read goes on after the gap.
                continue
            except OSError:  # BlockingIOError at the end of the log.
                break
            if not record:
                break
            records.append(record.decode("utf-8", "replace"))
    finally:
        os.close(descriptor)
    return records
