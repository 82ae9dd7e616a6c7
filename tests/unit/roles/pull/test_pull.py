"""The program that gpuhosts-pull.service runs, with a command that prints what Ansible would."""

import fcntl
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import yaml

from ansible_collections.gpuhosts.inference.plugins.module_utils import host_files

CHECKOUT = pathlib.Path(__file__).parents[4]
PROGRAM = CHECKOUT / "roles/pull/files/pull.py"
RECAP = "PLAY RECAP ****\ngpu01                      : ok=12   changed={}    unreachable=0    failed={}    skipped=3    rescued=0    ignored=0   "


@pytest.fixture
def state(tmp_path):
    directory = tmp_path / "var/lib/gpuhosts-pull"
    directory.mkdir(parents=True)
    return directory


def command(state, *words):
    """The program as the unit starts it, with another directory for what it keeps."""
    source = f"import runpy, sys; m = runpy.run_path({str(PROGRAM)!r}); m['main'].__globals__['STATE'] = {str(state)!r}; sys.exit(m['main'](*sys.argv[1:]))"
    return [sys.executable, "-B", "-c", source, "gpu01", str(state), *words]


def run(state, script):
    return subprocess.run(command(state, "sh", "-c", script), capture_output=True, text=True, timeout=60, check=False)


def printing(*lines, status=0):
    return "".join(f"echo '{line}'\n" for line in lines) + f"exit {status}"


def last(state):
    return json.loads((state / "last.json").read_text())


@pytest.mark.parametrize("changed, result", [(0, "converged"), (3, "changed")])
def test_what_came_of_a_run_is_kept_and_told(state, changed, result):
    done = run(state, printing("TASK [one] ****", *RECAP.format(changed, 0).splitlines()))
    assert done.returncode == 0
    assert f"gpu01: {result}, {changed} tasks changed it" in done.stdout
    assert "TASK [one] ****" in done.stdout, "the journal has all of it"
    found = last(state)
    assert (found["result"], found["changed"], found["task"], found["commit"]) == (result, changed, None, None)
    assert found["started"] <= found["ended"]


def test_the_task_that_failed_is_named(state):
    lines = ("TASK [one] ****", "fatal: [gpu01]: FAILED! => rescued", "TASK [pull : two] ****", "fatal: [gpu01]: FAILED! =>", *RECAP.format(1, 1).splitlines())
    assert run(state, printing(*lines, status=2)).returncode == 2
    assert (last(state)["result"], last(state)["task"]) == ("failed", "pull : two")


def test_what_was_rescued_did_not_fail(state):
    assert run(state, printing("TASK [one] ****", "fatal: [gpu01]: FAILED! =>", *RECAP.format(0, 0).splitlines())).returncode == 0
    assert (last(state)["result"], last(state)["task"]) == ("converged", None)


def test_a_name_that_the_inventory_does_not_have_is_a_failure(state):
    done = run(state, printing("PLAY RECAP ****", "gpu02 : ok=1    changed=0    unreachable=0    failed=0"))
    assert done.returncode == 1
    assert "No play had the host gpu01: is that its name in the inventory, and is it one of gpu_hosts?" in done.stderr
    assert last(state)["result"] == "failed"


def test_another_run_has_the_host(state):
    (state / "last.json").write_text('{"result": "converged"}')
    descriptor = os.open(state, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        done = run(state, "touch started")
    finally:
        os.close(descriptor)
    assert done.returncode == 75
    assert done.stderr.startswith("Left out: another run has this host")
    assert "systemctl stop gpuhosts-hold.service gives the host back now" in done.stderr
    assert last(state) == {"result": "converged"}, "what came of the last run stays"


def test_a_run_that_is_killed_frees_the_lock_and_is_told(state):
    with subprocess.Popen(command(state, "sh", "-c", "echo begun; exec sleep 60"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        assert run(state, "true").returncode == 75
        child = int(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        process.kill()
        # systemd ends what the unit has left.
        os.kill(child, signal.SIGKILL)
    root = str(state.parents[2])
    assert host_files.pull(root)["last"]["result"] == "cut off"
    assert run(state, printing(*RECAP.format(0, 0).splitlines())).returncode == 0
    assert host_files.pull(root)["last"]["result"] == "converged"


def test_the_program_keeps_its_state_where_the_role_does():
    specification = importlib.util.spec_from_file_location("pull_program", PROGRAM)
    program = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(program)
    assert program.STATE == yaml.safe_load((CHECKOUT / "roles/pull/vars/main.yml").read_text())["__pull_state"]


def test_the_collection_that_is_installed_is_of_this_release():
    version = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
    assert yaml.safe_load((CHECKOUT / "roles/pull/defaults/main.yml").read_text())["pull_collection"] == f"gpuhosts.inference:{version}"


@pytest.mark.parametrize("name", ["host", "artifacts", "serve", "rollback", "pull", "bundle_serve"])
def test_a_playbook_that_changes_hosts_keeps_their_own_runs_away(name):
    assert yaml.safe_load((CHECKOUT / f"playbooks/{name}.yml").read_text())[0]["ansible.builtin.import_playbook"] == "hold.yml"


def test_the_site_gives_them_back_at_its_end():
    final = yaml.safe_load((CHECKOUT / "playbooks/site.yml").read_text())[-1]
    assert (final["ansible.builtin.import_playbook"], final["vars"]) == ("hold.yml", {"hold_state": "free"})
