"""com.microsoft.GroupQueryAttention of ONNX Runtime, as a function of arrays.

A model of one node is made for each call, so that absent inputs and attributes are absent.
"""

import numpy as np
import onnxruntime
from onnx import helper

INPUTS = (
    "query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length",
    "cos_cache", "sin_cache", "position_ids", "attention_bias", "head_sink", "k_scale", "v_scale",
)  # fmt: skip
OUTPUTS = ("output", "present_key", "present_value")


def tokens_first(x):
    """(B, H, T, D) as (B, T, H D)."""
    B, H, T, D = x.shape
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(B, T, H * D)


def info(name, x):
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape)
    )


def group_query_attention(arrays, n_heads, n_kv_heads, **attributes):
    """(o as (B, Hq, S, D), present_key, present_value); arrays by the names of INPUTS."""
    query, past = arrays["query"], arrays.get("past_key")
    D = query.shape[2] // n_heads
    present = np.empty(
        (query.shape[0], n_kv_heads, int(arrays["total_sequence_length"]), D), np.float32
    )
    if past is not None:
        present = np.empty((*past.shape[:2], max(past.shape[2], present.shape[2]), past.shape[3]),
                           past.dtype)  # fmt: skip
    node = helper.make_node(
        "GroupQueryAttention", [n if n in arrays else "" for n in INPUTS], OUTPUTS,
        domain="com.microsoft", num_heads=n_heads, kv_num_heads=n_kv_heads, **attributes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "attention", [info(n, x) for n, x in arrays.items()],
        [info(n, x) for n, x in zip(OUTPUTS, (query, present, present))],
    )  # fmt: skip
    domains = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    o, k, v = session.run(list(OUTPUTS), arrays)
    return o.reshape(*o.shape[:2], n_heads, D).swapaxes(1, 2), k, v
