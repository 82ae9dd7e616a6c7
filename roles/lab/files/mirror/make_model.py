"""Write a tiny random Qwen3 checkpoint with tokenizer and chat template: the model that the lab serves.

    python3 make_model.py DIRECTORY

Standard library only, the same bytes on every machine. The answers are noise, but noise of letters in words: of the 512 tokens only
letters, space and newline have a first embedding dimension. The layers neither read nor write it (zeros in their norms and output
projections), and since embeddings are tied to the output, it lifts those tokens far above the rest, each a little by how common it
is. The other 63 dimensions are what the context does to the choice. Made for temperatures of 0.2 to 1.
"""

import json
import math
import pathlib
import random
import string
import struct
import sys

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY, CONTEXT = 2, 64, 192, 4, 2, 32, 512, 40960
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 256, 257, 258
# Token (a byte): how common it shall be, in steps of the first embedding dimension.
READABLE = dict.fromkeys(string.ascii_lowercase.encode(), 0) | dict.fromkeys(b"etaoin", 2) | dict.fromkeys(b"shrdlu", 1)
READABLE |= dict.fromkeys(b"jqxz", -4) | {ord(" "): 4, ord("\n"): -10}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config():
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 256, "eos_token_id": 258, "head_dim": HEAD_DIM, "hidden_act": "silu", "hidden_size": HIDDEN,
        "initializer_range": 0.02, "intermediate_size": INTERMEDIATE, "max_position_embeddings": CONTEXT,
        "max_window_layers": LAYERS, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "float16", "transformers_version": "4.51.3",
        "use_cache": True, "use_sliding_window": False, "vocab_size": VOCABULARY,
    }  # fmt: skip


def shapes():
    """Tensor names and shapes of transformers' Qwen3ForCausalLM with tied embeddings."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for layer in range(LAYERS):
        prefix = "model.layers.%d." % layer
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        yield prefix + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield prefix + "self_attn.q_norm.weight", (HEAD_DIM,)
        yield prefix + "self_attn.k_norm.weight", (HEAD_DIM,)
        yield prefix + "mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)
        yield prefix + "mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)
        yield prefix + "mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)


def numbers(source, count, deviation):
    """Uniform numbers of a standard deviation. Integers and one product: nothing that a C library rounds its own way."""
    scale = deviation * math.sqrt(3) / 32768
    return [(source.getrandbits(16) - 32768) * scale for dummy in range(count)]


def values(source, name, shape):
    count = math.prod(shape)
    if name.endswith("layernorm.weight"):
        return [0.0] + [1.0] * (count - 1)
    if name.endswith("norm.weight"):
        return [1.0] * count
    if name == "model.embed_tokens.weight":
        result = []
        for token in range(VOCABULARY):
            readable = token in READABLE
            result += [8 + READABLE[token] / 16, *numbers(source, HIDDEN - 1, 0.06)] if readable else [0.0] * HIDDEN
        return result
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation = 0.005 if "down_proj" in name else 0.15 if ".layers.0." in name else 0.02  # the deeper, the larger the input
        return [0.0] * shape[1] + numbers(source, count - shape[1], deviation)
    return numbers(source, count, 1.5)


def safetensors():
    """https://github.com/huggingface/safetensors#format: length of the header (u64), JSON header, raw tensors."""
    source, header, blobs, offset = random.Random(2080), {}, [], 0
    for name, shape in shapes():
        blob = struct.pack("<%de" % math.prod(shape), *values(source, name, shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(blobs)


def byte_alphabet():
    """GPT-2's printable stand-in for each of the 256 bytes (byte-level BPE): token ids are bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def tokenizer():
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [{"id": 256 + n, "content": text} | plain for n, text in enumerate(SPECIAL)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "merges": [],
                  "vocab": {char: index for index, char in enumerate(byte_alphabet())}},
    }  # fmt: skip


def files():
    """File names and bytes of the repository."""
    documents = {
        "config.json": config(),
        "generation_config.json": {"bos_token_id": 256, "eos_token_id": 258, "do_sample": True, "temperature": 0.6, "top_p": 0.95},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": SPECIAL[2], "pad_token": SPECIAL[0],
            "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
        },
    }  # fmt: skip
    readme = "---\nlicense: gpl-3.0\npipeline_tag: text-generation\n---\nRandom weights of the gpuhosts.inference lab: noise.\n"
    texts = {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in documents.items()}
    encoded = {name: text.encode() for name, text in (texts | {"README.md": readme}).items()}
    return encoded | {"model.safetensors": safetensors()}


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (directory / name).write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
