"""What is in the way of the driver: each time one clear sentence, nothing lost that serves, and a corrected run that converges."""

import re
import time

import lab_play
import pytest

VERSION, UPGRADE, BRANCH = "570.153.02", "570.172.08", "575.57.08"
OTHER_KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"
REBOOT = "--extra-vars=nvidia_driver_reboot=true"
NOTES = "/var/lib/vllm-fault"


class Engine:
    """A unit that a driver's replacement has to stop and to start again; it notes each time when, and which driver is installed."""

    def __init__(self, machine):
        self.machine = machine
        note = f"#!/bin/sh\necho $1 $(date +%s.%N) $(dpkg-query -W -f '${{Version}}' nvidia-persistenced) >> {NOTES}\n"
        machine.write("/usr/local/bin/note", note)
        service = "ExecStart=/bin/sleep infinity\nExecStartPost=/usr/local/bin/note started\nExecStop=/usr/local/bin/note stopped\n"
        machine.write("/etc/systemd/system/vllm-fault.service", f"[Service]\n{service}[Install]\nWantedBy=multi-user.target\n")
        machine.run("chmod +x /usr/local/bin/note && systemctl daemon-reload && systemctl enable --quiet --now vllm-fault")

    def start(self):
        """What is another after every start; a process id may be the same after a reboot."""
        return self.machine.out("systemctl show --property=InvocationID --value vllm-fault")

    def forget(self):
        self.machine.remove(NOTES)

    def notes(self):
        """[(what, when, installed driver)] since `forget`."""
        lines = (line.split() for line in self.machine.run(f"cat {NOTES}", check=False).stdout.splitlines())
        return [(what, float(when), version.partition("-")[0]) for what, when, version in lines]


@pytest.fixture(scope="module", autouse=True)
def engines(on, old, new):
    """An engine on each host."""
    made = {host: Engine(on(host)) for host in (old, new)}
    yield made
    for engine in made.values():
        engine.machine.run("systemctl disable --quiet --now vllm-fault; rm /etc/systemd/system/vllm-fault.service; systemctl daemon-reload")


@pytest.fixture
def refused(play_role, engines):
    """refused(role, *arguments, host=None): what a run prints that fails; no engine has noticed it."""

    def run(role, *arguments, host=None):
        before = {name: engine.start() for name, engine in engines.items()}
        status, output = play_role(role, *arguments, host=host)
        assert status != 0, output
        assert {name: engine.start() for name, engine in engines.items()} == before, "what served serves"
        return output

    return run


def running(on, host):
    return on(host).out("cat /sys/module/nvidia/version")


def installed(on, host):
    """Versions of the driver's packages, each once."""
    names = "'*nvidia*' 'libcuda*' libnvcuvid1"
    listed = on(host).out(rf"dpkg-query -W -f '${{db:Status-Status}} ${{Version}}\n' {names} | grep -oE '^installed [0-9]{{3}}\.[0-9.]+'")
    return {line.split()[1] for line in listed.splitlines()}


def held(on, host):
    return len(on(host).out("apt-mark showhold").splitlines())


def converges(play_role, host, *arguments, role="nvidia_driver"):
    """A run that passes, with the role's own proof. On all hosts with None. The last test here is that nothing is left to do."""
    status, output = play_role(role, *arguments, host=host)
    assert status == 0, output


def test_a_key_with_another_fingerprint(play_role, refused, on, new):
    key = on(new).out("sha256sum /etc/apt/keyrings/nvidia-cuda.asc")
    output = refused("nvidia_driver", f"--extra-vars=cuda_repository_key_fingerprint={OTHER_KEY}", host=new)
    assert re.search(rf"The key at http://mirror/cuda/repos/\w+/x86_64/3bf863cc.pub has the fingerprint [0-9A-F]{{40}}, not the pinned {OTHER_KEY}: ", output)
    assert (
        "nothing was written. Either the address is wrong, or the repository changed its key (then pin the new fingerprint after checking it against the "
        "vendor's announcement), or someone has replaced it." in output
    )
    assert on(new).out("sha256sum /etc/apt/keyrings/nvidia-cuda.asc") == key
    converges(play_role, new)


def test_a_reboot_that_nobody_has_allowed(refused, new, downloads):
    with downloads() as requests:
        output = refused("nvidia_driver", f"--extra-vars=nvidia_driver_version={UPGRADE}", host=new)
    assert (
        f"{new} runs driver {VERSION}, and {UPGRADE} is wanted, which takes a reboot: set nvidia_driver_reboot to true, and the role fetches {UPGRADE}, "
        "stops vllm-*.service, installs, reboots and starts them again; or to false, to install it now and reboot yourself. Nothing was changed." in output
    )
    assert requests == []
    assert lab_play.recap(output)[new]["changed"] == 0


def test_a_package_that_somebody_else_holds(play_role, refused, on, new):
    on(new).run("apt-mark unhold $(apt-mark showhold) && apt-mark hold libcuda1")
    output = refused("nvidia_driver", f"--extra-vars=nvidia_driver_version={UPGRADE}", REBOOT, host=new)
    assert (
        f"{new}: libcuda1 is on hold at {VERSION}-1, and {UPGRADE} is wanted. Release it with `apt-mark unhold libcuda1`, or set nvidia_driver_version to "
        "what is held. Nothing was changed." in output
    )
    assert running(on, new) == VERSION
    # The version that is held is the wanted one again: the role holds the rest with it.
    converges(play_role, new)
    assert held(on, new) > 15


@pytest.mark.slow
def test_a_repository_that_is_gone_half_way(play_role, refused, engines, on, old, new):
    """The index is there and the packages are not: the engines serve on. Then the same run replaces the driver under them, one host after the other."""
    arguments = [f"--extra-vars=nvidia_driver_version={UPGRADE}", REBOOT]
    for host in (old, new):
        # What an earlier run has fetched would do.
        on(host).run("apt-get clean")
    on("mirror").run("cd /srv/mirror/cuda/repos && for directory in */x86_64; do mkdir $directory/gone && mv $directory/*.deb $directory/gone; done")
    try:
        output = refused("nvidia_driver", *arguments)
    finally:
        on("mirror").run("cd /srv/mirror/cuda/repos && for directory in */x86_64; do mv $directory/gone/* $directory && rmdir $directory/gone; done")
    for host in (old, new):
        assert re.search(
            rf"{host}: [^:]*={UPGRADE}-\* cannot be installed from http://mirror/cuda/repos/\w+/x86_64/: the repository names http://mirror/", output
        )
        assert (running(on, host), installed(on, host)) == (VERSION, {VERSION})
        assert held(on, host) > 15
    assert "in its index and does not have it: it is being updated, or a mirror is incomplete; complete the mirror or wait for it, then run again" in output

    for engine in engines.values():
        engine.forget()
    converges(play_role, None, *arguments)
    away = []
    for host, engine in engines.items():
        assert (running(on, host), installed(on, host)) == (UPGRADE, {UPGRADE})
        (stopped, since, with_driver), (started, until, dummy) = engine.notes()
        assert (stopped, with_driver) == ("stopped", VERSION), "stopped before anything of the driver was replaced"
        assert (started, on(host).out("systemctl is-active vllm-fault")) == ("started", "active")
        away.append((since, until))
    (dummy, first_is_back), (second_goes, dummy) = sorted(away)
    assert first_is_back < second_goes, "one host after the other"


@pytest.mark.slow
def test_a_reboot_that_comes_back_with_the_wrong_version(play_role, engines, on, old, new, fault):
    """Back from the test before, a downgrade: the host that goes first fails, and the other keeps what it has."""
    for host in (old, new):
        fault(host, f"boots:{UPGRADE}")
    before = {host: engine.start() for host, engine in engines.items()}
    status, output = play_role("nvidia_driver", REBOOT)
    assert status != 0
    first, second = (old, new) if engines[old].start() != before[old] else (new, old)
    assert (
        f"{first} runs driver {UPGRADE} after the reboot and not {VERSION}, which is installed: an old module is in the initramfs (`update-initramfs -u`), "
        "or DKMS has not built this one (`dkms status`). Mend that, then run again." in output
    )
    assert on(first).out("systemctl is-active vllm-fault") == "active", "what can serve does"
    assert f"{second}: {first} could not be brought to {VERSION}, as said above, so that vllm-fault.service was not stopped here. Mend that host" in output
    assert engines[second].start() == before[second]
    assert (running(on, second), installed(on, second)) == (UPGRADE, {UPGRADE})
    assert held(on, second) > 15
    for host in (old, new):
        fault(host)
    converges(play_role, None, REBOOT)
    for host in (old, new):
        assert (running(on, host), installed(on, host)) == (VERSION, {VERSION})
        assert held(on, host) > 15
        assert on(host).out("systemctl is-active vllm-fault") == "active"


@pytest.mark.slow
def test_another_branch_and_kernel_module_without_a_reboot(play_role, refused, engines, on, old):
    """Installed now, rebooted by hand: the engine is left alone. Then back, with the role's own reboot."""
    arguments = [f"--extra-vars=nvidia_driver_version={BRANCH}", "--extra-vars=nvidia_driver_kernel_module=proprietary"]
    output = refused("nvidia_driver", *arguments, "--extra-vars=nvidia_driver_reboot=no", host=old)
    assert f"{old} runs driver {VERSION} and not {BRANCH}, which is installed: reboot the host, then run again." in output
    assert (running(on, old), installed(on, old)) == (VERSION, {BRANCH})
    on(old).reboot()
    converges(play_role, old, *arguments)
    assert "NVIDIA" in on(old).out("modinfo --field=license nvidia")

    engines[old].forget()
    status, output = play_role("nvidia_driver", REBOOT, host=old)
    assert status == 0, output
    assert (running(on, old), installed(on, old)) == (VERSION, {VERSION})
    assert "GPL" in on(old).out("modinfo --field=license nvidia")
    assert [(what, version) for what, dummy, version in engines[old].notes()] == [("stopped", BRANCH), ("started", VERSION)]


@pytest.mark.slow
def test_nouveau_is_loaded(play_role, refused, on, old):
    host = on(old)
    host.run("/usr/lib/gpuhosts-lab/module unload nvidia; mkdir /sys/module/nouveau; rm /etc/modprobe.d/gpuhosts-nouveau.conf /var/lib/gpuhosts-lab/initramfs")
    output = refused("nvidia_driver", host=old)
    assert (
        f"{old} has nouveau loaded, which keeps the NVIDIA module out, which takes a reboot: set nvidia_driver_reboot to true, and the role fetches {VERSION}, "
        "stops vllm-*.service, installs, reboots and starts them again; or to false, to install it now and reboot yourself. Nothing was changed." in output
    )
    assert not host.has("/etc/modprobe.d/gpuhosts-nouveau.conf")
    converges(play_role, old, REBOOT)
    assert not host.has("/sys/module/nouveau")
    assert running(on, old) == VERSION


@pytest.mark.slow
def test_secure_boot_with_a_key_that_is_not_enrolled(play_role, refused, on, old, fault):
    host, variable = on(old), "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    fault(old, "unsigned")
    host.run("/usr/lib/gpuhosts-lab/module unload nvidia; mount -t tmpfs none /sys/firmware && mkdir -p /sys/firmware/efi/efivars")
    host.run(f"printf '\\6\\0\\0\\0\\1' > /sys/firmware/efi/efivars/{variable}")
    try:
        output = refused("nvidia_driver", host=old)
        assert f"{old}: secure boot is on, and the firmware does not know the key /var/lib/" in output
        assert "run `mokutil --import /var/lib/" in output
        assert "reboot and confirm it on the console; or turn secure boot off. Then run again. Nothing was changed." in output
        assert lab_play.recap(output)[old]["changed"] == 0

        # The firmware says yes, and the kernel still refuses.
        host.write("/usr/local/bin/mokutil", "#!/bin/sh\necho $2 is already enrolled\n")
        host.run("chmod +x /usr/local/bin/mokutil")
        output = refused("nvidia_driver", host=old)
        assert f"{old}: the driver is installed, and its kernel module does not load. Secure boot is on and does not know the key that signs it" in output
        fault(old)
        converges(play_role, old)
    finally:
        host.run("umount /sys/firmware; rm -f /usr/local/bin/mokutil")
    assert running(on, old) == VERSION


@pytest.mark.slow
def test_a_kernel_without_its_module(play_role, on, old):
    """As after an upgrade of the kernel whose headers were not there: the loaded driver is fine and the next boot's is missing."""
    on(old).run("/usr/lib/gpuhosts-lab/module clean; dpkg --remove linux-headers-$(uname -r)")
    converges(play_role, old)
    assert on(old).out("modinfo --field=version nvidia") == VERSION


def test_a_card_is_missing(play_role, refused, fault, new):
    fault(new, "missing:2")
    output = refused("nvidia_driver", host=new)
    assert (
        f"{new}: the card at 0000:3d:00.0 is on the PCI bus but nvidia-smi does not report it. Look for its Xid in the kernel log (`dmesg | grep Xid`); power "
        "the host off and on, and reseat the card if that does not help." in output
    )
    fault(new)
    converges(play_role, new)


def test_nvidia_smi_hangs(play_role, refused, fault, new):
    fault(new, "hang")
    output = refused("nvidia_driver", "--extra-vars=facts_timeout=4", host=new)
    assert f"{new}: nvidia-smi gave no answer within 4 s: a card or its driver hangs; look for Xid lines in the kernel log and reboot the host." in output
    assert lab_play.recap(output)[new]["changed"] == 0
    fault(new)
    converges(play_role, new)


def test_cards_that_do_not_stay_initialised(play_role, refused, on, new):
    """Persistence mode off by hand, and a daemon that does not turn it on."""
    host, daemon = on(new), "/usr/bin/nvidia-persistenced"
    host.run(f"cp {daemon} {daemon}.kept && sed -i 's/nvidia-smi -pm 1/true/' {daemon} && nvidia-smi -pm 0 -i 1 && nvidia-smi -pm 0 -i 3")
    try:
        output = refused("nvidia_driver", host=new)
    finally:
        host.run(f"mv {daemon}.kept {daemon}")
    assert f"{new}: nvidia-persistenced runs, and persistence mode is off on GPU " in output
    assert "GPU 3: power limits and clocks are forgotten there whenever no program uses the card. Look at `journalctl --unit nvidia-persistenced`" in output
    converges(play_role, new)
    assert host.out("nvidia-smi --query-gpu=persistence_mode --format=csv,noheader").split() == ["Enabled"] * 4


LOCK = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True); time.sleep({})"


@pytest.mark.slow
def test_another_process_holds_apts_lock(play_role, refused, on, new):
    host = on(new)
    host.run("dpkg --remove cuda-toolkit-12-8")
    host.run(f'nohup python3 -c "{LOCK.format(600)}" > /tmp/lock 2>&1 & echo $! > /tmp/lock.pid; until grep -q locked /tmp/lock; do sleep 0.1; done')
    try:
        output = refused("cuda_toolkit", "--extra-vars=apt_source_lock_timeout=3", host=new)
        assert re.search(
            rf"{new}: cuda-toolkit-12-8=12.8.1-\* cannot be installed from http://mirror/cuda/repos/\w+/x86_64/: another process holds apt's lock "
            r"/var/lib/dpkg/lock-frontend \(process \d+ \(python3\)\): wait until it has ended, or raise apt_source_lock_timeout, then run again\.",
            output,
        )
    finally:
        host.run("kill $(cat /tmp/lock.pid)")
    # A lock that is given back in time is waited for.
    host.run(f'nohup python3 -c "{LOCK.format(6)}" > /tmp/lock 2>&1 & until grep -q locked /tmp/lock; do sleep 0.1; done')
    started = time.monotonic()
    converges(play_role, new, role="cuda_toolkit")
    assert time.monotonic() - started > 4


@pytest.mark.slow
def test_the_disk_is_full(play_role, refused, on, new):
    host = on(new)
    host.run("dpkg --remove cuda-toolkit-12-8; mount -t tmpfs -o size=64k none /var/cache/apt/archives; mkdir /var/cache/apt/archives/partial")
    host.run("head -c 1M /dev/zero > /var/cache/apt/archives/filler", check=False)
    try:
        output = refused("cuda_toolkit", host=new)
    finally:
        host.run("umount /var/cache/apt/archives")
    assert re.search(
        rf"{new}: cuda-toolkit-12-8=12.8.1-\* cannot be installed from http://mirror/cuda/repos/\w+/x86_64/: the disk of the host is full: make room "
        r"there \(`apt-get clean` empties apt's own cache\), then run again\.",
        output,
    )
    converges(play_role, new, role="cuda_toolkit")


def test_after_all_of_this_nothing_is_left_to_do(play, on, old, new):
    status, output = play("playbooks/host.yml")
    assert (status, {counts["changed"] for counts in lab_play.recap(output).values()}) == (0, {0}), output
    for host in (old, new):
        assert (running(on, host), installed(on, host)) == (VERSION, {VERSION})
        assert held(on, host) > 15
