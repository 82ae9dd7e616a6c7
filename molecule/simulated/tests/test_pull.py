"""A host that converges itself from a repository, and what keeps its run and one from the controller apart. The tests follow on one another."""

import json
import os
import subprocess

import lab_play
import pytest

pytestmark = pytest.mark.slow
LAB = lab_play.CHECKOUT / ".lab" / os.environ["LAB_NAME"]
STATE = "/var/lib/gpuhosts-pull"
PASSWORD = "correct horse battery staple"
UNITS = ("gpuhosts-pull.timer", "gpuhosts-pull.service", "gpuhosts-hold.service")
OWN = (STATE, "/etc/gpuhosts-pull", "/opt/gpuhosts-pull", "/opt/gpuhosts-pull.tar.gz", "/usr/local/lib/gpuhosts/pull.py",
       "/var/lib/systemd/timers/stamp-gpuhosts-pull.timer", *(f"/etc/systemd/system/{unit}" for unit in UNITS))  # fmt: skip
DRIFT = "/etc/ld.so.conf.d/gpuhosts-cuda.conf"


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120, **more).stdout


def fleet(directory):
    """A fleet's repository: one line of playbook, the lab's inventory, and what differs for this host, in a vault."""
    directory.mkdir()
    (directory / "site.yml").write_text("- ansible.builtin.import_playbook: gpuhosts.inference.site\n")
    (directory / "state").mkdir()
    for name in ("fingerprint", "simulated.digest"):
        (directory / "state" / name).write_bytes((LAB / name).read_bytes())
    run("cp", "--recursive", str(lab_play.CHECKOUT / "inventories/lab"), str(directory / "inventories"))
    (directory / "inventories/host_vars").mkdir()
    variables = directory / "inventories/host_vars/gpu01.yml"
    variables.write_text(json.dumps({"lab_name": LAB.name, "lab_engine": "simulated", "lab_state_dir": f"{STATE}/checkout/state"}))
    run("ansible-vault", "encrypt", "--vault-password-file=/dev/stdin", str(variables), input=PASSWORD)
    git = ("git", "-C", str(directory), "-c", "user.name=lab", "-c", "user.email=lab@example.org")
    run(*git, "init", "--quiet", "--initial-branch=main")
    run(*git, "add", "--all")
    run(*git, "commit", "--quiet", "--message=The fleet")
    return run(*git, "rev-parse", "HEAD").strip()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """What the inventory says of it, with this checkout as the collection."""
    directory = tmp_path_factory.mktemp("pull")
    run("ansible-galaxy", "collection", "build", str(lab_play.CHECKOUT), "--output-path", str(directory))
    return {
        "pull_enabled": True,
        "pull_repository": "file:///srv/fleet",
        "pull_inventory": "inventories",
        "pull_vault_password": PASSWORD,
        "pull_collection": str(next(directory.glob("*.tar.gz"))),
        "pull_wait_seconds": 300,
    }


def play(playbook, **variables):
    return lab_play.play(playbook, "--extra-vars", json.dumps(variables), host="gpu01", timeout=1800)


@pytest.fixture(scope="module")
def machine(gpu01, settings, tmp_path_factory):
    """The host as site.yml leaves it, with a timer that is far away."""
    code, output = lab_play.play("site.yml", host="gpu01")
    assert code == 0, output
    source = tmp_path_factory.mktemp("fleet") / "fleet"
    gpu01.machine.commit = fleet(source)
    run("docker", "cp", str(source), f"{gpu01.machine.container}:/srv/fleet")
    gpu01.machine.run("chown --recursive root:root /srv/fleet")
    code, output = play("playbooks/pull.yml", pull_schedule="yearly", **settings)
    assert code == 0, output
    yield gpu01.machine
    play("playbooks/pull.yml", pull_enabled=False)
    gpu01.machine.remove("/srv/fleet")


def last(machine):
    return json.loads(machine.out(f"cat {STATE}/last.json"))


def pull(machine):
    """The timer's service, to its end; what its journal says of it."""
    machine.run("systemctl start gpuhosts-pull.service", check=False)
    return machine.out("journalctl --output cat --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show --property InvocationID --value gpuhosts-pull.service)")


def active(machine, unit):
    return machine.run(f"systemctl is-active {unit}", check=False).stdout.strip()


def test_it_finds_the_host_converged(machine):
    said = pull(machine)
    found = last(machine)
    assert (found["result"], found["changed"], found["commit"]) == ("converged", 0, machine.commit), said
    assert "gpu01: converged, 0 tasks changed it" in said
    assert "[WARNING]: Unable to parse" not in said, "its own inventory is read too"


def test_what_has_drifted_is_put_right(machine):
    before = machine.out(f"cat {DRIFT}")
    machine.remove(DRIFT)
    said = pull(machine)
    assert last(machine)["result"] == "changed", said
    assert machine.out(f"cat {DRIFT}") == before
    pull(machine)
    assert last(machine)["result"] == "converged"


def test_the_timer_spreads_the_fleet_and_makes_up_for_what_was_missed(machine, settings):
    code, output = play("playbooks/pull.yml", pull_schedule="*-01-01 04:00:00", pull_jitter_seconds=600, **settings)
    assert code == 0, output
    shown = machine.out("systemctl show gpuhosts-pull.timer --property RandomizedDelayUSec,FixedRandomDelay,Persistent,ActiveState,UnitFileState")
    assert set(shown.split()) == {"RandomizedDelayUSec=10min", "FixedRandomDelay=yes", "Persistent=yes", "ActiveState=active", "UnitFileState=enabled"}
    code, output = play("playbooks/pull.yml", pull_schedule="*-01-01 04:00:00", pull_jitter_seconds=600, **settings)
    assert (code, lab_play.recap(output)["gpu01"]["changed"]) == (0, 0), output
    assert active(machine, "gpuhosts-hold.service") == "inactive"


def test_secrets_are_roots_alone(machine):
    assert machine.out("stat --format '%a %U' /etc/gpuhosts-pull/vault_password") == "600 root"
    holders = machine.out(f"grep --recursive --files-with-matches --text '{PASSWORD}' /etc /opt/gpuhosts-pull/installed {STATE} /srv /usr/local")
    assert holders == "/etc/gpuhosts-pull/vault_password"
    assert PASSWORD not in machine.out("journalctl --no-pager; systemctl show gpuhosts-pull.service")


def begin(machine):
    """The host's own run, at work and with the lock."""
    machine.run("systemctl start --no-block gpuhosts-pull.service")
    machine.run(f"timeout 60 sh -c 'until grep --quiet running {STATE}/last.json; do sleep 0.1; done'")


def moment(machine, unit, event):
    return int(machine.out(f"systemctl show --property {event}TimestampMonotonic --value {unit}"))


def test_a_run_from_a_controller_waits_for_the_hosts_own(machine):
    begin(machine)
    code, output = play("playbooks/serve.yml")
    assert code == 0, output
    assert last(machine)["result"] == "converged"
    assert moment(machine, "gpuhosts-hold.service", "ActiveEnter") >= moment(machine, "gpuhosts-pull.service", "ExecMainExit")
    machine.run("systemctl stop gpuhosts-hold.service")


def test_a_run_from_a_controller_is_refused_where_the_hosts_own_does_not_end(machine, settings):
    code, output = play("playbooks/pull.yml", pull_schedule="yearly", **settings | {"pull_wait_seconds": 1})
    assert code == 0, output
    begin(machine)
    machine.run("systemctl kill --signal=STOP gpuhosts-pull.service")
    code, output = play("playbooks/serve.yml")
    assert code != 0
    assert "The host converges itself since " in output
    assert "end it there with systemctl stop gpuhosts-pull.service; then run again. Nothing was changed." in output
    assert lab_play.recap(output)["gpu01"]["changed"] == 0
    code, output = play("playbooks/rollout.yml", rollout_report=str(LAB / "pull.json"), rollout_everything=True)
    assert code != 0
    assert "failed: Keep the host's own run away: The host converges itself since " in output


def test_a_run_that_is_killed_gives_the_host_back_and_is_told(machine):
    machine.run("systemctl kill --signal=KILL gpuhosts-pull.service; until ! systemctl is-active --quiet gpuhosts-pull.service; do sleep 0.1; done")
    machine.run("systemctl reset-failed gpuhosts-pull.service", check=False)
    code, output = play("playbooks/preflight.yml")
    assert code == 0, output
    assert "was cut off. journalctl -u gpuhosts-pull on the host has the whole of it." in output
    pull(machine)
    assert last(machine)["result"] == "converged"
    code, output = play("playbooks/serve.yml")
    assert code == 0, output


def test_the_host_leaves_itself_alone_while_a_controller_has_it(machine):
    """serve.yml has held it, and what was done by hand stays for a while."""
    assert active(machine, "gpuhosts-hold.service") == "active"
    before = last(machine)
    assert "Left out: another run has this host, one from a controller while gpuhosts-hold.service is active." in pull(machine)
    assert last(machine) == before
    assert active(machine, "gpuhosts-pull.service") == "inactive", "that is no failure"


def test_the_site_takes_over_what_a_run_before_has_left_and_gives_the_host_back(machine):
    code, output = lab_play.play("site.yml", host="gpu01")
    counts = lab_play.recap(output)["gpu01"]
    assert (code, counts["changed"]) == (0, 0), output
    assert counts["ok"] <= 32, "the hold, and its end"
    assert active(machine, "gpuhosts-hold.service") == "inactive"
    pull(machine)
    assert last(machine)["result"] == "converged"


def test_a_controller_that_has_died_holds_no_host_for_ever(machine, settings):
    code, output = play("playbooks/pull.yml", pull_schedule="yearly", pull_hold_seconds=2, **settings)
    assert code == 0, output
    machine.run("systemctl restart gpuhosts-hold.service")
    machine.run("timeout 60 sh -c 'while systemctl is-active --quiet gpuhosts-hold.service; do sleep 0.2; done'")
    assert active(machine, "gpuhosts-hold.service") == "inactive"
    machine.run(f"flock --nonblock {STATE} true")


def test_credentials_in_an_address_are_refused(machine, settings):
    code, output = play("playbooks/pull.yml", **settings | {"pull_repository": "https://fleet:secret@git.example/fleet"})
    assert code != 0
    assert "pull_repository has a password in it, which every user of the host could read: move it to pull_git_credentials. Nothing was changed." in output
    code, output = play("playbooks/pull.yml", **settings | {"pull_directory": "/srv/fleet"})
    assert code != 0
    assert "Set either pull_repository, or pull_directory: the host has to know where its inventory is. Nothing was changed." in output


def test_a_directory_will_do(machine, settings):
    code, output = play("playbooks/pull.yml", pull_schedule="yearly", **settings | {"pull_repository": "", "pull_directory": f"{STATE}/checkout"})
    assert code == 0, output
    said = pull(machine)
    assert last(machine)["result"] == "converged", said
    assert "Starting Ansible Pull" not in said


def test_off_leaves_nothing_behind(machine):
    code, output = play("playbooks/pull.yml", pull_enabled=False)
    assert code == 0, output
    assert [path for path in OWN if machine.has(path)] == []
    assert machine.run(f"systemctl is-active {' '.join(UNITS)}", check=False).stdout.split() == ["inactive"] * len(UNITS)
    assert machine.run(f"systemctl is-enabled {' '.join(UNITS)}", check=False).stdout.split() in ([], ["not-found"] * len(UNITS))
    code, output = play("playbooks/pull.yml", pull_enabled=False)
    assert (code, lab_play.recap(output)["gpu01"]["changed"]) == (0, 0), output
