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
