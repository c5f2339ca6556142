"""All node cases of ONNX's RotaryEmbedding, as the pinned onnx package makes them in memory."""

import importlib

import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node as onnx_cases

import qkv

importlib.import_module("onnx.backend.test.case.node.rotaryembedding")

CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if case.name.startswith("test_rotary_embedding") and "_expanded" not in case.name
}


def test_every_case_is_here():
    assert onnx.__version__ == "1.23.2"
    assert len(CASES) == 8


def run_node(node, inputs):
    a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
    given = iter(inputs)
    x = {i: next(given) for i, used in enumerate(node.input) if used}
    return qkv.rotary_embedding(
        x[0], x[1], x[2], x.get(3),
        interleaved=bool(a.get("interleaved", 0)),
        rotary_dim=a.get("rotary_embedding_dim", 0),
        num_heads=a.get("num_heads") or None,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name):
    case = CASES[name]
    (node,) = case.model.graph.node
    assert node.op_type == "RotaryEmbedding"
    ((inputs, outputs),) = case.data_sets
    assert (case.rtol, case.atol) == (1e-3, 1e-7)
    got = run_node(node, inputs)
    assert got.shape == outputs[0].shape and got.dtype == outputs[0].dtype
    np.testing.assert_allclose(got, outputs[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(CASES))
def test_case_against_the_reference_evaluator(name):
    """The same nodes with other numbers, in float16, and in place where x is four-dimensional."""
    case = CASES[name]
    ((inputs, _),) = case.data_sets
    (node,) = case.model.graph.node
    rng = np.random.default_rng(3)
    fresh = [rng.standard_normal(x.shape).astype(x.dtype) if x.dtype == np.float32 else x for x in inputs]
    want = onnx.reference.ReferenceEvaluator(case.model).run(None, dict(zip([i for i in node.input if i], fresh)))[0]
    np.testing.assert_allclose(run_node(node, fresh), want, rtol=1e-5, atol=1e-6)
    half = [x.astype(np.float16) if x.dtype == np.float32 else x for x in fresh]
    got = run_node(node, half)
    wide = run_node(node, [x.astype(np.float32) if x.dtype == np.float16 else x for x in half])
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, wide.astype(np.float16))


def test_what_is_refused():
    x, c = np.zeros((1, 2, 3, 8), np.float32), np.zeros((5, 4), np.float32)
    with pytest.raises(ValueError, match="num_heads"):
        qkv.rotary_embedding(x[0], c, c, [0, 1, 2])
    with pytest.raises(ValueError, match="num_heads is 3; it must divide the last axis of x, 8"):
        qkv.rotary_embedding(x[0], c, c, [0, 1, 2], num_heads=3)
    with pytest.raises(ValueError, match=r"cos has shape \(5, 4\); .*r/2 = \(2,\)"):
        qkv.rotary_embedding(x, c, c, [0, 1, 2], rotary_dim=4)
    with pytest.raises(ValueError, match=r"cos has shape \(5, 4\); it must be \(1, 3, 4\)"):
        qkv.rotary_embedding(x, c, c)
    with pytest.raises(ValueError, match=r"sin has shape \(4, 4\); it must have the dtype of cos"):
        qkv.rotary_embedding(x, c, c[:4], [0, 1, 2])
    with pytest.raises(ValueError, match="is 5; it must be 0 .. 4, a row of the table"):
        qkv.rotary_embedding(x, c, c, [0, 1, 5])
    with pytest.raises(ValueError, match="is -1; it must be 0 .. 4"):
        qkv.rotary_embedding(x, c, c, [0, 1, -1])
    with pytest.raises(TypeError, match="position_ids has dtype float64; integers are accepted"):
        qkv.rotary_embedding(x, c, c, [0.0, 1.0, 2.0])
