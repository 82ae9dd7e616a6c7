"""Change without loss: what serves keeps serving, what fails is taken back, what is cut off is taken up."""

import json
import subprocess

import lab_play
import pytest
from lab_serving import LAB, Traffic, instance

# An image that is pulled, and whose engine ends at once.
BAD_IMAGE = "registry.example/bad-engine:1"


@pytest.fixture(scope="module", autouse=True)
def coder(gpu01):
    status, output = gpu01.serve(instance())
    assert status == 0, output


def test_a_second_run_changes_nothing(gpu01):
    before = gpu01.started()
    status, output = gpu01.serve(instance())
    assert status == 0
    assert "changed=0" in output, output
    assert gpu01.started() == before


def test_what_need_not_be_restarted_is_not(gpu01):
    before = gpu01.started()
    status, output = gpu01.serve(instance(), vllm_stall_seconds=5)
    assert status == 0 and "changed=1" in output, output
    assert gpu01.definition()["limits"]["stall_seconds"] == 5
    assert gpu01.started() == before
    assert gpu01.serve(instance())[0] == 0


def test_two_by_two(gpu01):
    """The first article's split: two instances, two cards each, with ports and caches of their own."""
    halves = [
        instance(name="left", gpus=[0, 1], options={"tensor_parallel_size": 2}),
        instance(name="right", gpus=[2, 3], port=8889, options={"tensor_parallel_size": 2}),
    ]
    status, output = gpu01.serve(*halves)
    assert status == 0, output
    for name, cards in (("left", [0, 1]), ("right", [2, 3])):
        seen = gpu01.machine.out(f"docker exec vllm-{name} nvidia-smi -L").splitlines()
        whole = gpu01.machine.out("nvidia-smi -L").splitlines()
        assert [line.partition("UUID")[2] for line in seen] == [whole[card].partition("UUID")[2] for card in cards]
        assert f"vllm-{name}-cache" in gpu01.machine.out(f"docker inspect vllm-{name}")
    assert "changed=0" in gpu01.serve(*halves)[1]
    # The instance that is not in the inventory any more is gone, and comes back.
    assert not gpu01.machine.has("/etc/vllm/coder") and not gpu01.machine.has("/etc/systemd/system/vllm-coder.service")
    assert gpu01.serve(instance())[0] == 0
    assert gpu01.machine.out("ls /etc/vllm") == "coder"


def test_a_bad_image_is_taken_back(gpu01):
    reference = gpu01.definition()["image"]["reference"]
    gpu01.machine.run(f"docker build --tag {BAD_IMAGE} -", text=f'FROM {reference}\nENTRYPOINT ["false"]\n')
    generation = gpu01.generation()
    with Traffic(gpu01) as traffic:
        status, output = gpu01.serve(instance(), vllm_images={"0.8.5": BAD_IMAGE})
    assert status != 0
    assert f"The new configuration was taken back, and generation {generation} answers again." in output, output
    assert gpu01.generation() == generation
    assert gpu01.definition()["image"]["reference"] == reference
    assert gpu01.ask() == 200
    # No request that an engine had accepted was lost: each was answered in full, or met a port that nobody listened on.
    answered = [status for status in traffic.answers if status is not None]
    print(f"during the change: {len(traffic.answers)} requests, {len(answered)} answered, {len(traffic.answers) - len(answered)} met no engine")
    assert answered and set(answered) == {200}
    assert "changed=0" in gpu01.serve(instance())[1]


def test_requests_that_run_are_answered_before_the_engine_stops(gpu01):
    assert gpu01.fault("slow:8") == 200
    code = "\n".join(
        (
            "import json, urllib.request",
            "body = json.dumps({'model': 'coder', 'messages': [{'role': 'user', 'content': 'Hello'}], 'max_tokens': 40, 'ignore_eos': True}).encode()",
            "request = urllib.request.Request('http://127.0.0.1:8888/v1/chat/completions', body, {'Content-Type': 'application/json'})",
            "print(json.load(urllib.request.urlopen(request, timeout=60))['usage']['completion_tokens'])",
        )
    )
    with subprocess.Popen(["docker", "exec", "--interactive", f"{LAB}-gpu01", "python3", "-c", code], stdout=subprocess.PIPE, text=True) as request:
        gpu01.until('curl --silent localhost:8888/metrics | grep --quiet "num_requests_running{.*} 1.0"')
        status, output = gpu01.serve(instance(options={"max_num_seqs": 32}))
        assert request.communicate(timeout=60)[0].strip() == "40", "the answer is whole"
    assert status == 0, output
    assert gpu01.serve(instance())[0] == 0


def test_roll_back_and_forth(gpu01):
    assert gpu01.serve(instance(options={"max_num_seqs": 16}))[0] == 0
    newer = gpu01.generation()
    status, output = gpu01.serve(instance(), playbook="playbooks/rollback.yml", arguments=("--extra-vars", "instance=coder"))
    assert status == 0, output
    older = gpu01.generation()
    assert f"coder on gpu01 answers with generation {older} instead of {newer}." in output
    assert "64" in gpu01.machine.out("docker inspect --format '{{ .Args }}' vllm-coder").split("--max-num-seqs ")[1][:3]
    arguments = ("--extra-vars", json.dumps({"instance": "coder", "generation": newer}))
    status, output = gpu01.serve(instance(), playbook="playbooks/rollback.yml", arguments=arguments)
    assert status == 0, output
    status, output = gpu01.serve(instance(), playbook="playbooks/rollback.yml", arguments=("--extra-vars", "instance=coder generation=99"))
    assert status != 0
    assert "coder: there is no generation 99 on this host, only" in output
    assert gpu01.serve(instance())[0] == 0


def test_a_port_that_is_taken_stops_nothing(gpu01):
    before = gpu01.started()
    gpu01.machine.run("systemd-run --unit=squatter python3 -m http.server 8890")
    try:
        gpu01.until("curl --silent --output /dev/null localhost:8890")
        status, output = gpu01.serve(instance(port=8890))
    finally:
        gpu01.machine.run("systemctl stop squatter")
    assert status != 0
    assert "coder: port 8890 is taken by another program on this host: choose another port for coder, or stop what listens there." in output
    assert gpu01.started() == before and gpu01.ask() == 200


@pytest.mark.parametrize("directory", ["/etc/systemd/system", "/var/lib/vllm/coder"])
def test_a_full_disk_stops_nothing(gpu01, directory):
    before = gpu01.started()
    # The same files on a file system that has no byte left.
    gpu01.machine.run(
        f"cp -a {directory} /tmp/kept && mount -t tmpfs -o size=1m tmpfs {directory} && cp -a /tmp/kept/. {directory}/ && rm -rf /tmp/kept"
        f" && {{ dd if=/dev/zero of={directory}/.filler bs=4k 2>/dev/null || true; }}"
    )
    try:
        # Another drain changes the unit, another option the generation.
        status, output = gpu01.serve(instance(options={"max_num_seqs": 8}), vllm_drain_seconds=11)
    finally:
        gpu01.machine.run(f"rm -f {directory}/.filler && umount {directory} && systemctl daemon-reload")
    assert status != 0
    assert "No space left on device" in output, output
    assert gpu01.started() == before and gpu01.ask() == 200
    assert "changed=0" in gpu01.serve(instance())[1]


def test_a_power_cut_in_the_middle_of_a_change(gpu02):
    """The whole host is killed while a new engine starts; a second run converges."""
    assert gpu02.serve(instance())[0] == 0
    slow = instance(options={"max_num_seqs": 32}, env={"GPUHOSTS_SIMULATED_FAULT": "slow_load:8"})
    extra = json.dumps({"vllm_instances": [slow], "vllm_ready_timeout": 60})
    words, settings = lab_play.command("playbooks/serve.yml", "--extra-vars", extra, host="gpu02")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **settings) as run:
        gpu02.until("grep --quiet slow_load /etc/vllm/coder/environment")
        subprocess.run(["docker", "kill", "--signal=KILL", f"{LAB}-gpu02"], check=True, capture_output=True)
        output = run.communicate(timeout=120)[0]
    assert run.returncode != 0, output
    subprocess.run(["docker", "start", f"{LAB}-gpu02"], check=True, capture_output=True)
    gpu02.machine.wait_for_units()
    status, output = gpu02.serve(slow)
    assert status == 0, output
    assert gpu02.ask() == 200
    assert "changed=0" in gpu02.serve(slow)[1]


def test_no_secret_is_shown(gpu01):
    key = "planted-Qm7xV2"
    status, output = gpu01.serve(instance(), vllm_api_key=key, arguments=("-vvv", "--diff"))
    assert status == 0, output
    try:
        # The extra variable itself is the test's own command line, which -vvv does not print.
        assert key not in output
        assert gpu01.ask() == 401
        places = "/etc/systemd/system /etc/vllm /var/lib/vllm /run/vllm /var/log"
        # In brackets, so that grep does not find its own command line.
        pattern = f"{key[:-1]}[{key[-1]}]"
        found = gpu01.machine.run(f"grep --recursive --files-with-matches {pattern} {places} /proc/[0-9]*/cmdline 2>/dev/null", check=False).stdout.split()
        assert {path.rpartition("/")[2] for path in found} == {"environment"}, found
        for path in found:
            assert gpu01.machine.out(f"stat --format=%a {path}") == "600"
        assert key not in gpu01.machine.out("docker inspect --format '{{ .Path }} {{ .Args }}' vllm-coder")
        assert key not in gpu01.machine.out("journalctl --no-pager --output=cat")
    finally:
        assert gpu01.serve(instance())[0] == 0
    assert gpu01.ask() == 200
