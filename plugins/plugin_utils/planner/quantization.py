# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a checkpoint is quantised: its quantization_config, read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .problem import Problem
from .reader import Reader
from .values import shown


@dataclass(frozen=True, slots=True)
class Quant:
    """How the matrices of the decoder layers are stored.

    layout: awq, gptq, packed (compressed-tensors pack-quantized), bitsandbytes, fp8, int8, mxfp4 or gguf. bits: of one weight. group: inputs
    that share a scale, 0 for one scale per output channel. block: (rows, columns) that share a scale in fp8. zeros: zero points are stored.
    act_order: rows are permuted (desc_act). nested: bitsandbytes has quantised its scales too. bits_per_weight: of a GGUF file, scales in.
    skipped: how many decoder layers keep qkv, o, gate_up, down or the experts in 16 bit.
    """

    method: str
    layout: str
    bits: int = 4
    group: int = 128
    block: tuple[int, int] | None = None
    zeros: bool = False
    act_order: bool = False
    nested: bool = True
    bits_per_weight: float = 0.0
    skipped: tuple[tuple[str, int], ...] = ()


REMEDY = "Use a checkpoint in awq, gptq, bitsandbytes, fp8, compressed-tensors, mxfp4 or gguf, or an unquantised one."


def read(config: dict, text: dict, layers: int, problems: list[Problem]) -> Quant | None:
    """The quantisation that the checkpoint declares, or None. compression_config is the older name in compressed-tensors checkpoints."""
    given = config.get("quantization_config", text.get("quantization_config", config.get("compression_config")))
    if given is None or given == {}:
        return None
    if not isinstance(given, dict):
        problems.append(Problem("invalid_quantization", "config.json has a quantization_config that is not a mapping.", REMEDY))
        return None
    method = str(given.get("quant_method", "")).lower().replace("_", "-")
    method = method or ("compressed-tensors" if "config_groups" in given else "")
    skipped = _skipped(given, layers)
    reader = Reader(given, problems)
    if method in ("awq", "awq-marlin"):
        bits = reader.number("bits w_bit", 4, 4, default=4)
        return Quant("awq", "awq", bits, _group(reader, "group_size q_group_size"), zeros=True, skipped=skipped)
    if method in ("gptq", "gptq-marlin", "gptq-bitblas"):
        bits = reader.number("bits", 2, 8, default=4)
        if bits not in (2, 3, 4, 8):
            problems.append(Problem("invalid_quantization", f"config.json has a gptq quantization_config of {bits} bits.", "Use 2, 3, 4 or 8 bits."))
        return Quant("gptq", "gptq", bits, _group(reader, "group_size"), zeros=True, act_order=reader.flag("desc_act", False), skipped=skipped)
    if method in ("bitsandbytes", "bnb"):
        bits = 8 if given.get("load_in_8bit") is True else 4
        # A checkpoint that does not say has nested scales as those of bitsandbytes' and unsloth's own conversions do.
        return Quant("bitsandbytes", "bitsandbytes", bits, 64, nested=reader.flag("bnb_4bit_use_double_quant", True), skipped=skipped)
    if method in ("fp8", "fbgemm-fp8", "ptpc-fp8"):
        block = given.get("weight_block_size")
        good = isinstance(block, list) and len(block) == 2 and all(isinstance(side, int) and 0 < side <= 2**16 for side in block)
        return Quant("fp8", "fp8", 8, 0, block=tuple(block) if good else None, skipped=skipped)
    if method == "compressed-tensors":
        return _compressed_tensors(given, skipped, problems)
    if method == "mxfp4":
        return Quant("mxfp4", "mxfp4", 4, 32, skipped=skipped)
    if method == "gguf":
        bits = given.get("bits_per_weight", 8.5)
        if not isinstance(bits, (int, float)) or isinstance(bits, bool) or not 1 <= bits <= 32:
            problems.append(Problem("invalid_quantization", f"The gguf file has bits_per_weight as {shown(bits)}.", "Give the size of the file instead."))
            bits = 8.5
        return Quant("gguf", "gguf", max(1, int(bits)), 0, bits_per_weight=float(bits))
    problems.append(Problem("unknown_quantization", f"config.json has the quant_method {method[:40]!r}, whose size the planner cannot tell.", REMEDY))
    return None


def _group(reader: Reader, keys: str) -> int:
    """The group size; 0 for one group over the whole input, which checkpoints write as -1."""
    for key in keys.split():
        if reader.config.get(key) == -1:
            return 0
    return reader.number(keys, 1, 2**16, default=128)


def _compressed_tensors(given: dict, skipped: tuple, problems: list[Problem]) -> Quant | None:
    """The first of config_groups: vllm 0.8.5 layers/quantization/compressed_tensors/compressed_tensors.py takes one scheme for all linears."""
    groups = given.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, dict) and groups else None
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        problems.append(Problem("invalid_quantization", "config.json has a compressed-tensors quantization_config without weights.", REMEDY))
        return None
    reader = Reader(weights, problems)
    bits = reader.number("num_bits", 2, 8)
    if weights.get("type") == "float" and bits == 8:
        block = weights.get("block_structure")
        good = isinstance(block, list) and len(block) == 2 and all(isinstance(side, int) and side > 0 for side in block)
        return Quant("compressed-tensors", "fp8", 8, 0, block=tuple(block) if good else None, skipped=skipped)
    if bits == 8 and isinstance(group.get("input_activations"), dict):
        return Quant("compressed-tensors", "int8", 8, 0, skipped=skipped)
    size = weights.get("group_size")
    size = 0 if size in (None, -1) or weights.get("strategy") == "channel" else reader.number("group_size", 1, 2**16)
    act_order = weights.get("actorder") in ("group", True)
    return Quant("compressed-tensors", "packed", bits, size, zeros=weights.get("symmetric") is False, act_order=act_order, skipped=skipped)


PARTS = {
    "qkv": ("q_proj", "k_proj", "v_proj", "qkv_proj", "self_attn", "query_key_value"),
    "o": ("o_proj", "self_attn", "out_proj"),
    "gate_up": ("gate_proj", "up_proj", "gate_up_proj", "mlp", "fc1"),
    "down": ("down_proj", "mlp", "fc2"),
    "experts": ("experts", "mlp"),
}


def _skipped(given: dict, layers: int) -> tuple[tuple[str, int], ...]:
    """How many decoder layers keep each part in 16 bit: the lists of modules that the quantisation leaves out, by their names' ends."""
    names = []
    for key in ("modules_to_not_convert", "llm_int8_skip_modules", "ignore", "ignored_layers"):
        if isinstance(given.get(key), list):
            names += [name for name in given[key] if isinstance(name, str)]
    counted: dict[str, set[int]] = {}
    for name in names:
        match = re.search(r"layers\.(\d{1,4})(?:\.(\w+))?(?:\.(\w+))?$", name)
        if not match:
            # A name without a number holds for every layer. Patterns, gates, heads and towers lie outside these parts.
            for part, ends in PARTS.items():
                if name in ends:
                    counted.setdefault(part, set()).update(range(layers))
            continue
        last = match[3] or match[2]
        for part, ends in PARTS.items():
            if last is None or last in ends:
                counted.setdefault(part, set()).add(int(match[1]))
    return tuple((part, min(len(found), layers)) for part, found in sorted(counted.items()) if found)
