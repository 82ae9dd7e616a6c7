# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engine refuses, and what it does that its user would not expect: one small function for each rule.

`check` runs them all. A rule sees Facts: the options as the engine resolves them, the card, the model. What differs between engines and cards
is data in lanes.py; a rule asks for the core, the backend or a capability, never for a version, unless that version alone has the quirk.
Sources are the files of vllm 0.8.5 unless another version is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from . import lanes, options
from .model import Model
from .problem import Problem

GIB = 1024**3
SWAP_WARNING, SWAP_REFUSAL = 0.4, 0.7  # of RAM: config.py, CacheConfig.verify_with_parallel_config
LONG_CONTEXT = 32768  # engine/arg_utils.py, _set_default_args_v0
BATCHED_TOKENS, BATCHED_TOKENS_MULTIMODAL = 2048, 5120  # config.py
XFORMERS_HEADS = (32, 64, 80, 96, 112, 120, 128, 192, 256)  # attention/ops/paged_attn.py
XFORMERS_BLOCKS = (8, 16, 32)  # csrc/attention, the block sizes that are compiled
FLASH_HEADS_V0 = (32, 64, 96, 128, 160, 192, 224, 256)  # attention/backends/flash_attn.py
ALL_REDUCE_WORLDS = (2, 4, 6, 8)  # distributed/device_communicators/custom_all_reduce.py
FLOAT32_QUANTIZATION = frozenset({"bitsandbytes", "gguf", "torchao"})
# Methods that read a checkpoint of their own kind and cannot quantise another.
CHECKPOINT_METHODS = frozenset(
    {"aqlm", "awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "gptq_marlin_24", "gptq_bitblas", "auto_gptq", "marlin", "bitblas", "moe_wna16"}
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a rule may ask for. sm: the lowest compute capability of the cards, 75 for 7.5. cards: how many the instance sees.

    mla: attention is computed on the latent vectors (DeepSeek). max_model_len, max_num_batched_tokens, max_num_seqs, chunked, prefix, block,
    dtype, quantization, core and attention are what the engine makes of the options; quantization is None for 16-bit weights. derived is the
    longest context of the model's own. memory_bytes is RAM.
    """

    lane: lanes.Lane
    given: Mapping[str, object]
    defaults: Mapping[str, dict]
    env: Mapping[str, str]
    sm: int
    cards: int
    model: Model
    config: Mapping[str, object]
    memory_bytes: int | None
    driver: str | None
    nvlink: bool | None
    core: str
    mla: bool
    attention: str
    dtype: str
    quantization: str | None
    derived: int
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    chunked: bool
    prefix: bool
    block: int
    tp: int
    pp: int

    def option(self, name: str):
        """An option as it was given, the engine's default otherwise; None for one that this engine does not have."""
        value = self.given.get(name)
        return self.defaults[name]["default"] if value is None and name in self.defaults else value

    @property
    def capability(self) -> str:
        return f"{self.sm // 10}.{self.sm % 10}"

    @property
    def quantization_config(self) -> Mapping[str, object]:
        found = self.config.get("quantization_config")
        return found if isinstance(found, dict) else {}


# -- What the engine makes of the options --------------------------------------------------------------------------------------------------


def facts(
    version: str,
    given: Mapping[str, object],
    model: Model,
    config: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    capability: tuple[int, int] = (7, 5),
    cards: int = 1,
    memory_bytes: int | None = None,
    driver: str | None = None,
    nvlink: bool | None = None,
    card_bytes: int | None = None,
) -> Facts:
    """Resolve an option map that has passed options.check.

    config: the checkpoint's config.json, for the few keys that model does not keep. card_bytes: the memory of one card, on which later
    engines' defaults depend. ValueError for a version that is not known.
    """
    lane, defaults, env, config = lanes.lane(version), options.schema(version), env or {}, config or {}
    sm = capability[0] * 10 + capability[1]

    def option(name):
        value = given.get(name)
        return defaults[name]["default"] if value is None and name in defaults else value

    dtype = _dtype(lane, option("dtype"), model, config, sm)
    core = _core(lane, option, env, model, dtype, sm)
    attention = _attention(lane, option, env, model, dtype, sm, core)
    derived = _derived(lane, option, env, model, config)
    length = _length(option("max_model_len"))
    automatic = length == -1 and defaults["max_model_len"]["type"] == "human_readable_int_or_auto"
    length = derived if length is None or automatic else length
    v0 = core == "V0"
    chunked = _chunked(lane, option, env, model, length, v0)
    prefix = option("enable_prefix_caching")
    prefix = (not v0 if prefix is None else prefix) and not (v0 and model.multimodal)
    large = (card_bytes or 0) >= 70 * GIB
    seqs, block = option("max_num_seqs"), option("block_size")
    seqs = (1024 if large and not v0 else 256) if seqs is None else seqs
    batched = _length(option("max_num_batched_tokens"))
    if batched is None:
        whole = not chunked or (option("num_scheduler_steps") or 1) > 1
        batched = _batched(v0, version, whole, length, model, large, seqs)
    if version != "0.8.5" and option("max_num_seqs") is None:
        seqs = min(seqs, batched)
    return Facts(
        lane=lane,
        given=given,
        defaults=defaults,
        env=env,
        sm=sm,
        cards=cards,
        model=model,
        config=config,
        memory_bytes=memory_bytes,
        driver=driver,
        nvlink=nvlink,
        core=core,
        mla=_mla(env, model),
        attention=attention,
        dtype=dtype,
        quantization=_quantization(lane, option("quantization"), model, config, sm),
        derived=derived,
        max_model_len=length,
        max_num_batched_tokens=batched,
        max_num_seqs=seqs,
        chunked=chunked,
        prefix=prefix,
        block=16 if block is None else block,
        tp=option("tensor_parallel_size"),
        pp=option("pipeline_parallel_size"),
    )


def _mla(env: Mapping[str, str], model: Model) -> bool:
    """config.py ModelConfig.use_mla."""
    return model.latent is not None and env.get("VLLM_MLA_DISABLE", "0") == "0"


def _length(value) -> int | None:
    """A length as the parser reads it: 32768 and "32K" are the same, "auto" is -1."""
    return options.human_readable_int_or_auto(value) if isinstance(value, str) else value


def _dtype(lane, asked: str, model: Model, config: Mapping, sm: int) -> str:
    """config.py _get_and_verify_dtype: auto is the checkpoint's, and float16 for float32. Later engines look at the card as well."""
    if asked != "auto":
        return {"half": "float16", "float": "float32"}.get(asked, asked)
    if lane.version == "0.8.5":
        return "float16" if model.dtype == "float32" else model.dtype
    refused = config.get("model_type") in lanes.NOT_IN_HALF
    supported = [name for name, least in (("bfloat16", 80), ("float16", 60), ("float32", 0)) if sm >= least and not (refused and name == "float16")]
    return model.dtype if model.dtype in supported and model.dtype != "float32" else supported[0]


V1_BACKENDS = ("FLASH_ATTN_VLLM_V1", "FLASH_ATTN", "TRITON_ATTN_VLLM_V1", "TRITON_MLA", "FLASHMLA", "FLASHINFER", "FLASHINFER_VLLM_V1")


def v1_obstacles(option: Callable, env: Mapping[str, str], model: Model, dtype: str, sm: int) -> Iterator[str]:
    """engine/arg_utils.py _is_v1_supported_oracle: what makes 0.8.5 fall back to V0, or fail where VLLM_USE_V1=1 is set."""
    if sm < 80:
        yield f"compute capability {sm // 10}.{sm % 10}, below 8.0"
    if option("kv_cache_dtype") != "auto" and (sm < 90 or "VLLM_ATTENTION_BACKEND" in env):
        yield "kv_cache_dtype"
    for name, default in (
        ("preemption_mode", None),
        ("num_scheduler_steps", 1),
        ("scheduling_policy", "fcfs"),
        ("scheduler_delay_factor", 0),
        ("disable_async_output_proc", False),
        ("logits_processor_pattern", None),
        ("max_num_partial_prefills", 1),
        ("max_long_partial_prefills", 1),
        ("speculative_config", None),
    ):
        if option(name) != default:
            yield name
    if option("load_format") in ("tensorizer", "sharded_state"):
        yield "load_format"
    if option("enable_prompt_adapter"):
        yield "enable_prompt_adapter"
    if option("otlp_traces_endpoint") or option("collect_detailed_traces"):
        yield "otlp_traces_endpoint"
    if option("task") not in ("auto", "generate"):
        yield "task"
    if dtype == "float32":
        yield "dtype float32"
    if "gguf" in (option("quantization"), model.quant.method if model.quant else None):
        yield "quantization gguf"
    if env.get("VLLM_ATTENTION_BACKEND") not in (None, *V1_BACKENDS):
        yield "VLLM_ATTENTION_BACKEND"
    if option("pipeline_parallel_size") > 1 and option("distributed_executor_backend") != "ray":
        yield "pipeline_parallel_size without distributed_executor_backend: ray"


def _core(lane, option, env: Mapping[str, str], model: Model, dtype: str, sm: int) -> str:
    if set(lane.core.values()) == {"V1"}:
        return "V1"
    return "V0" if env.get("VLLM_USE_V1") == "0" or any(v1_obstacles(option, env, model, dtype, sm)) else "V1"


def _forced(lane, option, env: Mapping[str, str]) -> str | None:
    """The attention backend that was asked for: by variable in 0.8.5, by option in later engines."""
    if not lane.ignored_env:
        return env.get("VLLM_ATTENTION_BACKEND") or None
    found = option("attention_backend") or (option("attention_config") or {}).get("backend")
    return found if isinstance(found, str) and found else None


def _attention(lane, option, env: Mapping[str, str], model: Model, dtype: str, sm: int, core: str) -> str:
    """platforms/cuda.py get_attn_backend_cls; v1/attention/backends of later engines. The backend that runs, where a forced one runs at all."""
    forced = _forced(lane, option, env)
    if _mla(env, model):
        return forced.upper() if forced else "TRITON_MLA"
    if forced and forced.upper() != "FLASH_ATTN":
        return forced.upper()
    chosen = lanes.at(lane.attention, sm)
    head = model.head_dim
    if lane.version == "0.8.5":
        fits = dtype != "float32" and (option("block_size") or 16) % 16 == 0 and (core == "V1" or head in FLASH_HEADS_V0)
        return chosen if chosen != "FLASH_ATTN" or (fits and not str(option("kv_cache_dtype")).startswith("fp8")) or core == "V1" else "XFORMERS"
    if forced:
        return "FLASH_ATTN"
    fits = {
        "FLASH_ATTN": dtype != "float32" and head % 8 == 0 and head <= 256,
        "FLASHINFER": dtype != "float32" and head in (64, 128, 256, 512 if lane.version == "0.33.0" else 256),
    }
    return chosen if fits.get(chosen, True) else "TRITON_ATTN"


def _derived(lane, option, env: Mapping[str, str], model: Model, config: Mapping) -> int:
    """config.py _get_and_verify_max_len, with the options that change the rotary embedding. In 0.33.0 YaRN's factor is no longer applied."""
    overrides = option("hf_overrides")
    overrides = overrides if isinstance(overrides, dict) else {}
    scaling = option("rope_scaling") or overrides.get("rope_scaling") or overrides.get("rope_parameters")
    base = overrides.get("max_position_embeddings")
    base = base if options.is_int(base) and base > 0 else None
    own = config.get("rope_scaling") or config.get("rope_parameters")
    kind = _rope_kind(scaling if isinstance(scaling, dict) else own)
    # config.py: such a model's window is dropped, and with it every context above it, when one of these backends is forced.
    capped = lane.version == "0.8.5" and model.interleaved_window and env.get("VLLM_ATTENTION_BACKEND") in ("XFORMERS", "FLASHINFER")
    window = model.sliding_window if capped or option("disable_sliding_window") else None
    if not (isinstance(scaling, dict) or base or window):
        return model.max_positions if kind == "yarn" and lane.version == "0.33.0" else model.max_length
    positions = min(base or model.max_positions, window or base or model.max_positions)
    rope = scaling if isinstance(scaling, dict) else own if isinstance(own, dict) else {}
    factor, original = rope.get("factor", 1.0), rope.get("original_max_position_embeddings")
    factor = factor if options.is_number(factor) and factor > 0 else 1.0
    original = original if options.is_int(original) and original > 0 else positions
    if kind == "yarn":
        return positions if lane.version == "0.33.0" else int(original * factor)
    scaled = kind not in ("su", "longrope", "llama3", "default", "mrope", "deepseek_yarn", "")
    return int(positions * factor) if scaled and not str(config.get("model_type")).startswith("gemma3") else positions


def _rope_kind(scaling) -> str:
    kind = scaling.get("rope_type", scaling.get("type", "")) if isinstance(scaling, dict) else ""
    return kind if isinstance(kind, str) else ""


def _chunked(lane, option, env: Mapping[str, str], model: Model, length: int, v0: bool) -> bool:
    """engine/arg_utils.py _set_default_args_v0. V1 always chunks; later engines can be told not to."""
    asked = option("enable_chunked_prefill")
    if not v0:
        return lane.version == "0.8.5" or asked is not False
    if asked is not None:
        return asked
    window = model.sliding_window is not None and not model.interleaved_window
    plain = not (window or option("speculative_config") or option("enable_lora") or option("enable_prompt_adapter"))
    return length > LONG_CONTEXT and plain and not model.multimodal and not _mla(env, model)


def _batched(v0: bool, version: str, whole: bool, length: int, model: Model, large: bool, seqs: int) -> int:
    """max_num_batched_tokens where it is not given: config.py SchedulerConfig.__post_init__; engine/arg_utils.py of later engines.

    whole: a prompt is computed in one piece.
    """
    if v0:
        tokens = max(length, BATCHED_TOKENS) if whole else BATCHED_TOKENS
        return max(tokens, BATCHED_TOKENS_MULTIMODAL) if model.multimodal else tokens
    tokens = 8192 if large else BATCHED_TOKENS
    if version == "0.8.5":
        return tokens
    return min(seqs * length, max(length, tokens) if whole else tokens)


def _quantization(lane, asked: str | None, model: Model, config: Mapping, sm: int) -> str | None:
    """config.py ModelConfig._verify_quantization: the method that runs. What an option cannot ask for is left as asked, for a rule to refuse."""
    asked = asked.lower() if isinstance(asked, str) else None
    method = model.quant.method if model.quant else None
    if method is None:
        return asked
    accepted = lane.checkpoint.get(method)
    if accepted is None:
        return asked or method
    if lane.version == "0.33.0":
        return accepted[0] if asked in (None, "awq", "awq_marlin", "gptq", "gptq_marlin", "marlin", accepted[0]) else asked
    if asked not in (None, "marlin"):
        return asked
    marlin, quant = f"{method}_marlin", model.quant
    symmetric = _symmetric(model, config)
    fits = (method == "awq" or symmetric) and quant.group in (0, 32, 64, 128) and (method == "gptq" or quant.bits == 4)
    if fits and sm >= lane.quantization[marlin]:
        return marlin
    if asked:
        return asked
    if method == "gptq" and symmetric and lane.version == "0.8.5":
        return "gptq_bitblas"
    return method


def _symmetric(model: Model, config: Mapping) -> bool:
    """quantization/gptq_marlin.py is_gptq_marlin_compatible: what the Marlin and BitBLAS kernels take. config.json must say all of it."""
    declared = config.get("quantization_config")
    declared = declared if isinstance(declared, dict) else {}
    return declared.get("sym") is True and model.quant.bits in (4, 8) and "desc_act" in declared


# -- The rules -----------------------------------------------------------------------------------------------------------------------------

REFUSALS: list[Callable[[Facts], Problem | None]] = []
WARNINGS: list[Callable[[Facts], Problem | None]] = []


def refusal(rule: Callable[[Facts], Problem | None]):
    """Register a rule that says why the engine cannot start or serve."""
    REFUSALS.append(rule)
    return rule


def warning(rule: Callable[[Facts], Problem | None]):
    """Register a rule that says what will be slower, hidden or otherwise than asked."""
    WARNINGS.append(rule)
    return rule


def check(version: str, given: Mapping[str, object], model: Model, **rest) -> tuple[list[Problem], list[Problem]]:
    """The refusals and the warnings, in the order of the rules. The arguments are those of `facts`.

    The option map has passed options.check, env maps names to strings. Whether the memory suffices is not judged here.
    """
    return judge(facts(version, given, model, **rest))


def judge(found: Facts) -> tuple[list[Problem], list[Problem]]:
    """The same for facts that are already known. Where the numbers are impossible, nothing else is judged: every rule computes with them."""
    absurd = [problem for rule in ABSURD if (problem := rule(found))]
    if absurd:
        return absurd, []
    return [problem for rule in REFUSALS if (problem := rule(found))], [problem for rule in WARNINGS if (problem := rule(found))]


def _listed(items) -> str:
    return ", ".join(map(str, items))


def _divisors(number: int, most: int) -> list[int]:
    return [divisor for divisor in range(1, most + 1) if number % divisor == 0]


# -- Numbers -------------------------------------------------------------------------------------------------------------------------------


def value_out_of_range(f: Facts) -> Problem | None:
    """The parser takes any integer; a count below one means nothing."""
    counts = {
        "tensor_parallel_size": f.tp,
        "pipeline_parallel_size": f.pp,
        "data_parallel_size": f.option("data_parallel_size"),
        "max_model_len": f.max_model_len,
        "max_num_batched_tokens": f.max_num_batched_tokens,
        "max_num_seqs": f.max_num_seqs,
        "block_size": f.block,
    }
    wrong = {name: value for name, value in counts.items() if value is not None and value < 1}
    sizes = {name: f.option(name) for name in ("swap_space", "cpu_offload_gb", "kv_offloading_size", "max_seq_len_to_capture", "num_scheduler_steps")}
    wrong.update({name: value for name, value in sizes.items() if value is not None and value < (1 if name == "num_scheduler_steps" else 0)})
    if not wrong:
        return None
    message = f"{_listed(f'{name} is {value}' for name, value in wrong.items())}."
    return Problem("value_out_of_range", message, "Use a positive number, or leave the option out to have the engine's default.")


ABSURD = [value_out_of_range]


@refusal
def utilization_out_of_range(f: Facts) -> Problem | None:
    """config.py CacheConfig._verify_args refuses more than 1, and lets 0 and negatives through to a KV cache below nothing."""
    value = f.option("gpu_memory_utilization")
    if 0 < value <= 1:
        return None
    message = f"gpu_memory_utilization is {value:g}, and it is a share of the card."
    return Problem("utilization_out_of_range", message, "Use a number above 0 and at most 1, such as 0.9.")


# -- Host and driver -----------------------------------------------------------------------------------------------------------------------


@refusal
def driver_too_old(f: Facts) -> Problem | None:
    return lanes.driver_problem(f.lane.version, f.driver)


@warning
def image_wants_newer_driver(f: Facts) -> Problem | None:
    return lanes.image_problem(f.lane.version, f.driver, f.env)


@refusal
def capability_too_low(f: Facts) -> Problem | None:
    """The wheels have no kernels below 7.0, and the CUDA 13 builds none below 7.5."""
    least = 75 if f.lane.cuda[0] >= 13 else 70
    if f.sm >= least:
        return None
    message = f"The card has compute capability {f.capability}, and vLLM {f.lane.version} has kernels from {least // 10}.{least % 10} on."
    return Problem("capability_too_low", message, "Use another card.")


@refusal
def ranks_over_cards(f: Facts) -> Problem | None:
    """executor/multiproc_worker_utils: one process for each rank, each with a card of its own."""
    data = f.option("data_parallel_size") or 1
    ranks = f.tp * f.pp * data
    if ranks <= f.cards:
        return None
    parts = f"tensor_parallel_size {f.tp} x pipeline_parallel_size {f.pp}" + (f" x data_parallel_size {data}" if data > 1 else "")
    message = f"{parts} needs {ranks} cards, and the instance has {f.cards}."
    return Problem("ranks_over_cards", message, f"Use at most {f.cards} ranks, or give the instance more cards in its key gpus.")


@refusal
def cuda_visible_devices_uuid(f: Facts) -> Problem | None:
    """platforms/cuda.py device_id_to_physical_device_id calls int() on each; later engines read UUIDs."""
    value = f.env.get("CUDA_VISIBLE_DEVICES")
    if f.lane.version != "0.8.5" or value is None or re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", value):
        return None
    message = f"CUDA_VISIBLE_DEVICES is {value[:60]!r}, and vLLM {f.lane.version} reads it as integers."
    return Problem("cuda_visible_devices_uuid", message, "Use the instance's key gpus, with the cards' indices.")


# -- Shapes per rank -----------------------------------------------------------------------------------------------------------------------


@refusal
def heads_not_divisible(f: Facts) -> Problem | None:
    """config.py ModelConfig.verify_with_parallel_config."""
    if f.model.heads % f.tp == 0:
        return None
    message = f"The model has {f.model.heads} attention heads, which tensor_parallel_size {f.tp} does not divide."
    return Problem("heads_not_divisible", message, f"Use tensor_parallel_size {_listed(_divisors(f.model.heads, max(f.cards, 1)))}.")


@refusal
def kv_heads_not_divisible(f: Facts) -> Problem | None:
    """model_executor/models: KV heads are divided among the ranks, or each is repeated on as many ranks."""
    heads = f.model.kv_heads
    if f.model.latent or (heads % f.tp == 0 if heads >= f.tp else f.tp % heads == 0):
        return None
    good = [size for size in range(1, max(f.cards, 1) + 1) if f.model.heads % size == 0 and (heads % size == 0 or (heads < size and size % heads == 0))]
    message = f"The model has {heads} KV heads, which tensor_parallel_size {f.tp} neither divides nor is a multiple of."
    return Problem("kv_heads_not_divisible", message, f"Use tensor_parallel_size {_listed(good)}.")


@refusal
def intermediate_not_divisible(f: Facts) -> Problem | None:
    """distributed/utils.py divide; fused_moe/layer.py asserts the same of the experts."""
    sizes = {"intermediate_size": f.model.intermediate}
    if f.model.experts and not (f.option("enable_expert_parallel") and f.tp > 1):
        sizes = {"moe_intermediate_size": f.model.experts.intermediate}
        if f.model.experts.dense:
            sizes["intermediate_size"] = f.model.intermediate
    elif f.model.experts:
        return None
    wrong = {name: size for name, size in sizes.items() if size % f.tp}
    if not wrong:
        return None
    name, size = next(iter(wrong.items()))
    message = f"The model has {name} {size}, which tensor_parallel_size {f.tp} does not divide."
    return Problem("intermediate_not_divisible", message, f"Use tensor_parallel_size {_listed(_divisors(size, max(f.cards, 1)))}.")


@refusal
def vocabulary_not_divisible(f: Facts) -> Problem | None:
    """layers/vocab_parallel_embedding.py: the vocabulary is padded to a multiple of 64 and then divided."""
    padded = -(-f.model.vocab // 64) * 64
    if padded % f.tp == 0:
        return None
    message = f"The vocabulary of {f.model.vocab}, padded to {padded}, is not divisible by tensor_parallel_size {f.tp}."
    return Problem("vocabulary_not_divisible", message, f"Use tensor_parallel_size {_listed(_divisors(padded, max(f.cards, 1)))}.")


@refusal
def layers_below_stages(f: Facts) -> Problem | None:
    """distributed/utils.py get_pp_indices: every stage has at least one layer."""
    if f.pp <= f.model.layers:
        return None
    message = f"The model has {f.model.layers} layers, fewer than pipeline_parallel_size {f.pp}."
    return Problem("layers_below_stages", message, f"Use pipeline_parallel_size {f.model.layers} or less.")


def _matrices(f: Facts, tp: int) -> list[tuple[str, int, int, int]]:
    """The quantised matrices of a decoder layer as (name, inputs of a rank, outputs of a rank, group of inputs). MLA's own are left out.

    Experts: quantization/moe_wna16.py create_weights halves the group until it divides, down to 32.
    """
    model, group = f.model, f.model.quant.group
    whole = {part for part, layers in model.quant.skipped if layers >= model.layers}
    kv = max(1, model.kv_heads // tp)
    found = []
    if not model.latent and "qkv" not in whole:
        found.append(("qkv_proj", model.hidden, (model.heads // tp + 2 * kv) * model.head_dim, group))
    if not model.latent and "o" not in whole:
        found.append(("o_proj", model.heads * model.head_dim // tp, model.hidden, group))
    if (model.experts is None or model.experts.dense) and "gate_up" not in whole:
        gated = model.family.gated
        found.append(("gate_up_proj" if gated else "up_proj", model.hidden, (2 if gated else 1) * model.intermediate // tp, group))
    if (model.experts is None or model.experts.dense) and "down" not in whole:
        found.append(("down_proj", model.intermediate // tp, model.hidden, group))
    if model.experts and "experts" not in whole:
        inner, least = model.experts.intermediate // (1 if f.option("enable_expert_parallel") else tp), min(group, 32)
        found += [("the experts' gate_up_proj", model.hidden, 2 * inner, least), ("the experts' down_proj", inner, model.hidden, least)]
    return found


def _fits_groups(f: Facts, tp: int) -> bool:
    return f.model.heads % tp == 0 and f.model.intermediate % tp == 0 and not any(inputs % group for dummy, inputs, dummy, group in _matrices(f, tp))


@refusal
def quantized_input_not_divisible(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py create_weights: a group of inputs shares its scale and cannot lie on two ranks. Fails while loading."""
    quant = f.model.quant
    if quant is None or quant.layout not in ("awq", "gptq", "packed") or not quant.group:
        return None
    for name, inputs, dummy, group in _matrices(f, f.tp):
        if inputs % group:
            good = [tp for tp in range(1, max(f.cards, f.tp) + 1) if _fits_groups(f, tp)]
            message = f"{name} has {inputs} inputs on each of {f.tp} ranks, not a multiple of the quantisation's group size {group}."
            sizes = f"Use tensor_parallel_size {_listed(good)}" if good else "Use pipeline_parallel_size for the cards"
            return Problem("quantized_input_not_divisible", message, f"{sizes}, or a checkpoint with a smaller group size.")
    return None


@refusal
def quantized_output_not_packed(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py create_weights: eight 4-bit outputs, four 8-bit ones, share a 32-bit word. Fails while loading."""
    quant = f.model.quant
    if quant is None or quant.layout not in ("awq", "gptq"):
        return None
    packed = 32 if quant.bits == 3 else 32 // quant.bits
    for name, dummy, outputs, dummy in _matrices(f, f.tp):
        if outputs % packed:
            message = f"{name} has {outputs} outputs on each of {f.tp} ranks, and {packed} of them share a 32-bit word."
            return Problem("quantized_output_not_packed", message, "Use a smaller tensor_parallel_size.")
    return None


@warning
def kv_heads_replicated(f: Facts) -> Problem | None:
    if f.model.latent or f.tp <= f.model.kv_heads or f.tp % f.model.kv_heads:
        return None
    times = f.tp // f.model.kv_heads
    message = f"Each of the {f.model.kv_heads} KV heads is kept on {times} of the {f.tp} ranks: the cards hold {times} copies of every sequence."
    remedy = f"Use tensor_parallel_size {f.model.kv_heads} and pipeline_parallel_size {times} if the context or the concurrency matters more than latency."
    return Problem("kv_heads_replicated", message, remedy)


# -- Quantisation --------------------------------------------------------------------------------------------------------------------------


@refusal
def quantization_not_in_engine(f: Facts) -> Problem | None:
    if f.quantization is None or f.quantization in f.lane.quantization:
        return None
    others = [lane.version for lane in lanes.LANES.values() if f.quantization in lane.quantization and f.sm >= lane.quantization[f.quantization]]
    message = f"vLLM {f.lane.version} has no quantisation {f.quantization} for NVIDIA cards."
    where = f"Use the engine {_listed(others)}, or" if others else "Use"
    return Problem("quantization_not_in_engine", message, f"{where} a checkpoint in another format, such as awq or gptq.")


@refusal
def quantization_capability(f: Facts) -> Problem | None:
    """config.py VllmConfig._get_quantization_config compares get_min_capability with the card."""
    least = f.lane.quantization.get(f.quantization) if f.quantization else None
    if least is None or f.sm >= least:
        return None
    plain = {"awq_marlin": "awq", "gptq_marlin": "gptq", "marlin": "gptq"}.get(f.quantization)
    others = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.quantization.get(f.quantization, 1000)]
    ways = [f"quantization: {plain}"] if plain and f.sm >= f.lane.quantization.get(plain, 1000) else []
    ways += [f"the engine {_listed(others)}"] if others else []
    ways += [] if plain and ways else ["a checkpoint in another format, such as awq or gptq"]
    message = f"The quantisation {f.quantization} needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    return Problem("quantization_capability", message, f"Use {' or '.join(ways)}.")


@refusal
def compressed_tensors_scheme(f: Facts) -> Problem | None:
    """quantization/compressed_tensors: each scheme has a capability of its own, checked while loading."""
    quant = f.model.quant
    least = f.lane.schemes.get(quant.layout) if quant and quant.method == "compressed-tensors" else None
    if least is None or f.sm >= least:
        return None
    others = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.schemes[quant.layout]]
    what = {"packed": f"{quant.bits}-bit weights", "fp8": "fp8 weights", "int8": "int8 weights"}[quant.layout]
    message = f"compressed-tensors with {what} needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    engine = f" or the engine {_listed(others)}" if others else ""
    return Problem("compressed_tensors_scheme", message, f"Use a checkpoint whose quant_method is awq or gptq{engine}.")


@refusal
def quantization_mismatch(f: Facts) -> Problem | None:
    """config.py ModelConfig._verify_quantization: the option names another method than config.json."""
    asked, quant = f.given.get("quantization"), f.model.quant
    if asked is None:
        return None
    asked = asked.lower()
    if quant is None:
        if asked not in CHECKPOINT_METHODS:
            return None
        message = f"quantization is {asked}, and config.json has no quantization_config: the checkpoint is not quantised."
        return Problem("quantization_mismatch", message, f"Remove quantization, or use a checkpoint in {asked.partition('_')[0]}.")
    accepted = f.lane.checkpoint.get(quant.method, (quant.method,))
    if asked in accepted:
        return None
    usable = [method for method in accepted if f.sm >= f.lane.quantization.get(method, 1000) and method != "gptq_bitblas"]
    message = f"quantization is {asked}, and config.json says {quant.method}."
    return Problem("quantization_mismatch", message, f"Remove quantization, or use {_listed(usable) or quant.method}.")


@refusal
def gptq_picks_bitblas(f: Facts) -> Problem | None:
    """quantization/gptq_bitblas.py takes every symmetric checkpoint below 8.0, and the image has no bitblas to import."""
    if f.quantization != "gptq_bitblas" or f.model.quant is None or f.model.quant.method != "gptq":
        return None
    message = f"This symmetric GPTQ checkpoint makes vLLM {f.lane.version} choose gptq_bitblas on compute capability {f.capability}, which cannot be imported."
    return Problem("gptq_picks_bitblas", message, "Set quantization: gptq." if f.model.experts is None else "Set quantization: moe_wna16.")


@refusal
def gptq_not_symmetric(f: Facts) -> Problem | None:
    """quantization/gptq_marlin.py and, in vllm 0.33.0, auto_gptq.py, TYPE_MAP: symmetric with 4 or 8 bits."""
    if f.quantization not in ("auto_gptq", "gptq_marlin") or f.model.quant is None or _symmetric(f.model, f.config):
        return None
    others = [lane.version for lane in lanes.LANES.values() if "auto_gptq" not in lane.quantization]
    remedy = f"Use the engine {_listed(others)}, or a symmetric checkpoint." if f.quantization == "auto_gptq" else "Set quantization: gptq."
    message = f"The {f.quantization} kernels take symmetric checkpoints of 4 or 8 bits whose config.json says sym and desc_act, and this one is not."
    return Problem("gptq_not_symmetric", message, remedy)


@refusal
def quantized_experts_need_wna16(f: Facts) -> Problem | None:
    """quantization/awq.py and gptq.py get_quant_method know linear layers only; fused_moe/layer.py asserts that experts have a method."""
    if f.lane.version != "0.8.5" or f.model.experts is None or f.quantization not in ("awq", "gptq"):
        return None
    if f.model.quant is None or f.model.quant.act_order:
        message = f"The {f.quantization} kernels of vLLM {f.lane.version} have none for a mixture of experts, and its moe_wna16 takes no act-order checkpoint."
        return Problem("quantized_experts_need_wna16", message, "Use a checkpoint without desc_act.")
    message = f"The {f.quantization} kernels of vLLM {f.lane.version} have none for a mixture of experts."
    return Problem("quantized_experts_need_wna16", message, "Set quantization: moe_wna16.")


@warning
def awq_not_optimized(f: Facts) -> Problem | None:
    """vLLM prints it itself (config.py: "not fully optimized yet. The speed can be slower than non-quantized models").

    Reported on 2080 Ti: GPTQ faster than AWQ (QwenLM/Qwen3-VL issue 719), 3.9 tokens/s with awq against 30.5 with Marlin kernels for a 70B
    model on four cards (redlinedtm-jpg/vllm-v100-2080ti-recipes).
    """
    if f.quantization != "awq" or f.lane.version != "0.8.5" or f.sm >= 80:
        return None
    newer = [lane.version for lane in lanes.LANES.values() if f.sm >= lane.quantization["awq_marlin"] and lanes.runs_on(lane.version, f.driver)]
    message = f"Below compute capability 8.0 vLLM {f.lane.version} runs AWQ with its plain kernels, which can be slower than 16-bit weights."
    engine = f"Use the engine {newer[0]}, whose Marlin kernels run on this card, or" if newer else "Use"
    return Problem("awq_not_optimized", message, f"{engine} a GPTQ checkpoint; where it has to be AWQ, more memory for the KV cache is what it gains.")


@warning
def marlin_left_aside(f: Facts) -> Problem | None:
    """quantization/awq_marlin.py and gptq_marlin.py override_quantization_method say so in the log."""
    asked = f.given.get("quantization")
    if asked not in ("awq", "gptq") or f.quantization != asked or f.model.quant is None or f.model.experts:
        return None
    if _quantization(f.lane, None, f.model, f.config, f.sm) != f"{asked}_marlin":
        return None
    message = f"quantization: {asked} keeps the engine from its Marlin kernels, which this card runs and which are faster."
    return Problem("marlin_left_aside", message, "Remove quantization.")


@warning
def eight_bit_runs_eagerly(f: Facts) -> Problem | None:
    """config.py ModelConfig._verify_bnb_config."""
    quant = f.model.quant
    if f.quantization != "bitsandbytes" or quant is None or quant.bits != 8 or f.option("enforce_eager"):
        return None
    return Problem("eight_bit_runs_eagerly", "bitsandbytes with 8 bits runs without CUDA graphs.", "Use a 4-bit checkpoint if speed matters.")


# -- Number formats ------------------------------------------------------------------------------------------------------------------------


@refusal
def bfloat16_unsupported(f: Facts) -> Problem | None:
    """platforms/cuda.py check_if_supports_dtype, in the worker. 0.8.5 never casts by itself."""
    if f.dtype != "bfloat16" or f.sm >= 80:
        return None
    whose = "dtype is bfloat16" if f.option("dtype") == "bfloat16" else "the checkpoint is bfloat16 and dtype is auto"
    message = f"Bfloat16 needs compute capability 8.0, and the card has {f.capability}: {whose}."
    return Problem("bfloat16_unsupported", message, "Set dtype: half.")


@refusal
def dtype_not_for_quantization(f: Facts) -> Problem | None:
    """config.py VllmConfig._get_quantization_config compares get_supported_act_dtypes."""
    if f.quantization is None or f.quantization not in f.lane.quantization or f.dtype == "float16":
        return None
    if f.quantization not in f.lane.half_only and (f.dtype == "bfloat16" or f.quantization in FLOAT32_QUANTIZATION):
        return None
    message = f"The quantisation {f.quantization} of vLLM {f.lane.version} computes in float16, and the engine would use {f.dtype}."
    return Problem("dtype_not_for_quantization", message, "Set dtype: half.")


@refusal
def float16_refused_by_model(f: Facts) -> Problem | None:
    """vllm 0.19.1 and 0.33.0 config/model.py _check_valid_dtype."""
    kind = f.config.get("model_type")
    if f.lane.version == "0.8.5" or f.dtype != "float16" or kind not in lanes.NOT_IN_HALF:
        return None
    remedy = "Set dtype: bfloat16." if f.sm >= 80 else "Use another model, or dtype: float32 where twice the memory is there."
    return Problem("float16_refused_by_model", f"vLLM {f.lane.version} refuses float16 for the model type {kind}, whose activations overflow it.", remedy)


@warning
def float16_overflows(f: Facts) -> Problem | None:
    """0.8.5 lets such a model run in float16; later engines refuse it for numerical instability."""
    kind = f.config.get("model_type")
    if f.lane.version != "0.8.5" or f.dtype != "float16" or kind not in lanes.NOT_IN_HALF:
        return None
    message = f"Activations of the model type {kind} can leave the range of float16, and later engines refuse it: answers may be empty or wrong."
    return Problem("float16_overflows", message, "Prove it with your own prompts, or use another model.")


@warning
def float32_by_itself(f: Facts) -> Problem | None:
    """vllm 0.19.1 and 0.33.0 config/model.py _resolve_auto_dtype: neither bfloat16 nor float16 is left."""
    if f.option("dtype") != "auto" or f.dtype != "float32" or f.model.dtype == "float32":
        return None
    message = f"The model is {f.model.dtype}, which the card cannot compute, and refuses float16: the engine takes float32, with twice the memory."
    return Problem("float32_by_itself", message, "Use another model for this card.")


@refusal
def kv_cache_dtype_unsupported(f: Facts) -> Problem | None:
    """Triton has no conversion to fp8_e4m3 below 8.9 (vllm 0.33.0 v1/attention/backends/triton_attn.py says so; 0.19.1 fails to compile)."""
    kind = str(f.option("kv_cache_dtype"))
    if f.attention.startswith("TRITON") and f.core == "V1" and f.sm < 89 and kind.startswith("fp8"):
        message = f"kv_cache_dtype {kind} needs compute capability 8.9 with {f.attention}, and the card has {f.capability}."
        return Problem("kv_cache_dtype_unsupported", message, "Leave kv_cache_dtype out.")
    if kind == "bfloat16" and f.sm < 80:
        message = f"kv_cache_dtype bfloat16 needs compute capability 8.0, and the card has {f.capability}."
        return Problem("kv_cache_dtype_unsupported", message, "Leave kv_cache_dtype out.")
    return None


# -- Attention -----------------------------------------------------------------------------------------------------------------------------


@refusal
def v1_not_available(f: Facts) -> Problem | None:
    """engine/arg_utils.py _raise_or_fallback: with VLLM_USE_V1=1 the engine raises instead of falling back."""
    if f.env.get("VLLM_USE_V1") != "1" or set(f.lane.core.values()) == {"V1"}:
        return None
    found = next(v1_obstacles(f.option, f.env, f.model, f.dtype, f.sm), None)
    if found is None:
        return None
    message = f"VLLM_USE_V1=1 is refused because of {found}."
    return Problem("v1_not_available", message, "Remove VLLM_USE_V1 from env: the engine then falls back to V0.")


@refusal
def attention_backend_refused(f: Facts) -> Problem | None:
    """platforms/cuda.py get_attn_backend_cls raises for a backend that is not for this card."""
    forced, name = _forced(f.lane, f.option, f.env), "attention_backend" if f.lane.ignored_env else "VLLM_ATTENTION_BACKEND"
    if not forced or forced.upper() == "CUSTOM":
        return None
    least, good = f.lane.backends.get(forced.upper()), lanes.at(f.lane.attention, f.sm)
    wanted = (lanes.at(f.lane.wants, f.sm) or {}).get("attention_backend")
    usable = wanted or good
    if least is None:
        message = f"{name} is {forced}, which vLLM {f.lane.version} does not have for these cards."
    elif f.sm < least:
        message = f"{name} is {forced}, which needs compute capability {least // 10}.{least % 10}, and the card has {f.capability}."
    elif wanted and forced.upper() == good:
        message = f"{name} is {forced}, whose kernels are broken on compute capability {f.capability} (flashinfer issue 3620)."
    elif "MLA" in forced.upper() and not f.mla:
        message = f"{name} is {forced}, which is for latent attention, and {f.model.architecture} is run without it."
    else:
        return None
    return Problem("attention_backend_refused", message, f"Use {usable}{'' if wanted else ', which the engine picks by itself: leave it out'}.")


@refusal
def latent_attention_needs_flash(f: Facts) -> Problem | None:
    """attention/backends/mla/common.py, v1's mla/prefill: prompts go through FlashAttention 2, which refuses a card below 8.0."""
    if not f.mla or f.sm >= 80:
        return None
    message = f"{f.model.architecture} computes prompts in its latent attention with FlashAttention 2, which needs compute capability 8.0: the card has "
    return Problem("latent_attention_needs_flash", f"{message}{f.capability}.", 'Set VLLM_MLA_DISABLE: "1" in env, which takes a larger KV cache.')


@refusal
def flash_attn_breaks_vision(f: Facts) -> Problem | None:
    """models/qwen2_vl.py imports flash_attn 2's names for its vision tower when FLASH_ATTN is forced; flash-attn 1.0.9 does not have them."""
    vision = f.model.architecture.startswith(("Qwen2VL", "Qwen2_5_VL"))
    if f.lane.version != "0.8.5" or f.sm >= 80 or not vision or f.env.get("VLLM_ATTENTION_BACKEND") != "FLASH_ATTN":
        return None
    message = f"VLLM_ATTENTION_BACKEND=FLASH_ATTN makes the vision tower of {f.model.architecture} import flash-attn 2, which needs compute capability 8.0."
    return Problem("flash_attn_breaks_vision", message, "Remove VLLM_ATTENTION_BACKEND from env.")


@warning
def attention_backend_ignored(f: Facts) -> Problem | None:
    forced = f.env.get("VLLM_ATTENTION_BACKEND")
    if f.lane.ignored_env or forced != "FLASH_ATTN" or f.attention == "FLASH_ATTN" or f.mla:
        return None
    message = f"VLLM_ATTENTION_BACKEND is FLASH_ATTN, and the engine uses {f.attention} all the same: FlashAttention 2 needs compute capability 8.0."
    return Problem("attention_backend_ignored", message, "Remove VLLM_ATTENTION_BACKEND from env.")


@warning
def engine_picks_broken_attention(f: Facts) -> Problem | None:
    """Reported on T4: the server starts and the first request crashes (trietnguyeminh/Submission---EXACT--IJCNN, 0.22.1)."""
    wanted = (lanes.at(f.lane.wants, f.sm) or {}).get("attention_backend")
    if not wanted or _forced(f.lane, f.option, f.env) or f.attention == wanted or f.mla:
        return None
    message = f"By itself vLLM {f.lane.version} picks {f.attention} on compute capability {f.capability}, where its kernels can crash at the first request."
    return Problem("engine_picks_broken_attention", message, f"Set attention_backend: {wanted}.")


@warning
def env_ignored(f: Facts) -> Problem | None:
    for name, remedy in f.lane.ignored_env.items():
        if name in f.env:
            return Problem("env_ignored", f"vLLM {f.lane.version} does not read {name}.", remedy)
    return None


@refusal
def head_size_without_kernel(f: Facts) -> Problem | None:
    """attention/ops/paged_attn.py; v1/attention/backends/triton_attn.py takes 32 and more."""
    head = f.model.head_dim
    if f.model.latent or (head in XFORMERS_HEADS if f.attention == "XFORMERS" else head >= 32):
        return None
    sizes = _listed(XFORMERS_HEADS) if f.attention == "XFORMERS" else "32 and more"
    message = f"The model's heads have {head} elements, and {f.attention} has kernels for {sizes}."
    return Problem("head_size_without_kernel", message, "Use another model.")


@refusal
def block_size_without_kernel(f: Facts) -> Problem | None:
    """csrc/attention/paged_attention_v1.cu compiles 8, 16 and 32; the others take multiples of 16."""
    if f.mla or (f.block in XFORMERS_BLOCKS if f.attention == "XFORMERS" else f.block % 16 == 0):
        return None
    sizes = _listed(XFORMERS_BLOCKS) if f.attention == "XFORMERS" else "multiples of 16"
    return Problem("block_size_without_kernel", f"block_size is {f.block}, and {f.attention} has kernels for {sizes}.", "Use block_size: 16.")


@refusal
def prefill_kernel_does_not_compile(f: Facts) -> Problem | None:
    """attention/ops/prefix_prefill.py, compiled for 7.5: its tiles are fixed, and a card has 64 KiB of shared memory there."""
    if f.core != "V0" or f.attention != "XFORMERS" or f.sm >= 80 or f.mla or not (f.prefix or f.chunked):
        return None
    kind = str(f.option("kv_cache_dtype"))
    if f.model.head_dim > 128:
        cause = f"heads of {f.model.head_dim} elements need more than its 64 KiB of shared memory"
    elif f.dtype == "float32":
        cause = "float32 needs more than its 64 KiB of shared memory"
    elif f.block < 16:
        cause = f"block_size {f.block} is below the 16 that it computes with"
    elif kind in ("fp8", "fp8_e4m3"):
        cause = f"kv_cache_dtype {kind} cannot be converted there"
    else:
        return None
    causes = [name for name, on in (("enable_prefix_caching", f.prefix), ("enable_chunked_prefill", f.chunked)) if on]
    message = f"{' and '.join(causes)} use a Triton kernel that compute capability {f.capability} cannot run: {cause}."
    remedies = f"Set {', '.join(f'{name}: false' for name in causes)}"
    other = {"block_size": ", or block_size: 16", "kv_cache_dtype": ", or kv_cache_dtype: fp8_e5m2"}.get(cause.split()[0], "")
    return Problem("prefill_kernel_does_not_compile", message, f"{remedies}{other}.")


@refusal
def triton_tile_too_large(f: Facts) -> Problem | None:
    """Reported on two Quadro RTX 6000: 98304 bytes of shared memory asked of 65536, heads of 512 elements (vllm issue 57712, 0.26.0)."""
    head = max(f.model.head_dim, _int(f.config, "global_head_dim"))
    if f.core != "V1" or f.attention != "TRITON_ATTN" or f.sm >= 80 or head < 512:
        return None
    message = f"Heads of {head} elements need 96 KiB of shared memory in {f.attention}, and compute capability {f.capability} has 64 KiB."
    return Problem("triton_tile_too_large", message, "Use another model for this card.")


@warning
def triton_tile_unproven(f: Facts) -> Problem | None:
    """A T4 with 64 KiB of shared memory was asked for 81920 bytes by another model (vllm issue 36802)."""
    if f.core != "V1" or f.attention != "TRITON_ATTN" or f.sm >= 80 or not 128 < f.model.head_dim < 512:
        return None
    message = f"{f.attention} with heads of {f.model.head_dim} elements is not proved within the 64 KiB of shared memory of compute capability {f.capability}."
    return Problem("triton_tile_unproven", message, "Prove it with a real request before relying on it.")


def _int(config: Mapping, key: str) -> int:
    nested = config.get("text_config")
    value = config.get(key) or (nested.get(key) if isinstance(nested, dict) else None)
    return value if options.is_int(value) else 0


# -- Scheduling ----------------------------------------------------------------------------------------------------------------------------


@refusal
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


@refusal
def context_over_model(f: Facts) -> Problem | None:
    """config.py _get_and_verify_max_len."""
    if f.max_model_len <= f.derived or f.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").strip().lower() in ("1", "true"):
        return None
    message = f"max_model_len is {f.max_model_len}, and the model's longest context is {f.derived}."
    remedy = f"Use max_model_len {f.derived} or less, or extend the model's context by the scaling that its authors describe."
    return Problem("context_over_model", message, remedy)


@refusal
def batched_tokens_below_context(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args."""
    if f.chunked or f.max_num_batched_tokens >= f.max_model_len:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is below max_model_len {f.max_model_len}, and chunked prefill is off."
    remedy = f"Use max_num_batched_tokens {f.max_model_len} or more, a smaller max_model_len, or enable_chunked_prefill: true."
    return Problem("batched_tokens_below_context", message, remedy)


@refusal
def batched_tokens_below_sequences(f: Facts) -> Problem | None:
    """config.py SchedulerConfig._verify_args."""
    if f.max_num_batched_tokens >= f.max_num_seqs:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is below max_num_seqs {f.max_num_seqs}."
    return Problem("batched_tokens_below_sequences", message, f"Use max_num_seqs {f.max_num_batched_tokens} or less, or a larger max_num_batched_tokens.")


@refusal
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


@refusal
def partial_prefills_not_in_v1(f: Facts) -> Problem | None:
    """vllm 0.19.1 engine/arg_utils.py _check_feature_supported; 0.8.5 falls back to V0."""
    changed = [name for name in ("max_num_partial_prefills", "max_long_partial_prefills") if f.option(name) not in (None, 1)]
    if f.lane.version == "0.8.5" or not changed:
        return None
    return Problem("partial_prefills_not_in_v1", f"vLLM {f.lane.version} has {_listed(changed)}, and refuses anything but 1.", f"Remove {_listed(changed)}.")


@refusal
def prefix_caching_with_window(f: Facts) -> Problem | None:
    """config.py CacheConfig._verify_prefix_caching."""
    if f.core != "V0" or not f.prefix or f.model.sliding_window is None or f.model.interleaved_window or f.option("disable_sliding_window"):
        return None
    message = f"The V0 engine has no prefix caching for a model with a sliding window, here of {f.model.sliding_window} tokens."
    return Problem("prefix_caching_with_window", message, "Set enable_prefix_caching: false, or disable_sliding_window: true.")


@refusal
def window_and_rope_scaling(f: Facts) -> Problem | None:
    """config.py _get_and_verify_max_len, NotImplementedError."""
    overrides = f.option("hf_overrides")
    scaling = f.option("rope_scaling") or (overrides.get("rope_scaling") if isinstance(overrides, dict) else None) or f.config.get("rope_scaling")
    if f.lane.version != "0.8.5" or not f.option("disable_sliding_window") or not scaling or _rope_kind(scaling) in ("su", "longrope", "llama3"):
        return None
    message = f"disable_sliding_window is true, and vLLM {f.lane.version} does not have it for a model with rope_scaling."
    return Problem("window_and_rope_scaling", message, "Remove disable_sliding_window.")


@refusal
def prefix_hash_not_in_v0(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0."""
    if f.core != "V0" or not f.option("enable_prefix_caching") or f.option("prefix_caching_hash_algo") != "sha256":
        return None
    return Problem("prefix_hash_not_in_v0", "prefix_caching_hash_algo is sha256, which the V0 engine does not have.", "Remove prefix_caching_hash_algo.")


@warning
def batch_over_all_sequences(f: Facts) -> Problem | None:
    """vllm 0.19.1 config/scheduler.py warns of it; no batch can be that large, and the profiling run pays for it all the same."""
    most = f.max_num_seqs * f.max_model_len
    if f.max_num_batched_tokens <= most or f.given.get("max_num_batched_tokens") is None:
        return None
    message = f"max_num_batched_tokens {f.max_num_batched_tokens} is more than max_num_seqs {f.max_num_seqs} x max_model_len {f.max_model_len} can fill."
    return Problem("batch_over_all_sequences", message, f"Use max_num_batched_tokens {most} or less.")


@warning
def long_context_without_chunks(f: Facts) -> Problem | None:
    """engine/arg_utils.py warns of it. Reported: an out-of-memory error in profiling (vllm issue 5993)."""
    if f.core != "V0" or f.chunked or f.max_model_len <= LONG_CONTEXT:
        return None
    message = f"Without chunked prefill the profiling run computes {f.max_num_batched_tokens} tokens at once, and its activations are taken from the KV cache."
    return Problem("long_context_without_chunks", message, "Set enable_chunked_prefill: true, or a smaller max_model_len.")


@warning
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


@warning
def unchunked_is_unofficial(f: Facts) -> Problem | None:
    """vllm 0.19.1 engine/arg_utils.py, _set_default_chunked_prefill_and_prefix_caching_args."""
    if f.core != "V1" or f.option("enable_chunked_prefill") is not False:
        return None
    message = "The V1 engine does not officially run without chunked prefill: it may crash or answer wrongly."
    if f.lane.version == "0.8.5":
        message = "The V1 engine ignores enable_chunked_prefill: false."
    return Problem("unchunked_is_unofficial", message, "Remove enable_chunked_prefill.")


@warning
def decode_without_graphs(f: Facts) -> Problem | None:
    """worker/model_runner.py: a CUDA graph is used only where every sequence of the batch is at most max_seq_len_to_capture long."""
    captured = f.option("max_seq_len_to_capture")
    if f.core != "V0" or captured is None or f.option("enforce_eager") or f.max_model_len <= captured:
        return None
    message = f"Contexts over {captured} tokens decode without CUDA graphs: max_seq_len_to_capture is {captured} and max_model_len {f.max_model_len}."
    return Problem("decode_without_graphs", message, f"Set max_seq_len_to_capture: {f.max_model_len}.")


@warning
def prefix_caching_off_for_pictures(f: Facts) -> Problem | None:
    """engine/arg_utils.py _set_default_args_v0."""
    if f.core != "V0" or not f.model.multimodal or not f.option("enable_prefix_caching"):
        return None
    return Problem(
        "prefix_caching_off_for_pictures", "The V0 engine turns prefix caching off for a model that reads pictures.", "Remove enable_prefix_caching."
    )


@warning
def pictures_are_profiled(f: Facts) -> Problem | None:
    """Reported: out-of-memory errors in profiling (vllm issues 16551 and 22173)."""
    if not f.model.multimodal or f.option("limit_mm_per_prompt") or f.max_num_seqs <= 32:
        return None
    message = f"The profiling run computes {f.max_num_seqs} sequences with pictures of the largest size, and its activations are taken from the KV cache."
    return Problem("pictures_are_profiled", message, "Use a smaller max_num_seqs, and limit_mm_per_prompt, such as {image: 1}.")


@warning
def adapters_unproven(f: Facts) -> Problem | None:
    """Reported on two T4 with 0.10.1.1: the Triton kernels for adapters do not compile (PassManager::run failed)."""
    if f.core != "V1" or f.sm >= 80 or not f.option("enable_lora"):
        return None
    message = f"Adapters run in Triton kernels that are reported not to compile on compute capability {f.capability}."
    return Problem("adapters_unproven", message, "Merge the adapter into the weights.")


# -- RAM -----------------------------------------------------------------------------------------------------------------------------------


def _swap(f: Facts) -> float:
    """The RAM that swap takes, in GiB: swap_space is for each card."""
    return (f.option("swap_space") or 0) * f.tp


def _swap_message(f: Facts) -> str:
    share, ram = _swap(f) * GIB / f.memory_bytes, f.memory_bytes / GIB
    return f"swap_space {f.option('swap_space'):g} GiB x {f.tp} cards is {_swap(f):g} GiB, {share:.0%} of {ram:.0f} GiB RAM"


@refusal
def swap_over_ram(f: Facts) -> Problem | None:
    """config.py CacheConfig.verify_with_parallel_config."""
    if not f.memory_bytes or _swap(f) * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    most = int(SWAP_REFUSAL * f.memory_bytes / GIB / f.tp)
    message = f"{_swap_message(f)}, and vLLM refuses more than {SWAP_REFUSAL:.0%}."
    return Problem("swap_over_ram", message, f"Use swap_space {most} or less; it is for each card.")


@warning
def swap_share(f: Facts) -> Problem | None:
    """config.py CacheConfig.verify_with_parallel_config."""
    if not f.memory_bytes or not SWAP_WARNING * f.memory_bytes < _swap(f) * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    message = f"{_swap_message(f)}, which is pinned; vLLM warns above {SWAP_WARNING:.0%}."
    return Problem("swap_share", message, f"Use swap_space {int(SWAP_WARNING * f.memory_bytes / GIB / f.tp)} or less; it is for each card.")


@warning
def swap_unused(f: Facts) -> Problem | None:
    """core/scheduler.py _preempt: a sequence is computed anew unless its group has several, or the mode is swap."""
    if f.given.get("swap_space") in (None, 0) or f.option("preemption_mode") == "swap":
        return None
    if f.core == "V1":
        return Problem("swap_unused", "The V1 engine has no swap: swap_space has no effect.", "Remove swap_space.")
    message = "Swap is used only by requests with several sequences (n, best_of): without preemption_mode: swap others are computed anew."
    return Problem("swap_unused", message, "Set preemption_mode: swap, or swap_space: 0, which frees the RAM that it pins.")


@refusal
def kv_offloading_over_ram(f: Facts) -> Problem | None:
    size = f.option("kv_offloading_size")
    if not size or not f.memory_bytes or size * GIB <= SWAP_REFUSAL * f.memory_bytes:
        return None
    message = f"kv_offloading_size is {size:g} GiB of {f.memory_bytes / GIB:.0f} GiB RAM, which it pins."
    return Problem("kv_offloading_over_ram", message, f"Use {int(SWAP_REFUSAL * f.memory_bytes / GIB)} or less; it is for all cards of the instance together.")


@refusal
def offload_over_ram(f: Facts) -> Problem | None:
    """Weights that go to RAM are pinned there, for each rank."""
    size = f.option("cpu_offload_gb") or 0
    if not size or not f.memory_bytes or size * f.tp * f.pp * GIB < f.memory_bytes:
        return None
    message = f"cpu_offload_gb {size:g} x {f.tp * f.pp} cards is {size * f.tp * f.pp:g} GiB, and the host has {f.memory_bytes / GIB:.0f} GiB RAM."
    return Problem("offload_over_ram", message, "Use a smaller cpu_offload_gb; it is for each card.")


# -- Between the cards ---------------------------------------------------------------------------------------------------------------------


@warning
def custom_all_reduce_falls_back(f: Facts) -> Problem | None:
    """distributed/device_communicators/custom_all_reduce.py. A hang at the start is reported too (jackypanster/qwen3-32b-awq)."""
    if f.tp == 1 or f.option("disable_custom_all_reduce"):
        return None
    if f.tp not in ALL_REDUCE_WORLDS:
        cause = f"it works with {_listed(ALL_REDUCE_WORLDS)} cards, not with {f.tp}"
    elif f.tp > 2 and not f.nvlink:
        cause = f"more than two cards need NVLink between all of them, and {'it is not known here' if f.nvlink is None else 'these have none'}"
    else:
        return None
    message = f"Custom all-reduce falls back to NCCL with a warning: {cause}."
    return Problem("custom_all_reduce_falls_back", message, "Set disable_custom_all_reduce: true, which is the same without the attempt.")


# -- What is not what it seems -------------------------------------------------------------------------------------------------------------


@refusal
def reasoning_without_parser(f: Facts) -> Problem | None:
    """entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_reasoning") or f.option("reasoning_parser"):
        return None
    return Problem("reasoning_without_parser", "enable_reasoning is true, and reasoning_parser is missing.", "Set reasoning_parser: deepseek_r1, or granite.")


@warning
def parser_without_reasoning(f: Facts) -> Problem | None:
    if "enable_reasoning" not in f.defaults or f.option("enable_reasoning") or not f.option("reasoning_parser"):
        return None
    message = f"reasoning_parser has no effect in vLLM {f.lane.version} while enable_reasoning is not true."
    return Problem("parser_without_reasoning", message, "Set enable_reasoning: true.")


@refusal
def tool_choice_without_parser(f: Facts) -> Problem | None:
    """entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_auto_tool_choice") or f.option("tool_call_parser"):
        return None
    return Problem("tool_choice_without_parser", "enable_auto_tool_choice is true, and tool_call_parser is missing.", "Set tool_call_parser, such as hermes.")


@refusal
def log_outputs_without_requests(f: Facts) -> Problem | None:
    """vllm 0.19.1 entrypoints/openai/cli_args.py validate_parsed_serve_args."""
    if not f.option("enable_log_outputs") or f.option("enable_log_requests"):
        return None
    return Problem("log_outputs_without_requests", "enable_log_outputs is true, and enable_log_requests is not.", "Set enable_log_requests: true.")


@warning
def metrics_hidden(f: Facts) -> Problem | None:
    """engine/metrics.py: shown only to the version that deprecated them, as a string."""
    if f.core != "V0" or f.option("disable_log_stats") or f.option("show_hidden_metrics_for_version") == "0.7":
        return None
    wanted = [name for name, on in (("vllm:gpu_prefix_cache_hit_rate", f.prefix), ("vllm:cpu_cache_usage_perc", f.given.get("swap_space"))) if on]
    if not wanted:
        return None
    message = f"The V0 engine hides {' and '.join(wanted)}."
    return Problem("metrics_hidden", message, 'Set show_hidden_metrics_for_version: "0.7", that very string.')


@warning
def metrics_off(f: Facts) -> Problem | None:
    if not f.option("disable_log_stats"):
        return None
    return Problem(
        "metrics_off", "disable_log_stats removes the engine's metrics, and with them what monitoring and watchdog see.", "Remove disable_log_stats."
    )


@warning
def deprecated_option(f: Facts) -> Problem | None:
    names = [name for name, value in f.given.items() if value is not None and f.defaults.get(name, {}).get("deprecated")]
    if not names:
        return None
    return Problem("deprecated_option", f"vLLM {f.lane.version} calls {_listed(names)} deprecated.", f"Remove {_listed(names)}.")


# -- With the memory known -----------------------------------------------------------------------------------------------------------------


def kv_cache_too_small(f: Facts, blocks: int) -> Problem | None:
    """worker/worker.py raise_if_cache_size_invalid; v1/core/kv_cache_utils.py. blocks: the KV blocks of a rank, the fewest of all."""
    tokens = blocks * f.block
    if blocks <= 0:
        message = "No memory is left for the KV cache: weights and activations take all of the budget."
        remedy = "Use more cards, a higher gpu_memory_utilization, fewer max_num_seqs, a smaller max_num_batched_tokens or cpu_offload_gb."
        return Problem("no_kv_blocks", message, remedy)
    if f.max_model_len <= tokens:
        return None
    message = f"The KV cache holds {tokens} tokens ({blocks} blocks of {f.block}), and max_model_len is {f.max_model_len}."
    return Problem("context_over_kv_cache", message, f"Use max_model_len {tokens} or less, more cards, or a higher gpu_memory_utilization.")
