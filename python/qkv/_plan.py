"""Plan: check a problem once, run it many times."""

from __future__ import annotations

from typing import Any, Optional, Union

from numpy import ndarray

from . import _qkv
from ._arrays import Array, own
from ._keys import numbers, table
from ._options import pack


class Plan:
    """A problem planned once, for repeated calls on arrays that lie in memory the same way.

    Parameters
    ----------
    q, k, v
        Examples: their shapes, dtypes and strides are what counts.
    cu_seqlens_q, cu_seqlens_k
        For packed (T, H, D) tensors, as in attention_varlen().
    **options
        The keyword arguments of attention().  out, mask, bias, sinks, alibi_slopes, block_table,
        the scales and mins of codes and k_rope are examples too; all others hold for every run.

    A plan keeps its workspace.  Several threads may run one plan at the same time.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> q = k = v = np.ones((1, 2, 3, 8), np.float32)
    >>> plan = qkv.Plan(q, k, v, causal=True)
    >>> bool((plan(q, k, 2 * v) == 2).all())
    True
    >>> plan.visible_pairs        # 2 heads, rows of 1, 2 and 3 keys
    12
    >>> plan(q, k, v[:, :, :2])
    Traceback (most recent call last):
    ValueError: v has shape (1, 2, 2, 8); with this k it must be (1, 2, 3, 8)
    """

    def __init__(
        self,
        q: Array,
        k: Array,
        v: Array,
        *,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        **options: Any,
    ) -> None:
        known = dict(_DEFAULTS)
        for name, value in options.items():
            if name not in known:
                raise TypeError(f"Plan() has no option {name!r}; it takes those of attention()")
            known[name] = value
        paged = known["block_table"] is not None
        if (cu_seqlens_q is None) != (cu_seqlens_k is None) and not paged:
            raise ValueError("cu_seqlens_q and cu_seqlens_k are given together or not at all")
        arguments = pack(q, k, v, cu_q=cu_seqlens_q, cu_k=cu_seqlens_k, **known)
        self._plan = _qkv.Plan(*arguments)
        self._optional = arguments[4:14]

    def __call__(
        self,
        q: Array,
        k: Array,
        v: Array,
        *,
        out: Optional[Array] = None,
        mask: Optional[Array] = None,
        bias: Optional[Array] = None,
        sinks: Optional[Array] = None,
        alibi_slopes: Optional[Array] = None,
        block_table: Optional[Array] = None,
        k_scale: Union[None, float, Array] = None,
        k_min: Union[None, float, Array] = None,
        v_scale: Union[None, float, Array] = None,
        v_min: Union[None, float, Array] = None,
        k_rope: Optional[Array] = None,
    ) -> Any:
        """Run.  An optional tensor that is not given is the one the plan was made with.

        Returns what attention() returns.  ValueError if an array lies in memory differently than
        the one the plan was made with.
        """
        given = (
            mask, bias, sinks, alibi_slopes, table(block_table), numbers(k_scale), numbers(k_min),
            numbers(v_scale), numbers(v_min), k_rope,
        )  # fmt: skip
        optional = (old if new is None else new for old, new in zip(self._optional, given))
        result = self._plan.run(q, k, v, out, *optional)
        return result if type(q) is ndarray else own(result, q)

    @property
    def kernel(self) -> str:
        """The name of the kernel, such as "attend_f32_bf16_bf16__avx512"."""
        return self._plan.facts()[0]

    @property
    def visible_pairs(self) -> int:
        """Query-key pairs that lengths, causal, window and block mask leave visible, over all
        sequences and query heads.  Each is 2 (D + Dv) floating-point operations of useful work."""
        return self._plan.facts()[1]

    @property
    def workspace_bytes(self) -> int:
        """Memory kept for runs; it does not grow with Tq and Tk."""
        return self._plan.facts()[2]

    @property
    def threads(self) -> int:
        """Threads a run is given; 1 where more would not pay."""
        return self._plan.facts()[3]


_DEFAULTS: dict[str, Any] = {
    "out": None,
    "mask": None,
    "bias": None,
    "causal": False,
    "strict": False,
    "align": "bottom_right",
    "window": None,
    "scale": None,
    "softcap": 0.0,
    "sinks": None,
    "alibi_slopes": None,
    "q_offset": None,
    "q_lens": None,
    "kv_lens": None,
    "kv_starts": None,
    "block_mask": None,
    "block_size": (64, 64),
    "block_table": None,
    "page_layout": "phtd",
    "k_format": None,
    "k_scale": None,
    "k_min": None,
    "k_group": None,
    "v_format": None,
    "v_scale": None,
    "v_min": None,
    "v_group": None,
    "k_rope": None,
    "return_lse": False,
    "return_weights": False,
    "precision": "highest",
    "threads": None,
}
