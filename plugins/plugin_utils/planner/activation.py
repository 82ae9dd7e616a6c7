# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The peak of the profiling run: what is alive beside the weights while the engine runs its largest batch once.

All sizes are bytes. File names are those of vllm 0.8.5, vllm/model_executor where no other folder is named.
"""

from __future__ import annotations

from .fitted import FITTED
from .model import Model
from .quantization import Quant
from .settings import Settings, marlin
from .weights import MIB, layer_tensors, padded_vocabulary, rows

# The smallest number of tokens for which the AWQ kernel first expands the whole matrix: layers/quantization/awq.py AWQLinearMethod.apply.
AWQ_DEQUANTIZE_TOKENS = 256
# Up to so many experts for a token their outputs are added up by a kernel of the engine's own: csrc/moe/moe_align_sum_kernels.cu moe_sum.
MOE_SUM_EXPERTS = 4
# Fewer sequences are sorted in another way, which needs more: torch 2.6 aten/src/ATen/native/cuda/SortStable.cu.
SEGMENTED_SORT_SEQUENCES = 128

# The most tokens of one picture, for models that read pictures: V0 profiles no more prompts than such pictures fit into the batch. From
# get_max_image_tokens of the model classes in vllm 0.8.5, for the shapes that these models are published in.
PICTURE_TOKENS = {
    "Gemma3ForConditionalGeneration": 256,
    "InternVLChatModel": 3328,
    "LlavaForConditionalGeneration": 576,
    "LlavaNextForConditionalGeneration": 2880,
    "Mistral3ForConditionalGeneration": 3080,
    "PixtralForConditionalGeneration": 4160,
    "Qwen2VLForConditionalGeneration": 16384,
    "Qwen2_5_VLForConditionalGeneration": 16384,
    "Qwen3VLForConditionalGeneration": 16384,
}


def cublas_workspace(sm: int) -> int:
    """The workspace that torch gives cuBLAS at its first product and never takes back: torch 2.6 aten/src/ATen/cuda/CublasHandlePool.cpp."""
    return 32 * MIB if sm // 10 == 9 else 2 * 4096 * 1024 + 8 * 16 * 1024


def _product(quant: Quant | None, inputs: int, outputs: int, sm: int, settings: Settings, shards: tuple[int, ...]) -> tuple[int, int]:
    """(bytes for each token, bytes in all) that a product with a quantised matrix needs beside its input and its output.

    awq.py: the whole matrix in 16 bit from 256 tokens on; csrc/quantization/gptq/q_gemm.cu: always. Marlin expands nothing, see _marlin_buffers.
    bitsandbytes.py _apply_4bit_weight: one shard's matrix and output, and everything in bfloat16 besides. gguf.py: the input in 8 bit, or each
    shard's output before they are joined. fp8 and int8: the input in 8 bit.
    """
    if quant is None:
        return 0, 0
    if quant.layout in ("awq", "gptq", "packed") and marlin(settings, sm):
        return _marlin_buffers(quant, inputs, outputs, settings)
    if quant.layout in ("awq", "gptq"):
        expands = quant.layout == "gptq" or settings.max_num_batched_tokens >= AWQ_DEQUANTIZE_TOKENS
        return 0, inputs * outputs * 2 if expands else 0
    if quant.layout == "bitsandbytes":
        largest = max(shards)
        copied = inputs * 2 if settings.dtype != "bfloat16" else 0
        after = outputs * 2 if copied else 0
        return copied + max(largest * 2, after), inputs * largest * 2 if largest * 2 >= after else 0
    if quant.layout == "gguf":
        return max(outputs * 2 if len(shards) > 1 else 0, -(-inputs // 512) * 512 * 36 // 32), 0
    if quant.layout in ("fp8", "int8") and sm >= 89 or quant.layout == "int8":
        return inputs, 0
    return 0, 0


def _marlin_buffers(quant: Quant, inputs: int, outputs: int, settings: Settings) -> tuple[int, int]:
    """The input in another order, before 0.8 also where the order is as it was; before 0.9 partial sums of up to 1024 tokens in float32.

    csrc/quantization/gptq_marlin/gptq_marlin.cu gptq_marlin_gemm of 0.7.3, 0.8.2 and 0.8.5; from 0.9 on the sums have a fixed small size.
    """
    ordered = inputs * settings.activation_bytes if quant.act_order or settings.release < (0, 8) else 0
    sums = min(1024, -(-settings.max_num_batched_tokens // 64) * 64) * outputs * 4
    return ordered, sums if settings.release < (0, 9) else 0


class _Peak:
    """The largest of several moments, each so many bytes for a token and so many in all."""

    def __init__(self, tokens: int):
        self.tokens, self.bytes, self.name, self.brought = tokens, 0, "embedding", 0

    def at(self, name: str, per_token: float, fixed: int = 0) -> None:
        """brought: the weights of an offloaded layer that are on the card for that moment."""
        size = int(self.tokens * per_token) + fixed + self.brought
        if size > self.bytes:
            self.bytes, self.name = size, name


def sampler_bytes_per_entry(settings: Settings, element: int = 2) -> float:
    """Bytes that sampling needs for each sequence and entry of the vocabulary, at the moment of the sort that top-p needs.

    vllm 0.8.5 layers/sampler.py Sampler.forward and _apply_top_k_top_p; torch 2.6 SortStable.cu. Alive are the logits as the head made them
    (2), the same in float32 (4), and the sort's values (4) and indices (8). From 128 sequences on cub sorts by segments and needs the
    unsorted indices (8) and a second set of keys and values (12): 38. Below, everything is sorted at once with (segment, index) pairs, twice
    (16), and the sorted keys (4) beside the second set (12): 50. One sequence alone is sorted as it is: 38.
    """
    if settings.core == "V1" and settings.release >= (0, 12):
        return FITTED["sampler_late"]
    small = 1 < settings.max_num_seqs < SEGMENTED_SORT_SEQUENCES
    logits = 4 if element == 4 else element + 4
    return logits + 4 + 8 + (32 if small else 20)


def sampler(model: Model, settings: Settings) -> int:
    """The sampler's share on the rank that runs it, without the hidden states.

    A small sort gets its indices in one piece: with one sequence they are counted once. Models that read pictures are profiled with fewer
    prompts: worker/model_runner.py GPUModelRunnerBase._dummy_run.
    """
    return int(_sequences(model, settings) * model.vocab * sampler_bytes_per_entry(settings, settings.activation_bytes))


def _sequences(model: Model, settings: Settings) -> int:
    pictures = PICTURE_TOKENS.get(model.architecture)
    if settings.core == "V0" and pictures:
        return max(1, min(settings.max_num_seqs, settings.max_num_batched_tokens // pictures))
    return settings.max_num_seqs


def activation(model: Model, settings: Settings, sm: int, stage: int = 0, samples: bool = True, layers: tuple[int, str] | None = None) -> tuple[int, str]:
    """(the peak of the profiling run in bytes, the moment it falls into) on a rank of that stage. samples: whether the rank runs the sampler.

    layers: their peak, where it is known already.

    vllm 0.8.5 worker/model_runner.py GPUModelRunnerBase._dummy_run: max_num_seqs prompts of max_num_batched_tokens tokens in all, without a
    cache, sampled with top-k and top-p. Moments are added up from the lifetimes of the tensors in the model classes' forward functions.
    """
    size, name = layers or layers_peak(model, settings, sm, stage)
    if stage == settings.pipeline_parallel_size - 1:
        # The hidden states of all tokens are alive, and so are those that the stage was handed.
        held = model.hidden * settings.activation_bytes * settings.max_num_batched_tokens * (2 if stage else 1)
        last = settings.max_num_seqs * padded_vocabulary(model, settings.tensor_parallel_size) * settings.activation_bytes
        if samples:
            last = max(last, sampler(model, settings))
        if held + last > size:
            size, name = held + last, "sampler"
    # Token numbers, positions and slots are 64-bit numbers.
    return size + settings.max_num_batched_tokens * 24 + cublas_workspace(sm), name


def layers_peak(model: Model, settings: Settings, sm: int, stage: int) -> tuple[int, str]:
    """The largest moment of the embedding and of the decoder layers. Of facts.SIZES only the batch and what is offloaded matter to it."""
    element, ranks = settings.activation_bytes, settings.tensor_parallel_size
    peak = _Peak(settings.max_num_batched_tokens)
    hidden = model.hidden * element
    # A later stage keeps the hidden states that it was handed; partial sums of several ranks are added into a new tensor.
    handed = hidden if stage else 0
    reduced = hidden if ranks > 1 else 0
    peak.at("embedding", handed + 2 * hidden + reduced + 8)
    kinds = (False,) if not model.experts else (True, False) if model.experts.dense else (True,)
    for sparse in kinds:
        if settings.core == "V0" and settings.cpu_offload_bytes:
            # models/utils.py maybe_offload_to_cpu: V0 brings an offloaded layer back for as long as it runs.
            layer = sum(layer_tensors(model, ranks, element, sparse, frozenset(), marlin(settings, sm), "none"))
            peak.brought = min(layer, settings.cpu_offload_bytes)
        _attention_moments(peak, model, settings, sm, handed, reduced)
        if sparse:
            _expert_moments(peak, model, settings, sm, handed, reduced)
        else:
            _mlp_moments(peak, model, settings, sm, _alive_in_mlp(model) * hidden + handed, reduced, model.intermediate)
    return peak.bytes, peak.name


def _alive_in_mlp(model: Model) -> int:
    """How many tensors of the hidden size are alive while a layer's MLP runs, its own output not counted.

    fused: the caller's last output, the residual, the attention's output. copies: the caller's two, and the layer's own two.
    sequential: the caller's, the residual, the normed one. parallel: the residual, the normed one, the attention's output.
    """
    return {"copies": 4, "chatglm": 4}.get(model.family.layer, 3)


def _attention_moments(peak: _Peak, model: Model, settings: Settings, sm: int, handed: int, reduced: int) -> None:
    """attention/layer.py, attention/backends/xformers.py and flash_attn.py, models/qwen3.py, attention/backends/mla/common.py."""
    element, ranks, quant = settings.activation_bytes, settings.tensor_parallel_size, model.quant
    hidden = model.hidden * element
    base = handed + {"fused": 2, "copies": 4}.get(model.family.layer, 2) * hidden
    if model.latent:
        latent, heads = model.latent, model.heads // ranks
        qk = latent.nope_dim + latent.rope_dim
        held = latent.q_rank + 2 * latent.kv_rank + latent.rope_dim + heads * (qk + latent.nope_dim + latent.v_dim + qk)
        peak.at("attention", base + (held + 2 * heads * qk) * element)
        peak.at("attention", base + (held + heads * (qk + latent.v_dim)) * element + hidden + reduced)
        return
    query, key = (count * element for count in rows(model, ranks))
    joined = query + 2 * key
    extra, fixed = _product(quant, model.hidden, joined // element, sm, settings, (query // element, key // element, key // element))
    peak.at("attention", base + joined + extra, fixed)
    held = base + joined
    if model.family.qk_norm:
        # RMSNorm.forward_native keeps the queries in float32 while it makes their squares, or their product and its 16-bit copy.
        peak.at("attention", held + query * 4 // element + query * (4 + element) // element)
        held += query + key
    if settings.attention == "XFORMERS":
        # The kernel's own output, the heads of grouped queries stacked anew, and the copy into the backend's output.
        copies = query * (3 if model.kv_heads != model.heads else 2)
        peak.at("attention", held + copies + (query * 4 // element if model.head_dim > 128 else 0))
    else:
        peak.at("attention", held + query + model.heads // ranks * 4)
    extra, fixed = _product(quant, query // element, model.hidden, sm, settings, (model.hidden,))
    peak.at("attention", held + query + hidden + max(reduced, extra), fixed)


def _mlp_moments(peak: _Peak, model: Model, settings: Settings, sm: int, base: int, reduced: int, width: int) -> None:
    """MLP.forward of the model classes: two products with the activation function between them. base: what is alive around it."""
    element, quant = settings.activation_bytes, model.quant
    width //= settings.tensor_parallel_size
    inner, outer = width * element, model.hidden * element
    first = 2 * inner if model.family.gated else inner
    shards = (width, width) if model.family.gated else (width,)
    extra, fixed = _product(quant, model.hidden, first // element, sm, settings, shards)
    peak.at("mlp", base + first + extra, fixed)
    if model.family.layer == "sequential":
        base -= outer  # the input is overwritten by the first product
    peak.at("mlp", base + first + inner)
    held = base + inner + (first if model.family.holds_gate_up else 0)
    extra, fixed = _product(quant, width, model.hidden, sm, settings, (model.hidden,))
    peak.at("mlp", held + outer + extra, fixed)
    peak.at("mlp", held + outer + reduced)


def _expert_moments(peak: _Peak, model: Model, settings: Settings, sm: int, handed: int, reduced: int) -> None:
    """layers/fused_moe/fused_moe.py fused_experts_impl and the blocks of mixtral.py, qwen2_moe.py, qwen3_moe.py, deepseek_v2.py.

    Up to moe_chunk tokens at a time; the first and the last product share their memory from 0.8 on (vllm pull request 13625).
    """
    experts, element = model.experts, settings.activation_bytes
    hidden = model.hidden * element
    base = handed + _alive_in_mlp(model) * hidden
    width = experts.intermediate // settings.tensor_parallel_size
    chunk = min(settings.max_num_batched_tokens, settings.moe_chunk)
    outer, middle = max(2 * width, model.hidden), width
    if settings.release < (0, 8):
        outer = 2 * width + model.hidden
    work = chunk * experts.top_k * (outer + middle) * element
    # The input in 8 bit while it is multiplied. Where more than MOE_SUM_EXPERTS outputs of a token are added up, torch does it, in float32 and
    # beside the output if the outputs are 2 GiB or more: torch 2.6 aten/src/ATen/native/cuda/Reduce.cuh gpu_reduce_kernel.
    outputs = chunk * experts.top_k * model.hidden * element
    narrow = chunk * max(model.hidden, experts.top_k * width) if model.quant and model.quant.layout in ("fp8", "int8") else 0
    summed = chunk * model.hidden * 4 if experts.top_k > MOE_SUM_EXPERTS and element == 2 and outputs >= 2**31 else 0
    work += max(narrow, summed)
    if experts.shared_intermediate:
        _mlp_moments(peak, model, settings, sm, base, 0, experts.shared_intermediate)
        base += hidden
    # Logits of the router as they are and in float32 while the best are chosen; then weights and numbers of the chosen, and their order.
    peak.at("experts", base + experts.count * (element + 4) + experts.top_k * 12)
    peak.at("experts", base + experts.count * element + experts.top_k * 12, work)
    scaled = hidden if experts.shared_intermediate else 0
    peak.at("experts", base + experts.count * element + experts.top_k * 8 + scaled + reduced)
