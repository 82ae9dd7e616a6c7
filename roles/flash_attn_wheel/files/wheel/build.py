"""Builds a wheel with CUDA code in the image that will use it, for the wanted archs alone. Runs in a container without network and without cards.

Usage: build.py DIRECTORY

DIRECTORY is kept from one try to the next: what was compiled stays compiled. It has spec.json:

    source    name of the sdist in DIRECTORY        source_sha256   its checksum
    name, version   what its metadata must say
    archs     compute capabilities, ["7.5"]         imports         modules that are imported for proof, beside torch
    jobs      how many compilers at once, [4, 2, 1]: the next one after a try that ran out of memory
    environment   more variables for the build      python, torch, cuda   what the image was known to have, null where it was not looked into

and gets build.log, the wheel in dist/, and status.json, which is replaced as a whole at every step:

    {"state": "running", "step": 3, "steps": 10, "jobs": 2}
    {"state": "failed", "error": "a sentence, and for a compiler its own words"}
    {"state": "built", "wheel": "dist/NAME.whl", "sha256": ..., "metadata": {name, version, tags}, "python", "torch", "cuda", "jobs", "seconds",
     "objdump": {library: {"elf": text, "ptx": text}} as cuobjdump wrote it, "imported": [modules]}
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] ")  # ninja counts
# What compilers, and those who start them, say when the kernel kills one for its memory.
OUT_OF_MEMORY = re.compile(
    r"died due to signal 9|Killed signal terminated program|virtual memory exhausted|Cannot allocate memory|std::bad_alloc|(?:^|\s)Killed\s*$",
    re.MULTILINE,
)
ERROR = re.compile(r"\berror\b\s*(?:[A-Z]?\d+)?\s*:|\bfatal(?: error)?\s*:|nvcc fatal|undefined reference to|ld: cannot find|ld returned \d", re.IGNORECASE)
NO_ERROR = re.compile(r"-W\w*error|subprocess-exited-with-error|ninja: |× |metadata-generation-failed")
CONTEXT_LINES = 4  # a compiler shows the line and points to the place
ARCHS = ("-gencode", "--generate-code", "-arch", "--gpu-architecture", "-code", "--gpu-code")


class Failed(Exception):
    """The text says what is wrong and what to do."""


# -- What a log says -----------------------------------------------------------------------------------------------------------------------


def ran_out_of_memory(log):
    """Whether a compiler was killed for its memory."""
    return bool(OUT_OF_MEMORY.search(log))


def compiler_error(log):
    """The first error of a build with the lines that belong to it; what the build ended with where no compiler complained. Never empty."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    for index, line in enumerate(lines):
        if ERROR.search(line) and not NO_ERROR.search(line):
            rest = [line]
            for following in lines[index + 1 : index + 1 + CONTEXT_LINES]:
                if STEP.match(following) or re.search(r"\b(warning|remark)\b|^\s*(FAILED: |ninja: |Traceback )", following):
                    break
                rest.append(following)
            return "\n".join(rest)
    raised = [line.strip() for line in lines if re.match(r"\s*(?:\w+\.)*\w*(?:Error|Exception)\b.*:", line)]
    return raised[-1] if raised else "\n".join(lines[-CONTEXT_LINES:]) or "it printed nothing"


# -- The compiler, for the wanted archs only -----------------------------------------------------------------------------------------------


def without_archs(arguments):
    """The arguments of nvcc without those that choose archs: "-gencode X", "-gencode=X", "-arch=X" and their long names."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ARCHS:
            skip = True
        elif not argument.startswith(tuple(f"{name}=" for name in ARCHS)):
            kept.append(argument)
    return kept


def gencode(archs):
    """What nvcc is told instead: machine code for exactly these, and no PTX."""
    names = [arch.replace(".", "") for arch in archs]
    return [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]


def as_nvcc(arguments):
    """Be nvcc: some packages name their archs themselves and look at no variable. Only a compilation is changed."""
    if any(argument.endswith(".cu") for argument in arguments):
        arguments = [*without_archs(arguments), *gencode(os.environ["GPUHOSTS_ARCHS"].split(","))]
    os.execv(os.environ["GPUHOSTS_NVCC"], [os.environ["GPUHOSTS_NVCC"], *arguments])


# -- The build -----------------------------------------------------------------------------------------------------------------------------


def output(command, failure, **more):
    """What a command prints; where it fails, Failed with the sentence and what the command said."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if result.returncode != 0:
        raise Failed(f"{failure}: {compiler_error(result.stdout + result.stderr)}")
    return result.stdout


def find_compiler(spec):
    """What the image has, {"python", "torch", "cuda", "nvcc"}; Failed where a wheel for it cannot be built in it."""
    try:
        import torch
        from torch.utils.cpp_extension import CUDA_HOME
    except ImportError as error:
        raise Failed(f"The image has no PyTorch that its python3 imports ({error}): name the engine's own image.")
    found = {"python": "{}.{}".format(*sys.version_info), "torch": str(torch.__version__), "cuda": torch.version.cuda}
    if not found["cuda"]:
        raise Failed(f"The image's PyTorch {found['torch']} is built without CUDA, and so is every extension of it: name an image with a CUDA build.")
    for key, value in found.items():
        if spec.get(key) not in (None, value):
            raise Failed(f"The image has {key} {value}, and the wheel is wanted for {spec[key]}: it was looked into as another image. Run again.")
    nvcc = os.path.join(CUDA_HOME, "bin", "nvcc") if CUDA_HOME else None
    if not nvcc or not os.path.exists(nvcc):
        raise Failed(
            f"The image has no nvcc, so that nothing can be compiled in it: name one that has the compiler of CUDA {found['cuda']}, as vllm/vllm-openai has."
        )
    release = re.search(r"release (\d+\.\d+)", output([nvcc, "--version"], "The image's nvcc does not start"))
    if not release or release[1] != found["cuda"]:
        raise Failed(
            f"The image's nvcc is of CUDA {release[1] if release else 'an unknown version'} and its PyTorch {found['torch']} is built for {found['cuda']}: "
            "a wheel from one does not load beside the other. Name an image in which both agree."
        )
    return {**found, "nvcc": nvcc}


def unpack(directory, spec):
    """The directory of the sources, unpacked once; Failed where they are not those that were pinned."""
    whole = os.path.join(directory, "source")
    if not os.path.isdir(whole):
        found = sha256(os.path.join(directory, spec["source"]))
        if found != spec["source_sha256"]:
            raise Failed(f"{spec['source']} is not what was pinned: its SHA-256 is {found}, and flash_attn_wheel_sha256 is {spec['source_sha256']}.")
        partial = whole + ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(os.path.join(directory, spec["source"])) as archive:
            archive.extractall(partial, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(partial)
        os.rename(partial, whole)
    (top,) = os.listdir(whole)
    return os.path.join(whole, top)


def environment(directory, spec, nvcc, jobs):
    """The variables of a build. A nvcc of ours stands before the real one, and a git that knows nothing where there is none."""
    tools = os.path.join(directory, "bin")
    os.makedirs(tools, exist_ok=True)
    script(os.path.join(tools, "nvcc"), f'#!/bin/sh\nexec {sys.executable} {os.path.abspath(__file__)} --as-nvcc "$@"\n')
    if not shutil.which("git"):
        script(os.path.join(tools, "git"), "#!/bin/sh\nexit 1\n")
    ours = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": directory,
        "MAX_JOBS": str(jobs),
        "TORCH_CUDA_ARCH_LIST": ";".join(spec["archs"]),
        "PYTORCH_NVCC": os.path.join(tools, "nvcc"),
        "GPUHOSTS_NVCC": nvcc,
        "GPUHOSTS_ARCHS": ",".join(spec["archs"]),
    }
    return {**os.environ, **ours, **spec.get("environment", {})}


def script(path, text):
    """Write a program."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)


def compile_wheel(directory, spec, nvcc, tell):
    """Build with as many jobs as the memory lets; returns how many. tell(step, steps, jobs) hears of each step. Failed with the compiler's error."""
    sources = unpack(directory, spec)
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-build-isolation", "--no-deps", "--no-index"]
    command += ["--wheel-dir", os.path.join(directory, "dist"), sources]
    for number, jobs in enumerate(spec["jobs"]):
        shutil.rmtree(os.path.join(directory, "dist"), ignore_errors=True)
        tell(0, 0, jobs)
        log = run(command, environment(directory, spec, nvcc, jobs), os.path.join(directory, "build.log"), number > 0, tell, jobs)
        if log is None:
            return jobs
        if not ran_out_of_memory(log):
            raise Failed(f"{spec['name']} {spec['version']} does not compile in the image. The compiler said:\n{compiler_error(log)}")
    raise Failed(
        f"{spec['name']} {spec['version']} ran out of memory while it was compiled, with {spec['jobs'][-1]} job at last: give the build more memory, or "
        "choose a builder that has more."
    )


def run(command, variables, path, append, tell, jobs):
    """Run a build and write what it prints to a file. None when it succeeds, what this try printed when it fails."""
    lines = []
    with open(path, "a" if append else "w", encoding="utf-8") as log:
        child = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in child.stdout:
            log.write(line)
            log.flush()
            lines.append(line)
            if step := STEP.match(line):
                tell(int(step[1]), int(step[2]), jobs)
    return None if child.wait() == 0 else "".join(lines)


# -- What was built ------------------------------------------------------------------------------------------------------------------------


def metadata(path):
    """{"name", "version", "tags"} from the wheel's own metadata, not from its file name."""
    with zipfile.ZipFile(path) as wheel:
        read = {name.rpartition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if name.endswith((".dist-info/METADATA", ".dist-info/WHEEL"))}
    name, version = (re.search(rf"^{key}: (.+)$", read["METADATA"], re.MULTILINE)[1].strip() for key in ("Name", "Version"))
    return {"name": name, "version": version, "tags": re.findall(r"^Tag: (\S+)", read["WHEEL"], re.MULTILINE)}


def sha256(path):
    """The checksum of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def find_cuobjdump(nvcc):
    """cuobjdump: of CUDA, or the one that Triton brings. Failed without."""
    for place in (os.path.dirname(nvcc), *(os.path.join(path, "triton", "backends", "nvidia", "bin") for path in sys.path)):
        if os.access(path := os.path.join(place, "cuobjdump"), os.X_OK):
            return path
    raise Failed("The image has no cuobjdump, neither of CUDA nor of Triton, so that nobody can see for which cards the wheel holds code.")


def dump(directory, nvcc):
    """What cuobjdump lists in each library below a directory: {name: {"elf": text, "ptx": text}}."""
    tool, found = find_cuobjdump(nvcc), {}
    for library in sorted(glob.glob(os.path.join(directory, "**", "*.so"), recursive=True)):
        found[os.path.relpath(library, directory)] = {kind: listing(tool, kind, library) for kind in ("elf", "ptx")}
    return found


def listing(tool, kind, library):
    """What cuobjdump lists; a library without device code makes it fail, and lists nothing."""
    return subprocess.run([tool, f"--list-{kind}", library], capture_output=True, text=True, check=False).stdout


def install(wheel, directory):
    """Unpack a wheel into a directory, without network; pip refuses one that is damaged or for another Python."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", directory, wheel]
    output(command, f"The wheel {os.path.basename(wheel)} cannot be installed in the image")


def import_beside_torch(directory, modules):
    """Import modules of a directory in a Python of their own."""
    program = "; ".join(f"import {module}" for module in ("torch", *modules))
    output([sys.executable, "-c", program], "The wheel cannot be imported in the image", env={**os.environ, "PYTHONPATH": directory})


def build(directory, spec, tell):
    """All of it; returns what status.json says of a wheel that was built."""
    began = time.monotonic()
    image = find_compiler(spec)
    nvcc = image.pop("nvcc")
    jobs = compile_wheel(directory, spec, nvcc, tell)
    (wheel,) = glob.glob(os.path.join(directory, "dist", "*.whl"))
    with tempfile.TemporaryDirectory() as installed:
        install(wheel, installed)
        objdump = dump(installed, nvcc)
        import_beside_torch(installed, spec["imports"])
    seconds = round(time.monotonic() - began)
    found = {"wheel": os.path.relpath(wheel, directory), "sha256": sha256(wheel), "metadata": metadata(wheel), "objdump": objdump}
    return {"state": "built", **found, **image, "jobs": jobs, "seconds": seconds, "imported": spec["imports"]}


def main(directory):
    def write(status):
        partial = os.path.join(directory, "status.json.partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(status, file, indent=1)
        os.replace(partial, os.path.join(directory, "status.json"))

    def tell(step, steps, jobs):
        write({"state": "running", "step": step, "steps": steps, "jobs": jobs})

    try:
        with open(os.path.join(directory, "spec.json"), encoding="utf-8") as file:
            spec = json.load(file)
        write(build(directory, spec, tell))
    except Failed as error:
        write({"state": "failed", "error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-nvcc"]:
        as_nvcc(sys.argv[2:])
    sys.exit(main(sys.argv[1]))
