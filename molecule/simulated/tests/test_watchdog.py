"""What a host does by itself, on a real systemd and Docker: steps down, hangs, quarantine; and what the next run says of it."""

import json
import threading

import pytest
from lab_serving import instance

SLOW = pytest.mark.slow
SUPERVISORS = ["systemd", pytest.param("docker", marks=SLOW), pytest.param("compose", marks=SLOW)]
# Systemd's unit judges every end. Docker starts a container again before the watchdog looks: there the fault lasts until a step has helped.
SHORT_OF_MEMORY = [
    ("systemd", "oom_at_load:2", 2),
    ("docker", "oom_above:max_num_seqs=32", 1),
    pytest.param("compose", "oom_above:max_num_seqs=32", 1, marks=SLOW),
]


@pytest.fixture(scope="module", autouse=True)
def _as_before(gpu02):
    yield
    assert gpu02.serve(instance())[0] == 0


def events(host):
    return [(event["event"], event["reason"]) for event in json.loads(host.machine.out("cat /var/lib/vllm/coder/state.json"))["history"]]


def rung(host):
    return json.loads(host.machine.out("cat /var/lib/vllm/coder/state.json"))["rung"]


def metric(host, name):
    lines = host.machine.out("cat /var/lib/vllm/metrics/vllm_instances.prom").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{") and 'name="coder"' in line)


def hang(host):
    """Make the engine hang, with a request in it."""
    assert host.fault("hang") == 200
    threading.Thread(target=host.ask, kwargs={"timeout": 60}, daemon=True).start()


@pytest.mark.parametrize("supervisor, fault, steps", SHORT_OF_MEMORY)
def test_steps_down_are_taken_told_kept_and_reset(gpu02, supervisor, fault, steps):
    # A cache of its own, in which the simulated engine counts its starts.
    gpu02.machine.run("docker rm --force vllm-coder; docker volume rm --force vllm-coder-cache", check=False)
    short_of_memory = instance(supervisor=supervisor, env={"GPUHOSTS_SIMULATED_FAULT": fault})
    status, output = gpu02.serve(short_of_memory)
    assert status == 0, output
    assert rung(gpu02) == steps
    # At the watchdog's next look.
    gpu02.until("vllm-instance status coder | tail --lines 1 | grep --quiet 'start (ready)'", 30)
    assert events(gpu02)[-1 - steps :] == [("step_down", "oom")] * steps + [("start", "ready")]
    assert f"coder on gpu02 answers on step {steps} of its ladder instead of its plan" in output
    arguments = gpu02.machine.out("docker inspect --format '{{ json .Args }}' vllm-coder")
    assert json.loads(arguments)[2:] == gpu02.definition()["rungs"][steps]["argv"]
    gpu02.until(f"grep --quiet 'gpuhosts_vllm_rung{{.*}} {steps}' /var/lib/vllm/metrics/vllm_instances.prom", 30)
    assert metric(gpu02, "gpuhosts_vllm_step_downs_total") >= steps
    if supervisor == "systemd":
        assert f"rung {steps} of" in gpu02.machine.out("journalctl --unit vllm-coder --output cat --no-pager")

    before = gpu02.started()
    status, output = gpu02.serve(short_of_memory)
    assert status == 0 and "changed=0" in output, output
    assert f"coder on gpu02 runs on step {steps} of its ladder instead of its plan:" in output
    assert (rung(gpu02), gpu02.started()) == (steps, before)

    if "oom_at_load" in fault:  # which is over now
        status, output = gpu02.serve(short_of_memory, vllm_ladder_drift="reset")
        assert status == 0, output
        assert "It goes back to its plan now." in output
        assert rung(gpu02) == 0 and gpu02.started() != before
        assert gpu02.ask() == 200


def test_a_ladder_that_does_not_help_ends_in_quarantine_and_the_old_configuration_comes_back(gpu02):
    assert gpu02.serve(instance())[0] == 0
    generation = gpu02.generation()
    status, output = gpu02.serve(instance(env={"GPUHOSTS_SIMULATED_FAULT": "oom_at_load"}), vllm_ladder_steps=1)
    assert status != 0
    assert f"and generation {generation} answers again" in output, output
    assert "memory" in output
    assert rung(gpu02) == 0 and gpu02.ask() == 200


@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_a_hang_is_ended_and_the_second_is_quarantine(gpu02, supervisor):
    assert gpu02.serve(instance(supervisor=supervisor))[0] == 0
    before = gpu02.started()
    hang(gpu02)
    gpu02.until(f"[[ $(docker inspect --format '{{{{.State.StartedAt}}}}' vllm-coder 2>/dev/null) > {before} ]] && curl --silent --fail localhost:8888/health")
    assert events(gpu02)[-2:] in ([("restart", "stall"), ("start", "ready")], [("start", "ready"), ("restart", "stall")])
    evidence = gpu02.machine.out("ls -d /var/lib/vllm/coder/evidence/*-stall | tail -1")
    assert {"summary.json", "metrics.txt", "log.txt"} <= set(gpu02.machine.out(f"ls {evidence}").split())
    hang(gpu02)
    gpu02.until("grep --quiet quarantined /var/lib/vllm/coder/state.json")
    gpu02.until("! docker ps --quiet --filter name=vllm-coder | grep --quiet .")
    assert metric(gpu02, "gpuhosts_vllm_restarts_total") >= 1

    status, output = gpu02.serve(instance(supervisor=supervisor))
    assert status != 0
    assert "coder on gpu02 is in quarantine since" in output, output
    assert "vllm-instance release coder" in output

    gpu02.machine.reboot()
    gpu02.until("systemctl is-active --quiet vllm-watchdog docker")
    assert gpu02.machine.run("docker ps --quiet --filter name=vllm-coder").stdout == "", "quarantine outlives a reboot"

    print(gpu02.machine.out("vllm-instance status"))
    gpu02.machine.run("vllm-instance release coder")
    gpu02.until("curl --silent --fail localhost:8888/health")
    status, output = gpu02.serve(instance(supervisor=supervisor))
    assert status == 0 and "changed=0" in output, output


def test_what_a_start_measured_is_kept(gpu02):
    assert gpu02.serve(instance())[0] == 0
    # At the watchdog's next look.
    gpu02.until('tail --lines 1 /var/lib/vllm/coder/starts.jsonl | grep --quiet "\\"generation\\": $(cat /run/vllm/coder.running)"', 30)
    last = json.loads(gpu02.machine.out("tail --lines 1 /var/lib/vllm/coder/starts.jsonl"))
    assert any("# cuda blocks" in line for line in last["log"])
