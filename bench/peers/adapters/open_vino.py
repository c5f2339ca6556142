"""OpenVINO: a model of one ScaledDotProductAttention for each case."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from peers.adapters.base import Peer
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, to_float

ELEMENT = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16}
CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


class OpenVino(Peer):
    """Inference precision is the case's own type where the plugin has it for this processor, and
    f32 otherwise: asked for a type it does not have, it takes the other 16-bit one, which is
    another problem than the one in the table.

    The operator knows no groups of heads; with one
    query a head, the heads of a group are given as the tokens of one, which is much faster than
    copying K and V for every head (tried: a third of the rate)."""

    name = "OpenVINO"
    version = ov.__version__.split("-")[0]

    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.threads = threads

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        element = ELEMENT[case.dtype]
        grouped = case.q_heads != case.kv_heads
        assert not grouped or case.q_len == 1
        shape = (1, case.kv_heads, -1, case.head_dim)
        calls = [[s.q.reshape(shape), s.k[None]] for s in sets]
        if not case.latent:
            calls = [[*call, s.v[None]] for call, s in zip(calls, sets)]
        parameters = [ops.parameter(list(x.shape), element) for x in calls[0]]
        values = parameters[-1]
        if case.latent:
            values = ops.slice(values, *(np.array([n]) for n in (0, case.head_dim_v, 1, 3)))
        result = ops.scaled_dot_product_attention(*parameters[:2], values, causal=case.causal)
        able = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = case.dtype if CAPABILITY[case.dtype] in able else "f32"
        config = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(self.threads),
        }
        model = self.core.compile_model(ov.Model([result], parameters), "CPU", config)
        self.state = [self._request(model, call, element) for call in calls], calls, case
        rows = ", heads of a group as tokens" if grouped else ""
        rows += ", V sliced from K" if case.latent else ""
        return f"ScaledDotProductAttention{rows} ({case.dtype} computed in {precision})"

    @staticmethod
    def _request(model: Any, inputs: list[Array], element: Any) -> Any:
        request = model.create_infer_request()
        for n, x in enumerate(inputs):
            request.set_input_tensor(n, ov.Tensor(x, list(x.shape), element))
        return request

    def run(self, number: int) -> Any:
        request = self.state[0][number]
        request.infer()
        return request.get_output_tensor(0)

    def rows(self, output: Any, rows: list[Row]) -> Array:
        case = self.state[2]
        data = np.asarray(output.data)
        if output.element_type == ov.Type.bf16:
            data = data.view(np.uint16)
        data = data.reshape(case.q_heads, case.q_len, case.head_dim_v)
        return np.stack([to_float(data[h, t]) for h, t in rows])
