"""The module on a made-up engine: programs that write down how they were called and do as they are told."""

import json
import stat

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import docker_socket
from ansible_collections.gpuhosts.inference.plugins.modules import docker_daemon_config

# Each call is a line of `calls`. An engine that starts or reloads copies the file to `running` unless the file has the word "bad" in it.
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> {0}/calls
case $1 in
    is-active) test -e {0}/active ;;
    reset-failed) ;;
    restart|reload)
        if grep -q bad {0}/daemon.json 2>/dev/null; then
            echo 'time="t" level=error msg="unable to configure the Docker daemon with file daemon.json: bad"' >> {0}/log
            test $1 = reload
        else
            cat {0}/daemon.json > {0}/running 2>/dev/null || echo '{{}}' > {0}/running
            echo 'time="t" level=info msg="Reloaded configuration: {{}}"' >> {0}/log
        fi ;;
esac
"""
JOURNALCTL = """#!/bin/sh
cat {0}/log
: > {0}/log
"""
DOCKERD = """#!/bin/sh
if [ "$1" = --help ]; then echo "{1}"; exit; fi
if grep -q nonsense "$3"; then
    echo "unable to configure the Docker daemon with file $3: the following directives don't match any configuration option: nonsense" >&2
    exit 1
fi
"""


class Engine:
    def __init__(self, directory, run_module):
        self.directory = directory
        self.file = directory / "daemon.json"
        self.state = directory / "state.json"
        self._run = run_module

    def set(self, config, owner="docker_engine", **more):
        arguments = {"config": config, "owner": owner, "path": str(self.file), "state_path": str(self.state), "timeout": 1}
        return self._run(docker_daemon_config, **(arguments | more))

    def calls(self):
        path = self.directory / "calls"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.removeprefix("systemctl ") for line in lines]

    def content(self):
        return json.loads(self.file.read_text())

    def program(self, name, text):
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def engine(tmp_path, run_module, monkeypatch):
    made = Engine(tmp_path, run_module)
    made.program("systemctl", SYSTEMCTL.format(tmp_path))
    made.program("journalctl", JOURNALCTL.format(tmp_path))
    made.program("dockerd", DOCKERD.format(tmp_path, "--validate"))
    (tmp_path / "active").touch()
    (tmp_path / "log").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")

    def info(path, timeout=10):
        running = json.loads((tmp_path / "running").read_text())
        return {"Debug": running.get("debug", False), "LiveRestoreEnabled": running.get("live-restore", False), "Runtimes": running.get("runtimes", {})}

    monkeypatch.setattr(docker_socket, "info", info)
    return made


def test_a_new_file_then_nothing(engine):
    first = engine.set({"log-driver": "json-file"})
    assert (first["changed"], first["action"]) == (True, "restart")
    assert engine.content() == {"log-driver": "json-file"}
    assert stat.S_IMODE(engine.file.stat().st_mode) == 0o644
    assert stat.S_IMODE(engine.state.stat().st_mode) == 0o600
    assert engine.calls() == ["reset-failed docker.service", "restart docker.service"]
    second = engine.set({"log-driver": "json-file"})
    assert (second["changed"], second["action"]) == (False, "none")
    assert engine.calls() == []


def test_foreign_keys_mode_and_format_stay(engine):
    engine.file.write_text('{"bip": "10.9.0.1/24",\n "debug": true}')
    engine.file.chmod(0o600)
    engine.set({"live-restore": True})
    assert engine.content() == {"bip": "10.9.0.1/24", "debug": True, "live-restore": True}
    assert stat.S_IMODE(engine.file.stat().st_mode) == 0o600
    text = engine.file.read_text()
    engine.file.write_text(text.replace("\n", " "))
    assert engine.set({"live-restore": True})["changed"] is False, "another layout is no other configuration"


def test_reloadable_keys_are_reloaded(engine):
    assert engine.set({"live-restore": True})["action"] == "reload"
    assert engine.calls() == ["is-active --quiet docker.service", "reload docker.service"]


def test_an_engine_that_does_not_run_is_started(engine):
    (engine.directory / "active").unlink()
    engine.set({"live-restore": True})
    assert engine.calls()[-1] == "restart docker.service"


def test_drift_is_mended(engine):
    engine.set({"live-restore": True})
    engine.file.write_text('{"live-restore": false}')
    result = engine.set({"live-restore": True})
    assert (result["changed"], result["action"]) == (True, "reload")
    assert engine.content() == {"live-restore": True}


def test_owners_take_back_only_their_own(engine):
    engine.set({"live-restore": True, "debug": True})
    engine.set({"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}, owner="toolkit")
    engine.set({"live-restore": True})
    assert engine.content() == {"live-restore": True, "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    engine.set({}, owner="toolkit")
    assert engine.content() == {"live-restore": True}
    assert list(json.loads(engine.state.read_text())["owners"]) == ["docker_engine"]


def test_the_engine_refuses_beforehand(engine):
    engine.set({"live-restore": True})
    engine.calls()
    result = engine.set({"live-restore": True, "nonsense": 1})
    assert result["msg"] == (
        f"The Docker Engine refuses the settings for {engine.file}: unable to configure the Docker daemon: the following directives don't match any "
        "configuration option: nonsense. Nothing was changed."
    )
    assert engine.content() == {"live-restore": True}
    assert engine.calls() == []


def test_an_old_engine_does_not_judge(engine):
    engine.program("dockerd", DOCKERD.format(engine.directory, "--config-file"))
    assert engine.set({"nonsense": 1})["changed"] is True


@pytest.mark.parametrize("setting", ["labels", "data-root"])
def test_the_old_file_comes_back(engine, setting):
    engine.set({"live-restore": True})
    engine.calls()
    result = engine.set({"live-restore": True, setting: "bad"})
    assert result["failed"] is True
    assert result["msg"].startswith(f"The Docker Engine does not take the settings in {engine.file}: unable to configure the Docker daemon")
    assert result["msg"].endswith(" Correct the setting, then run again.")
    assert engine.content() == {"live-restore": True}
    assert json.loads((engine.directory / "running").read_text()) == {"live-restore": True}
    assert ("restart docker.service" in engine.calls()) is (setting == "data-root")
    assert engine.set({"live-restore": True})["changed"] is False


def test_the_first_file_goes_when_it_is_bad(engine):
    assert engine.set({"data-root": "bad"})["failed"] is True
    assert not engine.file.exists()


def test_an_engine_that_ignores_a_reload_is_found_out(engine, monkeypatch):
    monkeypatch.setattr(docker_socket, "info", lambda path: {"LiveRestoreEnabled": False})
    result = engine.set({"live-restore": True})
    assert "after 1 s it still runs with its old live-restore. The old file is back, and the engine kept running on it." in result["msg"]
    assert not engine.file.exists()


def test_an_interrupted_change_is_finished(engine, monkeypatch):
    class Killed(BaseException):
        pass

    def take(self, action, config, timeout):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(docker_daemon_config.Engine, "take", take)
        with pytest.raises(Killed):
            engine.set({"data-root": "/srv/docker"})
    assert engine.content() == {"data-root": "/srv/docker"}
    engine.calls()
    result = engine.set({"data-root": "/srv/docker"})
    assert (result["changed"], result["action"]) == (True, "restart")
    assert "restart docker.service" in engine.calls()
    assert engine.set({"data-root": "/srv/docker"})["changed"] is False


@pytest.mark.parametrize(
    ("text", "why"),
    [("{\n  \"debug\": true,\n}", "is not valid JSON (Expecting property name enclosed in double quotes: line 3 column 1"), ("[]", "is not a JSON object")],
)
def test_a_file_that_cannot_be_used(engine, text, why):
    engine.file.write_text(text)
    result = engine.set({"live-restore": True})
    assert f"{engine.file} {why}" in result["msg"]
    assert result["msg"].endswith(": correct or remove it, then run again. Nothing was changed.")
    assert engine.file.read_text() == text
    engine.file.write_text("")
    assert engine.set({"live-restore": True})["changed"] is True


def test_a_lost_state_takes_nothing_away(engine):
    engine.set({"live-restore": True, "debug": True})
    engine.state.write_text("{")
    engine.set({"live-restore": True})
    assert engine.content() == {"live-restore": True, "debug": True}


def test_check_mode_and_diff_tell_without_doing(engine):
    engine.file.write_text('{"proxies": {"http-proxy": "http://user:secret@proxy:3128"}}')
    result = engine.set({"live-restore": True}, check=True)
    assert (result["changed"], result["action"]) == (True, "reload")
    assert '"live-restore": true' in result["diff"]["after"] and '"live-restore": true' not in result["diff"]["before"]
    assert "secret" not in json.dumps(result)
    assert engine.calls() == [] and not engine.state.exists() and "live-restore" not in engine.file.read_text()


def test_a_bare_host_in_check_mode(engine, monkeypatch):
    monkeypatch.setattr(docker_daemon_config.AnsibleModule, "get_bin_path", lambda self, name: None)
    result = engine.set({"nonsense": True}, check=True)
    assert (result["changed"], result["action"]) == (True, "restart")
    assert not engine.file.exists()
