"""The driver and the toolkit on a converged host, and what a second run of the host layer costs."""

import json

import lab_play
import pytest

VERSION = "570.153.02"


def test_a_second_run_changes_nothing_downloads_nothing_and_is_cheap(play, downloads, hosts, figure):
    with downloads() as requests:
        status, output = play("playbooks/host.yml")
    assert status == 0, output
    counts = lab_play.recap(output)
    for host, distribution in hosts.items():
        figure(
            f"second run of playbooks/host.yml on {host} ({distribution}): {counts[host]['ok']} tasks ok (20 at most), {counts[host]['changed']} changed, "
            f"{sum('InRelease' in line for line in requests)} index updates, {len(requests)} requests of any kind to the mirror"
        )
    assert {count["changed"] for count in counts.values()} == {0}
    assert max(count["ok"] for count in counts.values()) <= 20
    assert requests == [], "neither an index nor a package nor an image"


def test_the_count_of_downloads_sees_what_it_has_to_see(on, new, downloads):
    """An index that has not changed, and an image that is there."""
    with downloads() as requests:
        on(new).run("apt-get update && docker pull --quiet $(docker images --digests --format '{{.Repository}}@{{.Digest}}' | head -n 1)")
    assert any("InRelease" in line for line in requests)
    assert any("/v2/" in line for line in requests)


def test_the_first_run_has_proved_the_cards_in_a_container(on, hosts):
    for host in hosts:
        proof = json.loads(on(host).out("cat /var/lib/gpuhosts/container_proof.json"))
        assert proof["image"].startswith("vllm/vllm-openai@sha256:")
        assert (proof["driver"], len(proof["cards"])) == (VERSION, 4)


def test_driver_and_toolkit_alone_cost_seven_tasks(play_role, old):
    counts = [lab_play.recap(play_role(role, host=old)[1])[old]["ok"] for role in ("nvidia_driver", "cuda_toolkit")]
    # Each run here has the include itself, and the toolkit's its own reading of the host's state.
    assert sum(counts) - 3 <= 7


@pytest.mark.parametrize("which", ["old", "new"])
def test_all_of_the_driver_is_at_one_version_and_held(on, request, which):
    host = on(request.getfixturevalue(which))
    installed = host.out(
        r"dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}\n' '*nvidia*' 'libcuda*' libnvcuvid1 | grep -E '\|[0-9]{3}\.[0-9.]+-'"
    ).splitlines()
    assert len(installed) > 15
    assert {line.split("|")[2].partition("-")[0] for line in installed} == {VERSION}
    assert {line.split("|")[0].strip() for line in installed} == {"hi"}


def test_nothing_newer_is_a_candidate(on, new):
    policy = on(new).out("apt-cache policy libcuda1")
    assert "575.57.08-1" in policy
    assert f"Candidate: {VERSION}-1" in policy


def test_unattended_upgrades_leaves_it_alone(on, new):
    dump = on(new).out("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '".*nvidia.*$"' in dump and '"libcuda1$"' in dump


@pytest.mark.slow
def test_unattended_upgrades_itself_passes_the_driver_by(on, play_role, new):
    """Its own dry run, with NVIDIA's repository allowed and neither pin nor holds in its way; without the role's list it would replace the driver."""
    host, ours = on(new), "/etc/apt/apt.conf.d/52nvidia-cuda-unattended-upgrades"

    def upgraded():
        said = host.out("unattended-upgrade --dry-run --debug 2>&1")
        return said.partition("Packages that will be upgraded:")[2].partition("\n")[0].split()

    host.run("apt-get update && apt-get install --yes --no-install-recommends unattended-upgrades")
    try:
        host.write("/etc/apt/apt.conf.d/99-test", 'Unattended-Upgrade::Origins-Pattern:: "origin=NVIDIA";\n')
        host.run("apt-mark unhold $(apt-mark showhold); mv /etc/apt/preferences.d/nvidia-cuda.pref /root/")
        assert [name for name in upgraded() if "nvidia" in name or "cuda1" in name] == []
        host.run(f"mv {ours} /root/")
        assert "libcuda1" in upgraded()
    finally:
        host.run("rm -f /etc/apt/apt.conf.d/99-test; apt-get purge --yes unattended-upgrades")
        assert play_role("nvidia_driver", host=new)[0] == 0
    assert host.has(ours) and host.has("/etc/apt/preferences.d/nvidia-cuda.pref")
    assert len(host.out("apt-mark showhold").splitlines()) > 15


def test_nouveau_is_out_of_the_initramfs(on, new):
    assert "blacklist nouveau" in on(new).out("cat /var/lib/gpuhosts-lab/initramfs")


def test_headers_module_and_persistence(on, old):
    host = on(old)
    host.run("dpkg-query -W linux-headers-$(uname -r)")
    assert host.out("modinfo --field=version nvidia") == host.out("cat /sys/module/nvidia/version") == VERSION
    assert host.out("nvidia-smi --query-gpu=persistence_mode --format=csv,noheader").split() == ["Enabled"] * 4
    assert host.out("systemctl is-enabled nvidia-persistenced.service") == "enabled"


def test_the_compiler_is_on_the_path_and_the_libraries_on_the_linkers(on, old):
    assert "release 12.8" in on(old).out("bash -lc 'nvcc --version'")
    assert on(old).out("grep -v '^#' /etc/ld.so.conf.d/gpuhosts-cuda.conf") == "/usr/local/cuda-12.8/lib64"


def test_the_parts_for_wheels_stand_beside_another_release(on, play_role, new):
    parts = '{"cuda_toolkit_version": "12.9.1", "cuda_toolkit_parts": ["cuda-nvcc", "cuda-cudart-dev"]}'
    status, output = play_role("cuda_toolkit", "--extra-vars", parts, host=new)
    assert status == 0, output
    try:
        assert "release 12.9" in on(new).out("bash -lc 'nvcc --version'")
        assert "release 12.8" in on(new).out("/usr/local/cuda-12.8/bin/nvcc --version")
        assert on(new).run("dpkg-query -W cuda-toolkit-12-9", check=False).returncode != 0
    finally:
        assert play_role("cuda_toolkit", host=new)[0] == 0
    assert "release 12.8" in on(new).out("bash -lc 'nvcc --version'")


def test_what_older_ways_have_left_is_removed(on, play_role, new):
    legacy = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"
    on(new).write(legacy, "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] http://mirror/cuda/repos/debian12/x86_64/ /\n")
    assert "Conflicting values set for option Signed-By" in on(new).run("apt-get update 2>&1", check=False).stdout
    status, output = play_role("nvidia_driver", host=new)
    assert status == 0, output
    assert not on(new).has(legacy)
    on(new).run("apt-get update")


@pytest.mark.parametrize(
    "package", ["nvidia-headless-570-open nvidia-utils-570 nvidia-persistenced", "nvidia-headless-570 nvidia-utils-570 nvidia-persistenced"]
)
@pytest.mark.parametrize("release", ["ubuntu2404", "ubuntu2204"])
def test_ubuntus_set_resolves_under_the_pin(on, new, release, package):
    """Where Ubuntu's image cannot be had, apt is asked on Debian with Ubuntu's repository alone, and installs nothing."""
    host, root = on(new), "/tmp/ubuntu"
    host.run(f"rm -rf {root}; mkdir -p {root}/etc/apt/preferences.d {root}/lists/partial {root}/cache")
    host.write(f"{root}/etc/apt/sources.list", f"deb [trusted=yes] http://mirror/cuda/repos/{release}/x86_64/ /\n")
    host.run(f"cp /etc/apt/preferences.d/nvidia-cuda.pref {root}/etc/apt/preferences.d/; touch {root}/status")
    options = f"-o Dir::Etc={root}/etc/apt -o Dir::State::lists={root}/lists -o Dir::Cache={root}/cache -o Dir::State::status={root}/status"
    host.run(f"apt-get {options} update")
    # kmod and python3 come from Ubuntu's own archive.
    host.write(
        f"{root}/status", "".join(f"Package: {name}\nStatus: install ok installed\nVersion: 99\nArchitecture: amd64\n\n" for name in ("kmod", "python3"))
    )
    wanted = " ".join(f"{name}={VERSION}-*" for name in package.split())
    planned = [
        line.split() for line in host.out(f"apt-get {options} --simulate --no-install-recommends install {wanted}").splitlines() if line.startswith("Inst ")
    ]
    assert len(planned) > 10
    assert {words[2].lstrip("(") for words in planned if words[1] != "dkms"} == {f"{VERSION}-0ubuntu1"}
