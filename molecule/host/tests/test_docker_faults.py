"""What is in daemon.json's way, and that what serves goes on serving: the real roles on the real engines of two distributions."""

import contextlib
import json
import os
import time

import lab_play
import pytest

LAB = os.environ["LAB_NAME"]
FILE = "/etc/docker/daemon.json"
NODE = "nvidia-smi --list-gpus"


@pytest.fixture(scope="module")
def image():
    """The engine's image, as the hosts know it."""
    digest = (lab_play.CHECKOUT / ".lab" / LAB / "simulated.digest").read_text(encoding="utf-8").strip()
    return f"vllm/vllm-openai@{digest}"


def changes(output, host):
    """The number of changed tasks on the host, or with None the numbers that the hosts have, each once."""
    counts = {name: count["changed"] for name, count in lab_play.recap(output).items()}
    return counts[host] if host else set(counts.values())


@pytest.fixture
def docker_engine(play_role):
    """docker_engine(host, **settings): the role alone, with settings as variables without its prefix; (status, output, changed tasks).

    With None it runs on all hosts at once, and the last is a set.
    """

    def run(host, *arguments, **settings):
        variables = {f"docker_engine_{name}": value for name, value in settings.items()}
        status, output = play_role("docker_engine", f"--extra-vars={json.dumps(variables)}", *arguments, host=host)
        return status, output, changes(output, host)

    return run


@pytest.fixture
def container_toolkit(play_role, image):
    """container_toolkit(host, **settings): likewise, with a proof in the engine's image."""

    def run(host, **settings):
        variables = {f"nvidia_container_toolkit_{name}": value for name, value in ({"proof_image": image} | settings).items()}
        status, output = play_role("nvidia_container_toolkit", f"--extra-vars={json.dumps(variables)}", host=host)
        return status, output, changes(output, host)

    return run


@pytest.fixture(scope="module")
def described(on, old, new):
    """The CDI description of each host as it was converged."""
    return {host: on(host).out("cat /etc/cdi/nvidia.yaml") for host in (old, new)}


@pytest.fixture
def mended(play_role):
    """Whatever a test does to the engines' configuration, the next one starts from the converged one."""
    yield
    assert play_role("docker_engine")[0] == 0


def settings(machine):
    return json.loads(machine.out(f"cat {FILE}"))


def engine_pid(machine):
    return machine.out("systemctl show --property MainPID --value docker.service")


class Serving:
    """A container with all cards that answers on a port of the host, and what it answered so far."""

    def __init__(self, machine, image, form):
        self.machine = machine
        machine.run("docker rm --force serving", check=False)
        machine.run(f"docker run --detach --name=serving --publish=127.0.0.1:9000:9000 {form} --entrypoint=python3 {image} -m http.server 9000")
        self.address = machine.out("docker inspect --format '{{.NetworkSettings.IPAddress}}' serving")
        self.started = self.state()
        machine.run("until curl --silent --fail --output /dev/null http://127.0.0.1:9000; do sleep 0.2; done")

    def state(self):
        return self.machine.out("docker inspect --format '{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}' serving")

    @contextlib.contextmanager
    def asked(self, address):
        """Ask it five times a second meanwhile; no answer may be missing."""
        loop = f"while sleep 0.2; do curl --silent --fail --max-time 2 --output /dev/null http://{address}:9000 && echo yes || echo no; done > /run/answers"
        self.machine.run(f"systemd-run --quiet --unit=asking bash -c '{loop}'")
        time.sleep(1)
        try:
            yield
        finally:
            self.machine.run("systemctl stop asking", check=False)
        answers = self.machine.out("cat /run/answers").split()
        assert len(answers) > 5
        assert "no" not in answers, answers

    def cards(self):
        return self.machine.out(f"docker exec serving {NODE}")


@pytest.fixture
def serving(on, image):
    """serving(host): a container there, with the form of naming cards that its engine understands (plugin_utils/container.py)."""
    made = []

    def start(host):
        machine = on(host)
        cdi = "cdi" in machine.out("docker info --format '{{json .CDISpecDirs}}' 2>/dev/null || true")
        form = "--device=nvidia.com/gpu=all" if cdi else "--runtime=nvidia --env=NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=all"
        made.append(Serving(machine, image, form))
        return made[-1]

    yield start
    for one in made:
        one.machine.run("docker rm --force serving", check=False)


# ---- daemon.json ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("mended")
def test_foreign_keys_stay_and_drift_is_mended(docker_engine, on, new):
    machine = on(new)
    converged = settings(machine)
    foreign = {"labels": ["site=a"], "max-concurrent-downloads": 5, "features": {"buildkit": True}}
    edited = {key: value for key, value in converged.items() if key != "live-restore"} | foreign
    machine.write(FILE, json.dumps(edited))
    status, output, changed = docker_engine(new, "--diff")
    assert (status, changed) == (0, 1)
    assert '+ "live-restore": true,' in output
    assert settings(machine) == converged | foreign | {"features": {"buildkit": True, "cdi": True}}
    assert docker_engine(new)[2] == 0
    # Ours come and go, theirs stay.
    assert docker_engine(new, daemon_config={"shutdown-timeout": 20})[2] == 1
    assert settings(machine)["shutdown-timeout"] == 20
    assert docker_engine(new)[2] == 1
    assert settings(machine) == converged | foreign | {"features": {"buildkit": True, "cdi": True}}
    machine.write(FILE, json.dumps(converged))


@pytest.mark.usefixtures("mended")
def test_invalid_json_is_refused_before_any_change(docker_engine, on, new):
    machine = on(new)
    before, pid = machine.out(f"cat {FILE}"), engine_pid(machine)
    machine.write(FILE, '{\n  "debug" true\n}\n')
    status, output, changed = docker_engine(new)
    assert (status != 0, changed) == (True, 0)
    assert (
        f"{new}: /etc/docker/daemon.json is not valid JSON: Expecting ':' delimiter: line 2 column 11 (char 12). "
        "Correct or remove it, then run again. Nothing was changed."
    ) in output
    assert machine.out(f"cat {FILE}") == '{\n  "debug" true\n}'
    assert engine_pid(machine) == pid
    machine.write(FILE, '{\n  "debug": true\n}\n')
    assert docker_engine(new)[0] == 0
    assert settings(machine) == json.loads(before) | {"debug": True}
    machine.write(FILE, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"nonsense": True}, "the following directives don't match any configuration option: nonsense"),
        ({"log-opts": {"max-file": 3}}, "json: cannot unmarshal number into Go struct field Config.CommonConfig.LogConfig.log-opts of type string"),
    ],
)
def test_what_the_engine_refuses_beforehand_changes_nothing(docker_engine, on, new, config, why):
    machine = on(new)
    before, pid = machine.out(f"cat {FILE}"), engine_pid(machine)
    status, output, changed = docker_engine(new, daemon_config=config)
    assert (status != 0, changed) == (True, 0)
    assert f"The Docker Engine refuses the settings for {FILE}: unable to configure the Docker daemon: {why}. Nothing was changed." in output
    assert machine.out(f"cat {FILE}") == before
    assert engine_pid(machine) == pid
    assert docker_engine(new)[2] == 0


@pytest.mark.slow
def test_what_only_a_start_refuses_is_put_back(docker_engine, on, serving, old, new):
    """A setting that is also a flag of the unit: dockerd --validate is content with it, the engine is not."""
    machines = {host: (on(host), serving(host), on(host).out(f"cat {FILE}")) for host in (old, new)}
    status, output, changed = docker_engine(None, daemon_config={"hosts": ["fd://"]})
    assert (status != 0, changed) == (True, {0})
    said = (
        f"The Docker Engine does not take the settings in {FILE}: unable to configure the Docker daemon with file {FILE}: the following directives are "
        "specified both as a flag and in the configuration file: hosts: (from flag: [fd://], from file: [fd://]). The old file is back, and the engine "
        "runs on it. Correct the setting, then run again."
    )
    assert output.count(f"FAILED! => changed: false msg: '{said}'") == 2
    for machine, container, before in machines.values():
        assert machine.out(f"cat {FILE}") == before
        assert container.state() == container.started
    assert docker_engine(None)[2] == {0}


@pytest.mark.slow
def test_what_a_reload_refuses_is_put_back(docker_engine, on, serving, new):
    machine, container = on(new), serving(new)
    before, pid = machine.out(f"cat {FILE}"), engine_pid(machine)
    status, output, changed = docker_engine(new, registry_mirrors=["mirror:5000"])
    assert (status != 0, changed) == (True, 0)
    assert f"The Docker Engine does not take the settings in {FILE}: " in output
    assert "The old file is back, and the engine kept running on it. Correct the setting, then run again." in output
    assert machine.out(f"cat {FILE}") == before
    assert engine_pid(machine) == pid
    assert container.state() == container.started


def test_another_engine_is_not_replaced_unasked(docker_engine, on, new):
    version = on(new).out("dpkg-query --show --showformat '${Version}' docker.io")
    status, output, changed = docker_engine(new, source="docker")
    assert (status != 0, changed) == (True, 0)
    assert (
        f"docker.io {version} is installed on {new}, and docker_engine_source asks for docker-ce: to replace it stops every container on the host. "
        "Set docker_engine_replace to true to allow that, or change docker_engine_source to keep it. Nothing was changed."
    ) in output


@pytest.mark.slow
def test_dockers_own_packages_are_pinned(docker_engine, on, new):
    """What check mode says would be done with consent."""
    family, suite = on(new).out(". /etc/os-release; echo $ID $VERSION_CODENAME").split()
    status, output, dummy = docker_engine(new, "--check", "--diff", source="docker", replace=True)
    assert status == 0
    assert f"+URIs: https://download.docker.com/linux/{family} +Suites: {suite} +Components: stable +Signed-By: /etc/apt/keyrings/docker.asc" in output
    assert "+Package: docker-ce docker-ce-cli +Pin: version 5:28.2.2-* +Pin-Priority: 1001" in output
    assert "Would install docker-ce=5:28.2.2-*, docker-ce-cli=5:28.2.2-*, containerd.io=1.7.27-* from https://download.docker.com/linux/" in output


# Docker's own packages, put together from the distribution's: Docker's names, versions and relations, and a repository with a key.
REPACK = """
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update && apt-get install --yes --no-install-recommends apt-utils gpg gpg-agent
rm -rf /tmp/repack /srv/mirror/docker && mkdir -p /tmp/repack /srv/mirror/docker && chown _apt /tmp/repack && cd /tmp/repack
apt-get download docker.io docker-cli containerd runc
repack() {  # the distribution's name, Docker's name and version, and what it takes the place of
    dpkg-deb --raw-extract $1_*.deb $2
    sed -Ei "s/^Package: .*/Package: $2/; s/^Version: .*/Version: $3/; /^(Source|Conflicts|Replaces|Provides|Breaks|Recommends|Suggests|Built-Using)/d
        s/^Depends: (.*)/Depends: \\1, $5/; s/\\b(containerd|runc|docker-cli) \\([^)]*\\),? ?//g; s/, *,/,/g" $2/DEBIAN/control
    sed -i "/^Description/i Conflicts: $4\\nReplaces: $4\\nProvides: $4" $2/DEBIAN/control
    rm -f $2/DEBIAN/md5sums
}
release='~debian.13~trixie'
repack docker.io docker-ce 5:28.2.2-1$release docker.io 'docker-ce-cli, containerd.io'
repack docker-cli docker-ce-cli 5:28.2.2-1$release docker-cli libc6
repack containerd containerd.io 1.7.27-1 'containerd, runc' libc6
dpkg-deb --extract runc_*.deb containerd.io
for name in docker-ce docker-ce-cli containerd.io; do dpkg-deb --root-owner-group -Zgzip -z1 --build $name /srv/mirror/docker/$name.deb; done
cd /srv/mirror/docker && apt-ftparchive packages . > Packages && apt-ftparchive release . > Release
export GNUPGHOME=/tmp/repack/gpg && mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key docker rsa3072 sign never
gpg --batch --clearsign --output InRelease Release && gpg --armor --export > key.asc
gpg --with-colons --list-keys | awk -F: '/^fpr/ {print $10; exit}'
"""


@pytest.mark.slow
def test_dockers_own_engine_and_back(docker_engine, on, new, image):
    machine = on(new)
    if "trixie" not in machine.out("cat /etc/os-release"):
        pytest.skip("the mirror has the distribution of Debian 13")
    before, version = settings(machine), machine.out("dpkg-query --show --showformat '${Version}' docker.io")
    docker = {
        "source": "docker", "uri": "http://mirror/docker", "suite": "/", "key_url": "http://mirror/docker/key.asc",
        "key_fingerprint": on("mirror").out(REPACK).splitlines()[-1],
    }  # fmt: skip

    def engines():
        return machine.out("dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\n' 'docker*' 'containerd*' | grep ^installed").split("\n")

    try:
        assert docker_engine(new, **docker)[0] != 0, "not without consent"
        assert docker_engine(new, **docker, replace="no")[0] != 0, "nor with a word that says no"
        status, output, changed = docker_engine(new, **docker, replace=True)
        assert status == 0, output
        assert sorted(line.split()[1] for line in engines()) == ["containerd.io", "docker-ce", "docker-ce-cli"]
        assert "installed docker-ce 5:28.2.2-1~debian.13~trixie" in engines()
        assert settings(machine) == before
        assert machine.out("systemctl is-active docker") == "active"
        assert machine.out(f"docker image inspect --format ok {image}") == "ok", "images stay"
        assert docker_engine(new, **docker)[2] == 0
    finally:
        status, output, changed = docker_engine(new, replace=True)
        assert status == 0, output
        machine.run("rm -f /etc/apt/sources.list.d/docker.sources /etc/apt/preferences.d/docker.pref /etc/apt/keyrings/docker.asc; apt-get update")
    assert f"installed docker.io {version}" in engines()
    assert not [line for line in engines() if "docker-ce" in line]
    assert docker_engine(new)[2] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("mended")
def test_data_root_and_address_pools(docker_engine, on, new):
    machine = on(new)
    wanted = {"data_root": "/srv/docker", "default_address_pools": [{"base": "10.201.0.0/16", "size": 24}], "log_opts": {"max-size": "1m", "max-file": "2"}}
    assert docker_engine(new, **wanted)[2] == 1
    assert machine.out("docker info --format '{{.DockerRootDir}}'") == "/srv/docker"
    assert machine.out("docker network create pool >/dev/null && docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' pool").startswith(
        "10.201."
    )
    assert docker_engine(new, **wanted)[2] == 0
    machine.run("docker network rm pool")
    assert docker_engine(new)[2] == 1
    assert machine.out("docker info --format '{{.DockerRootDir}}'") == "/var/lib/docker"


# ---- what serves goes on serving ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("mended")
def test_reloadable_settings_interrupt_nothing(docker_engine, on, serving, old, new):
    containers = {host: serving(host) for host in (old, new)}
    pids = {host: engine_pid(on(host)) for host in (old, new)}
    with containers[old].asked("127.0.0.1"), containers[new].asked("127.0.0.1"):
        assert docker_engine(None, daemon_config={"labels": ["site=a"], "debug": True})[2] == {1}
    for host, container in containers.items():
        assert on(host).out("docker info --format '{{.Debug}} {{json .Labels}}'") == 'true ["site=a"]'
        assert engine_pid(on(host)) == pids[host]
        assert container.state() == container.started


@pytest.mark.usefixtures("mended")
def test_a_restart_keeps_containers_and_their_cards(docker_engine, on, serving, old, new):
    containers = {host: serving(host) for host in (old, new)}
    cards, pids = ({host: of(on(host)) for host in (old, new)} for of in (lambda machine: machine.out(NODE), engine_pid))
    for host, container in containers.items():
        assert container.cards() == cards[host]
        on(host).run("systemctl daemon-reload")
        assert container.cards() == cards[host], "after a daemon-reload"
    with containers[old].asked(containers[old].address), containers[new].asked(containers[new].address):
        assert docker_engine(None, log_opts={"max-size": "50m", "max-file": "5"})[2] == {1}
    away = []
    for host, container in containers.items():
        assert engine_pid(on(host)) != pids[host]
        assert container.state() == container.started
        assert container.cards() == cards[host], "after a restart of the engine"
        on(host).run("curl --silent --fail --output /dev/null --retry 10 --retry-connrefused --retry-delay 1 http://127.0.0.1:9000")
        properties = ("InactiveEnterTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        away.append([int(on(host).out(f"systemctl show --property={name} --value docker.service")) for name in properties])
    (dummy, first_is_back), (second_goes, dummy) = sorted(away)
    assert first_is_back < second_goes, "one host after the other, because containers run on both"


# ---- the cards' description -----------------------------------------------------------------------------------------


DAMAGES = {
    "gone": "rm /etc/cdi/nvidia.yaml",
    "another driver's": "sed -i s/570.153.02/570.133.20/g /etc/cdi/nvidia.yaml",
    "another card's": "sed -i s/GPU-/GPU-9/ /etc/cdi/nvidia.yaml",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_description_that_is_gone_or_not_the_hosts_is_made_anew(container_toolkit, described, on, old, new, damage):
    for host in (old, new):
        on(host).run(damage)
    status, output, dummy = container_toolkit(None)
    assert status == 0
    for host in (old, new):
        assert on(host).out("cat /etc/cdi/nvidia.yaml") == described[host]
    assert output.partition("Compare them with the host's")[2].count("ok: [gpu0") >= 2, "a proof is due after a new description"


@pytest.mark.slow
def test_a_driver_that_does_not_answer_is_not_described(container_toolkit, on, new, fault):
    on(new).run("rm /etc/cdi/nvidia.yaml")
    fault(new, "mismatch")
    status, output, changed = container_toolkit(new)
    assert (status != 0, changed) == (True, 0)
    assert f"The driver on {new} does not answer, so that its cards cannot be described for containers: nvidia-smi failed with status 18: " in output
    fault(new)
    assert container_toolkit(new)[0] == 0


@pytest.mark.slow
def test_a_proof_that_fails_says_what_docker_said(container_toolkit, new):
    status, output, changed = container_toolkit(new, proof_image="vllm/vllm-openai:nothing")
    assert status != 0
    assert f"A container of vllm/vllm-openai:nothing on {new} does not see the host's 4 cards: Error pulling image" in output
    assert container_toolkit(new)[0] == 0


@pytest.mark.slow
def test_a_proof_that_hangs_fails(container_toolkit, on, new):
    """An engine that panics leaves its client waiting for ever."""
    on(new).run("rm /var/lib/gpuhosts/container_proof.json")
    on(new).write("/usr/local/bin/docker", "#!/bin/sh\nexec sleep 1000\n")
    on(new).run("chmod +x /usr/local/bin/docker")
    status, output, dummy = container_toolkit(new, proof_seconds=2)
    on(new).remove("/usr/local/bin/docker")
    assert status != 0
    assert f"on {new} does not see the host's 4 cards: the engine has not run it within 2 seconds." in output
    assert container_toolkit(new)[0] == 0


@pytest.mark.slow
def test_a_converged_host_costs_little(play_role):
    """The recap's `ok` without the two tasks that stand for the rest of the host layer: the include, and one gpu_facts."""
    for role, most in {"docker_engine": 3, "nvidia_container_toolkit": 2}.items():
        status, output = play_role(role)
        assert (status, changes(output, None)) == (0, {0})
        assert max(count["ok"] for count in lab_play.recap(output).values()) - 2 <= most
