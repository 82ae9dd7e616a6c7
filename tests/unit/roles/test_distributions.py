"""What the host roles make of each distribution: their own variables, templated as Ansible does, with the facts of a bare host."""

import pathlib

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = pathlib.Path(__file__).parents[3] / "roles"
SYSTEMS = {
    "debian12": {"id": "debian", "version_id": "12", "codename": "bookworm", "architecture": "amd64"},
    "debian13": {"id": "debian", "version_id": "13", "codename": "trixie", "architecture": "amd64"},
    "ubuntu2204": {"id": "ubuntu", "version_id": "22.04", "codename": "jammy", "architecture": "amd64"},
    "ubuntu2404": {"id": "ubuntu", "version_id": "24.04", "codename": "noble", "architecture": "amd64"},
}
BARE = {
    "kernel": "6.8.0-63-generic", "driver_version": None, "driver_module_installed": False, "driver_module_version": None, "nouveau_loaded": False,
    "secure_boot": False,
    "packages": {}, "held": [], "gpus": [], "gpu_source": "sysfs", "problems": [],
    "docker": {"version": None, "cdi": False, "daemon_config": {}, "running_containers": 0},
    "cdi_devices": [], "cdi_driver_version": None, "container_proof": {},
}  # fmt: skip


@pytest.fixture
def value():
    """value(expression, system, facts={}, **variables): what the roles make of it."""

    def template(expression, system, facts=None, **variables):
        loader = DataLoader()
        known = {"inventory_hostname": "coder01"}
        for role in ("apt_source", "cuda_repository", "nvidia_driver", "cuda_toolkit", "docker_engine", "nvidia_container_toolkit"):
            for part in ("defaults", "vars"):
                known |= loader.load_from_file(str(ROLES / role / part / "main.yml"), trusted_as_template=True)
        known |= variables | {"ansible_facts": {"gpuhosts": BARE | {"os": SYSTEMS[system]} | (facts or {})}}
        return Templar(loader, variables=known).template(trust_as_template("{{ " + expression + " }}"))

    return template


NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos"


@pytest.mark.parametrize("system, repository", [("debian12", "debian12"), ("debian13", "debian12"), ("ubuntu2204", "ubuntu2204"), ("ubuntu2404", "ubuntu2404")])
def test_repository_and_key(value, system, repository):
    assert value("cuda_repository_uri", system) == f"{NVIDIA}/{repository}/x86_64/"
    assert value("cuda_repository_key_url", system) == f"{NVIDIA}/{repository}/x86_64/3bf863cc.pub"
    assert value("cuda_repository_key_fingerprint", system) == "EB693B3035CD5710E231E123A4B469963BF863CC"
    assert value("cuda_repository_uri", system, cuda_repository_root="http://mirror/cuda") == f"http://mirror/cuda/{repository}/x86_64/"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("module", ["open", "proprietary"])
def test_the_drivers_packages(value, system, module):
    suffix = "-open" if module == "open" else ""
    names = (
        ["nvidia-driver-cuda", f"nvidia-kernel{suffix}-dkms"]
        if system.startswith("debian")
        else [f"nvidia-headless-570{suffix}", "nvidia-utils-570", "nvidia-persistenced"]
    )
    packages = value("__nvidia_driver_packages", system, nvidia_driver_kernel_module=module)
    assert packages == dict.fromkeys(names, "570.153.02") | {"linux-headers-6.8.0-63-generic": None}
    assert list(value("__nvidia_driver_packages", system, nvidia_driver_kernel_module=module, nvidia_driver_kernel_headers="")) == names


@pytest.mark.parametrize("system, branch", [("ubuntu2404", "575"), ("ubuntu2204", "575")])
def test_another_branch_has_other_names(value, system, branch):
    names = value("__nvidia_driver_packages", system, nvidia_driver_version=f"{branch}.57.08")
    assert [name for name in names if branch in name] == [f"nvidia-headless-{branch}-open", f"nvidia-utils-{branch}"]


@pytest.mark.parametrize(
    "system, key, make",
    [("debian12", "/var/lib/dkms/mok.pub", "dkms generate_mok"), ("ubuntu2404", "/var/lib/shim-signed/mok/MOK.der", "update-secureboot-policy --new-key")],
)
def test_the_key_of_secure_boot(value, system, key, make):
    assert value("__nvidia_driver_secure_boot_key", system) == key
    assert value("__nvidia_driver_distribution.secure_boot_make", system) == make
    assert value("__nvidia_driver_secure_boot_key", system, nvidia_driver_secure_boot_key="/etc/mok.der") == "/etc/mok.der"


def converged(system, version="570.153.02", module="open"):
    """Facts of a host that runs that version."""
    names = {"debian": ["nvidia-driver-cuda", "libcuda1", f"nvidia-kernel-{'open-' if module == 'open' else ''}dkms"],
             "ubuntu": ["nvidia-utils-570", "libnvidia-compute-570", "nvidia-persistenced", f"nvidia-dkms-570{'-open' if module == 'open' else ''}",
                        f"nvidia-headless-570{'-open' if module == 'open' else ''}"]}[SYSTEMS[system]["id"]]  # fmt: skip
    driver = dict.fromkeys(names, f"{version}-1")
    others = {"linux-headers-6.8.0-63-generic": "6.8.0-63.66", "nvidia-container-toolkit": "1.17.8-1", "libcudart12": "12.0-1"}
    card = {"persistence_mode": True}
    return {
        "packages": driver | others, "held": [*driver, "nvidia-container-toolkit"], "driver_version": version, "driver_module_installed": True,
        "driver_module_version": version,
        "gpu_source": "nvidia-smi", "gpus": [card, card],
    }  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_converged_host_has_nothing_to_do(value, system):
    facts = converged(system)
    assert value("__nvidia_driver_work", system, facts) is False
    assert value("__nvidia_driver_unheld", system, facts) == []
    assert value("__nvidia_driver_unproven", system, facts) == []


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "differs, reasons",
    [
        ({"driver_module_installed": False}, []),
        ({"driver_version": None}, []),
        ({"driver_version": "570.133.20"}, ["runs driver 570.133.20, and 570.153.02 is wanted"]),
        ({"driver_version": None, "nouveau_loaded": True}, ["has nouveau loaded, which keeps the NVIDIA module out"]),
    ],
)
def test_work_is_wanted_and_whether_it_takes_a_reboot(value, system, differs, reasons):
    facts = converged(system) | differs
    assert value("__nvidia_driver_work", system, facts) is True
    assert value("__nvidia_driver_reboot_reasons", system, facts) == reasons
    assert value("__nvidia_driver_reboots", system, facts) is False
    assert value("__nvidia_driver_reboots", system, facts, nvidia_driver_reboot="no") is False
    assert value("__nvidia_driver_reboots", system, facts, nvidia_driver_reboot=True) is bool(reasons)


@pytest.mark.parametrize(
    "differs, proven",
    [
        ({"driver_module_version": "570.133.20"}, "coder01 has version 570.133.20 of the kernel module for 6.8.0-63-generic and not 570.153.02"),
        ({"driver_module_version": None, "driver_module_installed": False}, "coder01 has version none of the kernel module for 6.8.0-63-generic"),
        ({"driver_module_version": None}, None),
        ({"driver_module_version": None, "driver_module_installed": None}, None),
    ],
    ids=["another version", "none", "a module that modinfo does not read", "a container that does not show its modules"],
)
def test_the_module_that_the_next_boot_brings(value, differs, proven):
    found = value("__nvidia_driver_unproven", "ubuntu2404", converged("ubuntu2404") | differs)
    assert [proven] == [sentence[: len(proven)] for sentence in found] if proven else found == []


UNIT = "vllm-coder.service loaded active running vLLM coder"


@pytest.mark.parametrize(
    "batch, down, turns, fallen",
    [(1, [], [0, 1, 0, 2, 3], []), (2, [], [0, 1, 0, 1, 2], []), ("2", ["b"], [0, 1, 0, 1, 2], ["b"]), (1, ["a"], [0, 1, 0, 2, 3], [])],
)
def test_serving_hosts_take_turns(value, batch, down, turns, fallen):
    """a asked and serves nothing, b, d and e serve, c needs no reboot and did not ask."""
    asked = {"a": {"stdout_lines": []}, "c": {"skipped": True}} | {name: {"stdout_lines": [UNIT]} for name in "bde"}
    hosts = {name: {"inventory_hostname": name, "__nvidia_driver_units": asked[name]} for name in asked} | {"f": {"inventory_hostname": "f"}}
    everywhere = {
        "hostvars": hosts, "ansible_play_hosts_all": sorted(hosts), "ansible_play_hosts": sorted(set(hosts) - set(down)), "nvidia_driver_reboot_batch": batch
    }  # fmt: skip
    assert [value("__nvidia_driver_turn", "debian13", **everywhere | hosts[name]) for name in "abcde"] == turns
    assert value("__nvidia_driver_fallen", "debian13", **everywhere | hosts["e"]) == fallen
    assert value("__nvidia_driver_engines", "debian13", **everywhere | hosts["e"]) == ["vllm-coder.service"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_other_kernel_module_takes_a_reboot(value, system):
    facts = converged(system, module="proprietary")
    assert value("__nvidia_driver_reboot_reasons", system, facts) == ["has the proprietary kernel module, and the open one is wanted"]
    assert value("__nvidia_driver_reboot_reasons", system, facts, nvidia_driver_kernel_module="proprietary") == []
    assert value("__nvidia_driver_reboot_reasons", system, converged(system), nvidia_driver_kernel_module="proprietary") == [
        "has the open kernel module, and the proprietary one is wanted"
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_whose_hold_it_is(value, system):
    ours = converged(system, version="570.133.20")
    one = next(iter(ours["packages"]))
    assert value("__nvidia_driver_foreign_hold", system, ours) is False
    assert value("__nvidia_driver_foreign_hold", system, ours | {"held": [one]}) is True
    assert value("__nvidia_driver_held_others", system, ours | {"held": [one, "nvidia-container-toolkit"]}) == [one]
    assert value("__nvidia_driver_foreign_hold", system, ours | {"held": []}) is False
    assert value("__nvidia_driver_foreign_hold", system, converged(system) | {"held": [one]}) is False, "held at the wanted version"
    left_over = ours | {"packages": ours["packages"] | {"libnvidia-gl-575": "575.57.08-1"}}
    assert value("__nvidia_driver_foreign_hold", system, left_over) is False, "of another branch, and not on hold"


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_toolkits_packages(value, system):
    assert value("__cuda_toolkit_packages", system) == {"cuda-toolkit-12-8": "12.8.1"}
    parts = value("__cuda_toolkit_packages", system, cuda_toolkit_parts=["cuda-compiler", "cuda-nvcc", "libcublas-dev"])
    assert parts == {"cuda-compiler-12-8": "12.8.1", "cuda-nvcc-12-8": None, "libcublas-dev-12-8": None}


ENGINES = {
    "debian12": ["docker.io", "iptables", "pigz", "python3-requests"],
    "debian13": ["docker-cli", "docker.io", "iptables", "pigz", "python3-requests"],
    "ubuntu2204": ["docker.io", "iptables", "pigz", "python3-requests"],
    "ubuntu2404": ["docker.io", "iptables", "pigz", "python3-requests"],
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_distributions_engine(value, system):
    assert sorted(value("__docker_engine_packages", system)) == ENGINES[system]
    assert value("__docker_engine_installing", system) is True
    there = {"packages": dict.fromkeys(ENGINES[system], "1")}
    assert value("__docker_engine_installing", system, there) is False
    assert value("__docker_engine_ce_missing", system) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_dockers_own_engine(value, system):
    wanted = {"docker_engine_source": "docker"}
    assert value("__docker_engine_packages", system, **wanted) == ["pigz", "python3-requests"]
    assert value("__docker_engine_uri", system, **wanted) == f"https://download.docker.com/linux/{SYSTEMS[system]['id']}"
    assert value("__docker_engine_ce_missing", system, **wanted) == ["docker-ce=5:28.2.2-*", "docker-ce-cli=5:28.2.2-*", "containerd.io=1.7.27-*"]
    codename = SYSTEMS[system]["codename"]
    release = f"{SYSTEMS[system]['id']}.{SYSTEMS[system]['version_id']}~{codename}"
    there = {name: f"{version}-1~{release}" for name, version in {"docker-ce": "5:28.2.2", "docker-ce-cli": "5:28.2.2", "containerd.io": "1.7.27"}.items()}
    facts = {"packages": there | dict.fromkeys(["pigz", "python3-requests"], "1")}
    assert value("__docker_engine_installing", system, facts, **wanted) is False
    assert value("__docker_engine_other.name", system, facts) == "docker-ce", "not replaced by the distribution's without consent"


def test_engines_are_restarted_one_host_after_the_other_where_containers_run(value):
    def serving(config, running=2):
        return {"docker": {"version": "26.1.5", "cdi": True, "daemon_config": config, "running_containers": running}}

    as_wanted = value("__docker_engine_config", "debian13") | {"labels": ["site=a"]}
    other = as_wanted | {"log-driver": "journald"}
    found = [value("__docker_engine_interrupts", "debian13", facts) for facts in (serving(as_wanted), serving(other), serving(other, 0), None)]
    assert found == [False, True, False, False], "not on a converged host, not on an idle one, not on a bare one"


def test_what_goes_into_daemon_json(value):
    variables = {
        "docker_engine_data_root": "/srv/docker", "docker_engine_registry_mirrors": ["https://mirror.example"], "docker_engine_log_opts": {"max-size": "1m"},
        "docker_engine_default_address_pools": [{"base": "10.201.0.0/16", "size": 24}], "docker_engine_daemon_config": {"features": {"buildkit": True}},
    }  # fmt: skip
    assert value("__docker_engine_config", "ubuntu2404", **variables) == {
        "features": {"cdi": True, "buildkit": True},
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "1m"},
        "data-root": "/srv/docker",
        "registry-mirrors": ["https://mirror.example"],
        "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}],
    }
    unset = {"docker_engine_log_driver": "", "docker_engine_live_restore": False}
    assert value("__docker_engine_config", "ubuntu2404", **unset) == {"features": {"cdi": True}, "live-restore": False}


@pytest.mark.parametrize("word, meant", [("no", False), ("false", False), ("yes", True), (True, True), (False, False)])
def test_live_restore_from_the_command_line(value, word, meant):
    assert value("__docker_engine_config['live-restore']", "debian13", docker_engine_live_restore=word) is meant


@pytest.mark.parametrize("system", SYSTEMS)
def test_cards_by_cdi_or_by_the_runtime(value, system):
    """By what the engine can, not by what the distribution is: Ubuntu 24.04 has had engines with and without CDI."""
    for cdi in (True, False):
        facts = {"docker": {"version": "28.2.2" if cdi else "20.10.24", "cdi": cdi, "daemon_config": {}}}
        assert value("__nvidia_container_toolkit_runtime_wanted", system, facts) is not cdi
    assert value("__nvidia_container_toolkit_missing", system) == ["nvidia-container-toolkit=1.17.8-*"]
