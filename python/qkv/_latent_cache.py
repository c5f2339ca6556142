"""LatentCache: the rows that multi-head latent attention keeps."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

import numpy as np

from ._arrays import Array
from ._cache import Sequences
from ._cache_attend import Attending
from ._cache_config import pack_config
from ._cache_file import inspect, open_pages_for
from ._kv_cache import counts_of
from ._options import Lengths
from ._rope import Rope
from ._turn import rotation_of


class LatentCache(Attending):
    """The cache of MLA: one row of c + r channels a token, shared by all heads.

    A row is the compressed latent (c channels, DeepSeek's kv_lora_rank) and behind it the rotary
    key (r channels, qk_rope_head_dim).  Keys are whole rows, values their first c channels, and
    each is read once for all heads.  attend() takes absorbed queries and gives latent outputs: the
    up-projections are the caller's.

    Parameters
    ----------
    n_layers
    latent_dim, rope_dim
        c and r.
    format : "f32", "f16", "bf16", "int8", "int8_channel", "int4", "e4m3", "e5m2"
        Of the latent.  The rotary part is stored in float_type beside integer and fp8 formats.
    group : 0, 32, 64 or 128
        Channels that share a scale; 0 is all.  Default: 128 where there are codes and c is at least
        128, otherwise 0.

    All else, and the way of a step, is as in KVCache.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> rng = np.random.default_rng(0)
    >>> cache = qkv.LatentCache(1, 512, 64, format="int8", n_pages=4)
    >>> seq = cache.add()
    >>> cache.append(0, rng.standard_normal((1, 9, 576), dtype=np.float32))   # (B, T, c + r)
    >>> q = rng.standard_normal((1, 16, 1, 576), dtype=np.float32)            # (B, Hq, Tq, c + r)
    >>> cache.attend(0, q, scale=(128 + 64) ** -0.5).shape                    # (B, Hq, Tq, c)
    (1, 16, 1, 512)
    >>> cache.stats()["token_bytes"]                     # 512 codes, 4 scales, 64 bf16
    656
    """

    def __init__(
        self,
        n_layers: int,
        latent_dim: int,
        rope_dim: int,
        *,
        format: str = "bf16",
        group: Optional[int] = None,
        scale: str = "token",
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
        if group is None:
            coded = format not in ("f32", "f16", "bf16", "int8_channel") and scale == "token"
            group = 128 if coded and latent_dim >= 128 else 0
        self._make(
            pack_config(
                latent=True, n_layers=n_layers, n_kv_heads=1, head_dim=latent_dim + rope_dim,
                head_dim_v=latent_dim, k_format=format, v_format="bf16", k_group=group, v_group=0,
                k_scale=scale, v_scale="token", float_type=float_type, page_tokens=page_tokens,
                n_pages=n_pages, n_open_pages=n_open_pages, max_seqs=max_seqs,
                max_tokens=max_tokens, window=window, sink_tokens=sink_tokens,
                contiguous=contiguous, key_bounds=key_bounds, poison=poison,
            )  # fmt: skip
        )
        self._latent = latent_dim

    @classmethod
    def from_file(
        cls,
        path: Union[str, os.PathLike[str]],
        *,
        n_pages: Optional[int] = None,
        max_seqs: Optional[int] = None,
    ) -> "LatentCache":
        """A cache like the one that was saved, with its sequences; see KVCache.from_file()."""
        c = inspect(path)["config"]
        if not c["latent"]:
            raise ValueError(f"{os.fspath(path)}: it holds a KVCache")
        c["max_seqs"] = c["max_seqs"] if max_seqs is None else max_seqs
        cache = cls(
            c["n_layers"], c["head_dim_v"], c["head_dim"] - c["head_dim_v"], format=c["k_format"],
            group=c["k_group"], scale=c["k_scale"], float_type=c["float_type"],
            page_tokens=c["page_tokens"], n_pages=c["n_pages"] if n_pages is None else n_pages,
            n_open_pages=open_pages_for(c), max_seqs=c["max_seqs"], window=c["window"],
            sink_tokens=c["sink_tokens"], contiguous=c["contiguous"], key_bounds=c["key_bounds"],
        )  # fmt: skip
        cache.load(path)
        return cache

    def append(
        self,
        layer: int,
        latent: Array,
        rope: Optional[Array] = None,
        seqs: Sequences = None,
        *,
        lens: Optional[Lengths] = None,
        cu_seqlens: Optional[Lengths] = None,
        rotate: Optional[Rope] = None,
        positions: Any = None,
        table: Optional[tuple[Array, Array]] = None,
        seq_len: Optional[int] = None,
    ) -> None:
        """Stores new tokens' rows in one layer.

        Parameters
        ----------
        latent : (B, T, c + r)
            Or (B, T, c) with the rotary keys apart:
        rope : (B, T, r)
            Packed, with cu_seqlens, without the axis B.
        rotate : a Rope of head_dim c + r with rotary_offset at least c
            Turns the rotary keys on their way.

        seqs, lens, cu_seqlens, positions, table, seq_len and what is raised are as in
        KVCache.append().
        """
        shape = tuple(getattr(latent, "shape", ()))
        wanted = 3 if cu_seqlens is None else 2
        if len(shape) != wanted:
            words = "(B, T, c + r)" if wanted == 3 else "(T, c + r)"
            raise ValueError(f"latent has shape {shape}; {words} is expected")
        counts, cu = counts_of(shape, lens, cu_seqlens)
        rotation = rotation_of("rotate", rotate, positions, table, seq_len)
        self._append(layer, seqs, counts, cu, latent, None, rope, rotation)

    def attend(
        self,
        layer: int,
        q: Array,
        seqs: Sequences = None,
        *,
        scale: float,
        q_lens: Optional[Lengths] = None,
        cu_seqlens_q: Optional[Lengths] = None,
        causal: bool = True,
        q_offset: Union[None, int, Lengths] = None,
        window: Optional[int] = None,
        softcap: float = 0.0,
        mask: Optional[Array] = None,
        bias: Optional[Array] = None,
        tree_mask: Optional[Array] = None,
        sinks: Optional[Array] = None,
        shared_prefix: bool = False,
        pages: Optional[int] = None,
        return_lse: bool = False,
        out: Optional[Array] = None,
        precision: str = "highest",
        threads: Optional[int] = None,
    ) -> Any:
        """Attention of absorbed queries over the cached rows of one layer.

        Parameters
        ----------
        q : (B, Hq, Tq, c + r)
            For each head, W_UK^T q_nope beside the rotated q_pe.
        scale
            That of the heads before absorption, 1/sqrt(n + r) with n channels of q_nope (times what
            YaRN adds).  It does not follow from c + r, so there is no default.

        All else is as in KVCache.attend().

        Returns
        -------
        (B, Hq, Tq, c): W_UV of each head makes values of it.  Or a tuple with the lse.
        """
        return self._attend(
            layer, q, seqs, q_lens, cu_seqlens_q, causal, q_offset, window, scale, softcap, mask,
            bias, tree_mask, sinks, None, shared_prefix, pages, return_lse, out, precision, threads,
        )  # fmt: skip

    def read(self, layer: int, seq: int, start: int = 0, stop: Optional[int] = None) -> Any:
        """Rows (T, c + r) of tokens start .. stop - 1, decoded to float32."""
        count = self._range(layer, seq, start, stop)
        rows = np.empty((1, count, self.config["head_dim"]), np.float32)
        self._c.read(layer, seq, start, rows, None)
        return rows[0]
