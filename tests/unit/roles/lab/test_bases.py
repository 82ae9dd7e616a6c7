"""Which base images the lab can make itself, and which hosts need which."""

import pathlib

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = pathlib.Path(__file__).parents[4] / "roles/lab"


def value(expression, **variables):
    loader = DataLoader()
    known = loader.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True)
    known |= loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    return Templar(loader, variables=known | variables).template(trust_as_template("{{ " + expression + " }}"))


@pytest.mark.parametrize(
    "image, names",
    [
        ("docker.io/library/debian:trixie-slim", ["gpuhosts-lab/base"]),
        ("docker.io/library/debian:13", ["gpuhosts-lab/base"]),
        ("docker.io/library/debian:bookworm-slim", ["gpuhosts-lab/base:bookworm"]),
        ("debian:12", ["gpuhosts-lab/base:bookworm"]),
        ("docker.io/library/ubuntu:24.04", []),
        ("docker.io/library/debian:11", []),
    ],
)
def test_what_stands_in_for_an_image_that_cannot_be_pulled(image, names):
    assert value("__lab_base_names", __lab_base=image) == [image, *names]


def test_every_base_is_made_once_and_the_mirrors_first():
    hostvars = {"gpu01": {"lab_base_image": "debian:12"}, "gpu02": {}, "gpu03": {"lab_base_image": "debian:12"}}
    assert value("__lab_bases_wanted", lab_hosts=list(hostvars), hostvars=hostvars) == ["docker.io/library/debian:trixie-slim", "debian:12"]


@pytest.mark.parametrize(
    "hosts, engines",
    [
        ({"gpu01": {}, "gpu02": {}}, ["real"]),
        ({"gpu01": {"lab_engine": "simulated"}}, ["simulated"]),
        ({"gpu01": {"lab_extra_engines": ["0.19.1"]}, "gpu02": {"lab_engine": "simulated"}}, ["real", "simulated", "v1"]),
        ({"gpu01": {"lab_engine": "simulated", "lab_native": "true"}}, ["real", "simulated"]),
    ],
)
def test_only_engines_that_a_host_asks_for_are_built(hosts, engines):
    assert value("__lab_engines", lab_hosts=list(hosts), hostvars=hosts) == engines
