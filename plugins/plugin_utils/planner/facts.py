# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine makes of its options: every default filled in, and the engine core, the attention backend and the number format that run.

`facts` resolves an option map; memory and rules both read what it returns. Sources are the files of vllm 0.8.5 unless another version is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from . import lanes, options, values
from .model import Model

GIB = 1024**3
LONG_CONTEXT = 32768  # engine/arg_utils.py, _set_default_args_v0
BATCHED_TOKENS, BATCHED_TOKENS_MULTIMODAL = 2048, 5120  # config.py
BATCHED_TOKENS_POOLING = 32768  # config.py
POOLING_TASKS = ("embed", "embedding", "classify", "score", "reward")  # config.py
# What solvers vary from one option map to the next. Of Facts only option, given, max_model_len, max_num_batched_tokens, max_num_seqs and chunked
# follow from them.
SIZES = frozenset(
    {
        "max_model_len", "max_num_batched_tokens", "max_num_seqs", "max_seq_len_to_capture", "enforce_eager", "gpu_memory_utilization", "cpu_offload_gb",
    }
)  # fmt: skip
FLASH_HEADS_V0 = (32, 64, 96, 128, 160, 192, 224, 256)  # attention/backends/flash_attn.py


class Facts(NamedTuple):
    """Everything a rule may ask for. sm: the lowest compute capability of the cards, 75 for 7.5. cards: how many the instance sees.

    given: the option map. option: the value of an option by its name, as it was given, the engine's default otherwise; None for one that this
    engine does not have. schema: all of its options. mla: attention is computed on the latent vectors (DeepSeek). max_model_len,
    max_num_batched_tokens, max_num_seqs, chunked, prefix, block, dtype, quantization, core and attention are what the engine makes of the
    options; quantization is None for 16-bit weights. derived is the longest context of the model's own. memory_bytes is RAM. large: the cards have
    70 GiB or more, for which V1 has other defaults. strategy: the instance's attention_strategy.
    """

    lane: lanes.Lane
    given: Mapping[str, object]
    option: Callable[[str], object]
    schema: Mapping[str, dict]
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
    large: bool
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    chunked: bool
    prefix: bool
    block: int
    tp: int
    pp: int
    strategy: str

    @property
    def pools(self) -> bool:
        """The model answers with vectors or scores instead of text."""
        return pools(self.option)

    @property
    def capability(self) -> str:
        return f"{self.sm // 10}.{self.sm % 10}"

    @property
    def quantization_config(self) -> Mapping[str, object]:
        return _declared(self.config)


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
    strategy: str = "default",
) -> Facts:
    """Resolve an option map that has passed options.check.

    config: the checkpoint's config.json, for the few keys that model does not keep. card_bytes: the memory of one card, on which later
    engines' defaults depend. ValueError for a version that is not known.
    """
    lane, schema, env, config = lanes.lane(version), options.schema(version), env or {}, config or {}
    sm, option = capability[0] * 10 + capability[1], options.resolve(version, given).get
    dtype = _dtype(lane, option("dtype"), model, config, sm)
    core = _core(lane, option, env, model, dtype, sm)
    attention = _attention(lane, option, env, model, dtype, sm, core)
    derived = _derived(lane, option, env, model, config)
    prefix, block, v0 = option("enable_prefix_caching"), option("block_size"), core == "V0"
    prefix = (not v0 if prefix is None else prefix) and not (v0 and model.multimodal)
    large = (card_bytes or 0) >= 70 * GIB
    return Facts(
        lane=lane,
        given=given,
        option=option,
        schema=schema,
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
        quantization=quantization_that_runs(lane, option("quantization"), model, config, sm),
        derived=derived,
        large=large,
        prefix=prefix,
        block=16 if block is None else block,
        tp=option("tensor_parallel_size"),
        pp=option("pipeline_parallel_size"),
        strategy=strategy,
        **_sizes(lane, option, env, model, core, derived, large),
    )


def resized(found: Facts, given: Mapping[str, object]) -> Facts:
    """The same for an option map that differs from found.given in SIZES alone."""
    option = options.resolve(found.lane.version, given).get
    sizes = _sizes(found.lane, option, found.env, found.model, found.core, found.derived, found.large)
    return found._replace(given=given, option=option, **sizes)


def _sizes(lane, option: Callable, env: Mapping[str, str], model: Model, core: str, derived: int, large: bool) -> dict:
    """The fields of Facts that follow from SIZES."""
    v0, length, seqs = core == "V0", _length(option("max_model_len")), option("max_num_seqs")
    automatic = length == -1 and options.schema(lane.version)["max_model_len"]["type"] == "human_readable_int_or_auto"
    length = derived if length is None or automatic else length
    chunked = _chunked(lane, option, env, model, length, v0)
    seqs = (1024 if large and not v0 else 256) if seqs is None else seqs
    batched = _length(option("max_num_batched_tokens"))
    if batched is None:
        whole = not chunked or (option("num_scheduler_steps") or 1) > 1
        batched = _batched(v0, lane.version, whole, length, model, large, seqs, pools(option))
    if lane.version != "0.8.5" and option("max_num_seqs") is None:
        seqs = min(seqs, batched)
    return {"max_model_len": length, "max_num_batched_tokens": batched, "max_num_seqs": seqs, "chunked": chunked}


def pools(option: Callable) -> bool:
    """Later engines ask for it with runner: pooling."""
    return option("task") in POOLING_TASKS or option("runner") == "pooling"


def _mla(env: Mapping[str, str], model: Model) -> bool:
    """config.py ModelConfig.use_mla."""
    return model.latent is not None and env.get("VLLM_MLA_DISABLE", "0") == "0"


def _length(value) -> int | None:
    """A length as the parser reads it: 32768 and "32K" are the same, "auto" is -1."""
    return values.human_readable_int_or_auto(value) if isinstance(value, str) else value


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
    # FlashAttention 3 alone reads it: attention/utils/fa_utils.py flash_attn_supports_fp8.
    flash = 90 <= sm < 100 and env.get("VLLM_ATTENTION_BACKEND") in (None, "FLASH_ATTN_VLLM_V1")
    if option("kv_cache_dtype") != "auto" and not flash:
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


def forced_backend(lane, option, env: Mapping[str, str]) -> str | None:
    """The attention backend that was asked for: by variable in 0.8.5, by option in later engines."""
    if not lane.ignored_env:
        return env.get("VLLM_ATTENTION_BACKEND") or None
    found = option("attention_backend") or (option("attention_config") or {}).get("backend")
    return found if isinstance(found, str) and found else None


def _attention(lane, option, env: Mapping[str, str], model: Model, dtype: str, sm: int, core: str) -> str:
    """platforms/cuda.py get_attn_backend_cls; v1/attention/backends of later engines. The backend that runs, where a forced one runs at all."""
    forced = forced_backend(lane, option, env)
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
    base = base if values.is_int(base) and base > 0 else None
    own = config.get("rope_scaling") or config.get("rope_parameters")
    kind = rope_kind(scaling if isinstance(scaling, dict) else own)
    # config.py: such a model's window is dropped, and with it every context above it, when one of these backends is forced.
    capped = lane.version == "0.8.5" and model.interleaved_window and env.get("VLLM_ATTENTION_BACKEND") in ("XFORMERS", "FLASHINFER")
    window = model.sliding_window if capped or option("disable_sliding_window") else None
    if not (isinstance(scaling, dict) or base or window):
        return model.max_positions if kind == "yarn" and lane.version == "0.33.0" else model.max_length
    positions = min(base or model.max_positions, window or base or model.max_positions)
    rope = scaling if isinstance(scaling, dict) else own if isinstance(own, dict) else {}
    factor, original = rope.get("factor", 1.0), rope.get("original_max_position_embeddings")
    factor = factor if values.is_number(factor) and factor > 0 else 1.0
    original = original if values.is_int(original) and original > 0 else positions
    if kind == "yarn":
        return positions if lane.version == "0.33.0" else int(original * factor)
    scaled = kind not in ("su", "longrope", "llama3", "default", "mrope", "deepseek_yarn", "")
    return int(positions * factor) if scaled and not str(config.get("model_type")).startswith("gemma3") else positions


def rope_kind(scaling) -> str:
    """The kind of a rope_scaling; empty for what has none."""
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
    return length > LONG_CONTEXT and plain and not (model.multimodal or pools(option) or _mla(env, model))


def _batched(v0: bool, version: str, whole: bool, length: int, model: Model, large: bool, seqs: int, pooling: bool) -> int:
    """max_num_batched_tokens where it is not given: config.py SchedulerConfig.__post_init__; engine/arg_utils.py of later engines.

    whole: a prompt is computed in one piece.
    """
    if v0:
        tokens = max(length, BATCHED_TOKENS) if whole else BATCHED_TOKENS
        return max(tokens, BATCHED_TOKENS_MULTIMODAL if model.multimodal else 0, BATCHED_TOKENS_POOLING if pooling else 0)
    tokens = 8192 if large else BATCHED_TOKENS
    if version == "0.8.5":
        return tokens
    return min(seqs * length, max(length, tokens) if whole else tokens)


def quantization_that_runs(lane, asked: str | None, model: Model, config: Mapping, sm: int) -> str | None:
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
    stored = stored_for(config)
    if lane.version == "0.8.5" and method == "gptq" and stored and asked in (None, "gptq", stored):
        return stored
    if asked not in (None, "marlin"):
        return asked
    marlin = f"{method}_marlin"
    if marlin_takes(model, config) and sm >= lane.quantization[marlin]:
        return marlin
    if asked:
        return asked
    if method == "gptq" and symmetric_gptq(model, config) and lane.version == "0.8.5":
        return "gptq_bitblas"
    return method


def _declared(config: Mapping) -> Mapping:
    declared = config.get("quantization_config")
    return declared if isinstance(declared, dict) else {}


def stored_for(config: Mapping) -> str | None:
    """The one method that reads a GPTQ checkpoint, where it is stored as that kernel wants it: override_quantization_method of quantization/*.py."""
    stored = _declared(config).get("checkpoint_format")
    return {"marlin": "marlin", "marlin_24": "gptq_marlin_24", "bitblas": "bitblas"}.get(stored) if isinstance(stored, str) else None


def marlin_takes(model: Model, config: Mapping) -> bool:
    """Whether the Marlin kernels take a checkpoint that is awq or gptq, on a card that has them.

    gptq_marlin.py is_gptq_marlin_compatible, awq_marlin.py is_awq_marlin_compatible, utils/marlin_utils.py _check_marlin_supported.
    """
    symmetric = symmetric_gptq(model, config) if model.quant.method == "gptq" else model.quant.bits == 4 and _declared(config).get("zero_point") is not False
    return symmetric and model.quant.group in (0, 32, 64, 128)


def symmetric_gptq(model: Model, config: Mapping) -> bool:
    """quantization/gptq_marlin.py is_gptq_marlin_compatible: what the Marlin and BitBLAS kernels take. config.json must say all of it."""
    declared = _declared(config)
    return declared.get("sym") is True and model.quant.bits in (4, 8) and "desc_act" in declared
