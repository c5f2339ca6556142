"""Falcon's ALiBi: Transformers rounds it to bf16, qkv does not.  What each computes, and that nothing
else lies between them."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from families import FALCON, Case, build, observe  # noqa: E402
from transformers.models.falcon.modeling_falcon import build_alibi_tensor  # noqa: E402

from qkv import layers  # noqa: E402

TOLERANCE = 2e-5  # of the largest number of an output
D = 8


def slopes(heads):
    """Press et al. (2022), in double."""
    whole = 2 ** int(math.log2(heads))
    even = [2 ** (-8 * (h + 1) / whole) for h in range(whole)]
    odd = [2 ** (-4 * (2 * h + 1) / whole) for h in range(heads - whole)]
    return np.array(even + odd)


def formula(module, x, bias):
    """The layer in double, with bias [heads][keys] on the unscaled scores; x is [T][d_model]."""
    module = module.double()
    with torch.no_grad():
        q, k, v = module._split_heads(module.query_key_value(torch.from_numpy(x)[None].double()))
        q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))  # [heads][T][D]
        scores = (q @ k.transpose(-1, -2) + torch.from_numpy(bias)[:, None]) / math.sqrt(D)
        T = x.shape[0]
        scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -math.inf)
        o = (scores.softmax(-1) @ v).transpose(0, 1).reshape(T, -1)
        return module.dense(o).numpy()


@pytest.mark.parametrize("heads", [8, 6, 12, 16])
@pytest.mark.parametrize("T", [200, 700])
def test_who_rounds_what(tmp_path, heads, T):
    fields = {
        "hidden_size": heads * D, "num_attention_heads": heads, "num_hidden_layers": 1, "vocab_size": 40,
        "multi_query": False, "parallel_attn": False, "bias": True, "alibi": True,
    }  # fmt: skip
    spec = Case("FalconConfig", fields, FALCON, layers=1, attention="sdpa")
    model = build(spec, tmp_path)
    ids = torch.randint(1, 37, (1, T), generator=torch.Generator().manual_seed(7))
    (seen,) = observe(model, spec, input_ids=ids)
    x, theirs = seen["x"], seen["out"][0]
    ours = layers.load(tmp_path, 0)(x)[0]

    exact = slopes(heads)[:, None] * np.arange(T)
    rounded = build_alibi_tensor(torch.ones(1, T, dtype=torch.long), heads, torch.float32)
    rounded = rounded.reshape(heads, T).double().numpy()
    # A slope, a position and their product, each within 2^-8 of itself.
    assert (np.abs(rounded - exact) <= 3.1 * 2**-8 * exact).all()
    module = model.transformer.h[0].self_attention
    by_formula, by_rounding = formula(module, x[0], exact), formula(module, x[0], rounded)
    scale = np.abs(by_formula).max()
    np.testing.assert_allclose(ours, by_formula, rtol=0, atol=TOLERANCE * scale)
    np.testing.assert_allclose(theirs, by_rounding, rtol=0, atol=TOLERANCE * scale)

    # Positions to 256 have 8 bits, and slopes of some numbers of heads are powers of two.
    off = np.abs(ours - theirs).max(-1) / scale
    if (np.log2(slopes(heads)) % 1 == 0).all():
        assert heads in (6, 8)
        assert (off[:257] <= 2 * TOLERANCE).all()
        assert T <= 257 or off[257:].max() > 100 * TOLERANCE
    else:
        assert off.max() > 100 * TOLERANCE
