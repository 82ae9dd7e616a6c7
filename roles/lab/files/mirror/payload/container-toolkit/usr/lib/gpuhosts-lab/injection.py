"""What a container gets of the host's cards: shared by the stand-ins of nvidia-ctk, nvidia-container-runtime and its hook."""

import json
import pathlib

ROOT = pathlib.Path("/")
KIND = "nvidia.com/gpu"
SPECIFICATIONS = ("etc/cdi", "var/run/cdi")
SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
# Directories are mounted as they are, so that faults and settings of the host reach a running container.
MOUNTS = ("/usr/bin/nvidia-smi", "/etc/gpuhosts-lab", "/run/gpuhosts-lab")
# Its name has the version: a description that was made for another driver names a file that is gone.
LIBRARY = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so."


def cards():
    """[{"index", "uuid", "node"}] of the cards whose device node exists; empty while no driver is loaded."""
    path = ROOT / "etc/gpuhosts-lab/cards.json"
    described = json.loads(path.read_text(encoding="utf-8"))["gpus"] if path.exists() else []
    found = [{"index": index, "uuid": card["uuid"], "node": "/dev/nvidia%d" % index} for index, card in enumerate(described)]
    return [card for card in found if (ROOT / card["node"][1:]).exists()]


def chosen(names):
    """Cards by NVIDIA_VISIBLE_DEVICES: `all`, `void`, `none`, or indices and uuids between commas. KeyError on an unknown one."""
    present = cards()
    if names == "all":
        return present
    if names in ("", "void", "none"):
        return []
    by_name = {str(card["index"]): card for card in present} | {card["uuid"]: card for card in present}
    return [by_name[name] for name in names.split(",")]


def libraries():
    """Paths in a container of the driver's libraries that are installed."""
    directory = (ROOT / LIBRARY).parent
    return sorted("/" + str(path.relative_to(ROOT)) for path in directory.glob((ROOT / LIBRARY).name + "*"))


def mismatch():
    """Whether NVML refuses: the installed library is not the loaded module's."""
    loaded = ROOT / "sys/module/nvidia/version"
    return loaded.exists() and "/" + LIBRARY + loaded.read_text(encoding="utf-8").strip() not in libraries()


def specification(strategies=("index", "uuid")):
    """The CDI specification, https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md (0.5.0, as nvidia-ctk 1.17)."""

    def device(name, nodes):
        return {"name": name, "containerEdits": {"deviceNodes": [{"path": node} for node in nodes]}}

    present = cards()
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [
            *(device(str(card[strategy]), [card["node"]]) for strategy in strategies for card in present),
            device("all", [card["node"] for card in present]),
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": node} for node in SHARED_NODES],
            "mounts": [
                {"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"]} for path in [*MOUNTS, *libraries()]
            ],
        },
    }


def specifications():
    """The specifications on this host, the later one wins."""
    paths = [path for directory in SPECIFICATIONS for end in ("yaml", "json") for path in sorted((ROOT / directory).glob("*." + end))]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def edits(names):
    """The container edits for complete CDI names (`nvidia.com/gpu=0`). KeyError on an unknown one."""
    known = {}
    for content in specifications():
        known.update({content["kind"] + "=" + device["name"]: (device["containerEdits"], content["containerEdits"]) for device in content["devices"]})
    found = []
    for name in names:
        own, common = known[name]
        found += [edit for edit in (own, common) if edit not in found]
    return found
