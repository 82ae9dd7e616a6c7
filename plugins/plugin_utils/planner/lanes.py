# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What sets one engine version apart from another, as data: the CUDA it is built for, its kernels by compute capability, its option names.

Read in the Python sources and the compiled libraries of the wheels vllm 0.8.5, 0.19.1 and 0.33.0. A compute capability is one number here:
75 for 7.5. A table whose key is such a number holds from that capability on, up to the next key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .problem import Problem

DEFAULT = "0.8.5"


@dataclass(frozen=True, slots=True)
class Lane:
    """One engine version.

    image: the official image's tag. digest: of that image, where one is known. torch: the release it is built against. cuda: the CUDA release
    that its kernels are compiled with. driver: the lowest driver branch that runs it (within one CUDA major a driver need not be as new as the
    kernels; across majors GeForce cards have no forward compatibility). image_driver: the driver from which the NVIDIA container runtime starts
    the image as it is: the image asks for its own CUDA release although an older driver of that major runs it.
    core: V0 or V1 by capability. attention: the backend that the engine picks by itself. wants: the option that must be set for that
    capability (empty where the engine's own choice works). quantization: method -> lowest capability; a method that is missing is not in
    this engine. schemes: the same for the layouts of compressed-tensors. checkpoint: quant_method of a checkpoint -> the values of the option
    quantization that it takes, the engine's own choice first wherever the capability allows it.
    half_only: methods whose kernels take float16 only. instead: option of another lane -> what to use here. metrics: plain name -> metric.
    """

    version: str
    image: str
    digest: str | None
    torch: str
    cuda: tuple[int, int]
    driver: tuple[int, ...]
    image_driver: tuple[int, ...]
    core: Mapping[int, str]
    attention: Mapping[int, str]
    wants: Mapping[int, Mapping[str, object]]
    backends: Mapping[str, int]
    quantization: Mapping[str, int]
    schemes: Mapping[str, int]
    checkpoint: Mapping[str, tuple[str, ...]]
    half_only: frozenset[str]
    instead: Mapping[str, str]
    metrics: Mapping[str, str]
    ignored_env: Mapping[str, str] = field(default_factory=dict)


# -- Names ---------------------------------------------------------------------------------------------------------------------------------

# What an option of 0.8.5 has become in the V1 engines. Every option of 0.8.5 that 0.19.1 lacks is here.
SINCE_V1 = {
    "swap_space": "Remove it: there is no swap. kv_offloading_size keeps evicted KV blocks in RAM, in GiB for all cards of the instance together.",
    "preemption_mode": "Remove it: a preempted sequence is always computed anew.",
    "max_seq_len_to_capture": "Remove it: CUDA graphs serve contexts of any length. max_cudagraph_capture_size limits their batch size.",
    "num_scheduler_steps": "Remove it: async_scheduling has taken its place and is chosen by the engine.",
    "multi_step_stream_outputs": "Remove it: there are no scheduler steps. stream_interval is the number of tokens in one message of a stream.",
    "num_lookahead_slots": "Remove it: the engine derives it from speculative_config.",
    "scheduler_delay_factor": "Remove it: prompts are scheduled as they come.",
    "use_v2_block_manager": "Remove it: it has had no effect for long.",
    "enable_reasoning": "Remove it: reasoning_parser alone is enough.",
    "disable_log_requests": "Remove it: requests are logged only where enable_log_requests is true.",
    "disable_async_output_proc": "Remove it: async_scheduling: false is the nearest.",
    "disable_frontend_multiprocessing": "Remove it: the engine always runs in its own process.",
    "disable_mm_preprocessor_cache": "Write mm_processor_cache_gb: 0.",
    "guided_decoding_backend": "Write structured_outputs_config: {backend: xgrammar}, with the backend meant.",
    "logits_processor_pattern": "Use logits_processors, which names the classes.",
    "override_pooler_config": "Use pooler_config, whose keys have other names.",
    "override_neuron_config": "Remove it: it is for other hardware.",
    "device": "Remove it: the build decides.",
    "task": "Use runner (generate, pooling) and convert.",
    "rope_scaling": "Write it under hf_overrides, as in hf_overrides: {rope_parameters: {rope_type: yarn, factor: 4.0, ...}}.",
    "rope_theta": "Write it under hf_overrides, as in hf_overrides: {rope_parameters: {rope_theta: 1000000.0, ...}}.",
    "tokenizer_pool_size": "Remove it: it has had no effect for long.",
    "tokenizer_pool_type": "Remove it: it has had no effect for long.",
    "tokenizer_pool_extra_config": "Remove it: it has had no effect for long.",
    "enable_lora_bias": "Remove it: adapters with a bias are not served.",
    "long_lora_scaling_factors": "Remove it: adapters for longer contexts are not served.",
    "lora_extra_vocab_size": "Remove it: adapters with words of their own are not served.",
    "qlora_adapter_name_or_path": "Use enable_lora and lora_modules.",
    "enable_prompt_adapter": "Remove it: prompt adapters are not served.",
    "prompt_adapters": "Remove it: prompt adapters are not served.",
    "max_prompt_adapters": "Remove it: prompt adapters are not served.",
    "max_prompt_adapter_token": "Remove it: prompt adapters are not served.",
}

# The way back: options of later engines that people ask of 0.8.5.
BEFORE_V1 = {
    "attention_backend": "Set VLLM_ATTENTION_BACKEND in the instance's env instead.",
    "async_scheduling": "Remove it: this engine schedules and computes by turns.",
    "cudagraph_capture_sizes": "Remove it: the V0 engine derives the batch sizes of its CUDA graphs from max_num_seqs.",
    "enable_log_requests": "Leave it out: requests are logged unless disable_log_requests is true.",
    "kv_cache_memory_bytes": "Use gpu_memory_utilization, the share of the card that weights, activations and KV cache may take together.",
    "kv_offloading_size": "Use swap_space, in GiB for each card, with preemption_mode: swap.",
    "logits_processors": "Use logits_processor_pattern.",
    "max_cudagraph_capture_size": "Use max_num_seqs, from which the V0 engine derives it; max_seq_len_to_capture limits the context.",
    "mm_processor_cache_gb": "Use disable_mm_preprocessor_cache.",
    "optimization_level": "Use compilation_config.",
    "pooler_config": "Use override_pooler_config.",
    "runner": "Use task.",
    "convert": "Use task.",
    "structured_outputs_config": "Use guided_decoding_backend.",
}

METRICS_V0 = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:gpu_cache_usage_perc",
    "preemptions": "vllm:num_preemptions_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "requests": "vllm:request_success_total",
    "time_to_first_token": "vllm:time_to_first_token_seconds",
    "time_per_output_token": "vllm:time_per_output_token_seconds",
    "end_to_end": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
    "cache_config": "vllm:cache_config_info",
}
METRICS_V1 = {
    **METRICS_V0,
    "kv_usage": "vllm:kv_cache_usage_perc",
    "time_per_output_token": "vllm:inter_token_latency_seconds",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
}

# Environment variables of 0.8.5 that the later engines no longer read.
IGNORED_ENV = {
    "VLLM_ATTENTION_BACKEND": "Use the option attention_backend.",
    "VLLM_USE_V1": "Remove it: V1 is the only engine.",
}

LANES = {
    lane.version: lane
    for lane in (
        Lane(
            version="0.8.5",
            image="vllm/vllm-openai:v0.8.5",
            digest="sha256:6cf9808ca8810fc6c3fd0451c2e7784fb224590d81f7db338e7eaf3c02a33d33",
            torch="2.6.0",
            cuda=(12, 4),
            driver=(550,),
            image_driver=(550,),
            core={0: "V0", 80: "V1"},
            attention={0: "XFORMERS", 80: "FLASH_ATTN"},
            wants={},
            # platforms/cuda.py get_attn_backend_cls: FLASH_ATTN falls back to XFORMERS, the others raise or die on a card that is too old.
            backends={"XFORMERS": 0, "FLASH_ATTN": 0, "FLASHINFER": 80, "TRITON_ATTN_VLLM_V1": 80, "FLASH_ATTN_VLLM_V1": 80, "TRITON_MLA": 0, "FLASHMLA": 90},
            quantization={
                "aqlm": 60, "awq": 75, "awq_marlin": 80, "bitblas": 70, "bitsandbytes": 70, "compressed-tensors": 70, "deepspeedfp": 60,
                "experts_int8": 80, "fbgemm_fp8": 80, "fp8": 80, "gguf": 60, "gptq": 60, "gptq_bitblas": 70, "gptq_marlin": 80, "gptq_marlin_24": 80,
                "hqq": 80, "marlin": 80, "modelopt": 89, "moe_wna16": 70, "nvfp4": 100, "ptpc_fp8": 94, "qqq": 80, "quark": 70, "torchao": 75,
            },
            schemes={"int8": 75, "packed": 80, "fp8": 80},
            checkpoint={
                "awq": ("awq", "awq_marlin", "moe_wna16", "marlin"),
                "gptq": ("gptq", "gptq_marlin", "moe_wna16", "marlin", "gptq_bitblas", "gptq_marlin_24"),
            },
            half_only=frozenset({"awq", "gptq", "aqlm", "gptq_marlin_24", "marlin", "qqq"}),
            instead=BEFORE_V1,
            metrics=METRICS_V0,
        ),
        Lane(
            version="0.19.1",
            image="vllm/vllm-openai:v0.19.1",
            digest=None,
            torch="2.10.0",
            cuda=(12, 9),
            driver=(570,),
            image_driver=(575,),
            core={0: "V1"},
            # platforms/cuda.py _get_backend_priorities with the backends' own supports_compute_capability.
            attention={0: "TRITON_ATTN", 75: "FLASHINFER", 80: "FLASH_ATTN", 100: "FLASHINFER", 120: "FLASH_ATTN"},
            # FlashInfer is broken on 7.5: vLLM's own source says so from the version that raised its floor (flashinfer issue 3620).
            wants={75: {"attention_backend": "TRITON_ATTN"}, 80: {}},
            backends={"TRITON_ATTN": 0, "FLEX_ATTENTION": 0, "TRITON_MLA": 0, "FLASHINFER": 75, "FLASH_ATTN": 80, "FLASH_ATTN_MLA": 90, "FLASHMLA": 90},
            quantization={
                "awq": 75, "awq_marlin": 75, "bitsandbytes": 70, "compressed-tensors": 70, "experts_int8": 80, "fbgemm_fp8": 80, "fp8": 75,
                "fp_quant": 100, "gguf": 60, "gptq": 60, "gptq_marlin": 75, "inc": 60, "modelopt": 89, "modelopt_fp4": 75, "moe_wna16": 70,
                "mxfp4": 80, "mxfp8": 100, "quark": 70, "torchao": 75,
            },
            schemes={"int8": 75, "packed": 75, "fp8": 75},
            checkpoint={"awq": ("awq_marlin", "awq", "moe_wna16", "marlin"), "gptq": ("gptq_marlin", "gptq", "moe_wna16", "marlin")},
            half_only=frozenset({"awq", "gptq"}),
            instead=SINCE_V1,
            metrics=METRICS_V1,
            ignored_env=IGNORED_ENV,
        ),
        Lane(
            version="0.33.0",
            image="vllm/vllm-openai:v0.33.0",
            digest=None,
            torch="2.14.0",
            cuda=(13, 0),
            driver=(580,),
            image_driver=(580,),
            core={0: "V1"},
            attention={0: "TRITON_ATTN", 80: "FLASH_ATTN", 100: "FLASHINFER", 120: "FLASH_ATTN"},
            wants={},
            backends={"TRITON_ATTN": 0, "FLEX_ATTENTION": 0, "TRITON_MLA": 0, "FLASHINFER": 80, "FLASH_ATTN": 80, "FLASH_ATTN_MLA": 90, "FLASHMLA": 90},
            quantization={
                "auto_awq": 75, "auto_gptq": 60, "awq": 75, "awq_marlin": 75, "compressed-tensors": 70, "experts_int8": 80, "fbgemm_fp8": 80,
                "fp8": 75, "fp_quant": 100, "gptq": 60, "gptq_marlin": 60, "humming": 75, "modelopt": 80, "modelopt_fp4": 75, "moe_wna16": 70,
                "mxfp4": 80, "gpt_oss_mxfp4": 80, "quark": 70, "torchao": 75,
            },
            schemes={"int8": 75, "packed": 75, "fp8": 75},
            checkpoint={
                "awq": ("auto_awq", "awq", "awq_marlin", "moe_wna16", "marlin", "humming"),
                "gptq": ("auto_gptq", "gptq", "gptq_marlin", "moe_wna16", "marlin", "humming"),
            },
            half_only=frozenset(),
            instead={
                **SINCE_V1,
                "calculate_kv_scales": "Remove it: scales come with the checkpoint.",
                "max_num_partial_prefills": "Remove it: max_num_batched_tokens limits how much of the prompts is computed at once.",
                "max_long_partial_prefills": "Remove it: long_prefill_token_threshold limits how much of a long prompt is computed at once.",
                "override_attention_dtype": "Remove it: attention is computed in dtype.",
            },
            metrics=METRICS_V1,
            ignored_env=IGNORED_ENV,
        ),
    )
}  # fmt: skip

# Model types whose activations leave the range of float16: vLLM 0.19.1 and 0.33.0 config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS.
NOT_IN_HALF = frozenset({"gemma2", "gemma3", "gemma3_text", "plamo2", "glm4"})


def lane(version: str) -> Lane:
    """The data of an engine version. ValueError for one that is not known."""
    if version not in LANES:
        raise ValueError(f"The engine vLLM {version} is not known: known versions are {', '.join(LANES)}.")
    return LANES[version]


def at(table: Mapping[int, object], sm: int):
    """What a table by capability holds for a card; None below its first key."""
    return table[max(keys)] if (keys := [key for key in table if key <= sm]) else None


def instead(version: str, name: str) -> str | None:
    """What to use in place of an option that this engine does not have; None where there is nothing to say."""
    return lane(version).instead.get(name)


# -- Drivers -------------------------------------------------------------------------------------------------------------------------------


def driver_numbers(text) -> tuple[int, ...] | None:
    """A driver's version as numbers: "570.133.20" is (570, 133, 20); None for what is not one."""
    return tuple(map(int, text.split("."))) if isinstance(text, str) and re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,3}", text, re.ASCII) else None


def runs_on(version: str, driver: str | None) -> bool:
    """Whether that driver runs the engine's CUDA. A driver that is not known is taken to."""
    numbers = driver_numbers(driver)
    return numbers is None or numbers >= lane(version).driver


def driver_problem(version: str, driver: str | None) -> Problem | None:
    """The refusal of an engine whose CUDA the host's driver cannot run, with both ways out; None when it can or the driver is not known."""
    if runs_on(version, driver):
        return None
    wanted = lane(version)
    older = [other for other in LANES if runs_on(other, driver)]
    engine = f"use the engine {older[-1]}, the newest that driver {driver} runs, or " if older else ""
    message = f"vLLM {version} is built for CUDA {wanted.cuda[0]}.{wanted.cuda[1]} and needs driver {wanted.driver[0]} or later: the host has {driver}."
    remedy = f"{engine}install driver {wanted.driver[0]} or later."
    return Problem("driver_too_old", message, remedy[0].upper() + remedy[1:])


def cuda_problem(subject: str, cuda: tuple[int, int], driver: str | None) -> Problem | None:
    """The refusal of something built for a CUDA release whose major the host's driver cannot run; None when it can or the driver is not known.

    Within one major a driver runs every release, so the lowest driver of the lanes of that major counts. Older majors run on every driver.
    """
    needed = min((known.driver for known in LANES.values() if known.cuda[0] == cuda[0]), default=None)
    newest = max(known.cuda[0] for known in LANES.values())
    numbers = driver_numbers(driver)
    if numbers is None or cuda[0] <= newest and (needed is None or numbers >= needed):
        return None
    runs = max((known.cuda[0] for known in LANES.values() if numbers >= known.driver), default=None)
    wanted = f"driver {needed[0]} or later" if needed else f"a driver for CUDA {cuda[0]}"
    message = f"{subject} is built for CUDA {cuda[0]}.{cuda[1]} and needs {wanted}: the host has {driver}."
    return Problem("driver_too_old", message, f"{f'Use a build for CUDA {runs}, or install' if runs else 'Install'} {wanted}.")


# The NVIDIA container runtime then starts an image whatever CUDA release it asks for.
DISABLE_REQUIRE = "NVIDIA_DISABLE_REQUIRE"


def image_problem(version: str, driver: str | None, env: Mapping[str, str]) -> Problem | None:
    """The warning that the image asks the container runtime for a newer CUDA than the driver names, although the driver runs it.

    NVIDIA's base images carry NVIDIA_REQUIRE_CUDA=cuda>=12.9 with exceptions for data-centre and workstation brands only, not for GeForce.
    """
    numbers, wanted = driver_numbers(driver), lane(version)
    if numbers is None or not wanted.driver <= numbers < wanted.image_driver or env.get(DISABLE_REQUIRE) in ("1", "true"):
        return None
    cuda = f"{wanted.cuda[0]}.{wanted.cuda[1]}"
    message = f"The image {wanted.image} asks for CUDA {cuda}, driver {wanted.image_driver[0]}: on driver {driver} the container runtime refuses it."
    remedy = f'Set {DISABLE_REQUIRE}: "1" in the instance\'s env, because any driver from {wanted.driver[0]} runs CUDA {cuda} kernels for this card.'
    return Problem("image_wants_newer_driver", message, remedy)


# -- From one lane to another --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Translation:
    """An instance's options and env for another engine, and what was changed: (name, what happened to it)."""

    options: dict
    env: dict
    changes: list[tuple[str, str]]


def translate(source: str, target: str, options: dict, env: dict, known: Mapping[str, object], sm: int) -> Translation:
    """Write options and env of the engine `source` for the engine `target`.

    known: the target's option schema; what it lacks is dropped, with the reason, unless it has an equivalent. sm: the card's capability, for
    the options that the target needs there. Both engines the same: nothing changes.
    """
    result, changes, env = {}, [], dict(env)
    if source == target:
        return Translation(dict(options), env, changes)
    for name, value in options.items():
        if name in known:
            result[name] = value
            continue
        renamed = _renamed(name, value, options, known)
        if renamed:
            result.update(renamed)
            changes.append((name, "becomes " + ", ".join(f"{key}: {str(new).lower() if isinstance(new, bool) else new}" for key, new in renamed.items())))
        else:
            changes.append((name, instead(target, name) or f"Remove it: vLLM {target} does not have it."))
    ignored = lane(target).ignored_env
    for name in [name for name in env if name in ignored]:
        changes.append((name, ignored[name]))
        del env[name]
    for name, value in (at(lane(target).wants, sm) or {}).items():
        if name not in result:
            result[name] = value
            changes.append((name, f"{value}, because what the engine picks by itself does not work on this card"))
    method = result.get("quantization")
    if method in ("awq", "gptq") and lane(target).quantization.get(f"{method}_marlin", 1000) <= sm < lane(source).quantization.get(f"{method}_marlin", 0):
        del result["quantization"]
        changes.append(("quantization", f"left out, so that the engine takes its Marlin kernels, which {source} has not for this card"))
    return Translation(result, env, changes)


def _renamed(name: str, value, options: dict, known: Mapping[str, object]) -> dict | None:
    """The equivalent of an option under other names, where there is one."""
    ranks = (options.get("tensor_parallel_size") or 1) * (options.get("pipeline_parallel_size") or 1)
    if name == "swap_space" and "kv_offloading_size" in known:
        return {"kv_offloading_size": value * ranks} if value and options.get("preemption_mode") == "swap" else None
    if name == "kv_offloading_size" and "swap_space" in known and value:
        return {"swap_space": value / ranks, "preemption_mode": "swap"}
    if name == "guided_decoding_backend" and "structured_outputs_config" in known:
        return {"structured_outputs_config": {"backend": value}}
    mappings = all(isinstance(options.get(key) or {}, dict) for key in ("rope_scaling", "hf_overrides"))
    if name in ("rope_scaling", "rope_theta") and mappings:
        parameters = {**(options.get("rope_scaling") or {}), **({"rope_theta": options["rope_theta"]} if options.get("rope_theta") else {})}
        return {"hf_overrides": {**(options.get("hf_overrides") or {}), "rope_parameters": parameters}}
    if name == "disable_mm_preprocessor_cache" and value and "mm_processor_cache_gb" in known:
        return {"mm_processor_cache_gb": 0}
    if name == "task" and value in ("generate", "embed", "embedding", "classify", "score", "reward") and "runner" in known:
        return {"runner": "generate" if value == "generate" else "pooling"}
    return None
