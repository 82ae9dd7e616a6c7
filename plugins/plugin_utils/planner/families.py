# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The architectures that can be planned for, and how their model classes differ in memory: vllm 0.8.5 model_executor/models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """How the model classes of one architecture are built, where two classes differ in memory.

    layer: how a decoder layer passes its tensors on. fused: RMSNorm in place with the residual; copies: the same with new tensors (Gemma's
    norm is compiled); sequential: LayerNorm and plain additions (OPT); parallel: attention and MLP beside each other (Phi); chatglm.
    gated: the MLP has three matrices instead of two. holds_gate_up: its forward keeps the output of the first product alive during the last.
    norms: vectors of hidden_size per layer; norm_bias: as many again. qk_norm: vectors over head_dim ("head") or all heads ("all").
    moe: which class the mixture of experts has. rope: rotary embedding; otherwise learned positions. tied: default of tie_word_embeddings.
    """

    layer: str = "fused"
    gated: bool = True
    holds_gate_up: bool = True
    norms: int = 2
    norm_bias: bool = False
    qk_norm: str | None = None
    qkv_bias: bool = False
    all_bias: bool = False
    moe: str | None = None
    rope: bool = True
    tied: bool = False
    head_dim: int | None = None
    multimodal: bool = False


# LlamaMLP overwrites its input with the first product; Qwen2MLP and its copies hold it in a variable of its own.
LLAMA = Family(holds_gate_up=False)
QWEN2 = Family(qkv_bias=True)
QWEN3 = Family(qk_norm="head", head_dim=128)
GEMMA = Family(layer="copies", tied=True, head_dim=256)
GEMMA2 = dataclasses.replace(GEMMA, norms=4)
GEMMA3 = dataclasses.replace(GEMMA2, qk_norm="head")

FAMILIES = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "AquilaForCausalLM": LLAMA,
    "InternLMForCausalLM": LLAMA,
    "XverseForCausalLM": LLAMA,
    "Phi3ForCausalLM": LLAMA,
    "GlmForCausalLM": dataclasses.replace(LLAMA, qkv_bias=True),
    "Glm4ForCausalLM": dataclasses.replace(LLAMA, norms=4),
    "LlavaForConditionalGeneration": dataclasses.replace(LLAMA, multimodal=True),
    "LlavaNextForConditionalGeneration": dataclasses.replace(LLAMA, multimodal=True),
    "Mistral3ForConditionalGeneration": dataclasses.replace(LLAMA, multimodal=True),
    "PixtralForConditionalGeneration": dataclasses.replace(LLAMA, multimodal=True),
    "Qwen2ForCausalLM": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen2VLForConditionalGeneration": dataclasses.replace(QWEN2, multimodal=True),
    "Qwen2_5_VLForConditionalGeneration": dataclasses.replace(QWEN2, multimodal=True),
    "Qwen3VLForConditionalGeneration": dataclasses.replace(QWEN3, multimodal=True),
    "InternVLChatModel": dataclasses.replace(QWEN2, multimodal=True),
    "InternLM2ForCausalLM": Family(),
    "InternLM3ForCausalLM": LLAMA,
    "BaichuanForCausalLM": Family(),
    "BaiChuanForCausalLM": Family(),
    "ExaoneForCausalLM": Family(),
    "GraniteForCausalLM": Family(),
    "SolarForCausalLM": Family(),
    "MiniCPMForCausalLM": Family(),
    "Olmo2ForCausalLM": Family(layer="chatglm", qk_norm="all"),
    "QWenLMHeadModel": Family(qkv_bias=True),
    "CohereForCausalLM": Family(layer="parallel", norms=1, tied=True),
    "GemmaForCausalLM": GEMMA,
    "Gemma2ForCausalLM": GEMMA2,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": dataclasses.replace(GEMMA3, multimodal=True),
    "OPTForCausalLM": Family("sequential", gated=False, holds_gate_up=False, norm_bias=True, qkv_bias=True, all_bias=True, rope=False, tied=True),
    "PhiForCausalLM": Family("parallel", gated=False, holds_gate_up=False, norms=1, norm_bias=True, qkv_bias=True, all_bias=True),
    "StableLmForCausalLM": Family(layer="chatglm", norm_bias=True),
    "Starcoder2ForCausalLM": Family("chatglm", gated=False, holds_gate_up=False, norm_bias=True, qkv_bias=True, all_bias=True, tied=True),
    "GPTNeoXForCausalLM": Family("chatglm", gated=False, holds_gate_up=False, norm_bias=True, qkv_bias=True, all_bias=True),
    "ChatGLMModel": Family(layer="chatglm", holds_gate_up=False, qkv_bias=True),
    "ChatGLMForConditionalGeneration": Family(layer="chatglm", holds_gate_up=False, qkv_bias=True),
    "Phi3SmallForCausalLM": Family("chatglm", norm_bias=True, qkv_bias=True, all_bias=True, tied=True),
    "MixtralForCausalLM": dataclasses.replace(LLAMA, moe="mixtral"),
    "Qwen2MoeForCausalLM": dataclasses.replace(QWEN2, moe="qwen"),
    "Qwen3MoeForCausalLM": dataclasses.replace(QWEN3, moe="qwen"),
    "DeepseekV2ForCausalLM": Family(moe="deepseek"),
    "DeepseekV3ForCausalLM": Family(moe="deepseek"),
    "GptOssForCausalLM": Family(moe="gpt_oss", qkv_bias=True),
}
