#!/usr/bin/python
# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_facts
short_description: Everything a serving plan needs to know about a GPU host, in one call
version_added: "0.1.0"
description:
  - Reads cards, topology, driver, Docker Engine, installed packages and free space of a host and returns them under C(ansible_facts.gpuhosts).
  - Works before and after the driver is installed. Without an answer from C(nvidia-smi) the cards are read from the PCI bus, and what only the
    driver knows is null.
  - Changes nothing and does not fail because something is missing. What could not be read is said in RV(ansible_facts.gpuhosts.problems).
  - Uses the Python standard library alone. Starts C(dpkg-query) once, C(modinfo) once where an nvidia module is installed, and C(nvidia-smi) once
    for the cards, once for the topology of two cards or more, and once for the link speeds where the topology shows NVLink.
author:
  - The gpuhosts.inference authors (@gpuhosts)
options:
  images:
    description: Image references to look up in the Docker Engine.
    type: list
    elements: str
    default: []
  paths:
    description:
      - Paths whose file system's free space is wanted.
      - A path need not exist. Its nearest existing parent is looked at then.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds to wait for each answer of C(nvidia-smi), which hangs when a card or its driver does.
      - After the first missing answer it is not asked again.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return what it would outside of it.
    support: full
  diff_mode:
    description: Returns what it would change.
    support: none
  facts:
    description: Returns facts.
    support: full
  platform:
    description: The systems it runs on.
    platforms: debian
    support: full
notes:
  - Run it as root. Other users may not read Docker's socket or the kernel log.
seealso:
  - module: ansible.builtin.package_facts
"""

EXAMPLES = r"""
- name: Read what the plan needs
  gpuhosts.inference.gpu_facts:
    images:
      - vllm/vllm-openai:v0.8.5
    paths:
      - /var/lib/docker
      - /srv/models

- name: Show the cards
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpuhosts.gpus | map(attribute='name') | list }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: always
  type: dict
  contains:
    gpuhosts:
      description: The host.
      returned: always
      type: dict
      contains:
        os:
          description: Operating system. The architecture is spelled as Debian does.
          returned: always
          type: dict
          sample: {id: ubuntu, version_id: "24.04", codename: noble, architecture: amd64}
        kernel:
          description: Release of the running kernel.
          returned: always
          type: str
          sample: 6.8.0-63-generic
        kernel_arguments:
          description: The words of the running kernel's command line.
          returned: always
          type: list
          elements: str
          sample: [BOOT_IMAGE=/boot/vmlinuz-6.8.0-63-generic, ro, quiet, iommu=pt]
        cpus:
          description: Number of logical CPUs.
          returned: always
          type: int
        memory_bytes:
          description: RAM in bytes.
          returned: always
          type: int
        secure_boot:
          description: Whether secure boot is on. Null where it cannot be known, for example in a container.
          returned: always
          type: bool
        gpu_source:
          description: Where RV(ansible_facts.gpuhosts.gpus) comes from.
          returned: always
          type: str
          sample: nvidia-smi
        nvidia_smi:
          description: What C(nvidia-smi) does, C(answers), C(fails), C(hangs) (no answer within O(timeout)), or C(missing) without a driver.
          returned: always
          type: str
          sample: answers
        lost_gpus:
          description: Bus ids of cards that are on the PCI bus and that C(nvidia-smi), which reports others, does not report.
          returned: always
          type: list
          elements: str
        gpus:
          description: The cards, in the order of their index. A value nobody could tell is null.
          returned: always
          type: list
          elements: dict
          contains:
            index:
              description: The card's number, as in C(CUDA_VISIBLE_DEVICES) with C(CUDA_DEVICE_ORDER=PCI_BUS_ID).
              returned: always
              type: int
            uuid:
              description: The card's own name.
              returned: always
              type: str
            name:
              description: The product.
              returned: always
              type: str
              sample: NVIDIA GeForce RTX 2080 Ti
            compute_capability:
              description: CUDA compute capability.
              returned: always
              type: str
              sample: "7.5"
            memory_total_bytes:
              description: Memory on the card.
              returned: always
              type: int
            memory_reserved_bytes:
              description: Memory that driver and firmware keep. Programs see the total without it.
              returned: always
              type: int
            pci_bus_id:
              description: Bus id as sysfs spells it.
              returned: always
              type: str
              sample: "0000:3b:00.0"
            pci_device_id:
              description: Vendor and device.
              returned: always
              type: str
              sample: "10de:1e07"
            pcie:
              description:
                - Generation and width of the link, now and at most. An idle card lowers its generation.
              returned: always
              type: dict
              sample: {generation: 1, width: 16, generation_max: 3, width_max: 16}
            numa_node:
              description: NUMA node the card hangs on. Null on a machine without NUMA.
              returned: always
              type: int
            power_limit_watts:
              description: Power limit that is set. This one and the next three are null where the driver does not manage the card's power.
              returned: always
              type: float
            power_default_limit_watts:
              description: Power limit after a boot.
              returned: always
              type: float
            power_min_limit_watts:
              description: The lowest power limit that the card accepts.
              returned: always
              type: float
            power_max_limit_watts:
              description: The highest power limit that the card accepts.
              returned: always
              type: float
            persistence_mode:
              description: Whether the driver stays loaded for the card when nobody uses it.
              returned: always
              type: bool
        nvlink:
          description: For each card, the speeds of its active NVLinks in GB/s.
          returned: always
          type: list
          elements: list
          sample: [[25.781, 25.781], [25.781, 25.781]]
        topology:
          description: For each pair of cards, the way between them as C(nvidia-smi topo -m) names it. Empty with fewer than two cards.
          returned: always
          type: dict
          sample: {"0": {"1": NV2}, "1": {"0": NV2}}
        driver_version:
          description: Version of the driver that runs, which after an upgrade is not the installed one. Null when none is loaded.
          returned: always
          type: str
          sample: 570.153.02
        driver_module_installed:
          description: Whether an nvidia module is installed for the running kernel. Null where the kernel's modules are not to be seen.
          returned: always
          type: bool
        driver_module_version:
          description: Version of that module, which the next boot loads. Null without one.
          returned: always
          type: str
          sample: 570.153.02
        driver_package_version:
          description: Version of the installed driver's libraries. Where another driver runs, programs fail until a reboot.
          returned: always
          type: str
          sample: 570.153.02
        driver_foreign_files:
          description: Files of a driver that was installed past apt, the uninstaller of a .run file or a libcuda that no package has.
          returned: always
          type: list
          elements: str
          sample: [/usr/bin/nvidia-uninstall]
        cuda_version:
          description: The highest CUDA version that the running driver supports. Null without a driver.
          returned: always
          type: str
          sample: "12.8"
        nouveau_loaded:
          description: Whether the nouveau module is loaded.
          returned: always
          type: bool
        gateway:
          description: What the role C(gateway) left on the host.
          returned: always
          type: dict
          contains:
            files:
              description: SHA-256 of each file that it wrote, by its path. Null for one that is gone.
              returned: always
              type: dict
            units:
              description: Whether each of its units runs now and at the next boot, by its name.
              returned: always
              type: dict
        monitoring:
          description: What the role C(monitoring) left on the host.
          returned: always
          type: dict
          contains:
            files:
              description: SHA-256 of each file that it wrote, by its path. Null for one that is gone.
              returned: always
              type: dict
            units:
              description: Whether each of its units runs now and at the next boot, by its name.
              returned: always
              type: dict
        pull:
          description: What the role C(pull) left on the host.
          returned: always
          type: dict
          contains:
            files:
              description: SHA-256 of each file that it wrote, by its path. Null for one that is gone.
              returned: always
              type: dict
            units:
              description: Whether each of its units starts at the next boot, by its name.
              returned: always
              type: dict
            last:
              description:
                - What came of the host's own last run. Null where it had none.
                - Its C(result) is C(converged), C(changed), C(failed), C(running) or C(cut off).
              returned: always
              type: dict
              sample: {result: failed, started: "2026-03-02T11:07:12Z", ended: "2026-03-02T11:07:44Z", changed: 0, task: Refuse what does not fit,
                       commit: 1f0e9d8c7b6a}
        gpu_tuning:
          description: What the role C(gpu_tuning) left on the host. The checksum of a file that is not there is null.
          returned: always
          type: dict
          contains:
            program:
              description: SHA-256 of the program that its unit runs.
              returned: always
              type: str
            settings:
              description: SHA-256 of the settings.
              returned: always
              type: str
            unit:
              description: SHA-256 of the unit.
              returned: always
              type: str
            grub:
              description: SHA-256 of the kernel arguments for GRUB.
              returned: always
              type: str
            enabled:
              description: Whether the unit starts at boot.
              returned: always
              type: bool
            applied:
              description: SHA-256 of the settings that were applied last since the boot. Null when not all could be.
              returned: always
              type: str
            problems:
              description: What could not be applied then, one sentence each.
              returned: always
              type: list
              elements: str
        reboot_required:
          description: Whether a package has asked for a reboot.
          returned: always
          type: bool
        reboot_reasons:
          description: Why the host waits for a reboot, one sentence each. A kernel or a driver that is installed and does not run counts too.
          returned: always
          type: list
          elements: str
          sample: ["driver 570.153.02 runs, and the next boot loads 575.57.08"]
        xids:
          description: The driver's error reports that are still in the kernel log, oldest first, at most the last 50.
          returned: always
          type: list
          elements: dict
          sample: [{pci_bus_id: "0000:3b:00.0", code: 79, seconds_since_boot: 86400, message: GPU has fallen off the bus.}]
        docker:
          description: The Docker Engine.
          returned: always
          type: dict
          contains:
            version:
              description: Version of the engine. Null when none answers.
              returned: always
              type: str
            api_version:
              description: The engine's API version.
              returned: always
              type: str
            daemon_config:
              description: What C(/etc/docker/daemon.json) says.
              returned: always
              type: dict
            daemon_config_error:
              description: Why that file cannot be used, or null.
              returned: always
              type: str
            data_root:
              description: Directory the engine keeps images in. It is one of the paths in RV(ansible_facts.gpuhosts.file_systems).
              returned: always
              type: str
              sample: /var/lib/docker
            storage_driver:
              description: The engine's storage driver.
              returned: always
              type: str
            cdi:
              description: Whether the engine reads CDI specifications.
              returned: always
              type: bool
            runtimes:
              description: Names of the runtimes the engine knows.
              returned: always
              type: list
              elements: str
            running_containers:
              description: Number of containers that run. 0 when no engine answers.
              returned: always
              type: int
            images:
              description: For each of O(images), its id in the engine, or null.
              returned: always
              type: dict
            proofs:
              description:
                - For each of O(images), what M(gpuhosts.inference.vllm_image_proof) found in it, or null.
              returned: always
              type: dict
        cdi_devices:
          description: Names of the C(nvidia.com/gpu) devices in the host's CDI specifications.
          returned: always
          type: list
          elements: str
          sample: ["0", "1", all]
        cdi_driver_version:
          description: Version of the driver whose files those specifications mount. Null where they name none or several.
          returned: always
          type: str
          sample: 570.153.02
        container_proof:
          description: What the role C(nvidia_container_toolkit) last proved to work in a container. Empty where nothing was.
          returned: always
          type: dict
        packages:
          description: Versions of the installed Debian packages.
          returned: always
          type: dict
          sample: {docker.io: 26.1.3-0ubuntu1}
        held:
          description: Names of the packages on hold.
          returned: always
          type: list
          elements: str
        apt_sources:
          description: The repositories that apt is told of, one entry for each address and suite. A source without C(Signed-By) has null.
          returned: always
          type: list
          elements: dict
          sample: [{file: /etc/apt/sources.list, uri: "http://deb.debian.org/debian", suite: trixie, signed_by: null}]
        file_systems:
          description:
            - For each of O(paths), free and total bytes, free inodes and mount point of its file system. Free is what an ordinary process may use.
          returned: always
          type: dict
          sample: {/srv/models: {free_bytes: 107374182400, total_bytes: 500107862016, free_inodes: 30000000, mount_point: /srv}}
        problems:
          description: What could not be read or looks wrong, one sentence each.
          returned: always
          type: list
          elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuhosts.inference.plugins.module_utils import (
    apt_sources,
    child,
    docker_socket,
    gpu_cards,
    host_files,
    nvidia_driver,
    nvidia_smi,
    nvidia_xid,
)


def read_links(smi, cards):
    """(topology, NVLink speeds per card). Asked only where the answer can say something: two cards, and NVLink between some of them."""
    topology = nvidia_smi.parse_topology(smi.ask("topology") or "") if len(cards) > 1 else {}
    linked = any(way.startswith("NV") for ways in topology.values() for way in ways.values())
    speeds = nvidia_smi.parse_nvlink(smi.ask("nvlink") or "") if linked else {}
    return topology, [speeds.get(card["index"], []) for card in cards]


def libcuda_version():
    """Highest CUDA version by the driver's own library, C("12.8"): where nvidia-smi has it from, without another process. None without it."""
    try:
        import ctypes

        library = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (ImportError, OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def read_packages(program, architecture, problems, timeout=60):
    """({name: version} of the installed packages, names on hold), from one dpkg-query."""
    if program is None:
        problems.append("dpkg-query is not on this host: installed packages are unknown (only Debian and Ubuntu are supported)")
        return {}, []
    try:
        status, stdout, stderr = child.run([program, "-W", "-f", "${db:Status-Abbrev}\\t${Package}\\t${Architecture}\\t${Version}\\n"], timeout)
    except (child.TimedOut, OSError) as error:
        status, stdout, stderr = 1, "", str(error)
    if status:
        problems.append("dpkg-query failed: {}".format(stderr.strip() or f"status {status}"))
    return parse_packages(stdout, architecture)


def parse_packages(text, architecture):
    """Read lines of C(status<tab>name<tab>architecture<tab>version).

    In the status the first letter is what is wanted (h: hold), the second what is (i: installed). Where a package is installed for several
    architectures, the host's own counts.
    """
    packages, held = {}, set()
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) != 4:
            continue
        status, name, built_for, version = cells
        if status[:1] == "h":
            held.add(name)
        if status[1:2] == "i" and (built_for in (architecture, "all") or name not in packages):
            packages[name] = version
    return packages, sorted(held)


def read_docker(images, root, problems):
    """The engine behind the default socket, with its configuration file and the directory it keeps images in, which need not exist yet."""
    docker, problem = docker_socket.describe(os.path.join(root, "var/run/docker.sock"), images)
    docker["proofs"] = {reference: host_files.image_proof(image, root) if image else None for reference, image in docker["images"].items()}
    docker["daemon_config"], docker["daemon_config_error"] = host_files.daemon_config(root)
    configured = docker["daemon_config"].get("data-root")
    docker["data_root"] = configured if isinstance(configured, str) and configured.startswith("/") else "/var/lib/docker"
    problems.extend(text for text in (problem, docker["daemon_config_error"]) if text)
    return docker


def read_file_systems(paths, problems):
    """Space per path, with a problem instead where the file system does not answer."""
    found = {}
    for path in paths:
        try:
            found[path] = host_files.file_system(path)
        except OSError as error:
            problems.append(f"the file system of {path} cannot be read: {error.strerror or error}")
    return found


def collect(images, paths, timeout, programs, root="/"):
    """The whole fact. C(programs) maps C(nvidia-smi), C(dpkg-query) and C(modinfo) to their paths or None; the root is the tests' to move."""
    problems = []
    smi = gpu_cards.Smi(programs["nvidia-smi"], timeout, problems)
    source, gpus, lost, smi_driver = gpu_cards.read_gpus(smi, root, problems)
    topology, nvlink = read_links(smi, gpus) if source == "nvidia-smi" else ({}, [[] for card in gpus])
    # A container may not show /sys/module, but nvidia-smi answers only through a loaded driver.
    driver_version = host_files.running_driver(root) or smi_driver
    cuda_version = None
    if driver_version:
        cuda_version = libcuda_version() or nvidia_smi.parse_cuda_version(smi.ask("xml") or "")
    kernel = os.uname()
    architecture = host_files.debian_architecture(kernel.machine)
    packages, held = read_packages(programs["dpkg-query"], architecture, problems)
    docker = read_docker(images, root, problems)
    module_file = host_files.nvidia_module(kernel.release, root)
    module_version = nvidia_driver.module_version(programs["modinfo"], module_file or None, timeout)
    return {
        "os": dict(host_files.os_release(root), architecture=architecture),
        "kernel": kernel.release,
        "kernel_arguments": host_files.kernel_arguments(root),
        "cpus": os.cpu_count(),
        "memory_bytes": host_files.memory_bytes(root),
        "secure_boot": host_files.secure_boot(root),
        "gpu_source": source,
        "gpus": gpus,
        "lost_gpus": lost,
        "nvidia_smi": smi.state,
        "nvlink": nvlink,
        "topology": topology,
        "driver_version": driver_version,
        "driver_package_version": nvidia_driver.package_version(packages),
        "driver_module_installed": None if module_file is None else bool(module_file),
        "driver_module_version": module_version,
        "driver_foreign_files": nvidia_driver.foreign_files(root),
        "cuda_version": cuda_version,
        "nouveau_loaded": host_files.nouveau_loaded(root),
        "gpu_tuning": host_files.gpu_tuning(root),
        "monitoring": host_files.monitoring(root),
        "gateway": host_files.gateway(root),
        "pull": host_files.pull(root),
        "reboot_required": host_files.reboot_required(root),
        "reboot_reasons": host_files.reboot_reasons(kernel.release, root) + nvidia_driver.reboot_reasons(driver_version, module_version),
        "xids": nvidia_xid.parse_records(nvidia_xid.read_records(os.path.join(root, "dev/kmsg")))[-50:],
        "docker": docker,
        "cdi_devices": host_files.cdi_devices(root),
        "cdi_driver_version": host_files.cdi_driver_version(root),
        "container_proof": host_files.container_proof(root),
        "packages": packages,
        "held": held,
        "apt_sources": apt_sources.apt_sources(root),
        "file_systems": read_file_systems([*paths, docker["data_root"]], problems),
        "problems": problems,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    programs = {name: module.get_bin_path(name) for name in ("nvidia-smi", "dpkg-query", "modinfo")}
    facts = collect(module.params["images"], module.params["paths"], module.params["timeout"], programs)
    module.exit_json(changed=False, ansible_facts={"gpuhosts": facts})


if __name__ == "__main__":
    main()
