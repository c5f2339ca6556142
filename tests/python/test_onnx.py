"""All node cases of ONNX's Attention, as the pinned onnx package makes them in memory."""

import importlib

import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node as onnx_cases

from onnx_adapter import onnx_attention

importlib.import_module("onnx.backend.test.case.node.attention")

CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if case.name.startswith("test_attention_") and "_expanded" not in case.name
}


def test_every_case_is_here():
    assert onnx.__version__ == "1.23.2"
    assert len(CASES) == 93


def widened(x):
    return x.astype(np.float64) if x.dtype.name == "bfloat16" else x


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name):
    case = CASES[name]
    (node,) = case.model.graph.node
    assert node.op_type == "Attention"
    ((inputs, outputs),) = case.data_sets
    got = onnx_attention(node, inputs)
    wanted = [n for n in node.output if n]
    assert len(wanted) == len(outputs)
    rtol, atol = case.rtol, case.atol
    assert (rtol, atol) == (1e-3, 1e-7)
    if outputs[0].dtype.name == "bfloat16":
        # These goldens are rounded to 8 bits after every step, so 1e-3 asks for their very
        # rounding errors.  They get three units of bfloat16, and ours must be within one of the truth.
        rtol = atol = 3 * 2.0**-8
        exact = onnx_attention(node, [widened(x) for x in inputs])
        for n in wanted:
            np.testing.assert_allclose(widened(got[n]), exact[n], rtol=2.0**-8, atol=2.0**-9)
    for n, want in zip(wanted, outputs):
        have = got[n]
        assert have.shape == want.shape and have.dtype == want.dtype
        np.testing.assert_allclose(widened(have), widened(want), rtol=rtol, atol=atol, err_msg=n)
