"""The program that builds a wheel: what it reads out of a log, what nvcc is told, and what it does when a try fails."""

import io
import json
import os
import sys
import tarfile
import types
import zipfile

import pytest

# Of a real build of flash-attn 1.0.9, shortened: --ptxas-options=-v fills a log with what is no error.
NOISE = (
    "  [3/9] /usr/bin/nvcc -c -c fmha_fwd_hdim64.cu -o fmha_fwd_hdim64.o -Werror=reorder\n"
    "  ptxas info    : 0 bytes gmem\n"
    '  csrc/softmax.h(120): warning #177-D: variable "error" was declared but never referenced\n'
)
NVCC = (
    "  FAILED: scale.o\n"
    '  scale.cu(3): error: identifier "valuez" is undefined\n'
    "        if (index < count) valuez[index] *= factor;\n"
    "                           ^\n"
    '  1 error detected in the compilation of "scale.cu".\n'
)
AFTER = (
    "  ninja: build stopped: subcommand failed.\n"
    "  Traceback (most recent call last):\n"
    "  subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.\n"
    "  RuntimeError: Error compiling objects for extension\n"
    "  error: subprocess-exited-with-error\n"
)


@pytest.mark.parametrize(
    "log, starts, ends",
    [
        (NOISE + NVCC + AFTER, '  scale.cu(3): error: identifier "valuez" is undefined', '1 error detected in the compilation of "scale.cu".'),
        (
            NOISE + "fmha_api.cpp:31:10: fatal error: cutlass/x.h: No such file or directory\n   31 | #include\n" + AFTER,
            "fmha_api.cpp:31:10: fatal",
            "#include",
        ),
        (NOISE + "nvcc fatal   : Unsupported gpu architecture 'compute_42'\n", "nvcc fatal   : Unsupported", "'compute_42'"),
        (NOISE + "ptxas fatal   : Unresolved extern function 'f'\n", "ptxas fatal", "'f'"),
        (NOISE + "/usr/bin/ld: cannot find -lcudart: No such file\ncollect2: error: ld returned 1 exit status\n", "/usr/bin/ld: cannot find", "exit status"),
        ("Traceback (most recent call last):\n  File \"setup.py\"\nModuleNotFoundError: No module named 'packaging'\n", "ModuleNotFoundError", "'packaging'"),
        ("one\ntwo\n", "one", "two"),
        ("", "it printed nothing", ""),
    ],
)
def test_the_compilers_error_and_nothing_else(programs, log, starts, ends):
    error = programs.build.compiler_error(log)
    assert error.startswith(starts) and error.endswith(ends)
    assert "warning" not in error and "[3/9]" not in error and error.count("\n") <= 4


@pytest.mark.parametrize(
    "line",
    [
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
        "g++: fatal error: Killed signal terminated program cc1plus",
        "virtual memory exhausted: Cannot allocate memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "Killed",
        "/bin/sh: line 1: 42 Killed",
    ],
)
def test_a_compiler_that_was_killed_for_its_memory(programs, line):
    assert programs.build.ran_out_of_memory(f"{NOISE}{line}\n{AFTER}")
    assert not programs.build.ran_out_of_memory(NOISE + NVCC + AFTER)


def test_nvcc_is_told_the_wanted_archs_and_no_others(programs):
    given = ["-c", "x.cu", "-gencode", "arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90", "-O3", "--generate-code", "x", "-arch=sm_70"]
    assert programs.build.without_archs(given) == ["-c", "x.cu", "-O3"]
    assert programs.build.gencode(["7.5", "9.0a"]) == ["-gencode=arch=compute_75,code=sm_75", "-gencode=arch=compute_90a,code=sm_90a"]


# -- A whole build, with a pip that is a small program here --------------------------------------------------------------------------------


def wheel(path, name="small-cuda", version="0.1.0", tag="cp311-cp311-linux_x86_64"):
    """Write a wheel that holds nothing but its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText: Name: no\n")
        archive.writestr("x.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
    return path


@pytest.fixture
def builder(tmp_path, programs, monkeypatch):
    """builder(script, **spec) builds with a shell script in pip's place, in an image whose torch and nvcc are of CUDA 12.4; returns status.json.

    builder.image(cuda=, nvcc=, torch=) makes another image; builder.steps are the numbers that the script was called with.
    """
    directory, home = tmp_path / "build", tmp_path / "cuda"
    directory.mkdir()
    with tarfile.open(directory / "small.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("small-cuda-0.1.0/setup.py")
        archive.addfile(entry, io.BytesIO())

    def image(cuda="12.4", nvcc="12.4", torch="2.6.0+cu124"):
        module = types.ModuleType("torch")
        module.__version__, module.version = torch, types.SimpleNamespace(cuda=cuda)
        extension = types.ModuleType("torch.utils.cpp_extension")
        extension.CUDA_HOME = str(home)
        monkeypatch.setitem(sys.modules, "torch", module)
        monkeypatch.setitem(sys.modules, "torch.utils", types.ModuleType("torch.utils"))
        monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", extension)
        (home / "bin").mkdir(parents=True, exist_ok=True)
        for program in (home / "bin").iterdir():
            program.unlink()
        if nvcc:
            programs.build.script(home / "bin/nvcc", f"#!/bin/sh\necho 'Cuda compilation tools, release {nvcc}, V{nvcc}.131'\n")
            programs.build.script(home / "bin/cuobjdump", "#!/bin/sh\necho 'ELF file    1: x.1.sm_75.cubin'\n")

    def build(script="", **more):
        pinned = programs.build.sha256(directory / "small.tar.gz")
        spec = {
            "source": "small.tar.gz",
            "source_sha256": pinned,
            "name": "small-cuda",
            "version": "0.1.0",
            "archs": ["7.5"],
            "imports": ["small_cuda"],
            "jobs": [4, 2, 1],
            **more,
        }
        (directory / "spec.json").write_text(json.dumps(spec))
        path = tmp_path / "pip.sh"
        path.write_text(f"echo $MAX_JOBS $TORCH_CUDA_ARCH_LIST >> {tmp_path}/calls\n{script}\n")
        monkeypatch.setattr(programs.build, "install", lambda path, into: os.makedirs(into, exist_ok=True) or (open(os.path.join(into, "x.so"), "w").close()))
        monkeypatch.setattr(programs.build, "import_beside_torch", lambda into, modules: None)
        monkeypatch.setattr(programs.build.sys, "executable", "/bin/sh")
        real = programs.build.run
        monkeypatch.setattr(programs.build, "run", lambda command, *rest: real(["sh", str(path)], *rest))
        build.code = programs.build.main(str(directory))
        monkeypatch.setattr(programs.build, "run", real)
        return json.loads((directory / "status.json").read_text())

    build.image, build.directory, build.calls = image, directory, lambda: (tmp_path / "calls").read_text().splitlines()
    build.makes = f"cp {wheel(tmp_path / 'made/small_cuda-0.1.0-cp311-cp311-linux_x86_64.whl')} {directory}/dist/"
    image()
    return build


def test_a_wheel_and_what_is_known_of_it(builder):
    status = builder(f"mkdir -p {builder.directory}/dist; echo '  [1/2] nvcc'; {builder.makes}")
    assert builder.code == 0 and status["state"] == "built" and status["wheel"] == "dist/small_cuda-0.1.0-cp311-cp311-linux_x86_64.whl"
    assert status["metadata"] == {"name": "small-cuda", "version": "0.1.0", "tags": ["cp311-cp311-linux_x86_64"]}
    assert (status["torch"], status["cuda"], status["jobs"]) == ("2.6.0+cu124", "12.4", 4)
    assert status["objdump"]["x.so"]["elf"] == "ELF file    1: x.1.sm_75.cubin\n"
    assert builder.calls() == ["4 7.5"]


def test_other_sources_than_the_pinned_ones_are_not_compiled(builder):
    status = builder("exit 0", source_sha256="7c7e")
    assert status["state"] == "failed" and not (builder.directory / "source").exists()
    assert status["error"].startswith("small.tar.gz is not what was pinned: its SHA-256 is ") and status["error"].endswith("flash_attn_wheel_sha256 is 7c7e.")


def test_fewer_jobs_after_each_try_that_ran_out_of_memory(builder):
    killed = "echo \"nvcc error : 'cicc' died due to signal 9 (Kill signal)\"; exit 1;"
    script = f"mkdir -p {builder.directory}/dist; [ $MAX_JOBS = 1 ] || {{ {killed} }}; {builder.makes}"
    assert builder(script)["jobs"] == 1
    assert builder.calls() == ["4 7.5", "2 7.5", "1 7.5"]
    assert (builder.directory / "build.log").read_text().count("signal 9") == 2, "the log has every try"


def test_out_of_memory_with_one_job_too(builder):
    status = builder("echo Killed; exit 1", jobs=[2, 1])
    assert builder.code == 1 and status["state"] == "failed"
    assert status["error"] == (
        "small-cuda 0.1.0 ran out of memory while it was compiled, with 1 job at last: give the build more memory, or choose a builder that has more."
    )


def test_an_error_of_the_compiler_is_not_tried_again(builder):
    status = builder("cat <<'LOG'\n" + NOISE + NVCC + AFTER + "LOG\nexit 1")
    assert builder.calls() == ["4 7.5"]
    assert status["error"].startswith('small-cuda 0.1.0 does not compile in the image. The compiler said:\n  scale.cu(3): error: identifier "valuez"')
    assert "ninja" not in status["error"]


@pytest.mark.parametrize(
    "image, spec, words",
    [
        ({"nvcc": None}, {}, "The image has no nvcc, so that nothing can be compiled in it: name one that has the compiler of CUDA 12.4"),
        ({"nvcc": "12.8"}, {}, "The image's nvcc is of CUDA 12.8 and its PyTorch 2.6.0+cu124 is built for 12.4"),
        ({"cuda": None, "torch": "2.6.0+cpu"}, {}, "The image's PyTorch 2.6.0+cpu is built without CUDA"),
        ({}, {"torch": "2.7.0"}, "The image has torch 2.6.0+cu124, and the wheel is wanted for 2.7.0"),
    ],
)
def test_an_image_in_which_nothing_can_be_built(builder, image, spec, words):
    builder.image(**image)
    status = builder("exit 0", **spec)
    assert status["state"] == "failed" and words in status["error"]
    assert not (builder.directory / "source").exists(), "found before anything is unpacked"
