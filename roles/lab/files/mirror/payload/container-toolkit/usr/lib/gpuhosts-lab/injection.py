"""What a container gets of the host's cards: shared by the stand-ins of nvidia-ctk and nvidia-container-runtime-hook."""

import json
import pathlib

ROOT = pathlib.Path("/")
SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
# Directories are mounted as they are, so that faults and settings of the host reach a running container.
MOUNTS = ("/usr/bin/nvidia-smi", "/etc/gpuhosts-lab", "/run/gpuhosts-lab")


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


def specification():
    """The CDI specification, https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md (0.5.0, as nvidia-ctk 1.17)."""

    def device(name, nodes):
        return {"name": name, "containerEdits": {"deviceNodes": [{"path": node} for node in nodes]}}

    present = cards()
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            *(device(str(card["index"]), [card["node"]]) for card in present),
            *(device(card["uuid"], [card["node"]]) for card in present),
            device("all", [card["node"] for card in present]),
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": node} for node in SHARED_NODES],
            "mounts": [{"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "bind"]} for path in MOUNTS],
        },
    }
