"""PyTorch's opinion: scaled_dot_product_attention in float64, and torch tensors in and out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import qkv
from formula import close

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16,
          "bfloat16": torch.bfloat16}


def tensors(seed, Hq, Hkv, Tq, Tk, D, Dv, dtype="float32"):
    g = torch.Generator().manual_seed(seed)
    shapes = ((2, Hq, Tq, D), (2, Hkv, Tk, D), (2, Hkv, Tk, Dv))
    return [torch.randn(s, generator=g, dtype=torch.float64).to(DTYPES[dtype]) for s in shapes]


def truth(q, k, v, **options):
    """SDPA in float64 with keys and values repeated by hand."""
    q, k, v = (x.double() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, **options)


SHAPES = [(4, 4, 7, 7, 8, 8), (6, 2, 5, 33, 16, 24), (8, 1, 70, 70, 64, 64), (9, 3, 1, 129, 40, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_plain(shape, dtype):
    q, k, v = tensors(1, *shape, dtype)
    want = truth(q, k, v)
    got = qkv.attention(q, k, v)
    assert isinstance(got, torch.Tensor) and got.dtype == q.dtype
    close(got.double(), want, dtype)
    close(qkv.reference_attention(q, k, v), want, "float64")


@pytest.mark.parametrize("shape", SHAPES)
def test_causal_top_left(shape):
    q, k, v = tensors(2, *shape)
    want = truth(q, k, v, is_causal=True)
    options = {"causal": True, "align": "top_left"}
    close(qkv.attention(q, k, v, **options), want)
    close(qkv.reference_attention(q, k, v, **options), want, "float64")


@pytest.mark.parametrize("shape", SHAPES)
def test_causal_bottom_right(shape):
    q, k, v = tensors(3, *shape)
    Tq, Tk = shape[2], shape[3]
    keep = torch.ones(Tq, Tk, dtype=torch.bool).tril(Tk - Tq)
    want = truth(q, k, v, attn_mask=keep)
    close(qkv.attention(q, k, v, causal=True), want)
    close(qkv.attention(q, k, v, mask=keep), want)
    close(qkv.reference_attention(q, k, v, causal=True), want, "float64")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [None, 0.01, -0.5, 1.0])
def test_masks_and_scale(shape, scale):
    Hq, _, Tq, Tk = shape[:4]
    q, k, v = tensors(4, *shape)
    g = torch.Generator().manual_seed(5)
    mask = torch.rand(2, 1, Tq, Tk, generator=g) < 0.6
    mask[..., 0] = True
    bias = torch.randn(Hq, Tq, Tk, generator=g)
    for options, sdpa in (({"mask": mask}, mask), ({"bias": bias}, bias.double())):
        want = truth(q, k, v, attn_mask=sdpa, scale=scale)
        close(qkv.attention(q, k, v, scale=scale, **options), want)
        close(qkv.reference_attention(q, k, v, scale=scale, **options), want, "float64")


@pytest.mark.parametrize("shape", SHAPES)
def test_what_sdpa_lacks(shape):
    """Window, soft-cap, ALiBi and sinks: the formula, in torch float64."""
    Hq, _, Tq, Tk, D, _ = shape
    q, k, v = tensors(6, *shape)
    g = torch.Generator().manual_seed(7)
    slopes, sinks = torch.rand(Hq, generator=g), torch.randn(Hq, generator=g)
    group = Hq // k.shape[1]
    kk, vv = (x.double().repeat_interleave(group, dim=1) for x in (k, v))
    p = torch.arange(Tq)[:, None] + Tk - Tq
    j = torch.arange(Tk)
    s = q.double() @ kk.mT / D**0.5
    s = 3.0 * torch.tanh(s / 3.0)
    s = s - slopes.double()[:, None, None] * (p - j).abs()
    s = s.masked_fill((j < p - 20) | (j > p + 2), -torch.inf)
    row = torch.cat([s, sinks.double()[None, :, None, None].expand(2, Hq, Tq, 1)], dim=-1)
    want = torch.softmax(row, dim=-1)[..., :-1] @ vv
    lse = torch.logsumexp(row, dim=-1)
    options = {"window": (20, 2), "softcap": 3.0, "alibi_slopes": slopes, "sinks": sinks,
               "return_lse": True}
    o, got_lse = qkv.attention(q, k, v, **options)
    close(o, want)
    close(got_lse, lse)
    o, got_lse = qkv.reference_attention(q, k, v, **options)
    close(o, want, "float64")
    close(got_lse, lse, "float64")


def test_tensors_are_read_in_place():
    """A change through a view of the same memory shows; strides of views are followed."""
    q, k, v = tensors(8, 4, 2, 6, 9, 16, 16)
    packed = torch.randn(2, 9, 2, 16)
    view = packed.permute(0, 2, 1, 3)
    assert not view.is_contiguous()
    want = truth(q, view, v)
    close(qkv.attention(q, view, v), want)
    expanded = k[:, :1].expand(2, 2, 9, 16)
    close(qkv.attention(q, expanded, v), truth(q, expanded, v))
    out = torch.full((2, 4, 6, 16), 7.0)
    address = out.data_ptr()
    assert qkv.attention(q, k, v, out=out) is out
    assert out.data_ptr() == address
    close(out, truth(q, k, v))


def test_inner_axis_that_is_not_contiguous():
    q, k, v = tensors(9, 2, 2, 5, 5, 8, 8)
    turned = torch.randn(2, 2, 8, 5).mT
    assert turned.stride(-1) != 1
    close(qkv.attention(turned, k, v), truth(turned, k, v))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype):
    q, k, v = tensors(10, 4, 2, 9, 40, 32, 32, dtype)
    o, lse, w = qkv.attention(q, k, v, causal=True, return_lse=True, return_weights=True)
    assert (o.dtype, lse.dtype, w.dtype) == (q.dtype, torch.float32, torch.float32)
    exact, budget, _ = qkv.reference_attention(q, k, v, causal=True, return_budget=True)
    assert (np.abs(o.double().numpy() - exact) <= budget).all()
    mixed = qkv.attention(q.float(), k, v.float())
    assert mixed.dtype == torch.float32
    close(mixed, truth(q, k, v), "float32")


def test_results_outlive_their_makers():
    o = qkv.attention(*tensors(11, 1, 1, 3, 3, 4, 4, "bfloat16"))
    copy = o.clone()
    for seed in range(20):
        qkv.attention(*tensors(seed, 1, 1, 3, 3, 4, 4, "bfloat16"))
    assert torch.equal(o, copy)
    assert torch.isfinite(o + 1).all()


def test_gradient_is_refused_with_torchs_reason():
    q, k, v = tensors(12, 1, 1, 3, 3, 4, 4)
    with pytest.raises(TypeError, match="q cannot be exported through DLPack.*detach"):
        qkv.attention(q.requires_grad_(), k, v)


def test_merge_and_varlen_return_tensors():
    q, k, v = tensors(13, 2, 2, 5, 12, 8, 8)
    parts = [qkv.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 5), (5, 12))]
    o, lse = qkv.merge(parts)
    assert isinstance(o, torch.Tensor) and isinstance(lse, torch.Tensor)
    close(o, truth(q, k, v))
    rows = torch.randn(7, 2, 8)
    got = qkv.attention_varlen(rows, rows, rows, torch.tensor([0, 3, 7]), torch.tensor([0, 3, 7]))
    assert isinstance(got, torch.Tensor) and got.shape == (7, 2, 8)
    one = rows[3:].transpose(0, 1)[None]
    close(got[3:].transpose(0, 1)[None], truth(one, one, one))
