"""daemon.json with several authors."""

import pytest

from hypothesis import given, strategies as st

from ansible_collections.gpuhosts.inference.plugins.module_utils import docker_config

CONFIGS = st.recursive(
    st.booleans() | st.integers(0, 3) | st.lists(st.sampled_from("ab"), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
).map(lambda value: value if isinstance(value, dict) else {"a": value})


@pytest.mark.parametrize(
    ("current", "ours", "wanted", "merged"),
    [
        ({}, {}, {"debug": True}, {"debug": True}),
        ({"bip": "10.9.0.1/24"}, {}, {"debug": True}, {"bip": "10.9.0.1/24", "debug": True}),
        ({"debug": False}, {}, {"debug": True}, {"debug": True}),
        ({"features": {"buildkit": True}}, {}, {"features": {"cdi": True}}, {"features": {"buildkit": True, "cdi": True}}),
        ({"registry-mirrors": ["http://a", "http://b"]}, {}, {"registry-mirrors": ["http://b"]}, {"registry-mirrors": ["http://b"]}),
        ({"debug": True, "bip": "10.9.0.1/24"}, {"debug": True}, {}, {"bip": "10.9.0.1/24"}),
        ({"debug": False}, {"debug": True}, {}, {"debug": False}),
        ({"log-opts": {"max-size": "50m", "tag": "x"}}, {"log-opts": {"max-size": "50m"}}, {}, {"log-opts": {"tag": "x"}}),
        ({"log-opts": {"max-size": "50m"}}, {"log-opts": {"max-size": "50m"}}, {}, {}),
        ({"log-opts": {"max-size": "50m"}}, {"log-opts": {"max-size": "50m"}}, {"log-opts": {"max-file": "3"}}, {"log-opts": {"max-file": "3"}}),
        ({"proxies": {}}, {}, {}, {"proxies": {}}),
        ({"runtimes": "x"}, {}, {"runtimes": {"nvidia": {}}}, {"runtimes": {"nvidia": {}}}),
        ({"runtimes": {"a": {}}}, {}, {"runtimes": "x"}, {"runtimes": "x"}),
    ],
    ids=[
        "empty file",
        "a foreign key stays",
        "ours wins",
        "maps are merged",
        "a list is one value",
        "no longer wanted",
        "no longer wanted, and changed by somebody",
        "no longer wanted, in a map",
        "an emptied map goes",
        "another key in the same map",
        "an empty map of somebody stays",
        "a map for a value",
        "a value for a map",
    ],
)
def test_merge(current, ours, wanted, merged):
    assert docker_config.merge(current, ours, wanted) == merged


def holds(config, wanted):
    """Whether every wanted setting is in the configuration."""
    return all(holds(config.get(key, {}), value) if isinstance(value, dict) else config.get(key) == value for key, value in wanted.items())


@given(CONFIGS, CONFIGS, CONFIGS)
def test_a_merge_holds_what_is_wanted_and_is_done_once(current, ours, wanted):
    merged = docker_config.merge(current, ours, wanted)
    assert holds(merged, wanted)
    assert docker_config.merge(merged, wanted, wanted) == merged


@given(CONFIGS, CONFIGS)
def test_what_is_set_in_an_empty_file_can_be_taken_back(wanted, foreign):
    assert docker_config.merge(docker_config.merge({}, {}, wanted), wanted, {}) == {}
    assert docker_config.merge(foreign, {}, {}) == foreign


@pytest.mark.parametrize(
    ("before", "after", "action"),
    [
        ({"debug": True}, {"debug": True}, "none"),
        ({}, {"live-restore": True, "registry-mirrors": ["http://a"]}, "reload"),
        ({"runtimes": {}}, {"runtimes": {"nvidia": {}}}, "reload"),
        ({"registry-mirrors": ["http://a"]}, {}, "restart"),
        ({}, {"features": {"cdi": True}}, "restart"),
        ({}, {"debug": True, "log-driver": "local"}, "restart"),
        ({"data-root": "/a"}, {"data-root": "/b"}, "restart"),
    ],
)
def test_what_the_engine_must_do(before, after, action):
    assert docker_config.needed(before, after) == action


INFO = {
    "Debug": False,
    "DefaultRuntime": "runc",
    "Labels": None,
    "LiveRestoreEnabled": True,
    "RegistryConfig": {"Mirrors": ["http://mirror:5000/"]},
    "Runtimes": {"runc": {}, "nvidia": {}},
}


@pytest.mark.parametrize(
    ("wanted", "different"),
    [
        ({"live-restore": True, "registry-mirrors": ["http://mirror:5000"], "runtimes": {"nvidia": {}}, "labels": [], "bip": "x"}, []),
        ({"live-restore": False, "debug": True, "labels": ["a=b"]}, ["debug", "labels", "live-restore"]),
        ({"registry-mirrors": []}, ["registry-mirrors"]),
        ({"runtimes": {"crun": {}}, "default-runtime": "crun"}, ["default-runtime", "runtimes"]),
    ],
)
def test_what_an_engine_has_not_taken(wanted, different):
    assert docker_config.differences(wanted, INFO) == different
    assert "live-restore" in docker_config.differences({"live-restore": True}, {}), "no answer is no agreement"


def test_passwords_are_masked():
    text = '"http-proxy": "http://user:se/cret@proxy:3128", "registry-mirrors": ["http://mirror:5000"]'
    assert docker_config.masked(text.replace("se/cret", "secret")) == '"http-proxy": "http://***@proxy:3128", "registry-mirrors": ["http://mirror:5000"]'


FLAGS = "the following directives are specified both as a flag and in the configuration file: hosts: (from flag: [fd://], from file: [fd://])"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            'time="t" level=info msg="Got signal to reload configuration, reloading from: /etc/docker/daemon.json"\n'
            f'time="t" level=error msg="unable to configure the Docker daemon with file /etc/docker/daemon.json: {FLAGS}"\n',
            f"unable to configure the Docker daemon with file /etc/docker/daemon.json: {FLAGS}",
        ),
        (
            'time="t" level=info msg="Starting up"\nfailed to start daemon: invalid mirror: no scheme\n'
            "docker.service: Main process exited, code=exited, status=1/FAILURE\nFailed to start docker.service.\n",
            "failed to start daemon: invalid mirror: no scheme",
        ),
        ('time="t" level=fatal msg="a \\"quoted\\" word"\n', 'a "quoted" word'),
        ("something else\n", "something else"),
        ("", None),
    ],
)
def test_why_an_engine_refused(log, why):
    assert docker_config.refusal(log) == why


def test_a_failed_reload_is_told_from_other_errors():
    assert docker_config.reload_failed('level=error msg="unable to configure the Docker daemon with file x: y"')
    assert docker_config.reload_failed('level=error msg="Error reconfiguring the daemon: y"')
    assert not docker_config.reload_failed('level=error msg="Error running exec in container"\nlevel=info msg="Reloaded configuration: {}"')
