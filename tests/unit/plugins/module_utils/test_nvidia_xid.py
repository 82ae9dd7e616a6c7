"""Xid lines in the kernel log."""

from ansible_collections.gpuhosts.inference.plugins.module_utils import nvidia_xid

RECORDS = [
    "6,100,5140900,-;NET: Registered PF_VSOCK protocol family\n SUBSYSTEM=vsock\n",
    "3,2042,86400123456,-;NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n",
    "3,2043,86400200000,-;NVRM: Xid (PCI:0000:86:00): 31, pid=1234, name=python3, Ch 00000008, intr 00000000. MMU Fault\n",
    "junk",
]


def test_records():
    first, second = nvidia_xid.parse_records(RECORDS)
    assert first == {
        "pci_bus_id": "0000:3b:00.0",
        "code": 79,
        "seconds_since_boot": 86400,
        "message": "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    }
    assert (second["pci_bus_id"], second["code"]) == ("0000:86:00.0", 31)


def test_no_log_is_no_records(tmp_path):
    assert nvidia_xid.read_records(str(tmp_path / "kmsg")) == []
    (tmp_path / "kmsg").write_text(RECORDS[1])
    assert len(nvidia_xid.read_records(str(tmp_path / "kmsg"))) == 1
