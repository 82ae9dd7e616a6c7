"""Every command line that a plan emits is taken by the real parser of its engine, with the validation of its configs.

Instances, hosts and models are drawn at random, the same in every run; those whose plan fits are asked. The engine answers in a container of the
lab's image for its version; what is real in there and what is replaced stands in real_parser.py. 0.8.5 has its own kernels for the CPU. Of 0.33.0
all the Python is there, and empty modules for the kernels. Not asked is what a config.json alone does not tell: whether the weights load, and options
that read the tokenizer, which is not there.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import hypothesis
import pytest
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import hardware
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner.plan import plan
from ansible_collections.gpuhosts.inference.tests.unit.plugins.plugin_utils.planner import strategies
from hypothesis import strategies as st

CHECKOUT = pathlib.Path(__file__).parents[3]
PROGRAM = (pathlib.Path(__file__).parent / "real_parser.py").read_text(encoding="utf-8")
VERSIONS = ("0.8.5", "0.33.0")
# Instances whose plan fits, for each profile.
EXAMPLES = (100, pytest.param(500, marks=pytest.mark.slow))


class Engine:
    """A vLLM that reads command lines, in a container without a network."""

    def __init__(self, version: str, image: str, log: pathlib.Path):
        command = ["docker", "run", "--rm", "--interactive", "--network=none", "--tmpfs=/model", "--entrypoint=python3", image, "-c", PROGRAM]
        self.log = log
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.version, self.imported = version, False

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.log.read_text(encoding="utf-8")[-4000:]
        return json.loads(line)

    def refusals(self, commands, env, config, cards, ram) -> list:
        question = {"commands": commands, "env": env, "config": config, "cards": cards, "ram": ram}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.answer()["refusals"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Both engines, started at the same time, because each imports for half a minute."""
    images = json.loads((CHECKOUT / ".lab" / os.environ["LAB_NAME"] / "engines.json").read_text(encoding="utf-8"))
    found = {version: Engine(version, image, tmp_path_factory.mktemp("engine") / "log") for version, image in images.items()}
    yield found
    for engine in found.values():
        engine.process.stdin.close()
        engine.process.wait(timeout=60)


@pytest.fixture(scope="module")
def engine(engines, request):
    found = engines[request.param]
    if not found.imported:
        assert found.answer()["version"].startswith(found.version)
        found.imported = True
    return found


def question(instance, host, config, found, commands):
    """What the engine is asked: it sees the instance's cards, and of each what firmware leaves."""
    cards = hardware.read(host).chosen(instance.get("gpus"))
    return {
        "commands": commands,
        "env": found["env"],
        "config": config,
        "cards": [{"capability": card.capability, "bytes": card.total_bytes, "name": card.name} for card in cards],
        "ram": host["memory_bytes"],
    }


@pytest.mark.parametrize("profile", strategies.PROFILES)
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("engine", VERSIONS, indirect=True)
def test_the_engine_takes_every_command_line(engine, profile, examples):
    asked = set()

    @hypothesis.settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(strategies.cases(engine.version, profile), st.integers(0, 7))
    def taken(case, step):
        found = plan(*case)
        hypothesis.assume(found["verdict"] == "fits")
        # Of the ladder one step, each as often as the others: a step differs from the plan in few values.
        steps = found["ladder"][step % len(found["ladder"]) :][:1] if found["ladder"] else []
        commands = [found["argv"], *(rung["argv"] for rung in steps)]
        # What is appended once cards were seen to hang goes behind any of them.
        commands += [commands[-1] + found["hang_argv"]] if found["hang_argv"] else []
        refusals = engine.refusals(**question(*case, found, commands))
        asked.update(json.dumps([case[1:], found["env"], argv]) for argv in commands)
        for argv, refusal in zip(commands, refusals, strict=True):
            assert refusal is None, f"vLLM {engine.version} refuses {' '.join(argv)}: {refusal}"

    taken()
    print(f"vLLM {engine.version}, {profile}: {len(asked)} different command lines")
    assert len(asked) >= examples


QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip
TURING = [{"capability": [7, 5], "bytes": 22 << 30, "name": "NVIDIA GeForce RTX 2080 Ti"}] * 4


@pytest.mark.parametrize("engine", VERSIONS, indirect=True)
@pytest.mark.parametrize(
    "words, why",
    [
        (["--max-batch-size", "2"], "unrecognized arguments"),
        (["--tensor-parallel-size", "3"], "must be divisible by tensor parallel size"),
        (["--tensor-parallel-size", "7"], ""),
        (["--quantization", "awq"], ""),
        (["--max-model-len", "65536"], "is greater than the derived max_model_len"),
        (["--gpu-memory-utilization", "1.5"], ""),
        (["--enable-auto-tool-choice"], "requires --tool-call-parser"),
        (["--enable-auto-tool-choice", "--tool-call-parser", "none"], "invalid tool call parser"),
        (["--no-enable-chunked-prefill", "--max-num-batched-tokens", "16", "--max-model-len", "32"], "max_num_batched_tokens"),
    ],
)
def test_it_is_the_engine_that_answers(engine, words, why):
    """What each part of the validation refuses: the parser, the arguments, the model, the cards and the scheduler."""
    (refusal,) = engine.refusals([["--model", "/model/coder", "--dtype", "half", *words]], {}, QWEN, TURING, 64 << 30)
    assert refusal and why in refusal
