"""What is in the way of the driver: each time one clear sentence, nothing lost that served, and a corrected run that converges."""

import re
import time

import lab_play
import pytest

VERSION, UPGRADE, BRANCH = "570.153.02", "570.172.08", "575.57.08"
OTHER_KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"


@pytest.fixture
def engine(on):
    """engine(host): a unit that a driver's replacement has to stop and to start again; removed afterwards."""
    started = []

    def start(host):
        started.append(host)
        unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
        on(host).write("/etc/systemd/system/vllm-fault.service", unit)
        on(host).run("systemctl daemon-reload && systemctl enable --quiet --now vllm-fault")

    yield start
    for host in started:
        on(host).run("systemctl disable --quiet --now vllm-fault; rm /etc/systemd/system/vllm-fault.service; systemctl daemon-reload")


def running(on, host):
    return on(host).out("cat /sys/module/nvidia/version")


def installed(on, host):
    """Versions of the driver's packages, each once."""
    names = "'*nvidia*' 'libcuda*' libnvcuvid1"
    listed = on(host).out(rf"dpkg-query -W -f '${{db:Status-Status}} ${{Version}}\n' {names} | grep -oE '^installed [0-9]{{3}}\.[0-9.]+'")
    return {line.split()[1] for line in listed.splitlines()}


def converges(play_role, host, *arguments, role="nvidia_driver"):
    """A run that passes, and one that then has nothing to do."""
    status, output = play_role(role, *arguments, host=host)
    assert status == 0, output
    status, output = play_role(role, *arguments, host=host)
    assert (status, lab_play.recap(output)[host]["changed"]) == (0, 0), output


def test_a_key_with_another_fingerprint(play_role, on, new):
    key = on(new).out("sha256sum /etc/apt/keyrings/nvidia-cuda.asc")
    status, output = play_role("nvidia_driver", f"--extra-vars=cuda_repository_key_fingerprint={OTHER_KEY}", host=new)
    assert status != 0
    assert re.search(rf"The key at http://mirror/cuda/repos/\w+/x86_64/3bf863cc.pub has the fingerprint [0-9A-F]{{40}}, not the pinned {OTHER_KEY}: ", output)
    assert "nothing was written. Either the address is wrong, or the repository changed its key" in output
    assert on(new).out("sha256sum /etc/apt/keyrings/nvidia-cuda.asc") == key
    converges(play_role, new)


def test_a_reboot_that_nobody_has_allowed(play_role, on, new, engine, downloads):
    engine(new)
    with downloads() as requests:
        status, output = play_role("nvidia_driver", f"--extra-vars=nvidia_driver_version={UPGRADE}", host=new)
    assert status != 0
    assert (
        f"{new} runs driver {VERSION}, and {UPGRADE} is wanted, which takes a reboot: set nvidia_driver_reboot to true, and the role fetches {UPGRADE}, "
        "stops vllm-*.service, installs, reboots and starts them again; or to false, to install it now and reboot yourself. Nothing was changed." in output
    )
    assert requests == []
    assert lab_play.recap(output)[new]["changed"] == 0
    assert on(new).out("systemctl is-active vllm-fault") == "active"


def test_a_package_that_somebody_else_holds(play_role, on, new):
    on(new).run("apt-mark unhold $(apt-mark showhold) && apt-mark hold libcuda1")
    arguments = [f"--extra-vars=nvidia_driver_version={UPGRADE}", "--extra-vars=nvidia_driver_reboot=true"]
    status, output = play_role("nvidia_driver", *arguments, host=new)
    assert status != 0
    assert (
        f"{new}: libcuda1 is on hold at {VERSION}-1, and {UPGRADE} is wanted. Release it with `apt-mark unhold libcuda1`, or set nvidia_driver_version to "
        "what is held. Nothing was changed." in output
    )
    assert running(on, new) == VERSION
    # The version that is held is the wanted one again: the role holds the rest with it.
    converges(play_role, new)
    assert len(on(new).out("apt-mark showhold").splitlines()) > 15


def test_a_repository_that_is_gone_half_way(play_role, on, new, engine):
    """The index is there and the packages are not: the engine serves on, and then the same run replaces the driver under it."""
    engine(new)
    # What an earlier run has fetched would do.
    on(new).run("apt-get clean")
    on("mirror").run("cd /srv/mirror/cuda/repos && for directory in */x86_64; do mkdir $directory/gone && mv $directory/*.deb $directory/gone; done")
    before = on(new).out("systemctl show --property=MainPID vllm-fault")
    arguments = [f"--extra-vars=nvidia_driver_version={UPGRADE}", "--extra-vars=nvidia_driver_reboot=true"]
    try:
        status, output = play_role("nvidia_driver", *arguments, host=new)
    finally:
        on("mirror").run("cd /srv/mirror/cuda/repos && for directory in */x86_64; do mv $directory/gone/* $directory && rmdir $directory/gone; done")
    assert status != 0
    assert f"={UPGRADE}-* cannot be installed from http://mirror/cuda/repos/" in output
    assert "the repository names http://mirror/cuda/repos/" in output
    assert "in its index and does not have it: it is being updated, or a mirror is incomplete; complete the mirror or wait for it, then run again" in output
    assert on(new).out("systemctl show --property=MainPID vllm-fault") == before, "nothing was stopped for a driver that cannot be had"
    assert (running(on, new), installed(on, new)) == (VERSION, {VERSION})
    assert len(on(new).out("apt-mark showhold").splitlines()) > 15

    converges(play_role, new, *arguments)
    assert (running(on, new), installed(on, new)) == (UPGRADE, {UPGRADE})
    assert on(new).out("systemctl is-active vllm-fault") == "active"


def test_a_reboot_that_comes_back_with_the_wrong_version(play_role, on, new, fault):
    """Back from the test before: a downgrade."""
    fault(new, f"boots:{UPGRADE}")
    status, output = play_role("nvidia_driver", "--extra-vars=nvidia_driver_reboot=true", host=new)
    assert status != 0
    assert (
        f"{new} runs driver {UPGRADE} after the reboot and not {VERSION}, which is installed: an old module is in the initramfs (`update-initramfs -u`), "
        "or DKMS has not built this one (`dkms status`). Mend that, then run again." in output
    )
    fault(new)
    converges(play_role, new, "--extra-vars=nvidia_driver_reboot=true")
    assert (running(on, new), installed(on, new)) == (VERSION, {VERSION})


def test_another_branch_and_kernel_module_without_a_reboot(play_role, on, old, engine):
    """Installed now, rebooted by hand: the engine is left alone. Then back, with the role's own reboot."""
    engine(old)
    before = on(old).out("systemctl show --property=MainPID vllm-fault")
    arguments = [f"--extra-vars=nvidia_driver_version={BRANCH}", "--extra-vars=nvidia_driver_kernel_module=proprietary"]
    status, output = play_role("nvidia_driver", *arguments, "--extra-vars=nvidia_driver_reboot=no", host=old)
    assert status != 0
    assert f"{old} runs driver {VERSION} and not {BRANCH}, which is installed: reboot the host, then run again." in output
    assert (running(on, old), installed(on, old)) == (VERSION, {BRANCH})
    assert on(old).out("systemctl show --property=MainPID vllm-fault") == before
    on(old).reboot()
    converges(play_role, old, *arguments)
    assert "NVIDIA" in on(old).out("modinfo --field=license nvidia")

    status, output = play_role("nvidia_driver", "--extra-vars=nvidia_driver_reboot=true", host=old)
    assert status == 0, output
    assert (running(on, old), installed(on, old)) == (VERSION, {VERSION})
    assert "GPL" in on(old).out("modinfo --field=license nvidia")
    assert on(old).out("systemctl is-active vllm-fault") == "active"


def test_nouveau_is_loaded(play_role, on, old):
    host = on(old)
    host.run("/usr/lib/gpuhosts-lab/module unload nvidia; mkdir /sys/module/nouveau; rm /etc/modprobe.d/gpuhosts-nouveau.conf /var/lib/gpuhosts-lab/initramfs")
    status, output = play_role("nvidia_driver", host=old)
    assert status != 0
    assert f"{old} has nouveau loaded, which keeps the NVIDIA module out, which takes a reboot: set nvidia_driver_reboot to true" in output
    assert not host.has("/etc/modprobe.d/gpuhosts-nouveau.conf")
    converges(play_role, old, "--extra-vars=nvidia_driver_reboot=true")
    assert not host.has("/sys/module/nouveau")
    assert running(on, old) == VERSION


def test_secure_boot_with_a_key_that_is_not_enrolled(play_role, on, old, fault):
    host, variable = on(old), "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    fault(old, "unsigned")
    host.run("/usr/lib/gpuhosts-lab/module unload nvidia; mount -t tmpfs none /sys/firmware && mkdir -p /sys/firmware/efi/efivars")
    host.run(f"printf '\\6\\0\\0\\0\\1' > /sys/firmware/efi/efivars/{variable}")
    try:
        status, output = play_role("nvidia_driver", host=old)
        assert status != 0
        assert f"{old}: secure boot is on, and the firmware does not know the key /var/lib/" in output
        assert "run `mokutil --import /var/lib/" in output
        assert "reboot and confirm it on the console; or turn secure boot off. Then run again. Nothing was changed." in output
        assert lab_play.recap(output)[old]["changed"] == 0

        # The firmware says yes, and the kernel still refuses.
        host.write("/usr/local/bin/mokutil", "#!/bin/sh\necho $2 is already enrolled\n")
        host.run("chmod +x /usr/local/bin/mokutil")
        status, output = play_role("nvidia_driver", host=old)
        assert status != 0
        assert f"{old}: the driver is installed, and its kernel module does not load. Secure boot is on and does not know the key that signs it" in output
        fault(old)
        converges(play_role, old)
    finally:
        host.run("umount /sys/firmware; rm -f /usr/local/bin/mokutil")
    assert running(on, old) == VERSION


def test_a_kernel_without_its_module(play_role, on, old):
    """As after an upgrade of the kernel whose headers were not there: the loaded driver is fine and the next boot's is missing."""
    on(old).run("/usr/lib/gpuhosts-lab/module clean; dpkg --remove linux-headers-$(uname -r)")
    converges(play_role, old)
    assert on(old).out("modinfo --field=version nvidia") == VERSION


def test_a_card_is_missing(play_role, fault, new):
    fault(new, "missing:2")
    status, output = play_role("nvidia_driver", host=new)
    assert status != 0
    assert f"{new}: the card at 0000:3d:00.0 is on the PCI bus but nvidia-smi does not report it. Look for its Xid in the kernel log" in output
    fault(new)
    converges(play_role, new)


LOCK = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True); time.sleep({})"


def test_another_process_holds_apts_lock(play_role, on, new):
    host = on(new)
    host.run("dpkg --remove cuda-toolkit-12-8")
    host.run(f'nohup python3 -c "{LOCK.format(600)}" > /tmp/lock 2>&1 & echo $! > /tmp/lock.pid; until grep -q locked /tmp/lock; do sleep 0.1; done')
    try:
        status, output = play_role("cuda_toolkit", "--extra-vars=apt_source_lock_timeout=3", host=new)
        assert status != 0
        assert (
            f"{new}: cuda-toolkit-12-8=12.8.1-* cannot be installed from http://mirror/cuda/repos/debian12/x86_64/: another process holds apt's lock " in output
        )
        assert "/var/lib/dpkg/lock-frontend (process " in output
        assert "(python3)): wait until it has ended, or raise apt_source_lock_timeout, then run again." in output
    finally:
        host.run("kill $(cat /tmp/lock.pid)")
    # A lock that is given back in time is waited for.
    host.run(f'nohup python3 -c "{LOCK.format(20)}" > /tmp/lock 2>&1 & until grep -q locked /tmp/lock; do sleep 0.1; done')
    started = time.monotonic()
    converges(play_role, new, role="cuda_toolkit")
    assert time.monotonic() - started > 15


def test_the_disk_is_full(play_role, on, new):
    host = on(new)
    host.run("dpkg --remove cuda-toolkit-12-8; mount -t tmpfs -o size=64k none /var/cache/apt/archives; mkdir /var/cache/apt/archives/partial")
    host.run("head -c 1M /dev/zero > /var/cache/apt/archives/filler", check=False)
    try:
        status, output = play_role("cuda_toolkit", host=new)
    finally:
        host.run("umount /var/cache/apt/archives")
    assert status != 0
    assert (
        f"{new}: cuda-toolkit-12-8=12.8.1-* cannot be installed from http://mirror/cuda/repos/debian12/x86_64/: the disk of the host is full: make room "
        "there (`apt-get clean` empties apt's own cache), then run again." in output
    )
    converges(play_role, new, role="cuda_toolkit")
