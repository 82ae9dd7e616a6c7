"""Power limits, clocks and kernel arguments on a real host, with what goes wrong there."""

import json

import lab_play
import pytest

HOST = "gpu01"
TUNED = {"gpu_tuning_power_budget_watts": 600, "gpu_tuning_graphics_clocks_mhz": [300, 1500]}
FILES = ("/usr/local/lib/gpu-tuning.py", "/etc/gpu-tuning.conf", "/etc/systemd/system/gpu-tuning.service")
# What role.yml costs by itself: the inclusion, the role's arguments, the host's facts.
ALONE = 3


@pytest.fixture(scope="module")
def machine(on):
    return on(HOST)


@pytest.fixture(scope="module")
def tune(play_role):
    """tune(variables, *arguments): the role with these variables; (status, output, recap)."""

    def run(variables, *arguments):
        status, output = play_role("gpu_tuning", f"--extra-vars={json.dumps(variables)}", *arguments, host=HOST)
        return status, output, lab_play.recap(output)[HOST]

    return run


@pytest.fixture(scope="module")
def tuned(tune, machine):
    """The host with a budget of 600 W over its four cards; given back when the module is done."""
    pid = machine.out("systemctl show --property=MainPID docker.service")
    first = tune(TUNED)
    assert machine.out("systemctl show --property=MainPID docker.service") == pid
    yield first
    tune({})


@pytest.fixture
def grub(machine):
    """A GRUB that counts how often its configuration was rebuilt; the simulated hosts have no boot loader."""
    machine.write("/tmp/grub/DEBIAN/control", "Package: grub2-common\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
    machine.write("/tmp/grub/usr/sbin/update-grub", "#!/bin/sh\necho . >> /run/update-grub\n")
    machine.run("chmod 755 /tmp/grub/usr/sbin/update-grub && dpkg-deb --build /tmp/grub /tmp/grub.deb && dpkg --install /tmp/grub.deb")
    yield lambda: machine.run("cat /run/update-grub", check=False).stdout.count(".")
    machine.run("dpkg --purge grub2-common")
    machine.remove("/etc/default/grub.d/gpu-tuning.cfg", "/run/update-grub")


def limits(machine):
    return [float(watts) for watts in machine.out("nvidia-smi --query-gpu=power.limit --format=csv,noheader,nounits").split()]


def settings(machine):
    """What the stand-in cards were set to since the boot."""
    return list(json.loads(machine.out("cat /run/gpuhosts-lab/settings.json")).values())


def state(machine):
    return limits(machine), machine.out(f"sha256sum {' '.join(FILES)}"), machine.out("stat --format=%Y /run/gpu-tuning/applied")


def test_a_host_that_wants_nothing_is_asked_nothing(tune, machine):
    status, output, counts = tune({})
    assert (status, counts["ok"], counts["changed"]) == (0, ALONE, 0)
    assert not machine.has(FILES[2])


def test_check_mode_says_what_would_change_and_changes_nothing(tune, machine):
    status, output, counts = tune(TUNED, "--check", "--diff")
    assert status == 0
    assert counts["changed"] == 4, "three files, and the cards"
    assert "GPU 3: 250 W to 150 W" in output
    assert "+power_limit_watts = 150" in output
    assert limits(machine) == [250] * 4
    assert not machine.has(FILES[1])


def test_without_a_driver_check_mode_passes_and_a_run_refuses(tune, machine):
    machine.run("mv /usr/bin/nvidia-smi /usr/bin/nvidia-smi.kept")
    try:
        check, real = tune(TUNED, "--check"), tune(TUNED)
    finally:
        machine.run("mv /usr/bin/nvidia-smi.kept /usr/bin/nvidia-smi")
    assert (check[0], check[2]["changed"]) == (0, 1)
    assert "The cards of gpu01 would be tuned once their driver runs; what they can do is known only then." in check[1]
    assert real[0] != 0
    assert "gpu01: nvidia-smi does not answer, so no card can be tuned: bring the driver up with playbooks/host.yml. Nothing was changed." in real[1]


def test_a_budget_is_divided_and_applied_at_once(tuned, machine):
    status, output, counts = tuned
    assert (status, counts["changed"]) == (0, 4), output
    assert limits(machine) == [150] * 4
    assert [card["graphics_clocks"] for card in settings(machine)] == [[300, 1500]] * 4


def test_a_converged_host_costs_no_task_of_the_roles_own(tuned, tune):
    status, output, counts = tune(TUNED)
    assert (status, counts["ok"], counts["changed"]) == (0, ALONE, 0)


def test_a_reboot_forgets_and_the_unit_sets_again(tuned, machine):
    machine.reboot()
    assert machine.out("systemctl is-active gpu-tuning") == "active"
    assert limits(machine) == [150] * 4
    assert [card["graphics_clocks"] for card in settings(machine)] == [[300, 1500]] * 4


def test_a_limit_set_by_hand_and_a_disabled_unit_are_noticed_and_mended(tuned, tune, machine):
    machine.run("nvidia-smi -i 2 -pl 250 && systemctl disable gpu-tuning")
    status, output, counts = tune(TUNED, "--check")
    assert (status, counts["changed"]) == (0, 1)
    assert "GPU 2: 250 W to 150 W" in output
    assert limits(machine) == [150, 150, 250, 150]
    status, output, counts = tune(TUNED)
    assert (status, counts["changed"]) == (0, 1)
    assert limits(machine) == [150] * 4
    assert machine.out("systemctl is-enabled gpu-tuning") == "enabled"


def test_a_card_missing_at_boot_is_named_and_the_others_are_tuned(tuned, tune, machine, fault):
    uuid = machine.out("nvidia-smi -i 2 --query-gpu=uuid --format=csv,noheader")
    fault(HOST, "missing:2")
    machine.reboot()
    assert machine.run("systemctl is-failed gpu-tuning", check=False).stdout == "failed\n"
    assert limits(machine) == [150] * 3
    journal = machine.out("journalctl --unit gpu-tuning --output cat --no-pager")
    assert f"GPU 2 ({uuid}, 0000:3d:00.0): nvidia-smi -i {uuid} " in journal and "No devices were found" in journal
    status, output, counts = tune(TUNED | {"gpu_tuning_power_limit_watts_by_card": {"3": 150}})
    assert status != 0
    assert "gpu01: There is no card 3 on this host: it has the cards 0 to 2. Nothing was changed." in output
    fault(HOST)
    machine.reboot()
    assert limits(machine) == [150] * 4
    assert machine.out("systemctl is-active gpu-tuning") == "active"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"gpu_tuning_power_limit_watts_by_card": {"1": 400, "7": 150}},
            "gpu01: There is no card 7 on this host: it has the cards 0 to 3. "
            "GPU 1 (NVIDIA GeForce RTX 2080 Ti) takes a power limit from 100 W to 280 W, not 400 W. Nothing was changed.",
        ),
        (
            {"gpu_tuning_power_budget_watts": 399},
            "gpu01: The cards need at least 400 W together (100 W for GPU 0, 100 W for GPU 1, 100 W for GPU 2, 100 W for GPU 3), and the budget "
            "is 399 W: raise it to 400 W or more. Nothing was changed.",
        ),
        (
            {"gpu_tuning_memory_clocks_mhz": [405, 7000]},
            "GPU 3 (NVIDIA GeForce RTX 2080 Ti) cannot lock its memory clocks, which Ampere and newer cards can: leave them unset. Nothing was changed.",
        ),
        (
            {"gpu_tuning_iommu": "passthrough"},
            "gpu01: its boot loader is not GRUB (the package grub2-common is not installed): leave gpu_tuning_iommu out and put iommu=pt on the "
            "kernel's command line by its own means. Nothing was changed.",
        ),
    ],
    ids=["range and index", "budget", "memory clocks", "boot loader"],
)
def test_a_refusal_says_why_and_changes_nothing(tuned, tune, machine, variables, message):
    before = state(machine)
    status, output, counts = tune(TUNED | variables)
    assert status != 0
    assert message in output
    assert counts["changed"] == 0
    assert state(machine) == before


def test_a_card_without_power_management_is_refused(tuned, tune, machine):
    path = "/etc/gpuhosts-lab/cards.json"
    description = machine.out(f"cat {path}")
    changed = json.loads(description)
    changed["gpus"][1] |= dict.fromkeys(("power_min_limit_watts", "power_default_limit_watts", "power_max_limit_watts"))
    try:
        machine.write(path, json.dumps(changed))
        budget, limit = tune(TUNED), tune({"gpu_tuning_power_limit_watts": 150})
    finally:
        machine.write(path, description + "\n")
    assert budget[0] != 0 and limit[0] != 0
    assert (
        "gpu01: GPU 1 (NVIDIA GeForce RTX 2080 Ti) takes no power limit, so no power budget can be kept on this host: leave the budget unset. "
        "Nothing was changed."
    ) in budget[1]
    assert (
        "gpu01: GPU 1 (NVIDIA GeForce RTX 2080 Ti) takes no power limit: its driver answers [N/A], as laptop and vGPU cards do. "
        "Leave this card's limit unset. Nothing was changed."
    ) in limit[1]


def test_what_the_driver_refuses_is_said_and_a_corrected_run_converges(tuned, tune, machine):
    smi = "/usr/bin/nvidia-smi"
    uuid = machine.out("nvidia-smi -i 1 --query-gpu=uuid --format=csv,noheader")
    wanted = {"gpu_tuning_power_limit_watts": 160}
    machine.run(f"mv {smi} {smi}.kept")
    machine.write(smi, f'#!/bin/sh\ncase "$*" in *"{uuid} -pl"*) echo "Insufficient Permissions"; exit 4;; esac\nexec {smi}.kept "$@"\n')
    try:
        machine.run(f"chmod 755 {smi}")
        status, output, counts = tune(wanted)
    finally:
        machine.run(f"mv {smi}.kept {smi}")
    assert status != 0
    assert f"gpu01: GPU 1 ({uuid}, 0000:1b:00.0): nvidia-smi -i {uuid} -pl 160: Insufficient Permissions. Everything else was set." in output
    assert limits(machine) == [160, 150, 160, 160]
    assert tune(wanted)[0] == 0
    assert limits(machine) == [160] * 4
    assert [card["graphics_clocks"] for card in settings(machine)] == [None] * 4, "clocks that are not named any more are given back"


@pytest.mark.slow
def test_kernel_arguments_need_consent_and_are_taken_back(tune, machine, grub):
    path = "/etc/default/grub.d/gpu-tuning.cfg"
    wanted = {"gpu_tuning_iommu": "passthrough"}
    status, output, counts = tune(wanted)
    assert status != 0
    assert (
        "gpu01 runs without the kernel arguments that are wanted, or with some that are not (iommu=pt), which takes a reboot: set "
        "gpu_tuning_reboot to true, or to false to write them now and reboot yourself. Nothing was changed."
    ) in output
    assert not machine.has(path) and grub() == 0

    status, output, counts = tune(wanted | {"gpu_tuning_reboot": False})
    assert status == 0
    assert "The kernel of gpu01 gets its new arguments when it is rebooted, which gpu_tuning_reboot leaves to you." in output
    assert machine.out(f". {path}; echo $GRUB_CMDLINE_LINUX") == "iommu=pt"
    assert grub() == 1
    status, output, counts = tune(wanted | {"gpu_tuning_reboot": False})
    assert (status, counts["changed"], grub()) == (0, 0, 1)

    assert tune({})[0] == 0
    assert not machine.has(path) and grub() == 2


@pytest.mark.slow
def test_without_variables_everything_is_given_back(tuned, tune, machine):
    assert tune(TUNED)[0] == 0
    status, output, counts = tune({}, "--check")
    assert (status, counts["failed"], counts["changed"]) == (0, 0, 4), "the cards, their settings, the unit and the files"
    assert "GPU 0: 150 W to 250 W" in output
    assert limits(machine) == [150] * 4
    status, output, counts = tune({})
    assert status == 0, output
    assert limits(machine) == [250] * 4
    assert [card["graphics_clocks"] for card in settings(machine)] == [None] * 4
    assert [path for path in FILES if machine.has(path)] == []
    assert machine.run("systemctl cat gpu-tuning", check=False).returncode != 0
    status, output, counts = tune({})
    assert (status, counts["ok"], counts["changed"]) == (0, ALONE, 0)
