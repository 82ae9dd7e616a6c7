"""What a host's state means."""

import copy

import pytest

from ansible_collections.gpuhosts.inference.plugins.filter.vllm_diagnosis import vllm_diagnosis
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import diagnosis

GIB = 1024**3
CARD = {
    "index": 0, "name": "NVIDIA GeForce RTX 2080 Ti", "pci_bus_id": "0000:3b:00.0", "memory_total_bytes": 22 * GIB, "memory_used_bytes": 20 * GIB,
    "temperature_celsius": 61, "power_watts": 120.0, "utilization_percent": 40,
}  # fmt: skip
DISK = {"free_bytes": 400 * GIB, "total_bytes": 900 * GIB, "free_inodes": 1000, "mount_point": "/"}
OOM = {"code": "out_of_memory", "message": "card 0 of the engine ran out of memory", "remedy": "Lower options.max_num_seqs.", "line": "torch.OutOfMemoryError"}
HANG = {"code": "nccl_hang", "message": "the start stopped", "remedy": "Set options.disable_custom_all_reduce.", "line": "vLLM is using nccl==2.21.5"}
SERVING = {
    "definition": {
        "supervisor": "systemd", "runtime": "container", "gpus": [0, 1], "url": "http://127.0.0.1:8888", "port": 8888, "limits": {"ready_seconds": 900},
        "expected": {"kv_tokens": 20000}, "rungs": [{"reason": "as planned", "changes": {}}, {"reason": "fewer sequences", "changes": {"max_num_seqs": 32}}],
    },
    "definition_error": None,
    "state": {"rung": 0, "hang_remedy": False, "status": "running", "quarantine": None, "history": []},
    "url": "http://127.0.0.1:8888",
    "generations": {"installed": 2, "latest": [{"number": 2, "status": "proved"}]},
    "last_start": None,
    "evidence": [],
    "process": {
        "kind": "unit", "name": "vllm-coder.service", "state": {"LoadState": "loaded", "ActiveState": "active", "SubState": "running"}, "trouble": None,
        "restarts": 0, "exit_status": None, "running_seconds": 4000,
    },
    "progress": {"phase": "serving", "detail": "", "share": None},
    "causes": [],
    "kv_tokens": 20000,
    "log": ["INFO:     Application startup complete."],
    "health": {"status": 200, "error": None},
    "metrics": {"running": 2.0, "waiting": 0.0, "kv_usage": 0.13},
    "stalled_seconds": 0,
    "listener": {"pid": 71, "program": "docker-proxy", "unit": "docker.service"},
}  # fmt: skip
HOST = {
    "cards": {"state": "answers", "source": "nvidia-smi", "gpus": [CARD, dict(CARD, index=1, pci_bus_id="0000:86:00.0")], "lost": [], "processes": []},
    "driver": {"running": "570.153.02", "module_installed": True, "module_version": "570.153.02", "cdi_version": "570.153.02", "nouveau_loaded": False,
               "secure_boot": False, "reboot_reasons": []},
    "xids": [],
    "killed": [],
    "memory": {"total_bytes": 256 * GIB, "available_bytes": 100 * GIB},
    "docker": {"version": "26.1.3", "problem": None},
    "file_systems": {"/": DISK, "/var/lib/docker": DISK, "/dev/shm": dict(DISK, mount_point="/dev/shm"), "/gone": None},
    "watchdog": "active",
    "instances": {"coder": SERVING},
    "uptime_seconds": 90000,
    "problems": [],
}  # fmt: skip


def merged(base, changes):
    """The base with changes; a dict changes a dict within, anything else replaces."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) and isinstance(result.get(key), dict) else copy.deepcopy(value)
    return result


def host(**changes):
    return merged(HOST, changes)


def one(**changes):
    """The host with its one instance changed."""
    return host(instances={"coder": merged(SERVING, changes)})


def failed(**changes):
    process = {"state": {"ActiveState": "failed"}, "trouble": "has failed (result exit-code)", "exit_status": 1, "running_seconds": None}
    return one(**merged({"process": process, "health": {"status": None, "error": "Connection refused"}, "metrics": {}, "listener": None}, changes))


def codes(gathered, **wanted):
    return [finding.code for finding in diagnosis.judge(gathered, wanted).findings]


def word(gathered, **wanted):
    return diagnosis.judge(gathered, wanted).states["coder"][0]


def test_a_healthy_host():
    report = diagnosis.judge(HOST, {"name": "gpu01", "instances": ["coder"], "cards": 2})
    assert report.findings == []
    assert report.wrong == []
    assert report.states == {"coder": ("serves", "2 running, 0 waiting, 13% of the KV cache in use, 20000 tokens fit into it")}
    text = diagnosis.text(report, HOST, "gpu01")
    assert text.startswith("gpu01: 1 instance, nothing wrong.\n\ncoder serves: 2 running")
    assert "Cards: 2 x NVIDIA GeForce RTX 2080 Ti; driver 570.153.02; nvidia-smi answers" in text
    assert "20.0 of 22.0 GiB, 61 °C, 120.0 W, 40 %" in text
    assert "Probable causes" not in text


def test_a_bare_host():
    cards = {"state": "missing", "source": "sysfs", "gpus": []}
    bare = host(cards=cards, driver={"running": None, "module_installed": None}, docker={"version": None, "problem": None}, watchdog=None) | {"instances": {}}
    report = diagnosis.judge(bare)
    assert report.findings == []
    assert diagnosis.text(report, bare).startswith("no instance is on this host.")
    assert diagnosis.judge({"instances": {}}).findings == [], "nothing could be read at all"


# -- The host ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"problems": ["nvidia-smi failed with status 18: Failed to initialize NVML: Driver/library version mismatch (reboot)"]},
            "driver_mismatch",
            "replaced",
        ),
        (
            {"driver": {"running": None, "module_installed": False}, "cards": {"source": "sysfs"}},
            "driver_not_loaded",
            "none is installed for the running kernel",
        ),
        ({"driver": {"running": None, "nouveau_loaded": True}, "cards": {"source": "sysfs"}}, "driver_not_loaded", "nouveau has the cards"),
        ({"driver": {"running": None, "secure_boot": True}, "cards": {"source": "sysfs"}}, "driver_not_loaded", "secure boot is on"),
        ({"driver": {"running": None}, "cards": {"source": "sysfs"}}, "driver_not_loaded", "`modprobe nvidia`"),
        ({"driver": {"reboot_reasons": ["kernel 6.1 runs, and 6.2 is installed"]}}, "reboot_wanted", "kernel 6.1 runs"),
        ({"driver": {"cdi_version": "570.211.01"}}, "stale_cdi", "the files of driver 570.211.01, and 570.153.02 runs"),
        ({"cards": {"state": "hangs"}, "problems": ["nvidia-smi gave no answer within 10 s"]}, "nvidia_smi_hangs", "a card or its driver hangs"),
        ({"cards": {"state": "fails"}, "problems": ["nvidia-smi failed with status 15: GPU is lost"]}, "nvidia_smi_fails", "GPU is lost"),
        ({"cards": {"lost": ["0000:af:00.0"]}}, "lost_card", "0000:af:00.0"),
        ({"cards": {"gpus": [], "source": "sysfs"}}, "no_card", "no NVIDIA card"),
        ({"cards": {"gpus": [dict(CARD, temperature_celsius=93), dict(CARD, index=1)]}}, "hot_card", "card 0 is at 93"),
        (
            {"xids": [{"pci_bus_id": "0000:86:00.0", "code": 79, "seconds_since_boot": 5, "message": "GPU has fallen off the bus."}] * 2},
            "xid_79",
            "Xid 79 at 0000:86:00.0 (card 1) since boot, 2 times: the card has fallen off the bus",
        ),
        ({"xids": [{"pci_bus_id": "0000:3b:00.0", "code": 31, "seconds_since_boot": 5, "message": "MMU Fault"}]}, "xid_31", "not its own"),
        ({"xids": [{"pci_bus_id": "0000:3b:00.0", "code": 999, "seconds_since_boot": 5, "message": "?"}]}, "xid_999", "NVIDIA's list"),
        ({"docker": {"version": None, "problem": "nothing listens on the Docker Engine's socket"}}, "docker_down", "nothing listens"),
        ({"docker": {"version": None, "problem": None}}, "docker_down", "no Docker Engine"),
        ({"killed": [{"pid": 7, "program": "pt_main_thread", "seconds_since_boot": 5}]}, "host_memory", "pt_main_thread (process 7)"),
        ({"memory": {"available_bytes": 2 * GIB}}, "little_memory", "2.0 of 256.0 GiB"),
        ({"file_systems": {"/": dict(DISK, free_bytes=1000)}}, "no_disk", "/ (/) has 0.0 GiB left"),
        ({"file_systems": {"/": dict(DISK, free_inodes=0)}}, "no_disk", "no free inodes"),
        ({"file_systems": {"/": dict(DISK, free_bytes=5 * GIB)}}, "little_disk", "5.0 GiB left"),
        ({"file_systems": {"/dev/shm": dict(DISK, free_bytes=0, mount_point="/dev/shm")}}, "no_disk", "/dev/shm"),
        ({"watchdog": "failed"}, "watchdog_stopped", "the watchdog is failed"),
        ({"problems": ["the kernel log could not be read: x"]}, "unread", "the kernel log"),
    ],
)
def test_the_host(changes, code, words):
    report = diagnosis.judge(host(**changes))
    assert [finding.code for finding in report.findings] == [code]
    (finding,) = report.findings
    assert finding.subject == "host"
    assert words in f"{finding.message} {finding.remedy}"
    assert finding.remedy.endswith(".")
    assert report.wrong == [], "the instance still serves"


def test_fewer_cards_than_the_inventory_has():
    assert codes(HOST, cards=4) == ["missing_card"]
    assert codes(HOST, cards=2) == codes(HOST, cards=0) == []


def test_a_native_engine_needs_no_docker():
    assert codes(one(definition={"runtime": "native"}) | {"docker": {"version": None, "problem": None}}) == []


def test_a_disk_is_named_once():
    assert codes(host(file_systems={"/": dict(DISK, free_bytes=0), "/var/lib/docker": dict(DISK, free_bytes=0)})) == ["no_disk"]


# -- Instances -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gathered", "expected"),
    [
        (HOST, "serves"),
        (one(stalled_seconds=20), "stalls"),
        (failed(), "failed"),
        (failed(process={"trouble": "is not running and not about to be started"}), "stopped"),
        (failed(process={"kind": "container", "trouble": "has ended (status 1)"}), "failed"),
        (one(health={"status": None, "error": "Connection refused"}, progress={"phase": "loading weights"}, process={"running_seconds": 40}), "starts"),
        (one(health={"status": 503}, progress={"phase": "profiling"}, process={"running_seconds": 40}), "starts"),
        (one(health={"status": None}, progress={"phase": "profiling"}, process={"running_seconds": 1000}), "hangs"),
        (one(health={"status": None}, progress={"phase": "starting"}, process={"running_seconds": 130}, causes=[HANG]), "hangs"),
        (one(health={"status": None}, progress={"phase": "starting"}, process={"running_seconds": 30}, causes=[HANG]), "starts"),
        (one(health={"status": None, "error": "timed out"}), "unanswered"),
        (one(health={"status": None}, process={"state": {"SubState": "auto-restart"}, "restarts": 2, "running_seconds": None}), "restarts"),
        (one(health={"status": None}, process={"state": {"Status": "restarting"}, "restarts": 2, "running_seconds": None}), "restarts"),
        (one(health={"status": None}, process={"restarts": 9, "running_seconds": 3}, progress={"phase": "starting"}, causes=[OOM]), "restarts"),
        (one(health={"status": None}, state={"quarantine": {"reason": "hang", "message": "it hung twice", "time": "t"}}), "quarantined"),
        (one(definition=None, process={"state": {"LoadState": "not-found"}, "trouble": "is not known"}, health={"status": None}), "absent"),
        (one(definition=None, process={"state": {"LoadState": "loaded"}}), "serves"),
        (one(process=None, health={"status": None, "error": "Connection refused"}), "unknown"),
    ],
)
def test_how_an_instance_is(gathered, expected):
    assert word(gathered, instances=["coder"]) == expected
    assert (diagnosis.judge(gathered, {"instances": ["coder"]}).wrong == []) is (expected in ("serves", "starts"))


def test_what_the_log_says_comes_first():
    report = diagnosis.judge(failed(causes=[OOM, dict(HANG)]))
    assert [finding.code for finding in report.findings] == ["out_of_memory", "nccl_hang"]
    assert report.findings[0].line == "torch.OutOfMemoryError"
    text = diagnosis.text(report, failed(causes=[OOM], evidence=["/var/lib/vllm/coder/evidence/1"]), "gpu01")
    assert text.startswith("gpu01: 1 of 1 instance does not serve.\n\ncoder failed: the unit vllm-coder.service has failed (result exit-code)")
    assert "1. coder: card 0 of the engine ran out of memory.\n   Lower options.max_num_seqs.\n   Seen: torch.OutOfMemoryError" in text
    assert "coder, last lines of its log:\n   INFO:     Application startup complete." in text
    assert "coder, evidence: /var/lib/vllm/coder/evidence/1" in text


def test_what_a_host_lacks_explains_more_than_what_the_log_says_of_it():
    lost = failed(causes=[dict(OOM, code="too_few_cards", message="the engine does not see the cards")]) | {"cards": dict(HOST["cards"], lost=["0000:af:00.0"])}
    assert codes(lost)[:2] == ["lost_card", "too_few_cards"]
    assert codes(failed(causes=[OOM]) | {"docker": {"version": None, "problem": "gone"}})[0] == "docker_down"
    hardware = {"xids": [{"pci_bus_id": "0000:3b:00.0", "code": 79, "seconds_since_boot": 5, "message": ""}]}
    program = {"xids": [{"pci_bus_id": "0000:3b:00.0", "code": 31, "seconds_since_boot": 5, "message": ""}]}
    cuda = dict(OOM, code="cuda_error")
    assert codes(failed(causes=[cuda]) | hardware) == ["xid_79", "cuda_error"]
    assert codes(failed(causes=[cuda]) | program) == ["cuda_error", "xid_31"]


def test_a_healthy_instance_is_not_blamed_for_an_old_log():
    assert codes(one(causes=[OOM])) == []


@pytest.mark.parametrize(
    ("gathered", "code", "words"),
    [
        (failed(), "not_serving", "its log names no cause"),
        (failed(process={"trouble": "is not running and not about to be started"}), "not_serving", "Start vllm-coder.service"),
        (failed(listener={"pid": 42, "program": "python3", "unit": "web.service"}), "port_taken", "port 8888 is taken by python3, process 42, web.service"),
        (failed(listener={"pid": None, "program": None, "unit": None}), "port_taken", "a program that cannot be seen"),
        (failed(listener={"pid": 42, "program": "python3", "unit": "vllm-coder.service"}), "not_serving", "names no cause"),
        (one(stalled_seconds=20), "hang", "no token in 20 s while requests run"),
        (one(stalled_seconds=20, causes=[HANG]), "nccl_hang", "the start stopped"),
        (one(health={"status": None, "error": "timed out"}), "unanswered", "does not answer at http://127.0.0.1:8888"),
        (one(health={"status": None}, progress={"phase": "profiling"}, process={"running_seconds": 1000}), "slow_start", "takes longer"),
        (one(state={"quarantine": {"reason": "hang", "message": "it hung twice", "time": "t", "evidence": "/e"}}), "quarantined", "Look at /e; `vllm-instance"),
        (failed(definition={"gpus": [0, 1, 2, 3]}), "too_few_cards", "it is to use card 2, 3, and the driver has 2 cards"),
        (failed(causes=[dict(OOM, code="unknown")]), "unknown", "ran out"),
        (failed(definition=None, definition_error="/etc/vllm/coder/definition.json is not valid JSON: x"), "broken_definition", "not valid JSON"),
        (one(definition=None, process={"state": {"LoadState": "not-found"}, "trouble": "is not known"}, health={"status": None}), "not_deployed", "site.yml"),
        (one(process=None, health={"status": None, "error": "refused"}), "not_serving", "names no cause"),
    ],
)
def test_why_an_instance_does_not_serve(gathered, code, words):
    report = diagnosis.judge(gathered, {"instances": ["coder"]})
    assert report.wrong == ["coder"]
    assert report.findings[0].code == code
    assert words in f"{report.findings[0].message} {report.findings[0].remedy}"
    assert report.findings[0].subject == "coder"


def test_a_port_is_told_once():
    taken = failed(listener={"pid": 42, "program": "python3", "unit": None}, causes=[dict(OOM, code="port_taken")])
    assert codes(taken) == ["port_taken"]
    assert codes(failed(causes=[dict(OOM, code="port_taken")])) == ["port_taken"]


def test_who_holds_a_card():
    holders = {"cards": dict(HOST["cards"], processes=[{"pci_bus_id": "0000:3b:00.0", "pid": 9, "program": "python3", "memory_bytes": 3 * GIB}])}
    (finding,) = diagnosis.judge(failed(causes=[dict(OOM, code="card_in_use", message="only 17 GiB are free")]) | holders).findings
    assert finding.message == "only 17 GiB are free; process 9 (python3) holds 3.0 GiB at 0000:3b:00.0"


@pytest.mark.parametrize(
    ("gathered", "code", "words"),
    [
        (one(state={"rung": 1}), "stepped_down", "step 1 of its ladder, not as planned: fewer sequences"),
        (one(state={"rung": 7}), "stepped_down", "step 7 of its ladder"),
        (one(state={"hang_remedy": True}), "hang_remedy", "remedy against NCCL hangs"),
        (
            one(generations={"latest": [{"number": 3, "status": "failed", "why": "out of memory"}]}),
            "failed_generation",
            "generation 3 failed and was taken back: out",
        ),
        (one(process={"restarts": 5}), "restarts", "restarted 5 times"),
        (one(process={"restarts": 5}, causes=[OOM]), "restarts", "last because card 0"),
        (one(metrics={"kv_usage": 0.99, "waiting": 7.0}), "kv_full", "7 requests wait"),
        (one(kv_tokens=10000), "kv_short", "holds 10000 tokens, 50% less"),
    ],
)
def test_what_is_worth_knowing_of_an_instance_that_serves(gathered, code, words):
    report = diagnosis.judge(gathered)
    assert [finding.code for finding in report.findings] == [code]
    assert words in report.findings[0].message
    assert report.wrong == []
    assert f"Worth knowing:\n- coder: {report.findings[0].message}." in diagnosis.text(report, gathered)


@pytest.mark.parametrize("gathered", [one(kv_tokens=19000), one(kv_tokens=None), one(kv_tokens=10000, state={"rung": 1}), one(metrics={"kv_usage": 0.99})])
def test_what_is_not_worth_knowing(gathered):
    assert set(codes(gathered)) <= {"stepped_down"}


def test_the_filter():
    found = vllm_diagnosis(failed(causes=[OOM]), {"name": "gpu01", "instances": ["coder"]})
    assert found["wrong"] == ["coder"]
    assert found["states"]["coder"]["state"] == "failed"
    assert found["findings"][0] == {
        "subject": "coder", "code": "out_of_memory", "message": OOM["message"], "remedy": OOM["remedy"], "weight": 84, "line": OOM["line"],
    }  # fmt: skip
    assert found["text"].startswith("gpu01: 1 of 1")
    with pytest.raises(Exception, match="wants what the module"):
        vllm_diagnosis({})


def test_several_instances():
    gathered = host(instances={"coder": SERVING, "chat": failed(causes=[OOM])["instances"]["coder"], "old": failed()["instances"]["coder"]})
    report = diagnosis.judge(gathered)
    assert report.wrong == ["chat", "old"]
    assert diagnosis.text(report, gathered, "gpu01").startswith("gpu01: 2 of 3 instances do not serve.")
