"""The stand-in of nvidia-smi, against a root of its own: what a host has installed, loaded and described."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import sys
import types
import xml.etree.ElementTree

import pytest

MIRROR = pathlib.Path(__file__).parents[4] / "roles/lab/files/mirror"
VERSION = "570.153.02"


def load(name, file):
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name, str(MIRROR / file))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


cards = load("cards", "cards.py")


class Host:
    """A directory that the stand-ins take for the root, and calls of them."""

    def __init__(self, root):
        self.root = root
        self.smi = load("nvidia_smi", "payload/nvidia-smi/usr/bin/nvidia-smi")
        self.smi.ROOT, self.smi.LIBRARY_VERSION, self.smi.CUDA_VERSION = root, VERSION, "12.8"
        self.smi.os = types.SimpleNamespace(**vars(os) | {"geteuid": lambda: 0})
        self.smi.shutil = types.SimpleNamespace(which=lambda name: None)
        self.module = load("lab_module", "payload/kernel-support/usr/lib/gpuhosts-lab/module")
        self.module.ROOT = root
        for directory in ("etc/gpuhosts-lab", "sys/module", "run", "dev", "usr/lib/gpuhosts-lab", f"usr/src/linux-headers-{os.uname().release}"):
            (root / directory).mkdir(parents=True)
        self.describe(cards.describe("2080ti-22g", 4, bridges=[(0, 1)]))

    def describe(self, description):
        self.write("etc/gpuhosts-lab/cards.json", json.dumps(description))

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def loaded(self, version=VERSION):
        self.write("sys/module/nvidia/version", version + "\n")
        return self

    def fault(self, text):
        self.write("etc/gpuhosts-lab/fault", text + "\n")


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def run(host, capsys):
    def call(*arguments):
        code = host.smi.main(list(arguments))
        return code, capsys.readouterr().out

    return call


def test_csv(host, run):
    host.loaded()
    code, text = run("--query-gpu=index,name,memory.total,memory.reserved,pci.bus_id,power.limit,ecc.mode.current", "--format=csv")
    assert code == 0
    assert text.splitlines()[0] == "index, name, memory.total [MiB], memory.reserved [MiB], pci.bus_id, power.limit [W], ecc.mode.current"
    assert text.splitlines()[3] == "2, NVIDIA GeForce RTX 2080 Ti, 22528 MiB, 530 MiB, 00000000:3D:00.0, 250.00 W, [N/A]"


def test_csv_without_header_and_units(host, run):
    host.loaded()
    assert run("--query-gpu=index,memory.free,driver_version", "--format=csv,noheader,nounits", "-i", "1") == (0, "1, 21997, 570.153.02\n")


FIELDS = (
    "index uuid name gpu_name compute_cap memory.total memory.reserved memory.used memory.free pci.bus_id pci.device_id "
    "pcie.link.gen.current pcie.link.gen.max pcie.link.width.current pcie.link.width.max power.limit power.draw power.default_limit "
    "power.max_limit power.min_limit persistence_mode driver_version temperature.gpu utilization.gpu clocks.sm clocks.max.sm "
    "ecc.mode.current compute_mode display_active serial"
).split()


@pytest.mark.parametrize("model", sorted(cards.MODELS))
def test_every_field_and_every_card(host, run, model):
    host.loaded().describe(cards.describe(model, 2))
    code, text = run("--query-gpu=" + ",".join(FIELDS), "--format=csv")
    assert code == 0
    assert [len(line.split(", ")) for line in text.splitlines()] == [len(FIELDS)] * 3


def test_unknown_field(host, run):
    host.loaded()
    assert run("--query-gpu=index,xformers", "--format=csv") == (2, 'Field "xformers" is not a valid field to query.\n\n')


def test_select_by_uuid_and_bus_id(host, run):
    host.loaded()
    uuid = run("--query-gpu=uuid", "--format=csv,noheader")[1].splitlines()[3]
    assert run("-i", uuid, "--query-gpu=index", "--format=csv,noheader") == (0, "3\n")
    assert run("--id=00000000:1B:00.0", "--query-gpu=index", "--format=csv,noheader") == (0, "1\n")
    assert run("-i", "7", "--query-gpu=index", "--format=csv") == (6, "No devices were found\n")


def test_xml(host, run):
    host.loaded()
    code, text = run("-q", "-x")
    log = xml.etree.ElementTree.fromstring(text)
    assert code == 0 and log.tag == "nvidia_smi_log"
    assert log.findtext("driver_version") == VERSION and log.findtext("cuda_version") == "12.8" and log.findtext("attached_gpus") == "4"
    gpu = log.findall("gpu")[2]
    assert gpu.get("id") == "00000000:3D:00.0" and gpu.findtext("minor_number") == "2"
    assert gpu.findtext("fb_memory_usage/total") == "22528 MiB" and gpu.findtext("fb_memory_usage/reserved") == "530 MiB"
    assert gpu.findtext("pci/pci_device_id") == "1E0710DE"
    assert gpu.findtext("pci/pci_gpu_link_info/pcie_gen/max_link_gen") == "3"
    assert gpu.findtext("gpu_power_readings/current_power_limit") == "250.00 W"
    assert gpu.find("processes") is not None


def test_banner(host, run):
    host.loaded()
    code, text = run()
    lines = text.splitlines()
    assert code == 0
    assert lines[2] == "| NVIDIA-SMI 570.153.02             Driver Version: 570.153.02     CUDA Version: 12.8     |"
    assert "|   0  NVIDIA GeForce RTX 2080 Ti     Off |   00000000:1A:00.0 Off |                  N/A |" in lines
    assert {len(line) for line in lines[1:]} == {91}


def test_list(host, run):
    host.loaded()
    lines = run("-L")[1].splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"GPU \d: NVIDIA GeForce RTX 2080 Ti \(UUID: GPU-[0-9a-f-]{36}\)", line) for line in lines)


def test_version(host, run):
    host.loaded()
    assert run("--version")[1].splitlines() == [
        "NVIDIA-SMI version  : 570.153.02",
        "NVML version        : 570.153",
        "DRIVER version      : 570.153.02",
        "CUDA Version        : 12.8",
    ]


def test_topology(host, run):
    host.loaded()
    lines = run("topo", "-m")[1].splitlines()
    assert lines[0] == "\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m"
    assert lines[1] == "GPU0\t X \tNV2\tSYS\tSYS\t0-13,28-41\t0\t\tN/A"
    assert lines[4] == "GPU3\tSYS\tSYS\tPHB\t X \t14-27,42-55\t1\t\tN/A"
    assert "  NV#  = Connection traversing a bonded set of # NVLinks" in lines


def test_nvlink(host, run):
    host.loaded()
    lines = run("nvlink", "-s")[1].splitlines()
    assert lines[1:3] == ["\t Link 0: 25.781 GB/s", "\t Link 1: 25.781 GB/s"]
    assert lines[7] == "NVML: Unable to retrieve NVLink information as all links are inActive"


def test_power_limit(host, run):
    host.loaded()
    run("-pm", "1")
    assert run("-i", "1", "-pl", "200")[1].splitlines()[0] == "Power limit for GPU 00000000:1B:00.0 was set to 200.00 W from 250.00 W."
    assert run("--query-gpu=power.limit", "--format=csv,noheader,nounits")[1].split() == ["250.00", "200.00", "250.00", "250.00"]
    code, text = run("-pl", "400")
    assert code == 2 and "should be between 100.00 W and 280.00 W" in text


def test_without_persistence_mode_a_limit_is_forgotten(host, run):
    host.loaded()
    text = run("-i", "1", "-pl", "200")[1]
    assert "was set to 200.00 W" in text and "Warning: persistence mode is disabled on device 00000000:1B:00.0." in text
    assert run("-i", "1", "--query-gpu=power.limit", "--format=csv,noheader") == (0, "250.00 W\n")
    run("-pm", "1")
    run("-pl", "200")
    run("-pm", "0")
    assert run("-i", "1", "--query-gpu=power.limit", "--format=csv,noheader") == (0, "250.00 W\n")


def test_a_card_whose_power_the_driver_does_not_manage(host, run):
    description = cards.describe("2080ti-22g", 1)
    for name in ("min", "max", "default"):
        description["gpus"][0][f"power_{name}_limit_watts"] = None
    host.loaded().describe(description)
    assert run("--query-gpu=power.limit,power.max_limit", "--format=csv,noheader,nounits") == (0, "[N/A], [N/A]\n")
    assert run("-pl", "150") == (
        0,
        "Changing power management limit is not supported for GPU: 00000000:1A:00.0.\nTreating as warning and moving on.\nAll done.\n",
    )
    assert run()[0] == run("-q", "-x")[0] == 0


def test_memory_clocks_are_locked_from_ampere_on(host, run):
    host.loaded()
    assert run("-i", "0", "-lmc", "405,7000") == (
        0,
        "Setting locked Memory clocks is not supported for GPU 00000000:1A:00.0.\nTreating as warning and moving on.\nAll done.\n",
    )
    host.describe(cards.describe("a100", 1))
    run("-pm", "1")
    assert run("-lmc", "810,1215")[1] == 'Memory clocks set to "(memClkMin 810, memClkMax 1215)" for GPU 00000000:1A:00.0\nAll done.\n'
    assert host.smi.settings()["00000000:1A:00.0"]["memory_clocks"] == [810, 1215]
    assert run("-rmc") == (0, "All done.\n")
    assert host.smi.settings()["00000000:1A:00.0"]["memory_clocks"] is None


def test_persistence_and_clocks(host, run):
    host.loaded()
    assert run("-pm", "1")[1].splitlines()[0] == "Enabled persistence mode for GPU 00000000:1A:00.0."
    assert run("-pm", "1")[1].splitlines()[0] == "Persistence mode is already Enabled for GPU 00000000:1A:00.0."
    assert run("-i", "0", "-lgc", "300,1800")[1].startswith('GPU clocks set to "(gpuClkMin 300, gpuClkMax 1800)"')
    assert run("-i", "0", "-rgc")[1] == "All done.\n"


def test_compute_apps(host, run):
    host.loaded()
    assert run("--query-compute-apps=pid,name,used_memory", "--format=csv") == (0, "pid, process_name, used_gpu_memory [MiB]\n")


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_no_driver(run):
    code, text = run("-L")
    assert code == 9 and text.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_no_description(host, run):
    host.loaded()
    (host.root / "etc/gpuhosts-lab/cards.json").unlink()
    assert run()[0] == 9


def test_an_older_module_is_still_loaded(host, run):
    host.loaded("570.133.20")
    assert run() == (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.153\n")


def test_mismatch(host, run):
    host.loaded().fault("mismatch")
    assert run("-q", "-x")[0] == 18


def test_hang(host, run, monkeypatch):
    slept = []
    monkeypatch.setattr(host.smi.time, "sleep", slept.append)
    host.loaded().fault("hang")
    run("-L")
    assert slept == [86400]


def test_missing_card(host, run):
    host.loaded().fault("missing:2")
    assert run("--query-gpu=index,pci.bus_id", "--format=csv,noheader")[1].splitlines() == [
        "0, 00000000:1A:00.0",
        "1, 00000000:1B:00.0",
        "2, 00000000:3E:00.0",
    ]


def test_lost_card(host, run):
    host.loaded().fault("lost:2")
    code, text = run("--query-gpu=index", "--format=csv,noheader")
    assert code == 15 and "Unable to determine the device handle for GPU 0000:3D:00.0: GPU is lost." in text
    assert run("--query-gpu=index", "--format=csv,noheader", "-i", "3")[0] == 0


def test_faults_of_the_description(host, run):
    host.loaded().describe(cards.describe("2080ti-22g", 4) | {"faults": ["missing:0"]})
    assert len(run("-L")[1].splitlines()) == 3


# ---- inside an engine's container -----------------------------------------------------------------------------------


def test_a_container_shows_the_cards_it_got(host, run):
    host.write("run/gpuhosts-lab/driver_version", VERSION + "\n")
    host.write("dev/nvidia1", "")
    assert run("--query-gpu=index,pci.bus_id", "--format=csv,noheader") == (0, "0, 00000000:1B:00.0\n")


# ---- the module -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mknod(host, monkeypatch):
    """Making device nodes needs a privilege that tests have not."""
    monkeypatch.setattr(host.module.os, "mknod", lambda path, *_: pathlib.Path(path).write_text("", encoding="utf-8"))
    monkeypatch.setattr(host.module.shutil, "which", lambda name: None)


def test_a_module_is_built_loaded_and_unloaded(host, run, mknod):
    host.write("usr/lib/gpuhosts-lab/module.json", json.dumps({"version": VERSION, "license": "Dual MIT/GPL"}))
    assert host.module.build() is None
    assert host.module.load("nvidia_uvm") is None
    assert (host.root / "sys/module/nvidia/version").read_text(encoding="utf-8") == VERSION + "\n"
    assert sorted(path.name for path in (host.root / "sys/module").iterdir()) == ["nvidia", "nvidia_uvm"]
    assert run("-L")[0] == 0
    host.module.unload("nvidia")
    assert not list((host.root / "dev").iterdir())


def test_a_loaded_module_outlives_its_replacement(host, run, mknod):
    for version in ("570.133.20", VERSION):
        host.write("usr/lib/gpuhosts-lab/module.json", json.dumps({"version": version, "license": "NVIDIA"}))
        host.module.build()
        host.module.load("nvidia")
    assert run()[0] == 18
    host.module.unload("nvidia")
    host.module.load("nvidia")
    assert run()[0] == 0


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda host: host.module.clean(), "FATAL: Module nvidia not found"),
        (lambda host: host.fault("unsigned"), "Key was rejected by service"),
        (lambda host: host.write("sys/module/nouveau/initstate", "live\n"), "No such device"),
    ],
)
def test_a_module_that_does_not_load(host, mknod, prepare, message):
    host.write("usr/lib/gpuhosts-lab/module.json", json.dumps({"version": VERSION, "license": "NVIDIA"}))
    host.module.build()
    prepare(host)
    assert message in host.module.load("nvidia")
    assert not (host.root / "sys/module/nvidia").exists()


def test_a_module_is_not_built_without_headers(host, mknod, capsys):
    (host.root / f"usr/src/linux-headers-{os.uname().release}").rmdir()
    host.write("usr/lib/gpuhosts-lab/module.json", json.dumps({"version": VERSION, "license": "NVIDIA"}))
    assert host.module.build() is None
    assert "was skipped since the kernel headers" in capsys.readouterr().out
    assert "Module nvidia not found" in host.module.load("nvidia")


def test_a_boot_with_another_version(host, mknod):
    host.write("usr/lib/gpuhosts-lab/module.json", json.dumps({"version": VERSION, "license": "NVIDIA"}))
    host.module.boot()
    host.fault("boots:570.133.20")
    host.module.load("nvidia")
    assert (host.root / "sys/module/nvidia/version").read_text(encoding="utf-8") == "570.133.20\n"


@pytest.mark.parametrize("initramfs, stays", [(None, True), ("# nothing\n", True), ("blacklist nouveau\noptions nouveau modeset=0\n", False)])
def test_a_boot_leaves_nouveau_out_by_the_initramfs(host, mknod, initramfs, stays):
    host.write("sys/module/nouveau/initstate", "live\n")
    if initramfs:
        host.write("var/lib/gpuhosts-lab/initramfs", initramfs)
    host.module.boot()
    assert (host.root / "sys/module/nouveau").exists() == stays


# ---- injection ------------------------------------------------------------------------------------------------------


def test_the_cdi_specification(host):
    injection = load("injection", "payload/container-toolkit/usr/lib/gpuhosts-lab/injection.py")
    injection.ROOT = host.root
    assert [device["name"] for device in injection.specification()["devices"]] == ["all"]  # nothing loaded, nothing to give
    for index in range(4):
        host.write("dev/nvidia%d" % index, "")
    specification = injection.specification()
    assert specification["kind"] == "nvidia.com/gpu"
    devices = {device["name"]: [node["path"] for node in device["containerEdits"]["deviceNodes"]] for device in specification["devices"]}
    assert devices["1"] == ["/dev/nvidia1"] and len(devices["all"]) == 4 and len(devices) == 9
    assert [card["index"] for card in injection.chosen("0,3")] == [0, 3]
    assert injection.chosen("void") == []
    with pytest.raises(KeyError):
        injection.chosen("9")


def test_the_description_names_the_installed_driver(host):
    injection = load("injection", "payload/container-toolkit/usr/lib/gpuhosts-lab/injection.py")
    injection.ROOT = host.root
    library = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.153.02"
    (host.root / library).parent.mkdir(parents=True, exist_ok=True)
    (host.root / library).touch()
    assert "/" + library in [mount["hostPath"] for mount in injection.specification()["containerEdits"]["mounts"]]
    assert not injection.mismatch()
    loaded = host.root / "sys/module/nvidia/version"
    loaded.parent.mkdir(parents=True, exist_ok=True)
    loaded.write_text("570.172.08\n", encoding="utf-8")
    assert injection.mismatch()


def test_the_runtime_edits_the_containers_own_devices(host, tmp_path, monkeypatch):
    """With complete CDI names there is no hook: what systemd knows of a container survives its daemon-reload."""
    (host.root / "etc/cdi").mkdir(parents=True)
    (host.root / "dev").mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(str(MIRROR / "payload/container-toolkit/usr/lib/gpuhosts-lab"))
    runtime = load("runtime", "payload/container-toolkit/usr/bin/nvidia-container-runtime")
    runtime.injection.ROOT = host.root
    for node in ("nvidia0", "nvidiactl"):
        (host.root / "dev" / node).touch()
    content = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": "/dev/nvidiactl"}],
            "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"]}],
        },
    }
    (host.root / "etc/cdi/nvidia.yaml").write_text(json.dumps(content), encoding="utf-8")

    def bundle(names):
        (tmp_path / "config.json").write_text(json.dumps({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=" + names]}}))
        runtime.add_cards(str(tmp_path))
        return json.loads((tmp_path / "config.json").read_text())

    edited = bundle("nvidia.com/gpu=0")
    assert [device["path"] for device in edited["linux"]["devices"]] == ["/dev/nvidia0", "/dev/nvidiactl"]
    assert all(rule["allow"] for rule in edited["linux"]["resources"]["devices"])
    assert [mount["destination"] for mount in edited["mounts"]] == ["/b"]
    assert edited["process"]["env"][-1] == "NVIDIA_VISIBLE_DEVICES=void"
    assert "hooks" not in edited
    assert "hooks" in bundle("0"), "the short names are the hook's"
    with pytest.raises(SystemExit, match="unresolvable"):
        bundle("nvidia.com/gpu=7")
