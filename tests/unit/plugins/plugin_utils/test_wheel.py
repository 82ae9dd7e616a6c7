"""What a wheel depends on, how it lies in a store, and whether what was built is what was wanted."""

import hashlib
import json

import pytest
from ansible_collections.gpuhosts.inference.plugins.filter.wheel_artifact import wheel_artifact
from ansible_collections.gpuhosts.inference.plugins.filter.wheel_offer import wheel_offer
from ansible_collections.gpuhosts.inference.plugins.plugin_utils import wheel

GIB = 2**30
DIGEST = "sha256:" + "6" * 64
PACKAGE = {"name": "flash-attn", "version": "1.0.9", "sha256": "7c7e", "archs": ["7.5"]}
PROBE = {"vllm": "0.8.5", "python": "3.12", "torch": "2.6.0+cu124", "torch_cuda": "12.4"}
WANT = wheel.wanted(PACKAGE, f"vllm/vllm-openai@{DIGEST}", "sha256:1", PROBE)
# What cuobjdump 12.4 --list-elf says of one library.
ELF = "ELF file    1: flash_attn_cuda.cpython-312-x86_64-linux-gnu.1.sm_75.cubin\nELF file    2: flash_attn_cuda.cpython-312-x86_64-linux-gnu.2.sm_75.cubin\n"
BUILT = {
    "metadata": {"name": "flash_attn", "version": "1.0.9", "tags": ["cp312-cp312-linux_x86_64"]},
    "python": "3.12",
    "torch": "2.6.0+cu124",
    "cuda": "12.4",
    "objdump": {"flash_attn_cuda.cpython-312-x86_64-linux-gnu.so": {"elf": ELF, "ptx": ""}},
}


# -- The key -------------------------------------------------------------------------------------------------------------------------------


def test_a_wheel_depends_on_package_image_python_torch_cuda_and_archs():
    assert WANT == {
        "name": "flash-attn",
        "version": "1.0.9",
        "source_sha256": "7c7e",
        "archs": ["7.5"],
        "image": DIGEST,
        "python": "3.12",
        "torch": "2.6.0+cu124",
        "cuda": "12.4",
    }
    keys = {wheel.key(WANT)} | {wheel.key({**WANT, name: ["8.0"] if name == "archs" else "other"}) for name in WANT}
    assert len(keys) == 1 + len(WANT), "everything in it changes the key"
    assert wheel.key(WANT) == wheel.key(dict(reversed(WANT.items())))
    assert wheel.key(WANT).startswith("flash-attn-1.0.9-")


def test_an_image_by_tag_counts_by_its_id():
    assert wheel.wanted(PACKAGE, "example.org/vllm:mine", "sha256:1", PROBE)["image"] == "sha256:1"


def test_the_order_of_archs_does_not_count():
    keys = {wheel.key(wheel.wanted({**PACKAGE, "archs": archs}, "x", "y", PROBE)) for archs in (["10.0", "7.5"], ["7.5", "10.0"])}
    assert len(keys) == 1


# -- The store -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """A store with one wheel; store() is what is found there."""
    directory = tmp_path / wheel.key(WANT)
    directory.mkdir()
    (directory / "flash.whl").write_bytes(b"wheel")
    manifest = {"wanted": WANT, "wheel": "flash.whl", "sha256": hashlib.sha256(b"wheel").hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_the_same_key_is_found(store):
    found = wheel.stored(WANT, str(store))
    assert found["state"] == "stored" and found["wheel"] == "flash.whl" and found["key"] == wheel.key(WANT)


def test_before_an_image_was_looked_into_its_digest_finds_the_wheel(store):
    """So that a bare fleet is told at once whether a builder is needed."""
    assert wheel.stored(wheel.wanted(PACKAGE, f"mirror/vllm@{DIGEST}", None, None), str(store))["state"] == "stored"


@pytest.mark.parametrize("name, value", [("torch", "2.7.0+cu124"), ("cuda", "12.6"), ("python", "3.11"), ("archs", ["8.0"]), ("image", "sha256:9")])
def test_a_wheel_for_another_image_is_none(store, name, value):
    assert wheel.stored({**WANT, name: value}, str(store))["state"] == "missing"


@pytest.mark.parametrize("content, words", [(b"whe", "is not the wheel that its manifest names: its SHA-256 is "), (None, "cannot be read (No such file")])
def test_a_wheel_that_is_cut_off_tampered_with_or_gone_is_told(store, content, words):
    path = store / wheel.key(WANT) / "flash.whl"
    path.write_bytes(content) if content else path.unlink()
    found = wheel.stored(WANT, str(store))
    assert found["state"] == "broken" and words in found["problem"] and str(path) in found["problem"]


@pytest.mark.parametrize("text, image", [('{"r/vllm": "r/vllm@sha256:1"}', "r/vllm@sha256:1"), ('{"other/vllm": "x"}', None), ("[]", None), ("{", None)])
def test_the_image_with_the_wheel_inside_is_known_by_its_repository(store, text, image):
    (store / wheel.key(WANT) / "images.json").write_text(text)
    probe = {name: WANT[key] for key, name in wheel.FROM_PROBE.items()}
    assert wheel_artifact(PACKAGE, f"mirror/vllm@{DIGEST}", None, probe, str(store), "r/vllm")["image"] == image


@pytest.mark.parametrize("text", ["", "[]", '{"wanted": 3}', '{"wheel": "x"}'])
def test_what_is_left_of_a_run_that_was_cut_off_is_no_wheel(store, text):
    (store / wheel.key(WANT) / "manifest.json").write_text(text)
    assert wheel.stored(WANT, str(store)) | {"directory": ""} == {"state": "missing", "key": wheel.key(WANT), "directory": "", "problem": None, "images": {}}


# -- A store behind a URL ------------------------------------------------------------------------------------------------------------------


def test_a_wheel_is_offered_under_a_name_that_is_known_before_its_image_was_looked_into():
    bare = wheel.wanted(PACKAGE, f"vllm/vllm-openai@{DIGEST}", None, None)
    assert wheel.offer(bare) == wheel.offer(WANT) == wheel.key(bare) + ".json"
    assert wheel.offer({**WANT, "archs": ["8.0"]}) != wheel.offer(WANT)
    assert wheel_artifact(PACKAGE, f"vllm@{DIGEST}", None, None, "/nowhere")["offer"] == wheel.offer(WANT)


OFFERED = {"wanted": WANT, "wheel": "flash-1.0+cu.whl", "sha256": "0" * 64, "imports": ["x"]}


def test_what_is_offered_has_its_own_key():
    found = wheel_offer(json.dumps(OFFERED), wheel.wanted(PACKAGE, f"vllm@{DIGEST}", None, None))
    assert found == {"key": wheel.key(WANT), "wheel": "flash-1.0+cu.whl", "sha256": "0" * 64, "manifest": OFFERED}


@pytest.mark.parametrize(
    "change",
    [
        {"wheel": "../../etc/cron.d/x.whl"},
        {"wheel": "x.whl\n"},
        {"wheel": None},
        {"sha256": "https://elsewhere.example/SHA256SUMS"},
        {"wanted": {**WANT, "image": "sha256:9"}},
        {"wanted": {**WANT, "torch": "2.7.0"}},
        {"wanted": "flash-attn"},
    ],
)
def test_what_is_offered_is_not_believed(change):
    assert wheel_offer(json.dumps(OFFERED | change), WANT) is None


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", "null", '"manifest"'])
def test_no_manifest_at_all(text):
    assert wheel_offer(text, WANT) is None


# -- The builder's share -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cpus, gib, per_job, jobs",
    [
        (2, 23, 4, [2, 1]),
        (16, 128, 4, [15, 7, 3, 1]),  # one core is left to what serves
        (64, 16, 4, [3, 1]),  # memory decides
        (8, 2, 4, [1]),
        (1, 64, 4, [1]),
        (None, None, 4, [1]),
    ],
)
def test_jobs_by_cores_and_memory(cpus, gib, per_job, jobs):
    found = wheel.attempts(cpus, gib and gib * GIB, per_job)
    assert found["jobs"] == jobs
    assert found["memory_bytes"] == int((gib or 0) * GIB * 0.75)


# -- What was built ------------------------------------------------------------------------------------------------------------------------


def told(want=WANT, **changes):
    return [(problem.code, problem.message) for problem in wheel.problems({**BUILT, **changes}, want)]


def library(elf="", ptx=""):
    return {"objdump": {"x.so": {"elf": elf, "ptx": ptx}}}


def test_what_was_wanted():
    assert told() == []


def test_archs_of_a_listing():
    assert wheel.archs_in(ELF + "ELF file    3: x.sm_90a.cubin\nPTX file    1: x.1.sm_100.ptx\n") == {"7.5", "9.0a", "10.0"}
    assert wheel.archs_in("cuobjdump info    : File 'x.so' does not contain device code") == set()


@pytest.mark.parametrize(
    "changes, problem",
    [
        (library(), ("code_missing", "The wheel holds no code for sm_75: it has none.")),
        ({"objdump": {}}, ("code_missing", "The wheel holds no code for sm_75: it has none.")),
        (library(ELF + "ELF file 3: x.3.sm_80.cubin"), ("code_unwanted", "The wheel also holds code for sm_80, which nobody asked for.")),
        (library(ELF, "PTX file 1: x.1.sm_90.ptx"), ("code_unwanted", "The wheel also holds PTX for sm_90, which nobody asked for.")),
        (
            {"metadata": {**BUILT["metadata"], "version": "2.7.4"}},
            ("other_package", "The wheel says that it is flash_attn 2.7.4, and flash-attn 1.0.9 was wanted."),
        ),
        ({"torch": "2.7.0"}, ("other_image", "The wheel was built beside torch 2.7.0, and its key says 2.6.0+cu124.")),
        (
            {"metadata": {**BUILT["metadata"], "tags": ["cp311-cp311-linux_x86_64"]}},
            ("other_python", "The wheel is for cp311-cp311-linux_x86_64, and the image has Python 3.12."),
        ),
    ],
)
def test_what_was_not_wanted(changes, problem):
    assert told(**changes) == [problem]


def test_another_arch_list():
    want = {**WANT, "archs": ["8.0", "9.0"]}
    assert told(want) == [
        ("code_missing", "The wheel holds no code for sm_80, sm_90: it has sm_75."),
        ("code_unwanted", "The wheel also holds code for sm_75, which nobody asked for."),
    ]
    assert told(want, **library("ELF file 1: x.1.sm_80.cubin\nELF file 2: x.1.sm_90.cubin")) == []
