"""A whole attention layer beside the same layer in PyTorch, in turns.

    build/venv/bin/python bench/layer.py [--threads N] [--repeat N] [--no-cache | --weights]

The layer of Llama 3 8B: d_model 4096, 32 heads on 8 of 128 channels, RoPE.  Prefill of 2,048 tokens,
and one token after 8,192 from a cache.  Attention is timed alone on the same queries, keys and
values; projections are the rest of the layer.  MLA of DeepSeek-V3's widths: one token, absorbed
against expanded.  --no-cache shows instead what a token costs if nothing is kept and all tokens
before it are computed again: O(t^2 d) against O(t d).  --weights shows what each format of weights
costs and errs, beside PyTorch in float32 and bfloat16.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

import qkv
from qkv import layers

D_MODEL, HQ, HKV, D = 4096, 32, 8, 128


def turns(repeat, **calls):
    """Median seconds of each, taken in turns."""
    times = {name: [] for name in calls}
    for i in range(repeat + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if i:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def show(what, seconds, wanted=None):
    ours, theirs = seconds["qkv"], seconds["torch"]
    print(f"{what:30} qkv {ours * 1e3:9.2f} ms   PyTorch {theirs * 1e3:9.2f} ms   {theirs / ours:5.2f}x")


def turn(x, table):
    cos, sin = table
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Reference:
    """The layer as PyTorch's users write it, with a cache that is already there."""

    def __init__(self, weights, past=0):
        self.q, self.k, self.v, self.o = weights
        self.past = past
        self.keys = torch.randn(1, HKV, past + 1, D) if past else None
        self.values = torch.randn(1, HKV, past + 1, D) if past else None

    def table(self, n):
        f = 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float32) / D)
        angle = torch.arange(self.past, self.past + n)[:, None] * f
        return angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

    def heads(self, x):
        n, table = x.shape[1], self.table(x.shape[1])
        q = turn(F.linear(x, self.q).view(1, n, HQ, D).transpose(1, 2), table)
        k = turn(F.linear(x, self.k).view(1, n, HKV, D).transpose(1, 2), table)
        v = F.linear(x, self.v).view(1, n, HKV, D).transpose(1, 2)
        if self.past:
            self.keys[:, :, self.past :] = k
            self.values[:, :, self.past :] = v
            k, v = self.keys, self.values
        return q, k, v

    def attend(self, q, k, v):
        o = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=True)
        return o

    def __call__(self, x):
        o = self.attend(*self.heads(x))
        return F.linear(o.transpose(1, 2).reshape(1, x.shape[1], -1), self.o)


def case(weights, tokens, past, threads, repeat):
    layer = layers.GQA(*weights, HQ, HKV, rope={"theta": 10000.0})
    reference = Reference(weights, past)
    x = torch.randn(1, tokens, D_MODEL)
    run = lambda: layer(x, threads=threads)  # noqa: E731
    if past:
        cache = layer.new_cache(past + 64)
        seq = cache.add()
        cache.append(0, reference.keys[:, :, :past].numpy(), reference.values[:, :, :past].numpy())
        cache.commit()

        def run():
            y = layer(x, cache=cache, threads=threads)
            cache.truncate(seq, past)
            return y

    wanted = reference(x)
    error = float((run() - wanted).abs().max() / wanted.abs().max())
    name = f"{tokens} tokens after {past}"
    print(f"{name:30} largest difference {error:.1e} of the largest number")
    q, k, v = (t.contiguous() for t in reference.heads(x))
    attend = lambda: qkv.attention(q, k, v, causal=True, threads=threads)  # noqa: E731
    whole = turns(repeat, qkv=run, torch=lambda: reference(x))
    inner = turns(repeat, qkv=attend, torch=lambda: reference.attend(q, k, v))
    show(name + ", layer", whole)
    show(name + ", attention", inner)
    show(name + ", the rest", {n: whole[n] - inner[n] for n in whole})


FORMATS = ("f32", "f32_packed", "bf16", "int8")


def by_weights(weights, tokens, past, threads, repeat):
    """The layer with weights of each format: time, bytes, error.  Attention is f32 in all of them
    but PyTorch's bfloat16, whose hidden states, keys and values are bfloat16 too."""
    kept = {f: layers.GQA(*weights, HQ, HKV, rope={"theta": 10000.0}, weights=f) for f in FORMATS}
    wide = Reference(weights, past)
    narrow = Reference([w.bfloat16() for w in weights], past)
    x = torch.randn(1, tokens, D_MODEL)
    calls = {}
    for name, layer in kept.items():
        cache = layer.new_cache(past + 64) if past else None
        seq = cache.add() if past else None
        if past:
            keys, values = (t[:, :, :past].numpy() for t in (wide.keys, wide.values))
            cache.append(0, keys, values)
            cache.commit()

        def run(layer=layer, cache=cache, seq=seq):
            y = layer(x, cache=cache, threads=threads)
            if cache is not None:
                cache.truncate(seq, past)
            return y

        calls[name] = run
    calls["torch"] = lambda: wide(x)
    if past:
        narrow.keys, narrow.values = wide.keys.bfloat16(), wide.values.bfloat16()
    table = [t.bfloat16() for t in narrow.table(tokens)]
    narrow.table = lambda n: table
    half = x.bfloat16()
    calls["torch, bfloat16"] = lambda: narrow(half)
    q, k, v = (t.contiguous() for t in wide.heads(x))
    narrow_qkv = narrow.heads(half)
    inner = turns(
        repeat, qkv=lambda: qkv.attention(q, k, v, causal=True, threads=threads),
        torch=lambda: wide.attend(q, k, v), narrow=lambda: narrow.attend(*narrow_qkv),
    )  # fmt: skip
    wanted = wide(x)
    seconds = turns(repeat, **calls)
    count = sum(w.numel() for w in weights)
    print(f"{tokens} tokens after {past}: milliseconds of the layer, and without its attention")
    for name, call in calls.items():
        off = call().float() - wanted
        error = float(off.square().mean().sqrt() / wanted.square().mean().sqrt())
        attention = inner["qkv" if name in kept else name.replace("torch, bfloat16", "narrow")]
        rest = seconds[name] - attention
        size = kept[name].nbytes if name in kept else count * (4 if name == "torch" else 2)
        print(
            f"  {name:16} {seconds[name] * 1e3:9.2f} {rest * 1e3:9.2f} = "
            f"{2e-9 * count * tokens / rest:6.1f} GFLOP/s; weights {size / 2**20:5.1f} MiB, "
            f"rms error {error:.1e}"
        )


def mla(threads, repeat):
    """DeepSeek-V3's widths with 16 of its 128 heads, one token after 2,048."""
    rng = np.random.default_rng(0)
    heads, c, r, n, v, d, past = 16, 512, 64, 128, 128, 1024, 2048
    w = lambda *s: rng.standard_normal(s, dtype=np.float32) / s[-1] ** 0.5  # noqa: E731
    layer = layers.MLA(
        w(c + r, d), w(heads * (n + v), c), w(d, heads * v), heads, rope_dim=r,
        q=w(heads * (n + r), d), kv_a_norm=np.ones(c, np.float32), rope={},
    )  # fmt: skip
    cache = layer.new_cache(past + 64)
    seq = cache.add()
    layer(rng.standard_normal((1, past, d), dtype=np.float32), cache=cache)
    cache.commit()
    x = rng.standard_normal((1, 1, d), dtype=np.float32)

    def run(how):
        layer(x, cache=cache, mla=how, threads=threads)
        cache.truncate(seq, past)

    t = turns(repeat, absorbed=lambda: run("absorbed"), expanded=lambda: run("expanded"))
    a, e = t["absorbed"] * 1e3, t["expanded"] * 1e3
    print(f"MLA, 1 token after {past}: absorbed {a:.2f} ms, expanded {e:.2f} ms, {e / a:.1f}x")


def without_cache(weights, threads, repeat):
    """The token after t others, from a cache and without one."""
    layer = layers.GQA(*weights, HQ, HKV, rope={"theta": 10000.0})
    cache = layer.new_cache(1100)
    seq = cache.add()
    x = torch.randn(1, 1025, D_MODEL)
    for past in (64, 128, 256, 512, 1024):
        layer(x[:, cache.length(seq) : past], cache=cache, threads=threads)
        cache.commit()
        one, whole = x[:, past : past + 1], x[:, : past + 1]

        def kept():
            y = layer(one, cache=cache, threads=threads)
            cache.truncate(seq, past)
            return y

        error = float((kept() - layer(whole)[:, -1:]).abs().max())
        t = turns(repeat, kept=kept, again=lambda: layer(whole, threads=threads))
        print(
            f"token after {past:5}: from the cache {t['kept'] * 1e3:7.2f} ms, everything again "
            f"{t['again'] * 1e3:8.2f} ms, {t['again'] / t['kept']:6.1f}x (difference {error:.0e})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    shapes = [(HQ * D, D_MODEL), (HKV * D, D_MODEL), (HKV * D, D_MODEL), (D_MODEL, HQ * D)]
    weights = [torch.randn(*s) / s[1] ** 0.5 for s in shapes]
    if options.no_cache:
        return without_cache(weights, options.threads, options.repeat)
    if options.weights:
        for tokens, past, more in ((1, 512, 4), (16, 0, 4), (512, 0, 1)):
            by_weights(weights, tokens, past, options.threads, more * options.repeat)
        return None
    case(weights, 1, 8192, options.threads, 4 * options.repeat)
    case(weights, 2048, 0, options.threads, options.repeat)
    mla(options.threads, 4 * options.repeat)


main()
