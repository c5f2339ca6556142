"""KVCache: keys and values kept between the steps of a model."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

import numpy as np

from ._arrays import Array
from ._cache import Sequences
from ._cache_attend import Attending
from ._cache_config import pack_config
from ._cache_file import inspect, open_pages_for
from ._options import Lengths, cu_seqlens, lengths, shape_of
from ._rope import Rope
from ._turn import rotation_of


def counts_of(shape: tuple[int, ...], lens: Any, cu: Any) -> tuple[list[int], Optional[list[int]]]:
    """(tokens of each sequence, row numbers of packed ones) of an append."""
    if cu is not None:
        if lens is not None:
            raise ValueError("lens is given together with cu_seqlens, which says the lengths")
        rows = cu_seqlens("cu_seqlens", cu, shape[0], True)
        return np.diff(rows).tolist(), rows.tolist()
    if lens is None:
        return [shape[-2]] * shape[0], None
    counts: list[int] = lengths("lens", lens).tolist()
    if counts and not 0 <= min(counts) <= max(counts) <= shape[-2]:
        raise ValueError(f"lens holds {counts}; 0 to {shape[-2]} is accepted")
    return counts, None


class KVCache(Attending):
    """Keys and values of a group of layers, in pages, for any number of sequences.

    Parameters
    ----------
    n_layers, n_kv_heads, head_dim, head_dim_v
        Of the layers that share this cache; head_dim_v defaults to head_dim.  Layers with another
        window take a cache of their own.
    k_format, v_format : "f32", "f16", "bf16", "int8", "int8_channel" (keys), "int4", "e4m3", "e5m2"
        How numbers are stored: rounded once when they are appended.
    k_group, v_group : 0, 32, 64 or 128
        Channels that share a scale; 0 is all of a head.
    k_scale, v_scale : "token" or "head"
        "head", with e4m3 and e5m2: one scale a sequence and head, that of set_scales() or of the
        first tokens.
    float_type : "f32", "f16" or "bf16"
        int8_channel keeps keys so until all tokens of their page are committed.
    page_tokens : 16 to 256, a multiple of 16
    n_pages : how many pages there are; they are all the memory the cache ever takes
    n_open_pages : for int8_channel; default two a sequence and 2048 tokens' worth
    max_seqs : sequences at the same time
    max_tokens : of a sequence; default as many as all pages hold
    window : int
        Keys *before* a query that it sees, so a model's sliding_window of 4096, which counts the
        query itself, is window=4095.  Older pages are freed at commit.  Default: no window.
    sink_tokens : first tokens of a sequence that every query sees and that are never evicted
    contiguous : a page holds a whole sequence; page_tokens is then its capacity
    key_bounds : keep the range of each channel of keys a page, for attend(pages=...)
    poison : fill with NaN what is freed, for tests

    A step: append() the new tokens' keys and values and attend() with their queries, layer by
    layer, then commit().  The plan of a step is made at its first layer and used by the others.

    Threads: calls for different sequences may run at the same time, and several threads may attend
    the same ones.  What changes a sequence (append, commit, truncate, evict, fork from it, reorder,
    reset, release) may not run beside any other call for it, except that layers may be appended to
    from several threads once the step's first append() has returned.  Computation and files do
    without the GIL.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> rng = np.random.default_rng(0)
    >>> cache = qkv.KVCache(n_layers=2, n_kv_heads=2, head_dim=64, n_pages=8, max_seqs=2)
    >>> seq = cache.add()
    >>> for tokens in (5, 1, 1):                                       # a prompt, then two tokens
    ...     for layer in range(2):
    ...         q = rng.standard_normal((1, 8, tokens, 64), dtype=np.float32)
    ...         k, v = rng.standard_normal((2, 1, 2, tokens, 64), dtype=np.float32)
    ...         cache.append(layer, k, v)
    ...         o = cache.attend(layer, q)                             # (1, 8, tokens, 64)
    ...     cache.commit()
    >>> cache.length(seq)
    7
    >>> child = cache.fork(seq)
    >>> cache.stats()["stored_tokens"], cache.stats()["tokens"]
    (7, 14)
    >>> cache.truncate(child, 5)
    >>> cache.attend(0, q)
    Traceback (most recent call last):
    ValueError: q has shape (1, 8, 1, 64); (B, H, T, D) is expected, with B = 2, D = 64
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        head_dim_v: Optional[int] = None,
        *,
        k_format: str = "bf16",
        v_format: str = "bf16",
        k_group: int = 0,
        v_group: int = 0,
        k_scale: str = "token",
        v_scale: str = "token",
        float_type: str = "bf16",
        page_tokens: int = 64,
        n_pages: Optional[int] = None,
        n_open_pages: Optional[int] = None,
        max_seqs: int = 1,
        max_tokens: Optional[int] = None,
        window: Optional[int] = None,
        sink_tokens: int = 0,
        contiguous: bool = False,
        key_bounds: bool = False,
        poison: bool = False,
    ) -> None:
        self._make(
            pack_config(
                latent=False, n_layers=n_layers, n_kv_heads=n_kv_heads, head_dim=head_dim,
                head_dim_v=head_dim if head_dim_v is None else head_dim_v, k_format=k_format,
                v_format=v_format, k_group=k_group, v_group=v_group, k_scale=k_scale,
                v_scale=v_scale, float_type=float_type, page_tokens=page_tokens, n_pages=n_pages,
                n_open_pages=n_open_pages, max_seqs=max_seqs, max_tokens=max_tokens, window=window,
                sink_tokens=sink_tokens, contiguous=contiguous, key_bounds=key_bounds,
                poison=poison,
            )  # fmt: skip
        )

    @classmethod
    def from_file(
        cls,
        path: Union[str, os.PathLike[str]],
        *,
        n_pages: Optional[int] = None,
        max_seqs: Optional[int] = None,
    ) -> "KVCache":
        """A cache like the one that was saved, with its sequences.

        n_pages, max_seqs: at least what the file needs, which is the default.
        """
        config = inspect(path)["config"]
        if config.pop("latent"):
            raise ValueError(f"{os.fspath(path)}: it holds a LatentCache")
        config["n_pages"] = config["n_pages"] if n_pages is None else n_pages
        config["max_seqs"] = config["max_seqs"] if max_seqs is None else max_seqs
        cache = cls(**config | {"n_open_pages": open_pages_for(config), "max_tokens": None})
        cache.load(path)
        return cache

    def append(
        self,
        layer: int,
        k: Array,
        v: Array,
        seqs: Sequences = None,
        *,
        lens: Optional[Lengths] = None,
        cu_seqlens: Optional[Lengths] = None,
        rope: Optional[Rope] = None,
        positions: Any = None,
        table: Optional[tuple[Array, Array]] = None,
        seq_len: Optional[int] = None,
    ) -> None:
        """Stores new tokens' keys and values in one layer.

        Parameters
        ----------
        k : (B, Hkv, T, D)
        v : (B, Hkv, T, Dv)
            float32, float16 or bfloat16, of any strides.  Packed (T, Hkv, D) with cu_seqlens.
        seqs : an id or B ids, default all sequences in the order in which they came
        lens : (B,) tokens of each sequence, where they are fewer than T
        cu_seqlens : (B + 1,) row numbers of packed tokens
        rope : a Rope of this head_dim that turns the keys on their way, with the bits of
            rope.apply(k, positions) and an append of that.  k stays as it is.
        positions : (T,) or (B, T), packed (T,), integers, with rope
            Default: where the tokens are in their sequences.
        table : (cos, sin), with rope, instead of positions
            What rope.table() makes of (T,) or (B, T) positions: a row a token, for all layers of
            a step.  Without it angles are computed anew in each layer.
        seq_len : default each sequence's longest new position + 1 (rope.apply() takes the longest of all)

        The layer that comes first takes pages for the new tokens.  CacheFull if there are too few,
        ValueError for arrays that do not fit; then the cache is as it was.
        """
        counts, cu = counts_of(shape_of("k", k, 4 if cu_seqlens is None else 3), lens, cu_seqlens)
        rotation = rotation_of("rope", rope, positions, table, seq_len)
        self._append(layer, seqs, counts, cu, k, v, None, rotation)

    def attend(
        self,
        layer: int,
        q: Array,
        seqs: Sequences = None,
        *,
        q_lens: Optional[Lengths] = None,
        cu_seqlens_q: Optional[Lengths] = None,
        causal: bool = True,
        q_offset: Union[None, int, Lengths] = None,
        window: Optional[int] = None,
        scale: Optional[float] = None,
        softcap: float = 0.0,
        mask: Optional[Array] = None,
        bias: Optional[Array] = None,
        tree_mask: Optional[Array] = None,
        sinks: Optional[Array] = None,
        alibi_slopes: Optional[Array] = None,
        shared_prefix: bool = False,
        pages: Optional[int] = None,
        return_lse: bool = False,
        out: Optional[Array] = None,
        precision: str = "highest",
        threads: Optional[int] = None,
    ) -> Any:
        """Attention of queries over the cached tokens of one layer, which are read where they lie.

        Parameters
        ----------
        q : (B, Hq, Tq, D)
            Packed (T, Hq, D) with cu_seqlens_q.  All tokens must be appended to this layer.
        seqs : an id or B ids, default all sequences in the order in which they came
        q_lens : (B,) queries of each sequence, where they are fewer than Tq
        causal
            The queries are those of a sequence's newest tokens, and each sees the tokens up to its
            own.  False: all queries see all tokens.
        q_offset : int or (B,)
            Position of query 0, where the queries are not those of the newest tokens.
        window : int
            Keys before a query that it sees; narrows the cache's own window.
        mask, bias
            Broadcast to (B, Hq, Tq, longest length): as in attention(), by position.
        tree_mask : bool (n, n) or (B, n, n)
            For n speculative tokens that form a tree: True where query i sees token j of the newest
            n, itself and its ancestors.  All older tokens are seen.
        shared_prefix
            Read the pages that all sequences have in common in front once for all of them.  For one
            query a sequence, or packed queries.  Same result within rounding, but other bits.
        pages : int
            Read at most so many pages of each sequence and key/value head: the newest one, and
            those whose keys can score highest by the ranges of their channels (Quest, Tang et al.
            2024).  For one query a sequence and caches with key_bounds.  An approximation, except
            where there are no more pages.

        All else is as in attention().

        Returns
        -------
        (B, Hq, Tq, Dv), or a tuple with the lse (B, Hq, Tq); packed (T, Hq, Dv) and (Hq, T).
        """
        return self._attend(
            layer, q, seqs, q_lens, cu_seqlens_q, causal, q_offset, window, scale, softcap, mask,
            bias, tree_mask, sinks, alibi_slopes, shared_prefix, pages, return_lse, out, precision,
            threads,
        )  # fmt: skip

    def read(
        self, layer: int, seq: int, start: int = 0, stop: Optional[int] = None
    ) -> tuple[Any, Any]:
        """Keys (Hkv, T, D) and values (Hkv, T, Dv) of tokens start .. stop - 1, as float32."""
        count = self._range(layer, seq, start, stop)
        c = self.config
        k = np.empty((c["n_kv_heads"], count, c["head_dim"]), np.float32)
        v = np.empty((c["n_kv_heads"], count, c["head_dim_v"]), np.float32)
        self._c.read(layer, seq, start, k, v)
        return k, v

    def set_scales(
        self, layer: int, k: Optional[Lengths] = None, v: Optional[Lengths] = None
    ) -> None:
        """Scales (Hkv,) of a layer for k_scale or v_scale "head", for sequences that begin from now
        on; None: found at the first tokens."""
        k, v = (None if s is None else np.array(s, np.float32) for s in (k, v))
        self._c.set_scales(layer, k, v)


