"""Apt's own words, as seen, and what the operator is told."""

import pytest

from ansible_collections.gpuhosts.inference.plugins.filter.apt_problem import apt_problem


@pytest.mark.parametrize(
    "said, meant",
    [
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (unattended-upgr)",
            "another process holds apt's lock /var/lib/dpkg/lock-frontend (process 4242 (unattended-upgr)): wait until it has ended",
        ),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "the disk of /var/cache/apt/archives/ is full: make room there"),
        ("cannot copy extracted data: failed to write (No space left on device)", "the disk of the host is full: make room there"),
        (
            "E: Failed to fetch http://mirror/a/libcuda1_570.deb  404  Not Found [IP: 172.18.0.2 80]",
            "the repository names http://mirror/a/libcuda1_570.deb in its index and does not have it",
        ),
        ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. ", "run `dpkg --configure -a` on the host"),
        (
            "E: Conflicting values set for option Signed-By regarding source https://a/b/ /: /usr/share/x.gpg != ",
            "another file in /etc/apt/sources.list.d names the repository https://a/b/ with another key",
        ),
        (
            "Failed to update apt cache after 5 retries: E:The repository 'http://mirror/cuda  Release' does not have a Release file.",
            "there is no apt repository at http://mirror/cuda: check its address",
        ),
        ("no available installation candidate for libcuda1=570.9-*", "no repository of this host has libcuda1=570.9-*: check the version"),
        ("No package matching 'linux-headers-6.1' is available", "no repository of this host has linux-headers-6.1: check the version"),
        ("The following packages have unmet dependencies:", "apt finds no set of packages that fits together"),
        ("The following signatures couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC", "(key A4B469963BF863CC)"),
        ("Could not connect to mirror:80 (10.0.0.1), connection timed out", "a repository does not answer: check the host's network"),
    ],
)
def test_what_is_in_the_way(said, meant):
    assert meant in apt_problem({"msg": "'/usr/bin/apt-get install' failed", "stderr": said, "stdout": ""})


def test_apts_own_words_follow_without_repeats():
    result = {"msg": "E: one\nE: two", "stderr": "E: two\n W: noise\nE: three"}
    assert apt_problem(result) == "apt said: E: one E: two E: three"


def test_something_new_is_passed_on():
    assert apt_problem({"msg": "no idea"}) == "apt said: no idea"
