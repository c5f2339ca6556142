"""qkv.layers against transformers' own attention, family by family, float32."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from families import CASES, build, observe  # noqa: E402

from qkv import layers  # noqa: E402

TOLERANCE = 2e-5  # of the largest number of an output
B = 2


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(case, folder, what was seen, first and last token of each sequence, positions)"""
    spec = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = build(spec, folder)
    assert (folder / "model.safetensors.index.json").exists() == (spec.shards != "1GB")
    torch.manual_seed(6)
    T = spec.tokens
    starts, ends = np.zeros(B, np.int32), np.full(B, T, np.int32)
    ids = torch.randint(1, 37, (B, T))
    inputs, positions = {"input_ids": ids}, np.tile(np.arange(T), (B, 1))
    if spec.padding == "left":
        starts[1] = 3
    elif spec.padding == "right":
        ends[1] = T - 3
    if spec.padding != "none":
        tokens = (np.arange(T) >= starts[:, None]) & (np.arange(T) < ends[:, None])
        inputs["attention_mask"] = torch.from_numpy(tokens.astype(np.int64))
    else:
        inputs["decoder_input_ids"] = ids
        inputs["input_ids"] = torch.randint(1, 40, (B, 11))
        if spec.part == "encoder":
            ends[:] = 11
    if spec.positions:
        positions = np.maximum(np.cumsum(tokens, 1) - 1, 0)
        inputs["position_ids"] = torch.from_numpy(positions)
    return spec, folder, observe(model, spec, **inputs), starts, ends, positions


def compare(got, wanted, starts, ends):
    scale = max(np.abs(wanted[b, s:e]).max() for b, (s, e) in enumerate(zip(starts, ends)))
    for b, (s, e) in enumerate(zip(starts, ends)):
        np.testing.assert_allclose(
            got[b, s:e], wanted[b, s:e], rtol=0, atol=TOLERANCE * scale, err_msg=f"sequence {b}"
        )


def test_whole(case):
    spec, folder, seen, starts, ends, positions = case
    for i in range(spec.layers):
        layer, one = layers.load(folder, i, spec.part), seen[i]
        for name, value in spec.checks.items() if i == 0 else ():
            assert layer.desc[name] == value, name
        more = {"positions": positions} if spec.positions else {}
        if spec.part == "cross":
            more["memory"] = one["memory"]
        if spec.padding == "left":
            more["kv_starts"] = starts
        elif spec.padding == "right":
            more["kv_lens"] = ends
        compare(layer(one["x"], **more), one["out"], starts, ends)
        if layer.variant == "MLA":
            for mla in ("expanded", "absorbed"):
                compare(layer(one["x"], mla=mla, **more), one["out"], starts, ends)


def test_decode(case):
    """Without padding in front: 7 tokens (or fewer) at once, a chunk of 4, then one by one."""
    spec, folder, seen, starts, ends, positions = case
    if not spec.decode:
        with pytest.raises(ValueError, match="causal is 0"):
            layer = layers.load(folder, 0, spec.part)
            x, cache = seen[0]["x"][:1], layer.new_cache(64)
            cache.add()
            layer(x, cache=cache)
        return
    for i in range(spec.layers):
        layer, one = layers.load(folder, i, spec.part), seen[i]
        cache = layer.new_cache(64, B, page_tokens=16)
        seqs = [cache.add() for _ in range(B)]
        if spec.part == "cross":
            layer.project_memory(one["memory"], cache)
            cache.commit()
        out = np.zeros_like(one["out"])
        at = starts.astype(np.int64)
        length = int(positions.max()) + 1
        while (at < ends).any():
            n = np.minimum(7 if (at == starts).all() else 4 if at.max() < 12 else 1, ends - at)
            rows = [one["x"][b, at[b] : at[b] + n[b]] for b in range(B)]
            where = np.concatenate([positions[b, at[b] : at[b] + n[b]] for b in range(B)])
            cu = np.concatenate([[0], np.cumsum(n)])
            got = layer(
                np.concatenate(rows), cu_seqlens=cu, positions=where, rope_len=length, cache=cache,
                seqs=seqs,
            )  # fmt: skip
            if spec.part != "cross":
                cache.commit()
            for b in range(B):
                out[b, at[b] : at[b] + n[b]] = got[cu[b] : cu[b + 1]]
            at += n
        compare(out, one["out"], starts, ends)
