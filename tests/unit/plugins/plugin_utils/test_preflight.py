"""Each problem that preflight knows, with what makes it and what does not."""

import copy

import pytest

from ansible_collections.gpuhosts.inference.plugins.plugin_utils import preflight
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.role_variables import role_variables

GIB = 1024**3
MODEL = "Qwen/Qwen3-8B"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
    "num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
IMAGE = "vllm/vllm-openai@sha256:6cf9"
BARE_CARD = {"name": "NVIDIA GeForce RTX 2080 Ti", "compute_capability": "7.5", "memory_total_bytes": None}
CARD = BARE_CARD | {"memory_total_bytes": 22528 * 1024**2}


@pytest.fixture
def facts():
    """A host that serves, with nothing wrong."""
    return {
        "os": {"id": "ubuntu", "version_id": "24.04", "codename": "noble", "architecture": "amd64"},
        "memory_bytes": 256 * GIB,
        "secure_boot": False,
        "gpu_source": "nvidia-smi",
        "nvidia_smi": "answers",
        "gpus": [CARD | {"index": index, "pci_bus_id": f"0000:{index + 1:02x}:00.0"} for index in range(4)],
        "lost_gpus": [],
        "driver_version": "570.153.02",
        "driver_foreign_files": [],
        "docker": {"version": "26.1.5", "daemon_config_error": None, "data_root": "/var/lib/docker", "images": {IMAGE: "sha256:1"}},
        "packages": {"cuda-toolkit-12-8": "12.8.1-1", "nvidia-container-toolkit": "1.17.8-1", "libcuda1": "570.153.02-1"},
        "apt_sources": [{"file": "/etc/apt/sources.list", "uri": "http://deb.example/debian", "suite": "trixie", "signed_by": None}],
        "file_systems": {
            "/var/lib/docker": {"free_bytes": 100 * GIB, "mount_point": "/"},
            "/home/llm/model": {"free_bytes": 100 * GIB, "mount_point": "/"},
        },
        "problems": [],
    }


@pytest.fixture
def wanted():
    return {
        "name": "gpu01",
        "instances": [{"name": "coder", "model": MODEL, "profile": "as_given", "options": {"tensor_parallel_size": 4, "dtype": "half"}}],
        "images": {"0.8.5": IMAGE},
        "models": {MODEL: {"path": "/home/llm/model/qwen/Qwen3-8B", "complete": True, "config": CONFIG, "config_source": "disk", "error": None}},
        "roles": role_variables(),
        "variables": ["vllm_instances", "nvidia_driver_version", "gpuhosts_hardware", "ansible_host", "monitor"],
        "image_gib": 30.0,
        "model_gib": 30.0,
        "memory_gib": 8.0,
        "driver_version": "570.153.02",
        "cuda_toolkit_version": "12.8.1",
        "cuda_repository": {"uri": "http://mirror/cuda/", "key_url": "http://mirror/cuda/key.pub"},
        "container_toolkit_version": "1.17.8",
        "container_toolkit_repository": {"uri": "http://mirror/toolkit/", "key_url": "http://mirror/toolkit/key"},
        "registry_mirrors": ["http://mirror:5000"],
        "hub": "http://mirror:8080",
    }


def bare(facts):
    """The same host before anything was done to it."""
    return facts | {
        "gpu_source": "sysfs", "nvidia_smi": "missing", "gpus": [BARE_CARD | {"index": index} for index in range(4)], "driver_version": None,
        "docker": {"version": None, "daemon_config_error": None, "data_root": "/var/lib/docker", "images": {IMAGE: None}}, "packages": {},
    }  # fmt: skip


def codes(problems):
    return [problem.code for problem in problems]


def text(problems):
    return "\n".join(f"{problem.message} {problem.remedy}" for problem in problems)


def test_a_serving_host_has_no_problem_and_a_plan(facts, wanted):
    report = preflight.judge(facts, wanted)
    assert report.problems == []
    assert report.plan["verdict"] == "fits"
    assert preflight.sources(facts, wanted) == []


def test_a_bare_host_has_no_problem_and_says_that_nothing_was_planned(facts, wanted):
    report = preflight.judge(bare(facts), wanted)
    assert report.problems == []
    assert report.plan is None
    assert codes(report.warnings) == ["not_planned"]


def test_a_bare_host_that_the_inventory_describes_is_planned(facts, wanted):
    report = preflight.judge(bare(facts), wanted | {"hardware": {"gpus": [CARD] * 4, "memory_bytes": 256 * GIB}})
    assert report.problems == []
    assert report.plan["verdict"] == "fits"


def test_a_silent_host_is_reported_with_what_is_wrong_in_the_inventory(wanted):
    report = preflight.judge(None, wanted | {"silence": "No route to host", "variables": ["vllm_instnces"]})
    assert codes(report.problems) == ["host_silent", "unknown_variable"]
    assert "does not answer (No route to host). Start it, or leave it out with --limit 'all:!gpu01'." in text(report.problems)


# -- The inventory -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nvidia_driver_versoin", "is not a variable of the role nvidia_driver. Write nvidia_driver_version if that is meant"),
        ("vllm_instance", "is not a variable of the role vllm. Write vllm_instances if that is meant"),
        ("gpuhosts_hardwear", "is not a variable of the collection. Write gpuhosts_hardware if that is meant"),
        ("preflight_zzzzzzzzzzzz", "is not a variable of the role preflight. Remove it, or name it in preflight_ignored_variables."),
    ],
)
def test_unknown_variables(name, sentence):
    (problem,) = preflight.variables({"roles": role_variables(), "variables": [name]})
    assert problem.code == "unknown_variable"
    assert sentence in text([problem])


@pytest.mark.parametrize("name", ["lab_name", "vllm", "my_vllm_key", "__vllm_x", "gpuhosts", "vllm_mine"])
def test_variables_of_others(name):
    assert list(preflight.variables({"roles": role_variables(), "variables": [name], "ignored": ["vllm_mine"]})) == []


def test_every_variable_of_every_role_is_known():
    names = [name for role, names in role_variables().items() for name in names]
    assert len(names) > 30
    assert list(preflight.variables({"roles": role_variables(), "variables": names})) == []


def test_removed_variables():
    removed = {"vllm_replicas": {"release": "0.3.0", "instead": "vllm_instances"}, "vllm_gone": {"release": "0.4.0"}}
    found = list(preflight.variables({"roles": role_variables(), "variables": ["vllm_replicas", "vllm_gone"], "removed": removed}))
    assert codes(found) == ["removed_variable", "removed_variable"]
    assert text(found) == "vllm_gone was removed in release 0.4.0. Remove it.\nvllm_replicas was removed in release 0.3.0. Use vllm_instances instead."


def test_instances_that_cannot_be_are_not_planned(facts, wanted):
    wanted["instances"] = [{"name": "a", "model": MODEL, "gpus": [0, 9]}, {"name": "b", "model": MODEL, "gpus": [0]}]
    report = preflight.judge(facts, wanted)
    assert codes(report.problems) == ["gpus_out_of_range", "duplicate_port", "overlapping_gpus"]
    assert report.plan is None


@pytest.mark.parametrize("instances", ["coder", {"name": "coder"}, [3]])
def test_instances_of_any_form_are_reported(facts, wanted, instances):
    assert len(preflight.judge(facts, wanted | {"instances": instances}).problems) == 1


@pytest.mark.parametrize("instances", [None, []])
def test_no_instances(facts, wanted, instances):
    report = preflight.judge(bare(facts), wanted | {"instances": instances, "models": {}})
    assert (report.problems, report.warnings, report.plan) == ([], [], None)


def test_an_engine_version_without_an_image(facts, wanted):
    wanted["instances"][0]["engine_version"] = "0.19.1"
    assert "vllm_images has no image for the engine version 0.19.1. Add one, or use one of 0.8.5." in text(preflight.judge(facts, wanted).problems)


def test_one_model_at_two_revisions():
    (problem,) = preflight.revisions([{"model": MODEL, "revision": "v2"}, {"model": MODEL}])
    assert problem.message == f"{MODEL} is asked for at the revisions main and v2."
    assert list(preflight.revisions([{"model": MODEL, "revision": "main"}, {"model": MODEL}])) == []


# -- The host ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "release, fires",
    [
        ({"id": "debian", "version_id": "12", "architecture": "amd64"}, False),
        ({"id": "debian", "version_id": "13", "architecture": "amd64"}, False),
        ({"id": "ubuntu", "version_id": "22.04", "architecture": "amd64"}, False),
        ({"id": "debian", "version_id": "11", "architecture": "amd64"}, True),
        ({"id": "ubuntu", "version_id": "24.10", "architecture": "amd64"}, True),
        ({"id": "ubuntu", "version_id": "24.04", "architecture": "arm64"}, True),
        ({"id": "fedora", "version_id": "42", "architecture": "amd64"}, True),
        ({"id": "debian", "version_id": None, "architecture": "amd64"}, True),
    ],
)
def test_operating_systems(facts, wanted, release, fires):
    found = codes(preflight.judge(facts | {"os": release}, wanted).problems)
    assert found == (["os_unsupported"] if fires else [])


@pytest.mark.parametrize(
    "state, driver, allowed, fires", [(True, None, False, True), (True, "570", False, False), (True, None, True, False), (None, None, False, False)]
)
def test_secure_boot(facts, state, driver, allowed, fires):
    found = list(preflight.system(facts | {"secure_boot": state, "driver_version": driver}, {"secure_boot": allowed}))
    assert codes(found) == (["secure_boot"] if fires else [])
    assert not fires or "mokutil --import /var/lib/dkms/mok.pub" in text(found)


def test_a_daemon_json_that_cannot_be_read_is_named_once(facts, wanted):
    sentence = "/etc/docker/daemon.json is not valid JSON: Expecting value"
    facts["docker"]["daemon_config_error"] = sentence
    facts["problems"] = [sentence]
    report = preflight.judge(facts, wanted)
    assert codes(report.problems) == ["daemon_config"]
    assert "noticed" not in codes(report.warnings)


def test_a_card_is_missing(facts, wanted):
    report = preflight.judge(facts, wanted | {"hardware": {"gpus": [CARD] * 5}})
    assert codes(report.problems) == ["card_count"]
    assert "gpuhosts_hardware has 5 cards, and nvidia-smi reports 4 (0000:01:00.0, 0000:02:00.0" in text(report.problems)


def test_another_card_than_the_inventory_has(facts, wanted):
    hardware = {"gpus": [CARD] * 3 + [CARD | {"compute_capability": 8.6}]}
    assert codes(preflight.judge(facts, wanted | {"hardware": hardware}).problems) == ["card_kind"]
    facts["gpus"][3]["compute_capability"] = None
    assert list(preflight.cards(facts, hardware, True)) == []


def test_no_card_at_all(facts):
    assert codes(preflight.cards(facts | {"gpus": []}, None, True)) == ["no_cards"]
    assert codes(preflight.cards(facts | {"gpus": []}, None, False)) == []


def test_a_card_that_the_driver_has_lost_is_named_once(facts, wanted):
    noticed = "the card at 0000:05:00.0 is on the PCI bus but nvidia-smi does not report it"
    report = preflight.judge(facts | {"lost_gpus": ["0000:05:00.0"], "problems": [noticed, "dpkg-query failed: x"]}, wanted)
    assert codes(report.problems) == ["card_lost"]
    assert "dpkg-query failed: x." in text(report.warnings)
    assert noticed[4:] not in text(report.warnings)


def test_a_reboot_that_is_due_is_worth_knowing(facts, wanted):
    report = preflight.judge(facts | {"reboot_reasons": ["kernel a runs, and b is installed"]}, wanted)
    assert report.problems == []
    assert "The host waits for a reboot: kernel a runs, and b is installed." in text(report.warnings)


def test_a_run_of_the_hosts_own_that_failed_is_worth_knowing(facts, wanted):
    last = {"result": "failed", "started": "2026-03-02T11:07:12Z", "task": "vllm : Refuse what does not fit"}
    report = preflight.judge(facts | {"pull": {"last": last}}, wanted)
    assert report.problems == []
    said = text(report.warnings)
    assert "The host's own run of 2026-03-02T11:07:12Z failed at: vllm : Refuse what does not fit. journalctl -u gpuhosts-pull on the host" in said
    said = text(preflight.judge(facts | {"pull": {"last": last | {"result": "cut off", "task": None}}}, wanted).warnings)
    assert "The host's own run of 2026-03-02T11:07:12Z was cut off. " in said
    assert codes(preflight.judge(facts | {"pull": {"last": last | {"result": "changed"}}}, wanted).warnings) == codes(preflight.judge(facts, wanted).warnings)


def test_card_errors_since_the_boot_are_worth_knowing(facts, wanted):
    lost = {"pci_bus_id": "0000:02:00.0", "code": 79, "seconds_since_boot": 86400, "message": "pid='<unknown>', GPU has fallen off the bus."}
    memory = {"pci_bus_id": "0000:01:00.0", "code": 31, "seconds_since_boot": 60, "message": "MMU Fault"}
    report = preflight.judge(facts | {"xids": [memory, lost, memory]}, wanted)
    assert report.problems == []
    assert [warning.message for warning in report.warnings if warning.code == "xid"] == [
        "The kernel log has Xid 31 of the card at 0000:01:00.0 2 times, last: MMU Fault.",
        "The kernel log has Xid 79 of the card at 0000:02:00.0 once, last: pid='<unknown>', GPU has fallen off the bus.",
    ]


def test_nvidia_smi_hangs(facts, wanted):
    noticed = ["nvidia-smi gave no answer within 30 s: a card or its driver hangs"]
    report = preflight.judge(facts | {"nvidia_smi": "hangs", "problems": noticed}, wanted)
    assert codes(report.problems) == ["nvidia_smi_hangs"]
    assert "noticed" not in codes(report.warnings)


@pytest.mark.parametrize(
    "files, sentence",
    [
        (
            ["/usr/bin/nvidia-uninstall", "/usr/lib/x86_64-linux-gnu/libcuda.so.535.54"],
            "by a .run file (/usr/bin/nvidia-uninstall is there). Remove it with nvidia-uninstall",
        ),
        (["/usr/lib/x86_64-linux-gnu/libcuda.so.535.54"], "libcuda.so.535.54 belongs to no package"),
    ],
)
def test_a_driver_that_came_past_apt(facts, files, sentence):
    (problem,) = preflight.driver(facts | {"driver_foreign_files": files}, {})
    assert problem.code == "foreign_driver"
    assert sentence in text([problem])


def sources(*keys, uri="https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64"):
    return [{"file": f"/etc/apt/sources.list.d/{number}.list", "uri": uri + "/" * number, "suite": "/", "signed_by": key} for number, key in enumerate(keys)]


def test_one_repository_with_two_keys(facts):
    (problem,) = preflight.driver(facts | {"apt_sources": sources("/usr/share/keyrings/cuda.gpg", None)}, {})
    assert problem.code == "signed_by_conflict"
    assert "/etc/apt/sources.list.d/0.list (Signed-By /usr/share/keyrings/cuda.gpg)" in problem.message
    assert "/etc/apt/sources.list.d/1.list (Signed-By no key of its own)" in problem.message


@pytest.mark.parametrize(
    "found, replaced",
    [
        (sources("/a"), []),
        (sources("/a", "/a"), []),
        (sources("/a", "/b"), ["/etc/apt/sources.list.d/1.*"]),
        (sources("/a", "/b", uri="http://deb.example/debian"), []),
    ],
)
def test_repositories_that_apt_reads(facts, found, replaced):
    assert list(preflight.driver(facts | {"apt_sources": found}, {"replaced_sources": replaced})) == []


@pytest.mark.parametrize(
    "gib, described, needed, code",
    [(256, None, 8, []), (4, None, 8, ["memory"]), (4, None, None, []), (250, 256, 8, []), (128, 256, 8, ["memory_described"])],
)
def test_memory(facts, gib, described, needed, code):
    hardware = {"memory_bytes": described * GIB} if described else None
    assert codes(preflight.memory(facts | {"memory_bytes": gib * GIB}, hardware, {"memory_gib": needed})) == code


@pytest.mark.parametrize(
    "version, fires", [("535.247.01-1~deb12u1", True), ("570.211.01-0ubuntu0.24.04.1", True), ("570.153.02-1", False), ("570.153.02-0ubuntu1", False)]
)
def test_a_driver_of_the_distribution_is_worth_knowing(facts, wanted, version, fires):
    report = preflight.judge(facts | {"packages": facts["packages"] | {"libcuda1": version}}, wanted)
    assert ("archive_driver" in codes(report.warnings)) is fires
    assert report.problems == []


# -- Room and mirrors ----------------------------------------------------------------------------------------------------------------------


def test_room_for_image_and_model_on_one_file_system(facts, wanted):
    wanted["models"][MODEL]["complete"] = False
    for space in facts["file_systems"].values():
        space["free_bytes"] = 59 * GIB
    problems = preflight.judge(bare(facts), wanted).problems
    assert codes(problems) == ["disk"]
    assert f"/ has 59.0 GiB free, and 60.0 are needed: the image vllm/vllm-openai 30.0, the model {MODEL} 30.0." in text(problems)
    facts["file_systems"]["/home/llm/model"]["mount_point"] = "/home"
    assert preflight.judge(bare(facts), wanted).problems == []


def test_a_model_is_as_large_as_its_plan_says(facts, wanted):
    wanted["models"][MODEL]["complete"] = False
    facts["file_systems"]["/home/llm/model"] = {"free_bytes": 14 * GIB, "mount_point": "/home"}
    assert f"the model {MODEL} 15." in text(preflight.judge(facts, wanted).problems)
    facts["file_systems"]["/home/llm/model"]["free_bytes"] = 17 * GIB
    assert preflight.judge(facts, wanted).problems == []


def test_what_is_there_needs_no_room(facts, wanted):
    for space in facts["file_systems"].values():
        space["free_bytes"] = 0
    assert preflight.judge(facts, wanted).problems == []


def test_the_addresses_of_a_bare_host(facts, wanted):
    wanted["models"][MODEL]["complete"] = False
    assert preflight.sources(bare(facts), wanted) == [
        "http://mirror/cuda/InRelease",
        "http://mirror/cuda/key.pub",
        "http://mirror/toolkit/InRelease",
        "http://mirror/toolkit/key",
        "http://deb.example/debian/dists/trixie/InRelease",
        "http://mirror:5000/v2/",
        "https://registry-1.docker.io/v2/",
        "http://mirror:8080",
    ]


def test_a_hub_that_gave_config_json_is_not_asked_again(facts, wanted):
    wanted["models"][MODEL] |= {"complete": False, "config_source": "hub"}
    assert preflight.sources(facts, wanted) == []


def test_an_image_with_a_registry_of_its_own(facts, wanted):
    assert preflight.sources(facts, wanted | {"images": {"0.8.5": "registry.example:5000/vllm/vllm-openai:v0.8.5"}}) == ["https://registry.example:5000/v2/"]


def answer(status=None, error=None):
    return {"status": status, "error": error}


@pytest.mark.parametrize(
    "address, given, fires",
    [
        ("http://mirror/cuda/InRelease", answer(200), False),
        ("http://mirror/cuda/InRelease", answer(404), True),
        ("http://mirror/cuda/InRelease", answer(error="Name or service not known"), True),
        ("https://registry.example/v2/", answer(401), False),
        ("https://registry.example/v2/", answer(503), True),
        ("http://mirror:8080", answer(404), False),
        ("http://mirror:8080", answer(502), True),
    ],
)
def test_answers(facts, wanted, address, given, fires):
    found = list(preflight.unreachable(facts, wanted | {"answers": {address: given}}))
    assert codes(found) == (["unreachable"] if fires else [])
    if fires:
        assert f"{address} cannot be had from this host ({given['error'] or 'HTTP ' + str(given['status'])})" in text(found)


def test_of_a_registry_and_its_mirrors_one_is_enough(facts, wanted):
    dead, alive = answer(error="timed out"), answer(200)
    both = {"http://mirror:5000/v2/": alive, "https://registry-1.docker.io/v2/": dead}
    assert list(preflight.unreachable(bare(facts), wanted | {"answers": both})) == []
    assert len(list(preflight.unreachable(bare(facts), wanted | {"answers": dict.fromkeys(both, dead)}))) == 2


def test_a_password_in_an_address_is_not_printed(facts, wanted):
    (problem,) = preflight.unreachable(facts, wanted | {"answers": {"https://me:secret@mirror/InRelease": answer(404)}})
    assert "https://mirror/InRelease" in problem.message
    assert "secret" not in problem.message


# -- The plan ------------------------------------------------------------------------------------------------------------------------------


def test_a_refused_plan_is_a_problem(facts, wanted):
    wanted["instances"][0]["options"] = {"tensor_parallel_size": 1, "dtype": "half", "gpu_memory_utilization": 0.5}
    problems = preflight.judge(facts, wanted).problems
    assert codes(problems) == ["no_room_for_kv_cache"]
    assert text(problems).startswith("Instance 'coder': The weights take 15.")
    assert "Nearest plans that fit" in text(problems)


def test_a_models_error_is_said_once_and_with_its_reason(facts, wanted):
    wanted["models"][MODEL] |= {"config": None, "config_source": None, "complete": False, "error": "The hub cannot be reached."}
    problems = preflight.judge(facts, wanted).problems
    assert codes(problems) == ["no_model_config"]
    assert f"{MODEL}: The hub cannot be reached." in text(problems)


def test_the_inventorys_config_json_counts(facts, wanted):
    wanted["models"][MODEL] |= {"config": None, "config_source": None, "error": "The hub cannot be reached."}
    report = preflight.judge(facts, wanted | {"configs": {MODEL: CONFIG}})
    assert report.problems == []
    assert report.plan["verdict"] == "fits"


def test_nothing_given_is_changed(facts, wanted):
    before = copy.deepcopy((facts, wanted))
    preflight.judge(facts, wanted)
    preflight.sources(facts, wanted)
    assert (facts, wanted) == before


def test_everything_wrong_is_said_at_once(facts, wanted):
    facts |= {
        "os": {"id": "debian", "version_id": "11", "architecture": "amd64"},
        "secure_boot": True,
        "memory_bytes": GIB,
        "driver_foreign_files": ["/usr/bin/nvidia-uninstall"],
    }
    report = preflight.judge(
        bare(facts), wanted | {"variables": ["vllm_x"], "hardware": {"gpus": [CARD] * 2}, "answers": {"http://mirror/cuda/InRelease": answer(404)}}
    )
    assert {"unknown_variable", "os_unsupported", "secure_boot", "card_count", "foreign_driver", "memory", "unreachable"} <= set(codes(report.problems))
