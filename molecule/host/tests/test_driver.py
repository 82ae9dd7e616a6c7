"""The driver and the toolkit on a converged host, and what a second run of the host layer costs."""

import lab_play
import pytest

VERSION = "570.153.02"


def test_a_second_run_changes_nothing_downloads_nothing_and_is_cheap(play, downloads, hosts):
    with downloads() as requests:
        status, output = play("playbooks/host.yml")
    assert status == 0, output
    counts = lab_play.recap(output)
    print("".join(f"\n{distribution}: {counts[host]['ok']} ok tasks on the second run of playbooks/host.yml" for distribution, host in hosts.items()))
    assert {count["changed"] for count in counts.values()} == {0}
    assert max(count["ok"] for count in counts.values()) <= 20
    assert requests == [], "neither an index nor a package"


def test_driver_and_toolkit_alone_cost_seven_tasks(play_role, old):
    counts = [lab_play.recap(play_role(role, host=old)[1])[old]["ok"] for role in ("nvidia_driver", "cuda_toolkit")]
    # Each run here has the include itself, and the toolkit's its own reading of the host's state.
    assert sum(counts) - 3 <= 7


@pytest.mark.parametrize("distribution", [0, 1], ids=["older", "newer"])
def test_all_of_the_driver_is_at_one_version_and_held(on, hosts, distribution):
    host = on(list(hosts.values())[distribution])
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
