"""Rope and rotary_embedding: rotary position embedding."""

from __future__ import annotations

import math
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from . import _qkv
from ._arrays import Array, empty, own, to_numpy
from ._options import _choice, _integer, _number
from ._rope_config import words_of

_TYPES = {
    "none": 0, "default": 1, "linear": 2, "ntk": 3, "dynamic": 4, "yarn": 5, "longrope": 6,
    "llama3": 7, "proportional": 8,
}  # fmt: skip
_PRECISION = {"exact": 0, "f32": 1}
_DTYPES = {"float64": 1, "float32": 2, "float16": 3, "bfloat16": 4}
_AUTO = -1


def _positions(name: str, value: Any) -> Any:
    """Integers of any kind as int64."""
    array = to_numpy(value, name) if hasattr(value, "__dlpack__") else np.asarray(value)
    if array.size == 0 and isinstance(value, (list, tuple)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; integers are accepted")
    if array.dtype == np.uint64 and array.size and array.max() > 2**53:
        raise ValueError(f"{name} holds {array.max()}; at most 2**53 is accepted")
    return np.asarray(array, np.int64)


def _length(seq_len: Optional[int]) -> int:
    return _AUTO if seq_len is None else _integer("seq_len", seq_len, 0, 2**53 + 1)


def _threads(threads: Optional[int]) -> int:
    return 0 if threads is None else _integer("threads", threads, 1, 1024)


def _factors(name: str, value: Any) -> Optional[tuple[float, ...]]:
    if value is None:
        return None
    numbers = value if isinstance(value, (list, tuple)) else to_numpy(value, name).tolist()
    return tuple(_number(name, number) for number in numbers)


class Rope:
    """Rotary position embedding of one kind.

    Channels in pairs (x1, x2) of queries and keys at position p turn by the angle p f_i:
    y1 = a (cos(p f_i) x1 - sin(p f_i) x2), y2 = a (sin(p f_i) x1 + cos(p f_i) x2).  Types differ in
    the frequencies f_i and the factor a; docs/semantics.md has the formulas.

    Parameters
    ----------
    head_dim : channels of a head
    type : "default", "linear", "ntk", "dynamic", "yarn", "longrope", "llama3", "proportional" or
        "none"
    interleaved
        Pairs are channels 2i and 2i + 1 (GPT-J, Llama as Meta published it) instead of i and
        i + r/2 (NeoX, Llama as Hugging Face publishes it).
    rotary_dim : r, channels that turn; default all from rotary_offset
        For "proportional" pairs are over all of these, and the first r/2 pairs turn.
    rotary_offset : the first channel that turns; kv_lora_rank for the rows of a latent cache
    precision : "exact" or "f32"
        Angles in double, or frequencies and their product with the position rounded to float32, as
        PyTorch models compute them: at position 100,000 those are off by up to 8e-3.
    theta, factor, max_positions, original_max_positions, attention_factor
        rope_theta, factor, max_position_embeddings, original_max_position_embeddings and
        attention_factor of a config.json.  attention_factor is a; default: as the type says.
    beta_fast, beta_slow, mscale, mscale_all_dim, truncate : of "yarn"
    short_factor, long_factor : of "longrope", r/2 numbers each
    low_freq_factor, high_freq_factor : of "llama3"

    Immutable; any thread may use it.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> rope = qkv.Rope(64, type="yarn", factor=4, original_max_positions=4096)
    >>> q = np.random.default_rng(0).standard_normal((1, 8, 5, 64), dtype=np.float32)
    >>> rope.apply(q, [[0, 1, 2, 3, 4]]).shape
    (1, 8, 5, 64)
    >>> cos, sin = rope.table(range(5))                    # (5, 32) each
    >>> np.array_equal(qkv.rotary_embedding(q, cos, sin, range(5)), rope.apply(q, range(5)))
    True
    >>> qkv.Rope(64, type="linear")
    Traceback (most recent call last):
    ValueError: factor is not given; rope type linear needs it, 1 or more
    """

    def __init__(
        self,
        head_dim: int,
        *,
        type: str = "default",
        interleaved: bool = False,
        rotary_dim: Optional[int] = None,
        rotary_offset: int = 0,
        precision: str = "exact",
        theta: float = 10000.0,
        factor: Optional[float] = None,
        max_positions: Optional[int] = None,
        original_max_positions: Optional[int] = None,
        attention_factor: Optional[float] = None,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        mscale: float = 0.0,
        mscale_all_dim: float = 0.0,
        truncate: bool = True,
        short_factor: Optional[Sequence[float]] = None,
        long_factor: Optional[Sequence[float]] = None,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
    ) -> None:
        most = 2**31 - 1
        self._rope = _qkv.Rope(
            _choice("type", type, _TYPES),
            int(bool(interleaved)),
            _choice("precision", precision, _PRECISION),
            _integer("head_dim", head_dim, 1, 1024),
            _integer("rotary_offset", rotary_offset, 0, most),
            _AUTO if rotary_dim is None else _integer("rotary_dim", rotary_dim, 0, most),
            int(bool(truncate)),
            _number("theta", theta),
            math.nan if factor is None else _number("factor", factor),
            _integer("max_positions", max_positions or 0, 0, 2**53),
            _integer("original_max_positions", original_max_positions or 0, 0, 2**53),
            math.nan if attention_factor is None else _number("attention_factor", attention_factor),
            _number("beta_fast", beta_fast),
            _number("beta_slow", beta_slow),
            _number("mscale", mscale),
            _number("mscale_all_dim", mscale_all_dim),
            _number("low_freq_factor", low_freq_factor),
            _number("high_freq_factor", high_freq_factor),
            _factors("short_factor", short_factor),
            _factors("long_factor", long_factor),
        )
        self.type = type
        self.head_dim = int(head_dim)
        self.rotary_offset = int(rotary_offset)
        self.rotary_dim = 2 * self._rope.pairs()
        self.interleaved = bool(interleaved)
        self.precision = precision

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], layer_type: Optional[str] = None, **words: Any
    ) -> "Rope":
        """The rope of a model, from its config.json as a dict.

        Parameters
        ----------
        config : of Transformers 5 (rope_parameters, one or one a layer type) or 4 (rope_theta and
            rope_scaling, with rope_type or type)
        layer_type : such as "full_attention", for models whose layers differ
        words : parameters of Rope, which override those of the configuration

        For latent attention (qk_rope_head_dim) the rope is of the rotary channels alone, and for
        models with multimodal positions it is that of text.  A parameter that is not known here is
        refused.  Which channels are a pair is not in every config: interleaved follows
        rope_interleave if it is there, and otherwise model_type, for those that are known to pair
        neighbours.

        Examples
        --------
        >>> import qkv
        >>> config = {"hidden_size": 256, "num_attention_heads": 4, "rope_theta": 5e5,
        ...           "rope_scaling": {"type": "linear", "factor": 2}}
        >>> qkv.Rope.from_config(config)
        Rope(64, type='linear', rotary_dim=64)
        """
        return cls(**{**words_of(config, layer_type, words.get("head_dim")), **words})

    def __repr__(self) -> str:
        rest = f", rotary_offset={self.rotary_offset}" if self.rotary_offset else ""
        rest += ", interleaved=True" if self.interleaved else ""
        rest += ", precision='f32'" if self.precision == "f32" else ""
        return f"Rope({self.head_dim}, type={self.type!r}, rotary_dim={self.rotary_dim}{rest})"

    def frequencies(self, seq_len: int = 0) -> tuple[Any, float]:
        """(f, a): r/2 angles of one step of position as float64, and the factor.

        seq_len, the longest position + 1, matters to "dynamic" and "longrope" only.

        >>> import qkv
        >>> f, a = qkv.Rope(8).frequencies()
        >>> f.tolist(), a
        ([1.0, 0.1, 0.01, 0.001], 1.0)
        """
        f, a = self._rope.frequencies(_integer("seq_len", seq_len, 0, 2**53 + 1))
        return np.array(f), a

    def table(
        self, positions: Any, *, dtype: str = "float32", seq_len: Optional[int] = None
    ) -> tuple[Any, Any]:
        """(cos, sin), each of the shape of positions with an axis of r/2 behind it, times a.

        One table serves all layers of a step.  seq_len defaults to the longest position + 1.
        """
        where = _positions("positions", positions)
        code = _choice("dtype", dtype, _DTYPES)
        like = None if isinstance(positions, np.ndarray) else positions
        shape = (*where.shape, self.rotary_dim // 2)
        cos, sin = empty(like, code, shape), empty(like, code, shape)
        self._rope.table(_length(seq_len), np.ascontiguousarray(where), cos, sin)
        result: tuple[Any, Any] = own((cos, sin), like)
        return result

    def apply(
        self,
        x: Array,
        positions: Any,
        *,
        inverse: bool = False,
        out: Optional[Array] = None,
        seq_len: Optional[int] = None,
        threads: Optional[int] = None,
    ) -> Any:
        """x, turned by its positions.

        Parameters
        ----------
        x : (B, H, T, D), or packed (T, H, D)
            float32, float16, bfloat16 or float64, any strides.
        positions : (T,) for all sequences, or (B, T) integers
            Position of each token: gaps, padding and several sequences are what they say.
        inverse
            By the opposite angles, with the same a: the gradient by x of a loss, from that by the
            result.
        out : may be x itself; channels that do not turn are then not touched
        seq_len : the length that "dynamic" and "longrope" go by
            Default: the longest position + 1 of each sequence, of all rows if they are packed.
        threads : default all processors this process may use, where it pays

        Returns
        -------
        out, or a new array of the kind and dtype of x.
        """
        options = (_length(seq_len), int(bool(inverse)), 0, _threads(threads))
        where = _positions("positions", positions)
        return own(self._rope.apply(x, out, where, None, None, options), x)


def rotary_embedding(
    x: Array,
    cos: Array,
    sin: Array,
    position_ids: Any = None,
    *,
    interleaved: bool = False,
    rotary_dim: Optional[int] = None,
    num_heads: Optional[int] = None,
    inverse: bool = False,
    out: Optional[Array] = None,
    threads: Optional[int] = None,
) -> Any:
    """Turn x by cosines and sines that are given: ONNX's RotaryEmbedding.

    Parameters
    ----------
    x : (B, H, T, D), or (B, T, H D) with num_heads
    cos, sin : (rows, r/2) with position_ids, which pick rows; (B, T, r/2) without
    position_ids : (T,) or (B, T) integers, 0 .. rows - 1
    interleaved : pairs are channels 2i and 2i + 1 instead of i and i + r/2
    rotary_dim : r, the first channels of each head; default (and 0) all of them
    inverse, out, threads : as in Rope.apply

    Examples
    --------
    >>> import numpy as np, qkv
    >>> x = np.array([[[[1.0, 2.0]]]], np.float32)
    >>> qkv.rotary_embedding(x, np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32))
    array([[[[-2.,  1.]]]], dtype=float32)
    """
    shape = tuple(getattr(x, "shape", ()))
    heads = 0 if num_heads is None else _integer("num_heads", num_heads, 1, 2**31 - 1)
    if len(shape) not in (3, 4) or (len(shape) == 3) != (heads > 0):
        raise ValueError(
            f"x has shape {shape} and num_heads is {num_heads}; (B, H, T, D) without, "
            "or (B, T, H D) with num_heads is expected"
        )
    if heads and shape[-1] % heads:
        raise ValueError(f"num_heads is {heads}; it must divide the last axis of x, {shape[-1]}")
    dim = shape[-1] // heads if heads else shape[-1]
    rope = Rope(dim, interleaved=interleaved, rotary_dim=rotary_dim or None)
    where = None if position_ids is None else _positions("position_ids", position_ids)
    options = (_AUTO, int(bool(inverse)), heads, _threads(threads))
    return own(rope._rope.apply(x, out, where, cos, sin, options), x)
