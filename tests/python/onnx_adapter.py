"""ONNX's operator Attention (opsets 23 to 25, as onnx 1.23 defines it) on qkv.attention.

What the operator calls inputs and attributes, it says itself; what it means is in the operator's text:
causal counts from the upper left corner unless there is a past or nonpad_kv_seqlen, windows
count around the query's position, masks broadcast from the right and may be shorter than the
keys, and qk_matmul_output is a stage of the scores.
"""

import numpy as np
import onnx

import qkv

STAGES = {0: "scores", 1: "capped", 2: "biased", 3: "weights"}


def heads_first(x, n_heads):
    """(B, T, H D) as (B, H, T, D), a view."""
    B, T, width = x.shape
    return x.reshape(B, T, n_heads, width // n_heads).transpose(0, 2, 1, 3)


def full_mask(mask, Tk):
    """A mask whose last axis is shorter hides the keys behind it."""
    short = Tk - mask.shape[-1]
    if short <= 0 or mask.shape[-1] == 1 and Tk > 1 and mask.ndim == 1:
        return mask
    fill = False if mask.dtype == np.bool_ else -np.inf
    return np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, short)], constant_values=fill)


def onnx_attention(node, inputs):
    """The node's outputs, by name."""
    a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
    given = iter(inputs)
    names = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
    x = {name: next(given) for name, used in zip(names, node.input) if used}
    q, k, v = x["Q"], x["K"], x["V"]
    packed = q.ndim == 3
    if packed:
        q = heads_first(q, a["q_num_heads"])
        k, v = heads_first(k, a["kv_num_heads"]), heads_first(v, a["kv_num_heads"])
    q_offset = 0
    if "past_key" in x:
        q_offset = x["past_key"].shape[2]
        k = np.concatenate([x["past_key"], k], axis=2)
        v = np.concatenate([x["past_value"], v], axis=2)
    options = {}
    if "nonpad_kv_seqlen" in x:
        options["kv_lens"] = x["nonpad_kv_seqlen"]
        q_offset = x["nonpad_kv_seqlen"] - q.shape[2]
    if "attn_mask" in x:
        mask = full_mask(x["attn_mask"], k.shape[2])
        options["mask" if mask.dtype == np.bool_ else "bias"] = mask
    stage = STAGES[a.get("qk_matmul_output_mode", 0)]
    wants_scores = len(node.output) > 3 and node.output[3] != ""
    result = qkv.attention(
        q, k, v,
        causal=bool(a.get("is_causal", 0)),
        window=(a.get("left_window_size", -1), a.get("right_window_size", -1)),
        scale=a.get("scale"),
        softcap=a.get("softcap", 0.0),
        q_offset=q_offset,
        return_weights=stage if wants_scores else False,
        **options,
    )
    y, scores = result if wants_scores else (result, None)
    if packed:
        B, H, T, Dv = y.shape
        y = y.transpose(0, 2, 1, 3).reshape(B, T, H * Dv)
    every = (y, k, v, scores if scores is None else scores.astype(q.dtype))
    return {name: value for name, value in zip(node.output, every) if name}
