# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fingerprints of OpenPGP public keys, without gpg on the host (RFC 4880; the same for version 4 keys in RFC 9580)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

PUBLIC_KEY = 6  # Packet tag of a primary key; its subkeys have tag 14.

_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"


class OpenPGPError(ValueError):
    """The data is not a usable OpenPGP public key; the text says why."""


def normalise(fingerprint):
    """A fingerprint as 40 upper-case hex digits; spaces, colons and case do not matter. Raises OpenPGPError for anything else."""
    digits = re.sub(r"[\s:]", "", fingerprint).upper()
    if not re.match(r"[0-9A-F]{40}$", digits):
        raise OpenPGPError(f"{fingerprint!r} is not a fingerprint of 40 hex digits (a short key id does not identify a key)")
    return digits


def is_armoured(data):
    """Whether the bytes are ASCII armour rather than packets, which begin with a byte of 0x80 or more."""
    return data.lstrip()[:1] == b"-"


def dearmour(data):
    """Packets out of ASCII armour (section 6.2), all public key blocks one after another. Raises OpenPGPError."""
    lines = [line.strip() for line in data.decode("ascii", "replace").splitlines()]
    packets, start = b"", None
    for number, line in enumerate(lines):
        if line == _BEGIN:
            start = number + 1
        elif line == _END and start is not None:
            packets += _decode_block(lines[start:number])
            start = None
    if start is not None or not packets:
        raise OpenPGPError("it has no complete PGP PUBLIC KEY BLOCK")
    return packets


def _decode_block(lines):
    # Armour headers such as "Version:" end at the first empty line; the checksum line begins with "=".
    body = lines[lines.index("") + 1 :] if "" in lines else lines
    checksum = [line[1:] for line in body if line.startswith("=")]
    try:
        packets = base64.b64decode("".join(line for line in body if not line.startswith("=")), validate=True)
        if checksum and base64.b64decode(checksum[0], validate=True) != crc24(packets):
            raise OpenPGPError("its armour has a wrong checksum: the file is damaged")
    except binascii.Error as error:
        raise OpenPGPError(f"its armour is not base64: {error}")
    return packets


def armour(packets):
    """ASCII armour of packets (section 6.2), with its checksum."""
    text = base64.b64encode(packets).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    checksum = "=" + base64.b64encode(crc24(packets)).decode("ascii")
    return "\n".join([_BEGIN, ""] + lines + [checksum, _END, ""]).encode("ascii")


def crc24(data):
    """The armour's checksum (section 6.1), three bytes."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc.to_bytes(3, "big")


def packets(data):
    """Yield (tag, body) of each packet (section 4.2), both header formats. Raises OpenPGPError for data that is cut short or no packets."""
    position = 0
    while position < len(data):
        head = data[position]
        if not head & 0x80:
            raise OpenPGPError("it is not OpenPGP data")
        if head & 0x40:
            tag = head & 0x3F
            length, size = _new_length(data, position + 1)
        else:
            tag = head >> 2 & 0x0F
            length, size = _old_length(data, position + 1, head & 3)
        start = position + 1 + size
        if start + length > len(data):
            raise OpenPGPError("it is cut short")
        yield tag, data[start : start + length]
        position = start + length


def _new_length(data, position):
    """(body length, bytes that say so) in the new format (section 4.2.2)."""
    first = data[position : position + 1]
    if not first:
        raise OpenPGPError("it is cut short")
    if first[0] < 192:
        return first[0], 1
    if first[0] < 224:
        return (first[0] - 192 << 8) + _integer(data, position + 1, 1) + 192, 2
    if first[0] == 255:
        return _integer(data, position + 1, 4), 5
    raise OpenPGPError("it has a packet of partial length, which no key has")


def _old_length(data, position, kind):
    """(body length, bytes that say so) in the old format (section 4.2.1); kind 3 reaches to the end of the data."""
    if kind == 3:
        return len(data) - position, 0
    size = 1 << kind
    return _integer(data, position, size), size


def _integer(data, position, size):
    if position + size > len(data):
        raise OpenPGPError("it is cut short")
    return int.from_bytes(data[position : position + size], "big")


def fingerprint(body):
    """Fingerprint of a version 4 public key packet: SHA-1 of 0x99, its length in two bytes, and the packet (section 12.2)."""
    if not body or body[0] != 4:
        raise OpenPGPError("its key has version {}; only version 4 is understood".format(body[0] if body else "unknown"))
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


def primary_fingerprints(data):
    """Fingerprints of all primary keys in a key file, armoured or not, in their order. Raises OpenPGPError when there is none."""
    found = [fingerprint(body) for tag, body in packets(dearmour(data) if is_armoured(data) else data) if tag == PUBLIC_KEY]
    if not found:
        raise OpenPGPError("it holds no public key")
    return found
