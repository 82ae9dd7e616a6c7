"""Answers whether a real vLLM takes a command line: its parser, its checks of the parsed arguments, and the validation of all its configs.

It runs where vllm is importable, and reads one question on each line of standard input:

    {"commands": [argv, ...], "env": {...}, "config": config.json, "cards": [{"capability": [7, 5], "bytes": ..., "name": ...}], "ram": bytes}

Each answer is one line on standard output, with null for a command line that is taken and the engine's own words for one that is refused:

    {"refusals": [null, "ValueError: ..."]}

What is real: everything up to the finished VllmConfig, as `python3 -m vllm.entrypoints.openai.api_server` makes it before an engine is started.
What is replaced, because there is no GPU: what NVML and CUDA would say of the cards (capability, name, memory, count), below vLLM's own platform
class for CUDA; that Triton, FlashInfer and the compiled kernels are there, and what the latter say of a card; the size of the RAM; and the process of its own
in which vLLM looks at a model's class.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pathlib
import shutil
import sys
import traceback
from importlib.util import find_spec


def imported(*names):
    """The first of these modules that this version has."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise SystemExit(f"none of {', '.join(names)} is in this vLLM")


class Cards:
    """The cards of the question that is being answered."""

    cards: list = []
    ram = 0


def platform():
    """vLLM's own CUDA platform, whose questions to the driver are answered from Cards."""
    cuda = importlib.import_module("vllm.platforms.cuda")
    capability = importlib.import_module("vllm.platforms.interface").DeviceCapability

    class Platform(cuda.CudaPlatformBase):
        @classmethod
        def get_device_capability(cls, device_id=0):
            return capability(*Cards.cards[device_id]["capability"])

        @classmethod
        def get_device_name(cls, device_id=0):
            return Cards.cards[device_id]["name"]

        @classmethod
        def get_device_total_memory(cls, device_id=0):
            return Cards.cards[device_id]["bytes"]

        @classmethod
        def device_count(cls):
            return len(Cards.cards)

        def is_cumem_allocator_available(self):
            return True

        @classmethod
        def is_fully_connected(cls, device_ids):
            return False

        @classmethod
        def get_all_device_numa_nodes(cls):
            return None

    return Platform()


def operators(kernels):
    """What vLLM's compiled kernels say of a card, by the comparisons in csrc (CUTLASS kernels for fp8 and fp4)."""
    for name, least in (
        ("cutlass_scaled_mm_supports_fp8", 89),
        ("cutlass_scaled_mm_supports_block_fp8", 90),
        ("cutlass_scaled_mm_supports_fp4", 100),
        ("cutlass_sparse_scaled_mm_supported", 90),
        ("cutlass_group_gemm_supported", 90),
        ("mxfp4_experts_quant_supported", 100),
    ):
        setattr(kernels, name, lambda capability, least=least: capability >= least)


def load():
    """Import vLLM as on a machine with cards, and return its parser and what takes the parsed arguments on to a config."""
    # Before anything else: modules bind the platform when they are imported.
    Cards.cards = [{"capability": [8, 0], "name": "NVIDIA A100", "bytes": 40 << 30}]
    importlib.import_module("vllm.platforms")._current_platform = platform()
    arg_utils = importlib.import_module("vllm.engine.arg_utils")
    cli = imported("vllm.entrypoints.openai.cli_args", "vllm.entrypoints.common.cli_args")
    utils = imported("vllm.utils.argparse_utils", "vllm.utils")
    usage = importlib.import_module("vllm.usage.usage_lib").UsageContext.OPENAI_API_SERVER
    importlib.import_module("vllm.model_executor.models.registry")._run_in_subprocess = lambda function: function()
    config = importlib.import_module("vllm.config")
    if "vllm.config.vllm" in sys.modules:
        sys.modules["vllm.config.vllm"].HAS_TRITON = True
    if hasattr(config, "cuda_device_count_stateless"):
        config.cuda_device_count_stateless = lambda: len(Cards.cards)
        config.get_cpu_memory = lambda: Cards.ram
        config.find_spec = lambda name: find_spec("vllm" if name == "flashinfer" else name)
    torch = importlib.import_module("torch")
    torch.cuda.get_device_capability = lambda device=None: tuple(Cards.cards[0]["capability"])
    operators(torch.ops._C)
    # Lazily imported by 0.8.5 where the KV cache is in fp8: FlashAttention 3, which its image has, reads it on compute capability 9.
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("vllm.attention.utils.fa_utils").flash_attn_supports_fp8 = lambda: Cards.cards[0]["capability"][0] == 9
    psutil = importlib.import_module("psutil")
    memory = psutil.virtual_memory()
    psutil.virtual_memory = lambda: memory._replace(total=Cards.ram, available=Cards.ram)

    class Parser(utils.FlexibleArgumentParser):
        def error(self, message):
            raise ValueError(message)

    parser = cli.make_arg_parser(Parser())

    def take(argv):
        arguments = parser.parse_args(argv)
        cli.validate_parsed_serve_args(arguments)
        if hasattr(cli, "validate_api_server_args"):
            cli.validate_api_server_args(arguments)
        else:
            known_parsers(arguments)
        arg_utils.AsyncEngineArgs.from_cli_args(arguments).create_engine_config(usage_context=usage)

    return take


def known_parsers(arguments):
    """What 0.8.5 asks at the beginning of api_server.run_server."""
    tools = importlib.import_module("vllm.entrypoints.openai.tool_parsers").ToolParserManager.tool_parsers
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager.reasoning_parsers
    if arguments.enable_auto_tool_choice and arguments.tool_call_parser not in tools:
        raise KeyError(f"invalid tool call parser: {arguments.tool_call_parser}")
    if arguments.enable_reasoning and arguments.reasoning_parser not in reasoning:
        raise KeyError(f"invalid reasoning parser: {arguments.reasoning_parser}")


def refusal(take, argv) -> str | None:
    try:
        take(argv)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"[:2000]
    return None


def answer(take, question) -> dict:
    """In a process of its own: vLLM keeps what it has found out about the machine, and sets environment variables."""
    Cards.cards, Cards.ram = question["cards"], question["ram"]
    os.environ.update(question["env"])
    refusals, before = [], set(sys.modules)
    for argv in question["commands"]:
        folder = pathlib.Path(argv[argv.index("--model") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(question["config"]), encoding="utf-8")
        refusals.append(refusal(take, argv))
    shutil.rmtree(folder)
    return {"refusals": refusals, "imported": sorted(set(sys.modules) - before)}


def forked(take, question) -> dict:
    """The answer of a child. What the child had to import its successors find imported."""
    reading, writing = os.pipe()
    # A collection in the child would touch, and so copy, every page of the parent.
    gc.freeze()
    child = os.fork()
    if child == 0:
        status = 1
        gc.disable()
        try:
            os.close(reading)
            with open(writing, "wb") as pipe:
                pipe.write(json.dumps(answer(take, question)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        found = pipe.read()
    status = os.waitpid(child, 0)[1]
    if not found:
        return {"refusals": [f"the process ended with status {status}"] * len(question["commands"])}
    found = json.loads(found)
    for name in found.pop("imported"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return found


def main():
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # vLLM logs to standard output.
    os.dup2(2, 1)
    os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")
    os.environ.pop("VLLM_USE_V1", None)
    take = load()
    answers.write(json.dumps({"version": importlib.import_module("vllm").__version__}).encode() + b"\n")
    for line in sys.stdin.buffer:
        answers.write(json.dumps(forked(take, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
