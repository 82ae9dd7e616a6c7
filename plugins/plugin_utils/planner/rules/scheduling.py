# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Scheduling: contexts, batches, sequences, chunks, prefixes, CUDA graphs, pictures and adapters."""

from __future__ import annotations

from ..facts import BATCHED_TOKENS, LONG_CONTEXT, Facts, rope_kind
from ..problem import Problem
from .subject import Subject, listed, of_sizes
from ..values import shown

RULES = Subject()


@RULES.refusal
@of_sizes
def multi_step_without_kernel(f: Facts) -> Problem | None:
    """worker/multi_step_model_runner.py knows FLASH_ATTN and FLASHINFER only; engine/arg_utils.py refuses it with chunks and stages."""
    steps = f.option("num_scheduler_steps")
    if not steps or steps == 1:
        return None
    if f.attention == "XFORMERS":
        message = f"num_scheduler_steps is {steps}, and {f.attention} can do only one."
    elif f.chunked and f.pp > 1:
        message = f"num_scheduler_steps is {steps}, and pipeline_parallel_size {f.pp} with chunked prefill can do only one."
    else:
        return None
    return Problem("multi_step_without_kernel", message, "Remove num_scheduler_steps.")


@RULES.refusal
@of_sizes
def context_over_model(f: Facts) -> Problem | None:
    """config.py _get_and_verify_max_len."""
    if f.max_model_len <= f.derived or f.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").strip().lower() in ("1", "true"):
        return None
    message = f"max_model_len is {f.max_model_len}, and the model's longest context is {f.derived}."
    remedy = f"Use max_model_len {f.derived} or less, or extend the model's context by the scaling that its authors describe."
    return Problem("context_over_model", message, remedy)


@RULES.refusal
@of_sizes
def chunks_not_for_pooling(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0. V1 of 0.8.5 has no pooling; later engines decide by the model, and only warn."""
    if f.core != "V0" or not f.chunked or not f.pools:
        return None
    message = f"enable_chunked_prefill is true, and with task: {f.option('task')} vLLM {f.lane.version} computes every prompt in one piece."
    return Problem("chunks_not_for_pooling", message, "Remove enable_chunked_prefill.")


@RULES.refusal
def prompt_adapters_without_length(f: Facts) -> Problem | None:
    """config.py PromptAdapterConfig.__post_init__."""
    if not f.option("enable_prompt_adapter") or (f.option("max_prompt_adapter_token") != 0 and f.option("max_prompt_adapters") >= 1):
        return None
    message = "enable_prompt_adapter is true, and max_prompt_adapter_token is missing, or max_prompt_adapters is below 1."
    return Problem("prompt_adapters_without_length", message, "Set max_prompt_adapter_token to the number of tokens of the longest prompt adapter.")


@RULES.refusal
@of_sizes
def adapters_without_offload(f: Facts) -> Problem | None:
    """config.py LoRAConfig.verify_with_cache_config."""
    if f.core != "V0" or not f.option("enable_lora") or not f.option("cpu_offload_gb"):
        return None
    message = f"enable_lora is true and cpu_offload_gb is {f.option('cpu_offload_gb')}, of which the V0 engine does one only."
    return Problem("adapters_without_offload", message, "Remove cpu_offload_gb, or enable_lora.")


@RULES.refusal
@of_sizes
def batched_tokens_below_context(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args."""
    if f.chunked or f.max_num_batched_tokens >= f.max_model_len:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is below max_model_len {f.max_model_len}, and chunked prefill is off."
    remedy = f"Use max_num_batched_tokens {f.max_model_len} or more, a smaller max_model_len, or enable_chunked_prefill: true."
    return Problem("batched_tokens_below_context", message, remedy)


@RULES.refusal
@of_sizes
def batched_tokens_below_sequences(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args."""
    if f.max_num_batched_tokens >= f.max_num_seqs:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is below max_num_seqs {f.max_num_seqs}."
    return Problem("batched_tokens_below_sequences", message, f"Use max_num_seqs {f.max_num_batched_tokens} or less, or a larger max_num_batched_tokens.")


@RULES.refusal
@of_sizes
def active_over_sequences(f: Facts) -> Problem | None:
    """vllm 0.33.0 config/scheduler.py verify_max_model_len."""
    active = f.option("max_num_active_seqs")
    if active is None or active <= f.max_num_seqs:
        return None
    return Problem("active_over_sequences", f"max_num_active_seqs is {active}, and max_num_seqs {f.max_num_seqs}.", "Remove max_num_active_seqs.")


@RULES.refusal
@of_sizes
def partial_prefills_without_chunks(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args."""
    partial, long = f.option("max_num_partial_prefills"), f.option("max_long_partial_prefills")
    if partial is None or (partial == 1 and long == 1):
        return None
    if partial > 1 and not f.chunked:
        message = f"max_num_partial_prefills is {partial}, and chunked prefill is off."
        return Problem("partial_prefills_without_chunks", message, "Set enable_chunked_prefill: true, or remove max_num_partial_prefills.")
    if partial < 1 or not 1 <= long <= partial:
        message = f"max_long_partial_prefills is {long} and max_num_partial_prefills {partial}."
        return Problem("partial_prefills_without_chunks", message, "Use at least 1 for both, and no more long ones than there are in all.")
    return None


@RULES.refusal
@of_sizes
def long_prefill_over_context(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args, of 0.8.5 with several partial prefills only; vllm 0.33.0 config/scheduler.py verify_max_model_len."""
    threshold, partial = f.option("long_prefill_token_threshold") or 0, f.option("max_num_partial_prefills") or 1
    if threshold <= f.max_model_len or (partial == 1 and f.lane.version != "0.33.0"):
        return None
    message = f"long_prefill_token_threshold is {threshold}, and no prompt is longer than max_model_len, {f.max_model_len}."
    return Problem("long_prefill_over_context", message, f"Use long_prefill_token_threshold {f.max_model_len} or less.")


@RULES.refusal
def partial_prefills_not_in_v1(f: Facts) -> Problem | None:
    """vllm 0.19.1 engine/arg_utils.py _check_feature_supported; 0.8.5 falls back to V0."""
    changed = [name for name in ("max_num_partial_prefills", "max_long_partial_prefills") if f.option(name) not in (None, 1)]
    if f.lane.version == "0.8.5" or not changed:
        return None
    return Problem("partial_prefills_not_in_v1", f"vLLM {f.lane.version} has {listed(changed)}, and refuses anything but 1.", f"Remove {listed(changed)}.")


@RULES.refusal
def prefix_caching_with_window(f: Facts) -> Problem | None:
    """config.py CacheConfig._verify_prefix_caching."""
    if f.core != "V0" or not f.prefix or f.model.sliding_window is None or f.model.interleaved_window or f.option("disable_sliding_window"):
        return None
    message = f"The V0 engine has no prefix caching for a model with a sliding window, here of {f.model.sliding_window} tokens."
    return Problem("prefix_caching_with_window", message, "Set enable_prefix_caching: false, or disable_sliding_window: true.")


@RULES.refusal
def rope_scaling_not_a_mapping(f: Facts) -> Problem | None:
    """transformers_utils/config.py patch_rope_scaling_dict: the parser takes any JSON, and what reads it wants a mapping."""
    overrides = f.option("hf_overrides")
    if not overrides and f.option("rope_scaling") is None:
        return None
    given = {"rope_scaling": f.option("rope_scaling")}
    if isinstance(overrides, dict):
        given |= {f"hf_overrides.{name}": overrides.get(name) for name in ("rope_scaling", "rope_parameters")}
    wrong = [name for name, value in given.items() if value is not None and not isinstance(value, dict)]
    if not wrong:
        return None
    message = f"{listed(wrong)} must be a mapping, and it is {shown(given[wrong[0]])}."
    return Problem("rope_scaling_not_a_mapping", message, "Write it as {rope_type: yarn, factor: 4.0, original_max_position_embeddings: 32768}.")


@RULES.refusal
def window_and_rope_scaling(f: Facts) -> Problem | None:
    """config.py _get_and_verify_max_len, NotImplementedError."""
    overrides = f.option("hf_overrides")
    scaling = f.option("rope_scaling") or (overrides.get("rope_scaling") if isinstance(overrides, dict) else None) or f.config.get("rope_scaling")
    if f.lane.version != "0.8.5" or not f.option("disable_sliding_window") or not scaling or rope_kind(scaling) in ("su", "longrope", "llama3"):
        return None
    message = f"disable_sliding_window is true, and vLLM {f.lane.version} does not have it for a model with rope_scaling."
    return Problem("window_and_rope_scaling", message, "Remove disable_sliding_window.")


@RULES.refusal
def prefix_hash_not_in_v0(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0."""
    if f.core != "V0" or not f.option("enable_prefix_caching") or f.option("prefix_caching_hash_algo") != "sha256":
        return None
    return Problem("prefix_hash_not_in_v0", "prefix_caching_hash_algo is sha256, which the V0 engine does not have.", "Remove prefix_caching_hash_algo.")


@RULES.warning
def batch_over_all_sequences(f: Facts) -> Problem | None:
    """vllm 0.19.1 config/scheduler.py warns of it; no batch can be that large, and the profiling run pays for it all the same."""
    most = f.max_num_seqs * f.max_model_len
    if f.max_num_batched_tokens <= most or f.given.get("max_num_batched_tokens") is None:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is more than max_num_seqs {f.max_num_seqs} x max_model_len {f.max_model_len} can fill."
    return Problem("batch_over_all_sequences", message, f"Use max_num_batched_tokens {most} or less.")


@RULES.warning
def long_context_without_chunks(f: Facts) -> Problem | None:
    """engine/arg_utils.py warns of it. Reported: an out-of-memory error in profiling (vllm issue 5993)."""
    if f.core != "V0" or f.chunked or f.max_model_len <= LONG_CONTEXT:
        return None
    message = f"Without chunked prefill the profiling run computes {f.max_num_batched_tokens} tokens at once, and its activations are taken from the KV cache."
    return Problem("long_context_without_chunks", message, "Set enable_chunked_prefill: true, or a smaller max_model_len.")


@RULES.warning
def chunked_prefill_by_default(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0: on by itself above 32768 tokens, and never at or below."""
    if f.core != "V0" or f.option("enable_chunked_prefill") is not None or f.given.get("max_num_batched_tokens") is not None:
        return None
    if f.chunked:
        message = f"Above {LONG_CONTEXT} tokens the engine turns chunked prefill on by itself: a batch has {f.max_num_batched_tokens} tokens instead of "
        message += f"{f.max_model_len}."
    elif f.max_model_len == LONG_CONTEXT:
        message = f"At exactly {LONG_CONTEXT} tokens chunked prefill is off and a batch has {f.max_num_batched_tokens} tokens; one token more and it is on "
        message += f"with {BATCHED_TOKENS}."
    else:
        return None
    return Problem("chunked_prefill_by_default", message, "Set enable_chunked_prefill and max_num_batched_tokens to have what you want at any length.")


@RULES.warning
def unchunked_is_unofficial(f: Facts) -> Problem | None:
    """vllm 0.19.1 engine/arg_utils.py, _set_default_chunked_prefill_and_prefix_caching_args."""
    if f.core != "V1" or f.option("enable_chunked_prefill") is not False:
        return None
    message = "The V1 engine does not officially run without chunked prefill: it may crash or answer wrongly."
    if f.lane.version == "0.8.5":
        message = "The V1 engine ignores enable_chunked_prefill: false."
    return Problem("unchunked_is_unofficial", message, "Remove enable_chunked_prefill.")


@RULES.warning
def decode_without_graphs(f: Facts) -> Problem | None:
    """worker/model_runner.py: a CUDA graph is used only where every sequence of the batch is at most max_seq_len_to_capture long."""
    captured = f.option("max_seq_len_to_capture")
    if f.core != "V0" or captured is None or f.option("enforce_eager") or f.max_model_len <= captured:
        return None
    message = f"Contexts over {captured} tokens decode without CUDA graphs: max_seq_len_to_capture is {captured} and max_model_len {f.max_model_len}."
    return Problem("decode_without_graphs", message, f"Set max_seq_len_to_capture: {f.max_model_len}.")


@RULES.warning
def prefix_caching_off_for_pictures(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0."""
    if f.core != "V0" or not f.model.multimodal or not f.option("enable_prefix_caching"):
        return None
    return Problem(
        "prefix_caching_off_for_pictures", "The V0 engine turns prefix caching off for a model that reads pictures.", "Remove enable_prefix_caching."
    )


@RULES.warning
def pictures_are_profiled(f: Facts) -> Problem | None:
    """Reported: out-of-memory errors in profiling (vllm issues 16551 and 22173)."""
    if not f.model.multimodal or f.option("limit_mm_per_prompt") or f.max_num_seqs <= 32:
        return None
    message = f"The profiling run computes {f.max_num_seqs} sequences with pictures of the largest size, and its activations are taken from the KV cache."
    return Problem("pictures_are_profiled", message, "Use a smaller max_num_seqs, and limit_mm_per_prompt, such as {image: 1}.")


@RULES.warning
def adapters_unproven(f: Facts) -> Problem | None:
    """Reported on two T4 with 0.10.1.1: the Triton kernels for adapters do not compile (PassManager::run failed)."""
    if f.core != "V1" or f.sm >= 80 or not f.option("enable_lora"):
        return None
    message = f"Adapters run in Triton kernels that are reported not to compile on compute capability {f.capability}."
    return Problem("adapters_unproven", message, "Merge the adapter into the weights.")
