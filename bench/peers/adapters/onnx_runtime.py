"""ONNX Runtime: a model of one node for each case."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from peers.adapters.base import Peer, Refused
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, contiguous

ELEMENT = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16}
Inputs = dict[str, Array]


def _by_token(x: Array) -> Array:
    """[H][T][D] as [1][T][H D]."""
    return contiguous(x.swapaxes(0, 1)).reshape(1, x.shape[1], -1)


def _model(node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> bytes:
    """A model of one node, whose tensors are like those given."""

    def info(name: str, x: Array) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape)
        )

    graph = helper.make_graph(
        [node], "attention", [info(n, x) for n, x in inputs.items()],
        [info(n, x) for n, x in outputs.items()],
    )  # fmt: skip
    domains = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    return bytes(model.SerializeToString())


def _full(case: Case, s: Tensors) -> tuple[onnx.NodeProto, Inputs, Inputs]:
    inputs = {"q": _by_token(s.q), "k": _by_token(s.k), "v": _by_token(s.v)}
    outputs = {"o": np.empty_like(inputs["q"])}
    if case.dtype == "f32":
        node = helper.make_node(
            "MultiHeadAttention", list(inputs), ["o"], domain="com.microsoft",
            num_heads=case.q_heads,
        )  # fmt: skip
    else:
        node = helper.make_node(
            "Attention", list(inputs), ["o"], q_num_heads=case.q_heads, kv_num_heads=case.kv_heads
        )
    return node, inputs, outputs


def _grouped(case: Case, s: Tensors) -> tuple[onnx.NodeProto, Inputs, Inputs]:
    """GroupQueryAttention, which is always causal, with a cache.  The cache is one buffer for past
    and present: the last tokens' keys and values are inputs and are written into it by the run."""
    new, total = case.q_len, case.kv_len
    inputs = {"q": _by_token(s.q), "k": _by_token(s.k[:, -new:]), "v": _by_token(s.v[:, -new:])}
    inputs["past_k"] = contiguous(s.k)[None]
    inputs["past_v"] = contiguous(s.v)[None]
    inputs["last"] = np.array([total - 1], np.int32)
    inputs["total"] = np.array(total, np.int32)
    outputs = {"o": np.empty_like(inputs["q"])}
    outputs["present_k"], outputs["present_v"] = inputs["past_k"], inputs["past_v"]
    node = helper.make_node(
        "GroupQueryAttention", list(inputs), list(outputs), domain="com.microsoft",
        num_heads=case.q_heads, kv_num_heads=case.kv_heads,
    )  # fmt: skip
    return node, inputs, outputs


class OnnxRuntime(Peer):
    """MultiHeadAttention or Attention for full attention, GroupQueryAttention for causal and
    grouped."""

    name = "ONNX Runtime"
    version = ort.__version__
    settings = "spins during a run only (session.force_spinning_stop)"

    def __init__(self, threads: int) -> None:
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        self.options.add_session_config_entry("session.force_spinning_stop", "1")

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        if case.dtype not in ELEMENT:
            raise Refused(f"no attention operator on the CPU takes {case.dtype}")
        if case.latent:
            raise Refused("no operator shares one K and V among heads with Dv different from D")
        build = _grouped if case.causal or case.q_heads != case.kv_heads else _full
        problems = [build(case, s) for s in sets]
        node, inputs, outputs = problems[0]
        session = ort.InferenceSession(
            _model(node, inputs, outputs), self.options, providers=["CPUExecutionProvider"]
        )
        self.state = session, [self._bind(session, *p[1:]) for p in problems], case.q_heads
        return str(node.op_type)

    @staticmethod
    def _bind(session: Any, inputs: Inputs, outputs: Inputs) -> tuple[Any, Array, Any]:
        """Inputs and outputs tied to arrays of ours: a run copies nothing on the way in or out."""
        binding = session.io_binding()
        values = {n: ort.OrtValue.ortvalue_from_numpy(x) for n, x in (inputs | outputs).items()}
        values |= {f"present_{n}": values[f"past_{n}"] for n in "kv" if "past_k" in values}
        for name in inputs:
            binding.bind_ortvalue_input(name, values[name])
        for name in outputs:
            binding.bind_ortvalue_output(name, values[name])
        return binding, outputs["o"], values

    def run(self, number: int) -> Any:
        session, bindings, _ = self.state
        session.run_with_iobinding(bindings[number][0])
        return bindings[number][1]

    def rows(self, output: Any, rows: list[Row]) -> Array:
        heads = self.state[2]
        by_head = output.reshape(output.shape[1], heads, -1)
        return np.stack([by_head[t, h].astype(np.float32) for h, t in rows])
