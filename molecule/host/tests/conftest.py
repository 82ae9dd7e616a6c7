"""What the scenario's tests run on: two converged hosts of different distributions, which they break and mend."""

import collections
import contextlib
import functools
import os
import pathlib

import lab_play
import pytest

LAB = os.environ["LAB_NAME"]
INVENTORIES = ("inventories/lab", "molecule/host/inventory")
HOSTS = ("gpu01", "gpu02")
FIGURES = []


def pytest_terminal_summary(terminalreporter):
    """What the tests have counted, where a passing run shows it."""
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figure():
    """figure(text): a line for the end of the run."""
    return FIGURES.append


@pytest.fixture(scope="session")
def play():
    """play(playbook, *arguments, host=None): a real playbook on the scenario's inventory; (status, output with single spaces).

    The playbook is one of the checkout, or role.yml beside this file with `-e role=NAME`: one role alone.
    """
    return functools.partial(lab_play.play, inventories=INVENTORIES)


@pytest.fixture(scope="session")
def play_role(play):
    """play_role(role, *arguments, host=None): one role of the collection alone."""
    playbook = pathlib.Path(__file__).parent / "role.yml"
    return lambda role, *arguments, **more: play(playbook, f"--extra-vars=role=gpuhosts.inference.{role}", *arguments, **more)


@pytest.fixture(scope="session")
def on():
    """on(host): the lab_play.Machine, to run commands inside."""
    return lambda host: lab_play.Machine(f"{LAB}-{host}")


@pytest.fixture(scope="session")
def hosts(on):
    """{"gpu01": "debian12", "gpu02": "debian13"}, asked of the hosts themselves; with MOLECULE_IMAGE both are that."""
    return {host: on(host).out(". /etc/os-release; echo $ID${VERSION_ID//./}") for host in HOSTS}


@pytest.fixture(scope="session")
def old():
    """The host of the older distribution: Debian 12 unless MOLECULE_IMAGE says otherwise."""
    return HOSTS[0]


@pytest.fixture(scope="session")
def new():
    """The host of the newer distribution: Debian 13 unless MOLECULE_IMAGE says otherwise."""
    return HOSTS[1]


@pytest.fixture
def fault(on):
    """fault(host, *words): tell the host's stand-ins to fail; taken back afterwards."""
    told = set()

    def tell(host, *words):
        told.add(host)
        on(host).fault(*words)

    yield tell
    for host in told:
        on(host).fault()


@pytest.fixture(scope="session")
def downloads(on):
    """with downloads() as requests: ... What the hosts asked the mirror for meanwhile, a line each: of its apt repositories, its registry and its hub."""

    def log():
        registry = "journalctl --unit docker-registry --output cat --no-pager | grep -E '\"(GET|HEAD) /v2/' || true"
        return on("mirror").out(f"cat /var/log/nginx/apt.log /var/log/nginx/hub.log; {registry}").splitlines()

    @contextlib.contextmanager
    def count():
        found, before = [], collections.Counter(log())
        yield found
        found += (collections.Counter(log()) - before).elements()

    return count
