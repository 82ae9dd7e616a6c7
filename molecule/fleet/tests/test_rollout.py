"""Waves over six hosts: gpu01 is the canary, then two hosts at a time. The tests follow on one another, as a fleet's days do."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import lab_play
import pytest

LAB = os.environ["LAB_NAME"]
INVENTORIES = ("inventories/lab", "molecule/fleet/inventory")
REPORT = lab_play.CHECKOUT / ".lab" / LAB / "rollout.json"
HOSTS = [f"gpu0{number}" for number in range(1, 7)]
CODER = {"name": "coder", "model": "gpuhosts-lab/tiny-qwen3", "port": 8888, "profile": "as_given", "options": {"max_model_len": 4096, "max_num_seqs": 64}}
# What is measured here is a simulated engine on a machine that is doing other things too.
CALM = {"rollout_speed_loss": 0.9, "vllm_ready_timeout": 60, "vllm_drain_seconds": 5}


def coder(seqs=64, **env):
    return {**CODER, "options": CODER["options"] | {"max_num_seqs": seqs}, "env": env}


def words(*arguments, inventories=INVENTORIES, **variables):
    extra = json.dumps({"vllm_instances": [coder()], **CALM, **variables})
    return {"arguments": ("--extra-vars", extra, *arguments), "inventories": inventories}


def roll_out(*arguments, **variables):
    """(exit status, output)"""
    given = words(*arguments, **variables)
    return lab_play.play("playbooks/rollout.yml", *given["arguments"], inventories=given["inventories"])


@contextlib.contextmanager
def rolling_out(*until, **variables):
    """A rollout in a process of its own, which has just printed each of these, one after the other."""
    given = words(**variables)
    command, settings = lab_play.command("playbooks/rollout.yml", *given["arguments"], inventories=given["inventories"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **settings) as process:
        seen = []
        for text in until:
            seen.append(next((line for line in process.stdout if text in line), None))
        assert None not in seen, f"printed {seen} and no more"
        yield process


def report():
    return {host["name"]: host for host in json.loads(REPORT.read_text())["hosts"]}


def statuses():
    return {name: host["status"] for name, host in report().items()}


def machine(host):
    return lab_play.Machine(f"{LAB}-{host}")


def started(host):
    """When the engine was started: another time is another start."""
    return machine(host).out("docker inspect --format '{{.State.StartedAt}}' vllm-coder")


def sequences(host):
    """The max_num_seqs of the definition in force."""
    argv = json.loads(machine(host).out("cat /etc/vllm/coder/definition.json"))["rungs"][0]["argv"]
    return int(argv[argv.index("--max-num-seqs") + 1])


@pytest.fixture(scope="module", autouse=True)
def fleet():
    status, output = roll_out()
    assert status == 0, output


def test_every_host_serves_as_planned():
    found = report()
    assert sorted(found) == HOSTS
    for host in found.values():
        (instance,) = host["instances"]
        assert host["state"] == "good" and instance["rung"] == 0
        assert instance["kv_tokens"] == pytest.approx(instance["kv_tokens_planned"], rel=0.02)
        assert instance["tokens_per_second"] > 0 and len(instance["answer_sha256"]) == 64
    assert len({host["instances"][0]["answer_sha256"] for host in found.values()}) == 1


def test_a_second_run_costs_the_facts_only():
    before = {host: started(host) for host in HOSTS}
    status, output = roll_out()
    assert status == 0 and statuses() == dict.fromkeys(HOSTS, "converged"), output
    assert "Converge canary" not in output
    for host in HOSTS:
        counts = lab_play.recap(output)[host]
        assert counts["changed"] == 0 and counts["ok"] <= 12, counts
    assert {host: started(host) for host in HOSTS} == before


def test_a_converged_host_costs_the_site_few_executions():
    """The budget of a second run of site.yml: tasks, and what is really run on the host, each of which is a round trip and a Python."""
    given = words()
    status, output = lab_play.play("site.yml", "-vvv", *given["arguments"], inventories=given["inventories"])
    assert status == 0, output[-4000:]
    for host in HOSTS:
        counts, executions = lab_play.recap(output)[host], output.count(f"<{LAB}-{host}> EXEC")
        assert counts["changed"] == 0 and counts["ok"] <= 30, counts
        assert 0 < executions <= 14


def test_a_broken_canary_touches_one_host():
    before = {host: started(host) for host in HOSTS[1:]}
    status, output = roll_out(vllm_instances=[coder(32, GPUHOSTS_SIMULATED_FAULT="bad_answer")])
    assert status != 0
    assert "canary: gpu01" in output and "wave 1: gpu02, gpu03" in output
    assert statuses() == {"gpu01": "failed", **dict.fromkeys(HOSTS[1:], "waiting")}, output
    assert "1 of 1 hosts of canary failed (gpu01), and rollout_max_fail_percentage allows 0 %" in output
    assert "answers 500" in report()["gpu01"]["problem"]
    assert {host: started(host) for host in HOSTS[1:]} == before
    assert [sequences(host) for host in HOSTS] == [64] * 6, "the canary serves what it served before"


def test_what_answers_but_is_slower_than_before_is_rolled_back():
    status, output = roll_out(vllm_instances=[coder(32, GPUHOSTS_SIMULATED_FAULT="slow:8")], rollout_speed_loss=0.5)
    assert status != 0
    assert statuses() == {"gpu01": "rolled back", **dict.fromkeys(HOSTS[1:], "waiting")}, output
    assert "more than the 50% that rollout_speed_loss allows are lost" in report()["gpu01"]["problem"]
    assert sequences("gpu01") == 64


def test_check_mode_goes_through_all_waves_and_changes_nothing():
    before, known = {host: started(host) for host in HOSTS}, REPORT.read_text()
    status, output = roll_out("--check", vllm_instances=[coder(32)])
    assert status == 0 and "Converge wave 3" in output, output
    assert {host: started(host) for host in HOSTS} == before and REPORT.read_text() == known
    assert [sequences(host) for host in HOSTS] == [64] * 6


def test_where_nobody_says_yes_it_stops_after_the_canary():
    status, output = roll_out(vllm_instances=[coder(32)], rollout_confirm=True)
    assert status != 0
    assert statuses() == {"gpu01": "done", **dict.fromkeys(HOSTS[1:], "waiting")}, output
    assert report()["gpu02"]["problem"] == "nobody said yes before wave 1"
    assert [sequences(host) for host in HOSTS] == [32, 64, 64, 64, 64, 64]
    assert roll_out()[0] == 0


def test_a_wave_fails_as_a_whole():
    """gpu03 alone fails; gpu02, which came through, goes back with it, and the canary stays."""
    given = [coder(32, GPUHOSTS_SIMULATED_FAULT="{{ 'bad_answer' if inventory_hostname == 'gpu03' else '' }}")]
    status, output = roll_out(vllm_instances=given)
    assert status != 0
    assert statuses() == {"gpu01": "done", "gpu02": "rolled back", "gpu03": "failed", **dict.fromkeys(HOSTS[3:], "waiting")}, output
    assert "1 of 2 hosts of wave 1 failed (gpu03)" in report()["gpu02"]["problem"]
    assert [sequences(host) for host in HOSTS] == [32, 64, 64, 64, 64, 64]
    assert roll_out()[0] == 0


def test_a_host_that_dies_in_a_wave_does_not_stop_the_others_and_is_taken_up_again():
    with rolling_out("Converge wave 2]", "Configure Docker Engine]", vllm_instances=[coder(48)]) as process:
        subprocess.run(["docker", "kill", machine("gpu05").container], check=True, capture_output=True)
        output, dummy = process.communicate(timeout=600)
    assert process.returncode != 0
    assert statuses() == {**dict.fromkeys(HOSTS, "done"), "gpu05": "unreachable"}, output
    assert "gpu05 unreachable: it answered at first" in output

    subprocess.run(["docker", "start", machine("gpu05").container], check=True, capture_output=True)
    machine("gpu05").wait_for_units()
    status, output = roll_out(vllm_instances=[coder(48)])
    assert status == 0, output
    assert statuses() == {**dict.fromkeys(HOSTS, "converged"), "gpu05": "done"}
    assert [sequences(host) for host in HOSTS] == [48] * 6


def test_a_run_that_is_killed_is_taken_up():
    with rolling_out("Converge wave 2]", vllm_instances=[coder(40)]) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert {host: statuses()[host] for host in HOSTS[:3]} == dict.fromkeys(HOSTS[:3], "done")
    before = {host: started(host) for host in HOSTS[:3]}
    status, output = roll_out(vllm_instances=[coder(40)])
    assert status == 0, output
    assert statuses() == {**dict.fromkeys(HOSTS[:3], "converged"), **dict.fromkeys(HOSTS[3:], "done")}
    assert {host: started(host) for host in HOSTS[:3]} == before
    assert [sequences(host) for host in HOSTS] == [40] * 6


def test_a_run_that_is_killed_leaves_nothing_of_an_inventory_that_is_taken_back():
    with rolling_out("Converge wave 2]", vllm_instances=[coder(56)]) as process:
        os.killpg(process.pid, signal.SIGKILL)
    status, output = roll_out(vllm_instances=[coder(40)])
    assert status == 0, output
    assert statuses() == {**dict.fromkeys(HOSTS[:5], "done"), HOSTS[5]: "converged"}, "also those whose wave had only begun"
    assert [sequences(host) for host in HOSTS] == [40] * 6


def test_hosts_that_are_down_are_listed_at_the_end(tmp_path):
    """Three of nine: over SSH, to a port on which nobody listens."""
    down = tmp_path / "hosts.yml"
    gone = {"ansible_connection": "ansible.builtin.ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    down.write_text(json.dumps({"gpu_hosts": {"hosts": {f"down0{number}": gone for number in (1, 2, 3)}}}))
    status, output = roll_out(vllm_instances=[coder(40)], inventories=(*INVENTORIES, str(down)))
    assert status != 0
    assert statuses() == {**dict.fromkeys(HOSTS, "converged"), **dict.fromkeys(["down01", "down02", "down03"], "unreachable")}, output
    assert "6 converged, 3 unreachable" in output
    for number in (1, 2, 3):
        assert f"down0{number} unreachable: " in output and "Connection refused" in report()[f"down0{number}"]["problem"]
    pathlib.Path(REPORT).unlink()
