"""An instance from one generation to the next, on a made-up host: systemctl and docker are programs that write down how they were called."""

import copy
import hashlib
import json
import os
import socket

import pytest
from ansible_collections.gpuhosts.inference.plugins.module_utils import vllm_store, vllm_supervisor
from ansible_collections.gpuhosts.inference.plugins.modules import vllm_service, vllm_service_facts

# A unit is active after it was started, until it is stopped. Starting an engine whose definition says "bad" works too: that is the gate's to see.
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> {root}/calls
case "$1" in
    show) test -e {root}/active && echo active || echo inactive ;;
    is-enabled) test -e {root}/enabled ;;
    enable) touch {root}/enabled ;;
    disable) rm -f {root}/enabled ;;
    restart) if test -e {root}/broken; then echo "Failed to connect to bus" >&2; exit 1; fi
             touch {root}/active; cp {root}/etc/vllm/coder/generation {root}/run/vllm/coder.running ;;
    stop) rm -f {root}/active ;;
    cat) test -e {root}/etc/systemd/system/$2 ;;
esac
"""
# There is a container after `vllm-instance run`, until it is removed.
DOCKER = """#!/bin/sh
echo "docker $*" >> {root}/calls
case "$1 $2" in
    "inspect --format={{{{.State"*) test -e {root}/container && echo "true false" ;;
    inspect*) test -e {root}/container ;;
    rm*) rm -f {root}/container ;;
esac
"""
PROGRAM = """#!/bin/sh
echo "vllm-instance $*" >> {root}/calls
if [ "$1" = stop ]; then rm -f {root}/container; fi
if [ "$1" = run ]; then touch {root}/container; cp {root}/etc/vllm/coder/generation {root}/run/vllm/coder.running; fi
"""


def make(port=18999, argv=("--model", "/model/m"), supervisor="systemd", key="planted", steps=3, rungs=1, **more):
    """A service as the store knows it."""
    definition = {
        "name": "coder", "supervisor": supervisor, "runtime": "container", "engine_version": "0.8.5", "served_model_name": "coder", "port": port,
        "url": f"http://127.0.0.1:{port}", "model": {"repo_id": "a/m", "revision": None, "commit": "c1", "path": "/m"},
        "image": {"reference": "vllm/vllm-openai:v0.8.5", "id": "sha256:1"}, "gpus": [0], "command": ["docker", "run", "image"],
        "rungs": [{"reason": "as planned", "changes": {}, "argv": list(argv), "kv_tokens": 100}] * rungs, "hang_argv": [],
        "expected": {"kv_tokens": 100, "block_size": 16}, "limits": {"drain_seconds": 7, "ladder_steps": steps},
    } | more  # fmt: skip
    unit = "[Service]\nExecStart=vllm-instance run coder\n" if supervisor == "systemd" else None
    compose = f"command: {list(argv)}\n" if supervisor == "compose" else None
    return {"definition": definition, "environment": f"VLLM_API_KEY={key}\n", "unit": unit, "compose": compose}


def without_secret(service):
    """A service as the filter hands it over: the environment goes its own way."""
    return {key: value for key, value in service.items() if key != "environment"}


class Host:
    def __init__(self, root, run_module):
        self.root, self._run = root, run_module

    def set(self, state, service=None, check=False, **more):
        given = without_secret(service) if service else None
        return self._run(vllm_service, check=check, name="coder", state=state, service=given, environment=(service or {}).get("environment", ""), **more)

    def facts(self, *services, **more):
        environments = {service["definition"]["name"]: service["environment"] for service in services}
        result = self._run(vllm_service_facts, services=[without_secret(service) for service in services], environments=environments, **more)
        return result["ansible_facts"]["gpuhosts_services"]

    def difference(self, *services):
        return self.facts(*services)["instances"]["coder"]["difference"]

    def calls(self):
        path = self.root / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        asks = ("systemctl show", "systemctl is-enabled", "systemctl cat", "docker inspect", "systemctl reset-failed")
        return [call for call in found if not call.startswith(asks)]

    def read(self, path):
        return (self.root / path).read_text()

    def serve(self, service):
        """Bring the service to `proved`."""
        self.set("switched", service)
        self.set("proved")
        self.calls()

    def statuses(self):
        return [(record["number"], record["status"]) for record in vllm_store.Store("coder", str(self.root)).records()]


@pytest.fixture
def host(tmp_path, run_module, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "run/vllm").mkdir(parents=True)
    for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER), ("vllm-instance", PROGRAM)):
        path = tmp_path / "bin" / name
        path.write_text(text.format(root=tmp_path))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(vllm_supervisor, "PROGRAM", str(tmp_path / "bin/vllm-instance"))
    for module in (vllm_service, vllm_service_facts):
        monkeypatch.setattr(module, "ROOT", str(tmp_path))
    return Host(tmp_path, run_module)


def test_a_new_instance_is_written_started_and_proved(host):
    service = make()
    assert host.difference(service) == "new"
    result = host.set("switched", service)
    assert (result["changed"], result["restarted"], result["generation"], result["previous"]) == (True, True, 1, None)
    assert host.calls() == ["systemctl daemon-reload", "systemctl enable --quiet vllm-coder.service", "systemctl restart --no-block vllm-coder.service"]
    assert json.loads(host.read("etc/vllm/coder/definition.json")) == service["definition"]
    assert (host.root / "etc/vllm/coder/environment").stat().st_mode & 0o777 == 0o600
    assert (host.root / "var/lib/vllm/coder/generations").stat().st_mode & 0o777 == 0o700
    assert host.difference(service) == "unproved"
    assert host.set("proved")["changed"]
    assert host.difference(service) is None
    assert not host.set("switched", service)["changed"] and not host.set("proved")["changed"]
    assert host.calls() == []


def test_check_mode_writes_nothing_and_shows_no_key(host):
    result = host.set("switched", make(key="planted-key"), check=True)
    assert result["changed"] and not result["restarted"]
    assert "planted-key" not in json.dumps(result["diff"])
    assert [entry["after_header"].rpartition("/")[2] for entry in result["diff"]] == ["definition.json", "environment", "vllm-coder.service"]
    assert not (host.root / "etc/vllm").exists()


def test_what_runs_is_restarted_only_when_it_differs(host):
    host.serve(make())
    more_steps = make(rungs=3, steps=5)
    assert host.difference(more_steps) == "updated"
    result = host.set("switched", more_steps)
    assert (result["changed"], result["restarted"]) == (True, False)
    assert host.calls() == ["systemctl daemon-reload"]
    assert host.difference(more_steps) is None, "it is the engine that was proved"

    for other in (make(argv=["--other"]), make(key="another"), make(command=["docker", "run", "--more"]), make(image={"reference": "x", "id": "sha256:2"})):
        assert host.difference(other) == "changed"
    result = host.set("switched", make(argv=["--other"]))
    assert result["restarted"]
    assert host.calls()[0] == "systemctl stop vllm-coder.service"


def test_what_was_never_proved_is_not_proved_by_an_update(host):
    host.set("switched", make())
    assert host.difference(make(rungs=3)) == "updated"
    result = host.set("switched", make(rungs=3))
    assert (result["restarted"], result["proved"]) == (False, False)
    assert host.difference(make(rungs=3)) == "unproved"
    host.set("proved")
    assert host.set("switched", make(rungs=4))["proved"]


def test_a_bad_change_is_taken_back(host):
    good, bad = make(), make(argv=["--bad"])
    host.serve(good)
    assert host.set("switched", bad)["previous"] == 1
    result = host.set("restored", why="it does not answer")
    assert (result["generation"], result["previous"], result["restarted"]) == (1, 2, True)
    assert result["definition"] == good["definition"]
    assert host.statuses() == [(1, "proved"), (2, "failed")]
    assert json.loads(host.read("etc/vllm/coder/definition.json")) == good["definition"]
    assert host.read("etc/vllm/coder/generation") == "1\n"
    assert host.difference(good) is None
    assert host.difference(bad) == "changed"


def test_the_first_configuration_has_nothing_to_go_back_to(host):
    host.set("switched", make())
    host.calls()
    refused = host.set("restored")
    assert refused["failed"] and not refused["disturbed"]
    assert refused["msg"] == "coder: there is no other generation that answered on this host, only 1 (pending). Nothing was changed."
    assert host.calls() == []
    result = host.set("restored", without_generation="stopped", why="it does not answer")
    assert (result["generation"], result["restarted"], result["definition"]) == (None, False, None)
    stopped = ["systemctl stop vllm-coder.service", "docker rm --force vllm-coder", "systemctl disable --quiet vllm-coder.service"]
    assert host.calls() == stopped
    assert host.difference(make()) == "stopped"


def test_a_change_that_failed_before_its_files_were_there_goes_back_to_what_is_installed(host, monkeypatch):
    host.serve(make(argv=["--older"]))
    host.serve(make(argv=["--newer"]))

    def fails(self):
        raise vllm_supervisor.SupervisorError("systemctl stop failed (1): no output")

    with monkeypatch.context() as patch:
        patch.setattr(vllm_supervisor.Supervisor, "stop", fails)
        assert host.set("switched", make(argv=["--newest"]))["disturbed"]
    result = host.set("restored", without_generation="stopped", why="it could not be stopped")
    assert result["definition"]["rungs"][0]["argv"] == ["--newer"]
    assert host.difference(make(argv=["--newer"])) is None


def test_a_named_generation_can_be_put_back(host):
    for argv in (["--one"], ["--two"], ["--three"]):
        host.serve(make(argv=argv))
    assert host.set("restored", generation=1)["definition"]["rungs"][0]["argv"] == ["--one"]
    assert host.statuses() == [(1, "proved"), (2, "proved"), (3, "proved")]
    refused = host.set("restored", generation=9)
    assert refused["msg"] == "coder: there is no generation 9 on this host, only 1 (proved), 2 (proved), 3 (proved). Nothing was changed."


def test_only_the_newest_generations_are_kept(host):
    for number in range(6):
        host.set("switched", make(argv=[f"--{number}"]))
        host.set("proved", generations_kept=3)
    assert [number for number, status in host.statuses()] == [4, 5, 6]


def test_a_port_that_is_taken_stops_nothing(host):
    host.serve(make())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = host.set("switched", make(port=port))
    assert result["failed"] and not result["disturbed"]
    assert f"coder: port {port} is taken by another program on this host" in result["msg"]
    assert host.calls() == []
    assert host.difference(make()) is None


@pytest.mark.parametrize("where", ["generations", "files"])
def test_a_full_disk_stops_nothing(host, monkeypatch, where):
    host.serve(make())
    stage = vllm_store.stage

    def full(path, text, mode=0o644):
        if ("generations" in path) == (where == "generations"):
            raise vllm_store.StoreError(f"{path} cannot be written: No space left on device")
        return stage(path, text, mode)

    with monkeypatch.context() as patch:
        patch.setattr(vllm_store, "stage", full)
        result = host.set("switched", make(argv=["--new"]))
    assert result["failed"] and not result["disturbed"]
    assert result["msg"].endswith("cannot be written: No space left on device.")
    assert not [call for call in host.calls() if "stop" in call]
    assert host.difference(make()) is None
    assert not list((host.root / "etc").rglob(".*")), "nothing half-written is left"
    assert host.set("switched", make(argv=["--new"]))["restarted"]


def test_a_run_that_was_cut_off_is_taken_up(host, monkeypatch):
    """The power fails between the old engine's stop and the new one's start, and then between the files and the start."""
    host.serve(make())
    new = make(argv=["--new"])

    class Cut(BaseException):
        pass

    def cut(self):
        raise Cut

    for method in ("stop", "start"):
        with monkeypatch.context() as patch:
            patch.setattr(vllm_supervisor.Supervisor, method, cut)
            with pytest.raises(Cut):
                host.set("switched", new)
        assert host.difference(new) == "changed"
    assert host.set("switched", new)["restarted"]
    host.set("proved")
    assert host.difference(new) is None


def test_an_engine_that_cannot_be_started_is_said_to_be_disturbed(host):
    host.serve(make())
    (host.root / "broken").touch()
    result = host.set("switched", make(argv=["--new"]))
    assert result["failed"] and result["disturbed"]
    assert "systemctl restart --no-block vllm-coder.service failed (1): Failed to connect to bus" in result["msg"]


def test_steps_down_end_with_what_took_them(host):
    host.serve(make())
    (host.root / "var/lib/vllm/coder/state.json").write_text('{"rung": 2, "status": "running"}')
    assert host.facts(make())["instances"]["coder"]["state"]["rung"] == 2
    host.set("switched", make(argv=["--new"]))
    assert "vllm-instance reset coder --no-start" in host.calls()


def test_quarantine_is_not_ended_by_a_run(host):
    host.serve(make())
    (host.root / "var/lib/vllm/coder/state.json").write_text('{"rung": 0, "status": "quarantined"}')
    (host.root / "active").unlink()
    assert host.difference(make()) == "quarantined"
    assert host.difference(make(argv=["--new"])) == "changed"


def test_a_stopped_instance_is_found(host):
    host.serve(make())
    (host.root / "active").unlink()
    assert host.difference(make()) == "stopped"
    assert host.set("switched", make())["restarted"]
    (host.root / "enabled").unlink()
    assert host.difference(make()) == "stopped"


def test_another_supervisor_takes_over(host):
    host.serve(make())
    docker = make(supervisor="docker", command=["docker", "run", "--detach", "image"])
    assert host.difference(docker) == "changed"
    host.set("switched", docker)
    stopped = ["systemctl stop vllm-coder.service", "docker rm --force vllm-coder", "systemctl disable --quiet vllm-coder.service"]
    assert host.calls() == [*stopped, "vllm-instance run coder"]
    assert not (host.root / "etc/systemd/system/vllm-coder.service").exists()
    host.set("proved")
    assert host.difference(docker) is None
    host.set("switched", make())
    assert host.calls()[:2] == ["vllm-instance stop coder", "docker rm --force vllm-coder"]
    assert not (host.root / "container").exists()


def test_nothing_is_left_of_an_absent_instance(host):
    host.serve(make())
    assert host.facts()["instances"]["coder"]["difference"] == "unwanted"
    result = host.set("absent")
    assert result["changed"]
    assert [str(path) for top in ("etc", "var", "run") for path in (host.root / top).rglob("*coder*")] == []
    assert "docker volume rm --force vllm-coder-cache" in host.calls()
    assert not host.set("absent")["changed"]
    assert host.facts()["instances"] == {}


def test_the_watchdog_is_told_that_a_change_is_under_way(host, monkeypatch):
    seen = []
    stop = vllm_supervisor.Supervisor.stop

    def look(self):
        seen.append((host.root / "run/vllm/coder.changing").read_text().strip() == str(os.getpid()))
        stop(self)

    monkeypatch.setattr(vllm_supervisor.Supervisor, "stop", look)
    host.serve(make())
    host.set("switched", make(argv=["--new"]))
    assert seen == [True]
    assert not (host.root / "run/vllm/coder.changing").exists()


def test_outdated_files_are_named(host, tmp_path):
    (tmp_path / "same").write_text("1\n")
    (tmp_path / "other").write_text("2\n")
    checksums = dict.fromkeys((str(tmp_path / name) for name in ("same", "other", "gone")), hashlib.sha256(b"1\n").hexdigest())
    assert host.facts(checksums=checksums)["outdated_files"] == [str(tmp_path / "gone"), str(tmp_path / "other")]


def test_a_service_is_not_mixed_up_by_the_module(host):
    service = make()
    given = copy.deepcopy(service)
    host.serve(service)
    assert service == given
