"""A host's facts, with stand-ins for nvidia-smi and dpkg-query and a made-up file system."""

import os
import pathlib
import time

import pytest

from ansible_collections.gpuhosts.inference.plugins.modules import gpu_facts

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "nvidia_smi"
PACKAGES = "\n".join(
    [
        "ii \tdocker.io\tamd64\t26.1.3-0ubuntu1",
        "hi \tnvidia-driver-570\tamd64\t570.153.02-0ubuntu1",
        "rc \told\tamd64\t1.0",
        "hn \tnever-install\tamd64\t",
        "ii \tlibc6\tamd64\t2.39-0ubuntu8.4",
        "ii \tlibc6\ti386\t2.39-0ubuntu8.3",
        "ii \ttzdata\tall\t2025a",
        "",
    ]
)


@pytest.fixture
def host(tmp_path):
    """host.root is the root, host.calls() what was started, host.smi(question, script) what nvidia-smi does then."""

    class Host:
        root = str(tmp_path / "root")
        programs = {}

        def __init__(self):
            self.log = tmp_path / "calls"
            self.log.touch()
            self.answers = tmp_path / "answers"
            self.answers.mkdir()
            self.write("etc/os-release", "ID=ubuntu\nVERSION_ID='24.04'\nVERSION_CODENAME=noble\n")
            self.write("proc/meminfo", "MemTotal: 1024 kB\n")
            (self.answers / "packages").write_text(PACKAGES)
            self.programs = {
                "nvidia-smi": None,
                "dpkg-query": self.program("dpkg-query", f'cat "{self.answers}/packages"'),
                "modinfo": None,
            }

        def write(self, name, text):
            path = pathlib.Path(self.root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        def program(self, name, body):
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\necho "{name} $1" >> "{self.log}"\n{body}\n')
            path.chmod(0o755)
            return str(path)

        def smi(self, **scripts):
            body = 'case "$1" in\n'
            for question, pattern in (("query", "--query-gpu*"), ("topology", "topo"), ("nvlink", "nvlink"), ("xml", "-q")):
                body += "{}) {} ;;\n".format(pattern, scripts.get(question, "echo unexpected question >&2; exit 9"))
            self.programs["nvidia-smi"] = self.program("nvidia-smi", body + "esac")

        def card(self, bus_id, device="0x1e07"):
            for name, text in {"vendor": "0x10de", "device": device, "class": "0x030000", "numa_node": "0"}.items():
                self.write(f"sys/bus/pci/devices/{bus_id}/{name}", text + "\n")

        def calls(self):
            return self.log.read_text().splitlines()

        def facts(self, timeout=10, **arguments):
            return gpu_facts.collect(arguments.get("images", []), arguments.get("paths", []), timeout, self.programs, self.root)

    return Host()


@pytest.fixture(autouse=True)
def no_libcuda(monkeypatch):
    monkeypatch.setattr(gpu_facts, "libcuda_version", lambda: None)


def show(name):
    return f"cat '{FIXTURES / name}'"


def test_before_the_driver(host):
    host.card("0000:06:10.0")
    facts = host.facts()
    assert facts["gpu_source"] == "sysfs"
    assert [card["name"] for card in facts["gpus"]] == ["NVIDIA GeForce RTX 2080 Ti"]
    assert facts["gpus"][0]["numa_node"] == 0
    assert facts["gpus"][0]["memory_total_bytes"] is None
    assert facts["nvlink"] == [[]]
    assert facts["topology"] == {}
    assert (facts["driver_version"], facts["cuda_version"]) == (None, None)
    assert facts["os"]["id"] == "ubuntu"
    assert facts["memory_bytes"] == 1024 * 1024
    assert facts["docker"]["version"] is None
    assert facts["problems"] == []
    assert host.calls() == ["dpkg-query -W"]


def test_with_the_driver_and_nvlink(host, monkeypatch):
    monkeypatch.setattr(gpu_facts, "libcuda_version", lambda: "12.8")
    host.write("sys/module/nvidia/version", "570.153.02\n")
    host.card("0000:06:10.0")
    host.card("0000:06:11.0")
    host.smi(query=show("query_2080ti_22gb.csv"), topology=show("topo_2080ti_pairs.txt"), nvlink=show("nvlink_mixed.txt"))
    facts = host.facts()
    assert facts["gpu_source"] == "nvidia-smi"
    assert [card["memory_total_bytes"] for card in facts["gpus"]] == [22528 * 1024**2] * 2
    assert "driver_version" not in facts["gpus"][0]
    assert facts["nvlink"] == [[25.781, 25.781], [25.781]]
    assert facts["topology"]["0"]["1"] == "NV2"
    assert (facts["driver_version"], facts["cuda_version"]) == ("570.153.02", "12.8")
    assert facts["problems"] == []
    assert len(host.calls()) == 4


def test_both_sources_give_the_same_keys(host):
    host.card("0000:06:10.0")
    by_bus = host.facts()["gpus"][0]
    host.smi(query=show("query_t4.csv"), xml="true")
    by_smi = host.facts()["gpus"][0]
    assert set(by_bus) == set(by_smi)
    assert set(by_bus["pcie"]) == set(by_smi["pcie"])


def test_one_card_needs_one_question_and_without_libcuda_one_more(host):
    host.smi(query=show("query_t4.csv"), xml="echo '<cuda_version>11.7</cuda_version>'")
    facts = host.facts()
    assert facts["nvlink"] == [[]]
    assert facts["driver_version"] == "515.105.01"
    assert facts["cuda_version"] == "11.7"
    assert len(host.calls()) == 3


def test_a_hanging_nvidia_smi_is_asked_once_and_said(host):
    host.card("0000:06:10.0")
    host.write("sys/module/nvidia/version", "570.153.02\n")
    host.smi(query="sleep 60")
    began = time.monotonic()
    facts = host.facts(timeout=1)
    assert time.monotonic() - began < 5
    assert facts["gpu_source"] == "sysfs"
    assert len(facts["gpus"]) == 1
    assert facts["driver_version"] == "570.153.02"
    assert facts["problems"] == ["nvidia-smi gave no answer within 1 s: a card or its driver hangs; look for Xid lines in the kernel log and reboot the host"]
    assert [call for call in host.calls() if call.startswith("nvidia-smi")] == [host.calls()[0]]


def test_mismatch_of_driver_and_library(host):
    host.smi(query="echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    (problem,) = host.facts()["problems"]
    assert problem.startswith("nvidia-smi failed with status 18: Failed to initialize NVML: Driver/library version mismatch (")


def test_a_card_that_fell_off_the_bus(host):
    host.card("0000:05:00.0", "0x1d01")
    host.card("0000:34:00.0")
    host.smi(query=show("query_unknown_values.csv"), xml="true")
    facts = host.facts()
    assert len(facts["gpus"]) == 1
    assert any(problem.startswith("nvidia-smi says: Unable to determine the device handle for GPU1") for problem in facts["problems"])
    assert "the card at 0000:34:00.0 is on the PCI bus but nvidia-smi does not report it" in facts["problems"]


def test_an_nvidia_smi_that_cannot_be_started(host):
    host.programs["nvidia-smi"] = "/nonexistent/nvidia-smi"
    assert "nvidia-smi cannot be started" in host.facts()["problems"][0]


def test_packages(host):
    facts = host.facts()
    assert facts["packages"] == {
        "docker.io": "26.1.3-0ubuntu1",
        "nvidia-driver-570": "570.153.02-0ubuntu1",
        "libc6": "2.39-0ubuntu8.4",
        "tzdata": "2025a",
    }
    assert facts["held"] == ["never-install", "nvidia-driver-570"]


def test_packages_of_another_architecture_give_way_in_either_order():
    lines = ["ii \tlibc6\tamd64\t1", "ii \tlibc6\tarm64\t2", "ii \tonly\tamd64\t3"]
    assert gpu_facts.parse_packages("\n".join(lines), "arm64")[0] == {"libc6": "2", "only": "3"}
    assert gpu_facts.parse_packages("\n".join(reversed(lines)), "arm64")[0] == {"libc6": "2", "only": "3"}


def test_no_dpkg(host):
    host.programs["dpkg-query"] = None
    facts = host.facts()
    assert facts["packages"] == {}
    assert "dpkg-query is not on this host" in facts["problems"][0]


def test_a_broken_daemon_json_is_a_problem(host):
    host.write("etc/docker/daemon.json", "{,}")
    facts = host.facts(images=["vllm/vllm-openai:v0.8.5"])
    assert facts["docker"]["daemon_config"] == {}
    assert facts["docker"]["daemon_config_error"] in facts["problems"]
    assert facts["docker"]["images"] == {"vllm/vllm-openai:v0.8.5": None}


def test_xids_from_the_kernel_log(host):
    host.write("dev/kmsg", "3,1,5000000,-;NVRM: Xid (PCI:0000:06:10): 79, GPU has fallen off the bus.\n")
    assert host.facts()["xids"] == [{"pci_bus_id": "0000:06:10.0", "code": 79, "seconds_since_boot": 5, "message": "GPU has fallen off the bus."}]


def test_paths(host, tmp_path):
    wanted = str(tmp_path / "not" / "there")
    assert host.facts(paths=[wanted])["file_systems"][wanted]["free_bytes"] > 0


@pytest.mark.parametrize("check", [False, True])
def test_the_module_on_this_machine(run_module, check):
    result = run_module(gpu_facts, check=check, paths=["/"], timeout=10)
    assert result["changed"] is False
    facts = result["ansible_facts"]["gpuhosts"]
    assert facts["cpus"] >= 1
    assert facts["file_systems"]["/"]["total_bytes"] > 0


def test_what_the_driver_is_made_of(host, monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "gpu01", "6.8.0-63", "", "x86_64")))
    host.write("lib/modules/6.8.0-63/modules.dep", "updates/dkms/nvidia.ko.zst:\n")
    host.write("sys/module/nvidia/version", "570.153.02\n")
    host.write("usr/bin/nvidia-uninstall", "")
    (host.answers / "packages").write_text("ii \tlibcuda1\tamd64\t575.57.08-1\n")
    host.programs["modinfo"] = host.program("modinfo", "echo 575.57.08")
    facts = host.facts()
    assert (facts["driver_version"], facts["driver_module_version"], facts["driver_package_version"]) == ("570.153.02", "575.57.08", "575.57.08")
    assert facts["driver_module_installed"] is True
    assert facts["reboot_reasons"] == ["driver 570.153.02 runs, and the next boot loads 575.57.08"]
    assert facts["driver_foreign_files"] == ["/usr/bin/nvidia-uninstall"]
    assert host.calls() == ["dpkg-query -W", "modinfo -F"]


@pytest.mark.parametrize(
    "script, state", [(show("query_t4.csv"), "answers"), ("echo NVIDIA-SMI has failed >&2; exit 9", "fails"), ("sleep 60", "hangs"), (None, "missing")]
)
def test_what_nvidia_smi_does(host, script, state):
    if script:
        host.smi(query=script, xml="true")
    assert host.facts(timeout=1)["nvidia_smi"] == state


def test_lost_cards_are_named(host):
    host.card("0000:00:04.0", "0x1eb8")
    host.card("0000:05:00.0", "0x1eb8")
    host.smi(query=show("query_t4.csv"), xml="true")
    facts = host.facts()
    reported = [card["pci_bus_id"] for card in facts["gpus"]]
    assert facts["lost_gpus"] == sorted({"0000:00:04.0", "0000:05:00.0"} - set(reported))
    assert "0000:05:00.0" in facts["lost_gpus"]


@pytest.mark.parametrize(
    "config, directory", [("{}", "/var/lib/docker"), ('{"data-root": "/srv/docker"}', "/srv/docker"), ('{"data-root": 3}', "/var/lib/docker")]
)
def test_room_where_the_engine_keeps_its_images(host, config, directory):
    host.write("etc/docker/daemon.json", config)
    facts = host.facts(paths=["/srv/models"])
    assert facts["docker"]["data_root"] == directory
    assert list(facts["file_systems"]) == ["/srv/models", directory]
    assert facts["file_systems"][directory]["mount_point"].startswith("/")


def test_repositories(host):
    host.write("etc/apt/sources.list", "deb http://deb.example/debian trixie main\n")
    assert host.facts()["apt_sources"] == [{"file": "/etc/apt/sources.list", "uri": "http://deb.example/debian", "suite": "trixie", "signed_by": None}]
