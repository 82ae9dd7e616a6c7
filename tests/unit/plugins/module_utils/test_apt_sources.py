"""Both formats in which apt is told of repositories."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import apt_sources

CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/"


@pytest.mark.parametrize(
    "line, expected",
    [
        ("deb http://deb.example/debian trixie main contrib", ("http://deb.example/debian", "trixie", None)),
        (f"deb [signed-by=/usr/share/keyrings/cuda.gpg] {CUDA} /", (CUDA, "/", "/usr/share/keyrings/cuda.gpg")),
        (f"  deb [ arch=amd64 signed-by=/k.gpg ] {CUDA} / # comment", (CUDA, "/", "/k.gpg")),
        (f"deb [arch=amd64] {CUDA} /", (CUDA, "/", None)),
        ("# deb http://deb.example/debian trixie main", None),
        ("deb-src http://deb.example/debian trixie main", None),
        ("debris", None),
    ],
)
def test_lines(line, expected):
    found = [tuple(source.values()) for source in apt_sources.parse_list(line + "\n\n")]
    assert found == ([expected] if expected else [])


def test_stanzas():
    text = """\
# comment
Types: deb deb-src
URIs: http://a.example/debian http://b.example/debian
Suites: trixie
 trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://off.example/
Suites: /
Enabled: no

types: deb
uris: http://inline.example/
suites: /
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF

Types: deb-src
URIs: http://source.example/
Suites: sid
"""
    found = [tuple(source.values()) for source in apt_sources.parse_deb822(text)]
    assert found == [
        (f"http://{name}.example/debian", suite, "/usr/share/keyrings/debian.gpg") for name in "ab" for suite in ("trixie", "trixie-updates")
    ] + [("http://inline.example/", "/", apt_sources.INLINE)]


def test_all_files(tmp_path):
    directory = tmp_path / "etc/apt/sources.list.d"
    directory.mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text("deb http://deb.example/debian trixie main\n")
    (directory / "b.list").write_text(f"deb {CUDA} /\n")
    (directory / "a.sources").write_text(f"Types: deb\nURIs: {CUDA}\nSuites: /\nSigned-By: /etc/apt/keyrings/nvidia-cuda.asc\n")
    (directory / "b.list.save").write_text("deb http://old.example/ /\n")
    found = apt_sources.apt_sources(str(tmp_path))
    assert [(source["file"], source["signed_by"]) for source in found] == [
        ("/etc/apt/sources.list", None),
        ("/etc/apt/sources.list.d/a.sources", "/etc/apt/keyrings/nvidia-cuda.asc"),
        ("/etc/apt/sources.list.d/b.list", None),
    ]


def test_no_apt(tmp_path):
    assert apt_sources.apt_sources(str(tmp_path)) == []
