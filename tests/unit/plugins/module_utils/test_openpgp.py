"""Fingerprints of keys, against gpg's own where gpg is there."""

import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import openpgp

KEY = (pathlib.Path(__file__).parents[2] / "fixtures" / "openpgp_test_key.asc").read_bytes()
FINGERPRINT = "6D21318E53F4FAFCCD22AD3F73795FD5F7A184D7"
BINARY = openpgp.dearmour(KEY)


def new_format(data):
    """The same packets with new-format headers, lengths in one, two or five octets."""
    result = b""
    for number, (tag, body) in enumerate(openpgp.packets(data)):
        size = len(body)
        if number == 0:
            length = b"\xff" + size.to_bytes(4, "big")
        elif size < 192:
            length = bytes([size])
        else:
            length = bytes([(size - 192 >> 8) + 192, (size - 192) & 0xFF])
        result += bytes([0xC0 | tag]) + length + body
    return result


def test_armoured_and_binary():
    assert openpgp.primary_fingerprints(KEY) == [FINGERPRINT]
    assert openpgp.primary_fingerprints(BINARY) == [FINGERPRINT]


def test_packets_of_the_test_key():
    assert [tag for tag, body in openpgp.packets(BINARY)] == [6, 13, 2, 14, 2]


def test_new_format_headers():
    assert openpgp.primary_fingerprints(new_format(BINARY)) == [FINGERPRINT]
    # User ids of 200 bytes have two-octet lengths, and the key that follows is still found.
    long_user_id = bytes([0xC0 | 13, 192, 8]) + b"x" * 200
    assert openpgp.primary_fingerprints(long_user_id + new_format(BINARY)) == [FINGERPRINT]


def test_old_format_with_four_octets_and_to_the_end():
    (tag, body) = next(openpgp.packets(BINARY))
    assert openpgp.primary_fingerprints(bytes([0x80 | tag << 2 | 2]) + len(body).to_bytes(4, "big") + body) == [FINGERPRINT]
    assert openpgp.primary_fingerprints(bytes([0x80 | tag << 2 | 3]) + body) == [FINGERPRINT]


def test_several_keys_and_several_blocks():
    assert openpgp.primary_fingerprints(BINARY + BINARY) == [FINGERPRINT] * 2
    assert openpgp.primary_fingerprints(KEY + b"\nsome words between\n" + KEY) == [FINGERPRINT] * 2


def test_armour_headers_and_windows_line_ends():
    text = KEY.replace(b"BLOCK-----\n\n", b"BLOCK-----\nVersion: GnuPG v2\nComment: x: y\n\n", 1).replace(b"\n", b"\r\n")
    assert openpgp.primary_fingerprints(text) == [FINGERPRINT]


def test_armour_round_trip():
    assert openpgp.dearmour(openpgp.armour(BINARY)) == BINARY
    assert openpgp.armour(BINARY) == KEY


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no public key"),
        (b"<html>404</html>", "not OpenPGP data"),
        (BINARY[:40], "cut short"),
        (BINARY[:1], "cut short"),
        (b"\xc6", "cut short"),
        (b"\xc6\xe1x", "partial length"),
        (b"\xc6\x03\x03ab", "version 3"),
        (b"\xc6\x00", "version unknown"),
        (bytes([0xC0 | 13, 1]) + b"x", "no public key"),
        (KEY.replace(b"=+/Wa", b"=+/Wb"), "wrong checksum"),
        (KEY.replace(b"mDME", b"mD*E"), "not base64"),
        (KEY[:200], "no complete PGP PUBLIC KEY BLOCK"),
        (KEY.replace(b"PUBLIC KEY BLOCK", b"MESSAGE"), "no complete PGP PUBLIC KEY BLOCK"),
    ],
)
def test_what_is_no_key(data, reason):
    with pytest.raises(openpgp.OpenPGPError, match=reason):
        openpgp.primary_fingerprints(data)


def test_normalise():
    assert openpgp.normalise("6d21 318e 53f4 fafc cd22  ad3f 7379 5fd5 f7a1 84d7") == FINGERPRINT
    for wrong in ("", "73795FD5F7A184D7", "Z" * 40, FINGERPRINT + "00"):
        with pytest.raises(openpgp.OpenPGPError):
            openpgp.normalise(wrong)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
@pytest.mark.parametrize("algorithm", ["rsa2048", "ed25519", "nistp256"])
def test_agrees_with_gpg(tmp_path, algorithm):
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run(gpg + ["--passphrase", "", "--quick-gen-key", "x" * 300, algorithm, "sign", "never"], check=True, capture_output=True)
    listing = subprocess.run(gpg + ["--list-keys", "--with-colons"], check=True, capture_output=True, text=True).stdout
    expected = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    for arguments in (["--export"], ["--armor", "--export"]):
        exported = subprocess.run(gpg + arguments, check=True, capture_output=True).stdout
        assert openpgp.primary_fingerprints(exported) == [expected]
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, capture_output=True)
