# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A checkpoint's config.json, read: the shape of the model, as far as memory and the engine's rules depend on it.

`read` turns the dict into a Model or raises PlanRefused with every problem found. Key names and defaults are those of the model classes in
vllm 0.8.5 (model_executor/models) and of the configuration classes they are given.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass

from . import quantization
from .families import FAMILIES, Family
from .instance import plain
from .problem import PlanRefused, Problem
from .quantization import Quant
from .reader import Reader
from .values import shown


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: experts of width intermediate, top_k of them for a token, and shared ones of width shared_intermediate in all.

    dense: the indices of the layers that have an ordinary MLP instead.
    """

    count: int
    top_k: int
    intermediate: int
    shared_intermediate: int = 0
    shared_gate: bool = False
    correction_bias: bool = False
    dense: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention (DeepSeek). q_rank 0: queries are not compressed."""

    q_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class Model:
    """The shape of a model. Sizes are counts of elements. max_length is the longest context that the engine derives from the config.

    rope_positions: rows of the rotary table that the engine keeps. vision_parameters: an estimate. tensor_bytes: the true sizes of the
    checkpoint's tensors by name, or (("", size),) when only the sum is known; empty when the estimate has to do.
    """

    architecture: str
    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    dtype: str
    max_length: int
    max_positions: int
    rope_positions: int
    rotary_dim: int
    sliding_window: int | None = None
    interleaved_window: bool = False
    quant: Quant | None = None
    experts: Experts | None = None
    latent: Latent | None = None
    vision_parameters: int = 0
    tensor_bytes: tuple[tuple[str, int], ...] = ()

    def __hash__(self):
        """Of what tells models apart at a glance: caches ask for it again and again, and tensor_bytes has thousands of entries."""
        return hash((self.architecture, self.layers, self.hidden, self.vocab))

    @property
    def multimodal(self) -> bool:
        return self.family.multimodal


# -- Reading -------------------------------------------------------------------------------------------------------------------------------

MAX_BYTES = 2**50
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length", "max_seq_length", "seq_len")
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "deepseek_yarn", "llama3", "longrope", "su", "mrope")
# The text model lies under one of these keys when the checkpoint reads pictures too.
TEXT_KEYS = ("text_config", "llm_config", "language_config")
# Defaults of the text model's configuration class, for checkpoints whose text_config writes only what differs from them.
TEXT_DEFAULTS = {
    "llama": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "vocab_size": 32000,
    },
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "max_position_embeddings": 131072, "vocab_size": 262208, "sliding_window": 4096,
    },
}  # fmt: skip


def read(config, tensor_bytes=None) -> Model:
    """The model that config.json describes. PlanRefused with every problem when it cannot be planned for.

    tensor_bytes: the true sizes of the checkpoint's tensors, name -> bytes, from the headers of its safetensors files; or one number, their
    sum (metadata.total_size of a safetensors index, or the size of a GGUF file).
    """
    config = plain(config)
    if not isinstance(config, dict) or not config:
        raise PlanRefused([Problem("model_not_a_mapping", "The model's config.json is not a mapping.", "Give its content as parsed JSON.")])
    problems: list[Problem] = []
    architecture = _architecture(config, problems)
    family = FAMILIES.get(architecture)
    if family is None:
        raise PlanRefused(problems)
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        problems.append(
            Problem("invalid_model_value", "config.json has a model_type that is no text.", "Take the config.json of the checkpoint itself, unchanged.")
        )
    text = _text(config)
    if family.multimodal:
        family = _text_family(text, family)
    reader = Reader(text, problems)
    layers = reader.number("num_hidden_layers n_layer num_layers", 1, 1024)
    hidden = reader.number("hidden_size n_embd d_model", 8, 2**20)
    heads = reader.number("num_attention_heads n_head", 1, 4096)
    kv_heads = _kv_heads(reader, heads)
    intermediate = reader.number("intermediate_size ffn_dim ffn_hidden_size n_inner", 1, 2**22, default=None if family.gated else 4 * hidden)
    vocab = reader.number("vocab_size padded_vocab_size", 1, 2**24)
    latent = _latent(reader) if family.moe == "deepseek" else None
    head_dim = reader.number("head_dim kv_channels", 1, 4096, default=family.head_dim or max(1, hidden // heads))
    divided = text.get("head_dim") is None and text.get("kv_channels") is None and family.head_dim is None and latent is None
    if not problems and divided and hidden % heads:
        message = f"config.json has hidden_size {hidden}, which num_attention_heads {heads} does not divide."
        problems.append(Problem("invalid_model_value", message, "Take the config.json of the checkpoint itself, unchanged."))
    if not problems and heads % kv_heads:
        message = f"config.json has num_attention_heads {heads}, which num_key_value_heads {kv_heads} does not divide."
        problems.append(Problem("invalid_model_value", message, "Take the config.json of the checkpoint itself, unchanged."))
    max_positions, max_length, rope_positions = _lengths(text, reader, problems)
    partial = text.get("partial_rotary_factor", text.get("rotary_pct", 1.0))
    partial = partial if isinstance(partial, (int, float)) and not isinstance(partial, bool) and 0 < partial <= 1 else 1.0
    rotary_dim = latent.rope_dim if latent else int(head_dim * partial)
    if architecture.startswith("ChatGLM"):
        rotary_dim = head_dim // 2
    window = text.get("sliding_window")
    window = window if isinstance(window, int) and not isinstance(window, bool) and window > 0 and text.get("use_sliding_window", True) else None
    attention_bias = reader.flag("attention_bias", False)
    model = Model(
        architecture=architecture,
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocab=vocab,
        tied=_tied(config, text, family),
        qkv_bias=_qkv_bias(text, family, attention_bias),
        o_bias=family.all_bias or attention_bias and not family.qkv_bias,
        mlp_bias=family.all_bias or reader.flag("mlp_bias", False),
        dtype=_dtype(config, text),
        max_length=max_length,
        max_positions=max_positions,
        # Gemma 3 has one table for its layers with a window and one for the others.
        rope_positions=rope_positions * (2 if architecture.startswith("Gemma3") else 1) if family.rope else 0,
        rotary_dim=rotary_dim,
        sliding_window=window,
        interleaved_window=architecture.startswith(("Gemma2", "Gemma3", "Cohere2", "GptOss")),
        quant=quantization.read(config, text, layers, problems),
        experts=_experts(reader, family, layers, problems) if family.moe else None,
        latent=latent,
        vision_parameters=_vision(config, hidden, problems) if family.multimodal else 0,
        tensor_bytes=_tensor_bytes(tensor_bytes, problems),
    )
    if problems:
        raise PlanRefused(problems)
    return model


def quantized_at_load(model: Model, method: str) -> Model:
    """The model as the engine holds it when the option quantization quantises an unquantised checkpoint while loading: bitsandbytes or fp8.

    bitsandbytes: model_loader/loader.py BitsAndBytesModelLoader._unquantized_generator (nf4, nested scales); fp8: Fp8LinearMethod, one scale.
    """
    if model.quant is not None or method not in ("bitsandbytes", "fp8", "ptpc_fp8"):
        return model
    quant = Quant("bitsandbytes", "bitsandbytes", 4, 64) if method == "bitsandbytes" else Quant("fp8", "fp8", 8, 0)
    return dataclasses.replace(model, quant=quant, tensor_bytes=())


# -- Parts ---------------------------------------------------------------------------------------------------------------------------------


def _architecture(config: dict, problems: list[Problem]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(Problem("missing_architecture", "config.json has no list architectures.", "Take the config.json of the checkpoint itself, unchanged."))
        return ""
    for name in names:
        if name in FAMILIES:
            return name
    near = difflib.get_close_matches(names[0][:80], FAMILIES, n=3, cutoff=0.7) or ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3MoeForCausalLM"]
    message = f"The architecture {names[0][:80]!r} is not one of the {len(FAMILIES)} that the planner knows."
    problems.append(Problem("unknown_architecture", message, f"Use a model of a known architecture, such as {', '.join(near)}."))
    return ""


def _text(config: dict) -> dict:
    """The mapping with the text model's shape: the config itself, or its nested part laid over the configuration class's defaults."""
    for key in TEXT_KEYS:
        nested = config.get(key)
        if isinstance(nested, dict) and ("hidden_size" not in config or "hidden_size" in nested):
            defaults = TEXT_DEFAULTS.get(str(nested.get("model_type")), {})
            return {**config, **defaults, **{name: value for name, value in nested.items() if value is not None}}
    return config


def _text_family(text: dict, family: Family) -> Family:
    """The family of a model that reads pictures, by its text model where the config names one: InternVL comes with several."""
    names = text.get("architectures")
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name in FAMILIES and not FAMILIES[name].multimodal:
            return dataclasses.replace(FAMILIES[name], multimodal=True)
    return family


def _kv_heads(reader: Reader, heads: int) -> int:
    """vllm 0.8.5 config.py ModelConfig.get_total_num_kv_heads: ChatGLM counts groups, Falcon's multi_query is one head."""
    if reader.config.get("multi_query_attention") is False:
        return heads
    if reader.config.get("multi_query") is True:
        return 1
    return reader.number("num_key_value_heads multi_query_group_num n_head_kv num_kv_heads", 1, 4096, default=heads)


def _qkv_bias(text: dict, family: Family, attention_bias: bool) -> bool:
    for key in ("add_qkv_bias", "qkv_bias", "use_qkv_bias", "attention_bias"):
        if isinstance(text.get(key), bool):
            return text[key] or family.all_bias
    return family.qkv_bias or attention_bias


def _tied(config: dict, text: dict, family: Family) -> bool:
    for source in (text, config):
        if isinstance(source.get("tie_word_embeddings"), bool):
            return source["tie_word_embeddings"]
    return family.tied


def _dtype(config: dict, text: dict) -> str:
    for source in (text, config):
        for key in ("torch_dtype", "dtype"):
            name = source.get(key)
            if isinstance(name, str) and name.removeprefix("torch.") in ("float16", "bfloat16", "float32"):
                return name.removeprefix("torch.")
    return "float32"


def _lengths(text: dict, reader: Reader, problems: list[Problem]) -> tuple[int, int, int]:
    """(positions in the config, the longest context, rows of the rotary table).

    vllm 0.8.5 config.py _get_and_verify_max_len, and model_executor/layers/rotary_embedding.py: YaRN's table has the original length times the
    factor, a linear or dynamic one the given length times the factor, longrope's two parts the original and the given length.
    """
    given = [reader.number(key, 1, 2**31) for key in LENGTH_KEYS if text.get(key) is not None and key != "model_max_length"]
    positions = min(given, default=2048)
    if text.get("model_max_length") is not None:
        positions = reader.number("model_max_length", 1, 2**31)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if scaling is None:
        return positions, positions, positions
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else None
    if kind not in ROPE_TYPES:
        message = f"config.json has rope_scaling as {shown(scaling)}, which the engine does not know."
        problems.append(Problem("invalid_model_value", message, "Take the config.json of the checkpoint itself, unchanged."))
        return positions, positions, positions
    factor = scaling.get("factor", 1.0)
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor <= 4096:
        message = f"config.json has the factor of rope_scaling as {shown(factor)}."
        problems.append(Problem("invalid_model_value", message, "Use a factor above 0 and at most 4096."))
        return positions, positions, positions
    original = Reader(scaling, problems).number("original_max_position_embeddings", 1, 2**31, default=positions)
    if kind in ("longrope", "su"):
        original = reader.number("original_max_position_embeddings", 1, 2**31, default=original)
        return positions, positions, positions + original
    if kind in ("llama3", "default", "mrope"):
        # MRotaryEmbedding keeps a table of four times the length, for the time in videos.
        return positions, positions, positions * 4 if kind == "mrope" or "mrope_section" in scaling else positions
    if str(text.get("model_type", "")).startswith("gemma3"):
        return positions, positions, positions
    if kind == "yarn":
        return positions, int(original * factor), int(original * factor)
    if kind == "deepseek_yarn" or text.get("kv_lora_rank"):
        return positions, positions, int(original * factor)
    return positions, int(positions * factor), int(positions * factor)


def _latent(reader: Reader) -> Latent:
    return Latent(
        reader.number("q_lora_rank", 0, 2**16, default=0),
        reader.number("kv_lora_rank", 1, 2**16),
        reader.number("qk_rope_head_dim", 1, 4096),
        reader.number("qk_nope_head_dim", 1, 4096),
        reader.number("v_head_dim", 1, 4096),
    )


def _experts(reader: Reader, family: Family, layers: int, problems: list[Problem]) -> Experts | None:
    """Which layers are dense: DeepSeek's first_k_dense_replace and moe_layer_freq, Qwen's mlp_only_layers and decoder_sparse_step."""
    count = reader.number("num_experts n_routed_experts num_local_experts", 1, 4096)
    top_k = reader.number("num_experts_per_tok", 1, 4096)
    if not problems and top_k > count:
        message = f"config.json has num_experts_per_tok {top_k}, more than its {count} experts."
        problems.append(Problem("invalid_model_value", message, "Take the config.json of the checkpoint itself, unchanged."))
    width = reader.number("moe_intermediate_size intermediate_size", 1, 2**22)
    shared = reader.number("n_shared_experts", 0, 256, default=0) * width
    if family.moe == "qwen":
        shared = reader.number("shared_expert_intermediate_size", 0, 2**22, default=0)
        step = reader.number("decoder_sparse_step", 1, 1024, default=1)
        only = reader.config.get("mlp_only_layers")
        only = {index for index in only if isinstance(index, int)} if isinstance(only, list) else set()
        dense = frozenset(index for index in range(layers) if index in only or (index + 1) % step)
    elif family.moe == "deepseek":
        first, freq = reader.number("first_k_dense_replace", 0, 1024, default=0), reader.number("moe_layer_freq", 1, 1024, default=1)
        dense = frozenset(index for index in range(layers) if index < first or index % freq)
    else:
        dense = frozenset()
    return Experts(count, top_k, width, shared, family.moe == "qwen" and shared > 0, reader.config.get("topk_method") == "noaux_tc", dense)


def _vision(config: dict, hidden: int, problems: list[Problem]) -> int:
    """About how many parameters the vision tower and its projector have: four square matrices and an MLP per block, and two of the projector."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return 0
    reader = Reader(vision, problems)
    depth = reader.number("depth num_hidden_layers", 0, 1024, default=24)
    # Qwen2-VL writes the text model's width as hidden_size and its own as embed_dim.
    width = reader.number("embed_dim hidden_size", 1, 2**16, default=1024)
    inner = reader.number("intermediate_size", 1, 2**18, default=4 * width)
    gated = "out_hidden_size" in vision and "Qwen2_5" in str(config.get("architectures")) or vision.get("model_type") == "pixtral"
    merge = reader.number("spatial_merge_size", 1, 16, default=1) ** 2 * width
    return depth * (4 * width * width + (3 if gated else 2) * width * inner) + merge * merge + merge * hidden


def _tensor_bytes(given, problems: list[Problem]) -> tuple[tuple[str, int], ...]:
    if given is None:
        return ()
    given = plain(given)
    sizes = {"": given} if isinstance(given, (int, float)) and not isinstance(given, bool) else given
    good = isinstance(sizes, dict) and sizes and all(isinstance(name, str) for name in sizes)
    if good and all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_BYTES for size in sizes.values()) and sum(sizes.values()):
        return tuple(sorted(sizes.items()))
    message = "The sizes of the checkpoint's tensors are not a mapping of names to bytes, nor their sum."
    problems.append(Problem("invalid_tensor_bytes", message, "Leave them out to have the weights estimated from config.json."))
    return ()
