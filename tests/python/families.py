"""Small models of transformers, one for each quirk, with random weights that are not small, and what
enters and leaves their attention."""

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

SELF_ATTN = ("model.layers.{i}.self_attn", "q_proj", "k_proj", "o_proj")
PHI3_ATTN = ("model.layers.{i}.self_attn", "qkv_proj", "qkv_proj", "o_proj")
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip


@dataclass
class Case:
    """config: class and fields; where: attention's module, its first projections, its last."""

    config: str
    fields: dict[str, Any]
    where: tuple[str, str, str, str] = SELF_ATTN
    layers: int = 2
    tokens: int = 17
    auto: str = "AutoModelForCausalLM"
    attention: str = "eager"
    part: str = "decoder"
    padding: str = "left"
    positions: bool = True  # forward() takes position_ids
    decode: bool = True
    shards: str = "1GB"  # largest file
    checks: dict[str, Any] = field(default_factory=dict)  # of Layer.desc in layer 0


def llama(**more: Any) -> dict[str, Any]:
    """Grouped heads whose width is not hidden_size / heads."""
    return {
        "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
        "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40,
        "max_position_embeddings": 64,
    } | more  # fmt: skip


def deepseek(**more: Any) -> dict[str, Any]:
    return llama(
        num_key_value_heads=6, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=10,
        kv_lora_rank=12, q_lora_rank=14, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16, n_group=1, topk_group=1, first_k_dense_replace=1,
        n_shared_experts=1,
    ) | {"head_dim": 4} | more  # fmt: skip


def yarn_mla(m: float) -> dict[str, Any]:
    return YARN | {"mscale": m, "mscale_all_dim": m, "factor": 40.0}


GPT2 = ("transformer.h.{i}.attn", "c_attn", "c_attn", "c_proj")
GPT = {"n_embd": 48, "n_head": 6, "n_layer": 2, "n_positions": 64, "vocab_size": 40}
FALCON = ("transformer.h.{i}.self_attention", "query_key_value", "query_key_value", "dense")
FALCON_SIZE = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2, "vocab_size": 40}
T5 = {
    "d_model": 40, "d_kv": 8, "num_heads": 6, "d_ff": 32, "num_layers": 2, "vocab_size": 40,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 6,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 40,
    "max_position_embeddings": 64,
}  # fmt: skip
SEQ2SEQ = {"auto": "AutoModelForSeq2SeqLM", "padding": "none", "positions": False}


def t5(stack: str, block: str, attention: str, **more: Any) -> Case:
    where = (f"{stack}.block.{{i}}.layer.{block}.{attention}", "q", "k", "o")
    return Case("T5Config", T5, where, **SEQ2SEQ, **more)


def bart(stack: str, attention: str, **more: Any) -> Case:
    where = (f"model.{stack}.layers.{{i}}.{attention}", "q_proj", "k_proj", "out_proj")
    return Case("BartConfig", BART, where, **SEQ2SEQ, **more)


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 3.0, 7.0],
}  # fmt: skip
PHI3 = llama(
    hidden_size=72, partial_rotary_factor=0.5, original_max_position_embeddings=16, pad_token_id=0,
    rope_parameters=LONGROPE
    | {"original_max_position_embeddings": 16, "partial_rotary_factor": 0.5},
)  # fmt: skip
del PHI3["head_dim"]

CASES = {
    "llama": Case("LlamaConfig", llama(attention_bias=True), checks={"head_dim": 12, "o_bias": 1}),
    "llama_linear": Case(
        "LlamaConfig", llama(rope_parameters={"rope_type": "linear", "rope_theta": 5e3, "factor": 3.0})
    ),
    "llama_dynamic": Case(
        "LlamaConfig",
        llama(
            max_position_embeddings=8,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        ),
    ),
    "llama_llama3": Case(
        "LlamaConfig",
        llama(
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
            }
        ),
        tokens=40,
    ),  # fmt: skip
    "llama_yarn": Case("LlamaConfig", llama(rope_parameters=YARN), tokens=40),
    "llama_shards": Case("LlamaConfig", llama(), shards="20KB"),
    "mistral_open": Case(
        "MistralConfig", llama(sliding_window=None), checks={"window_left": None}
    ),
    "mistral": Case("MistralConfig", llama(sliding_window=5), checks={"window_left": 4}),
    "qwen2": Case(
        "Qwen2Config",
        llama(head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=1),
        checks={"q_bias": 1, "o_bias": 0, "window_left": None},
    ),
    "qwen3": Case("Qwen3Config", llama(head_dim=16), checks={"qk_norm": "rms", "head_dim": 16}),
    "phi3_short": Case("Phi3Config", PHI3, PHI3_ATTN, tokens=12),
    "phi3_long": Case("Phi3Config", PHI3, PHI3_ATTN, tokens=24),
    "gemma2": Case(
        "Gemma2Config",
        llama(query_pre_attn_scalar=20, attn_logit_softcapping=3.0, sliding_window=4),
        checks={"softcap": 3.0, "window_left": 3},
    ),
    "gemma3": Case(
        "Gemma3TextConfig",
        llama(num_hidden_layers=6, query_pre_attn_scalar=20, sliding_window=4),
        layers=6,
        checks={"qk_norm": "rms_plus_one", "window_left": 3},
    ),
    "gemma3_multimodal": Case(
        "Gemma3Config",
        {
            "text_config": llama(
                model_type="gemma3_text", num_hidden_layers=6, query_pre_attn_scalar=20,
                sliding_window=4, vocab_size=40,
            ),
            "vision_config": {
                "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2,
                "num_hidden_layers": 1, "image_size": 28, "patch_size": 14,
            },
            "mm_tokens_per_image": 4, "image_token_index": 39, "boi_token_index": 38,
            "eoi_token_index": 37,
        },
        ("model.language_model.layers.{i}.self_attn", "q_proj", "k_proj", "o_proj"),
        layers=6,
        auto="AutoModelForImageTextToText",
    ),  # fmt: skip
    "gpt_oss": Case(
        "GptOssConfig",
        llama(
            sliding_window=4, num_local_experts=2, num_experts_per_tok=1,
            rope_parameters=YARN | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
        ),
        tokens=30,
        checks={"sinks": 1, "o_bias": 1},
    ),  # fmt: skip
    "gpt2": Case(
        "GPT2Config", GPT | {"scale_attn_by_inverse_layer_idx": True}, GPT2, checks={"o_bias": 1}
    ),
    "gpt_bigcode": Case("GPTBigCodeConfig", GPT | {"multi_query": True}, GPT2),
    "gpt_bigcode_mha": Case("GPTBigCodeConfig", GPT | {"multi_query": False}, GPT2),
    "gpt_neox": Case(
        "GPTNeoXConfig",
        {
            "hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2,
            "intermediate_size": 32, "vocab_size": 40, "rotary_pct": 0.5,
        },
        ("gpt_neox.layers.{i}.attention", "query_key_value", "query_key_value", "dense"),
    ),  # fmt: skip
    "gptj": Case(
        "GPTJConfig", GPT | {"rotary_dim": 4},
        ("transformer.h.{i}.attn", "q_proj", "k_proj", "out_proj"),
    ),  # fmt: skip
    "falcon_40b": Case(
        "FalconConfig", FALCON_SIZE | {"new_decoder_architecture": True, "num_kv_heads": 2}, FALCON
    ),
    "falcon_7b": Case("FalconConfig", FALCON_SIZE | {"multi_query": True}, FALCON),
    "falcon_rw": Case(
        "FalconConfig",
        # 8 heads: transformers rounds ALiBi to bf16, exact for these (test_layers_falcon.py).
        FALCON_SIZE | {"multi_query": False, "parallel_attn": False, "bias": True, "alibi": True,
                       "num_attention_heads": 8},
        FALCON,
        positions=False,
        attention="sdpa",  # its eager form adds the bias twice, with the mask and with the scores
    ),
    "mpt": Case(
        "MptConfig",
        {
            "d_model": 48, "n_heads": 6, "n_layers": 2, "vocab_size": 40, "max_seq_len": 64,
            "expansion_ratio": 2,
        },
        ("transformer.blocks.{i}.attn", "Wqkv", "Wqkv", "out_proj"),
        positions=False,
    ),  # fmt: skip
    "bloom": Case(
        "BloomConfig",
        {"hidden_size": 48, "n_head": 6, "n_layer": 2, "vocab_size": 40},
        FALCON,
        positions=False,
    ),
    "bert": Case(
        "BertConfig",
        {
            "hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2,
            "intermediate_size": 32, "vocab_size": 40, "max_position_embeddings": 64,
        },
        ("encoder.layer.{i}.attention", "self.query", "self.key", "output.dense"),
        auto="AutoModel",
        padding="right",
        positions=False,
        decode=False,
        checks={"causal": 0},
    ),  # fmt: skip
    "t5_encoder": t5("encoder", "0", "SelfAttention", part="encoder", decode=False),
    "t5_decoder": t5("decoder", "0", "SelfAttention", checks={"relative_buckets": 8}),
    "t5_cross": t5("decoder", "1", "EncDecAttention", part="cross"),
    "bart_encoder": bart("encoder", "self_attn", part="encoder", decode=False),
    "bart_decoder": bart("decoder", "self_attn"),
    "bart_cross": bart("decoder", "encoder_attn", part="cross"),
    "deepseek_v2": Case(
        "DeepseekV2Config", deepseek(rope_parameters=yarn_mla(0.707)),
        ("model.layers.{i}.self_attn", "q_a_proj", "kv_a_proj_with_mqa", "o_proj"), tokens=30,
    ),
    "deepseek_v2_lite": Case(
        "DeepseekV2Config", deepseek(q_lora_rank=None, attention_bias=True),
        ("model.layers.{i}.self_attn", "q_proj", "kv_a_proj_with_mqa", "o_proj"),
    ),
    "deepseek_v3": Case(
        "DeepseekV3Config", deepseek(attention_bias=True),
        ("model.layers.{i}.self_attn", "q_a_proj", "kv_a_proj_with_mqa", "o_proj"),
    ),
    "deepseek_v3_yarn": Case(
        "DeepseekV3Config", deepseek(rope_parameters=yarn_mla(1.0)),
        ("model.layers.{i}.self_attn", "q_a_proj", "kv_a_proj_with_mqa", "o_proj"), tokens=30,
    ),
}  # fmt: skip


def build(case: Case, folder: Any) -> Any:
    """The model, saved to folder."""
    torch.manual_seed(5)
    config = getattr(transformers, case.config)(**case.fields)
    model = getattr(transformers, case.auto).from_config(config, attn_implementation=case.attention)
    model = model.float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name.lower() or "ln_" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif p.ndim > 1 and "embed" not in name and "shared" not in name:
                p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
            else:
                p.copy_(0.5 * torch.randn_like(p))
    model.save_pretrained(folder, max_shard_size=case.shards)
    return model


def observe(model: Any, case: Case, **inputs: Any) -> list[dict[str, Any]]:
    """For each layer what enters the projections of q and of k, and what leaves the last one."""
    seen: list[dict[str, Any]] = [{} for _ in range(case.layers)]
    handles = []

    def keep(i: int, name: str, output: bool) -> Any:
        def hook(module: Any, args: Any, out: Any) -> None:
            seen[i].setdefault(name, (out if output else args[0]).detach().numpy().copy())

        return hook

    for i in range(case.layers):
        base = model.get_submodule(case.where[0].format(i=i))
        for name, path in zip(("x", "memory", "out"), case.where[1:]):
            module = base.get_submodule(path)
            handles.append(module.register_forward_hook(keep(i, name, name == "out")))
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen
