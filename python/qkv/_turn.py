"""What append() hands to the cache for keys that are turned on the way."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._rope import Rope, _length, _positions

OWN_LENGTHS = ("dynamic", "longrope")  # frequencies depend on the length of the sequence


class Rotation:
    """The parameters rope, positions, table and seq_len of an append(), before it is known where
    the tokens go."""

    __slots__ = ("_rope", "_positions", "_table", "_seq_len")

    def __init__(self, name: str, rope: Any, positions: Any, table: Any, seq_len: Any) -> None:
        if not isinstance(rope, Rope):
            raise TypeError(f"{name} is a {type(rope).__name__}; a Rope is expected")
        if positions is not None and table is not None:
            raise ValueError("positions is given together with table, whose rows are the tokens'")
        if table is not None and (
            not isinstance(table, (tuple, list))
            or len(table) != 2
            or any(part is None for part in table)
        ):
            raise TypeError("table must be (cos, sin), as Rope.table() makes it")
        self._rope = rope
        self._positions = None if positions is None else _positions("positions", positions)
        self._table = table
        self._seq_len = _length(seq_len)

    def tokens(self, starts: list[int], counts: list[int], cu: Optional[list[int]], T: int) -> Any:
        """Positions (B, T), or (T,) of packed rows: where the tokens are in their sequences."""
        if cu is not None:
            each = [np.arange(start, start + n) for start, n in zip(starts, counts)]
            return np.concatenate(each) if each else np.zeros(0, np.int64)
        return np.asarray(starts, np.int64)[:, None] + np.arange(T)

    def made(self, where: Any, counts: list[int], cu: Optional[list[int]]) -> Any:
        """A table for these positions, which all heads share; rows that are no tokens say nothing.

        Only for several heads and tokens: the cache turns head by head, and would find the angles
        of a row anew for each.
        """
        rope = self._rope
        if cu is None:
            where = np.broadcast_to(where, (len(counts), where.shape[-1]))
            where = np.where(np.arange(where.shape[1]) < np.array(counts)[:, None], where, 0)
        if rope.type not in OWN_LENGTHS or self._seq_len >= 0:
            return rope.table(where, seq_len=None if self._seq_len < 0 else self._seq_len)
        begins = [0] * len(counts) if cu is None else cu
        cos = np.zeros((*where.shape, rope.rotary_dim // 2), np.float32)
        sin = np.zeros_like(cos)
        for i, (begin, n) in enumerate(zip(begins, counts)):
            rows = (i, slice(n)) if cu is None else slice(begin, begin + n)
            if n:
                cos[rows], sin[rows] = rope.table(where[rows])
        return cos, sin

    def pack(
        self, starts: list[int], counts: list[int], cu: Optional[list[int]], T: int, heads: int
    ) -> tuple[Any, ...]:
        """(rope, positions or None, cos, sin or None, seq_len) as the module in C takes them."""
        inner = self._rope._rope
        if self._table is not None:
            return (inner, None, *self._table, self._seq_len)
        where = self.tokens(starts, counts, cu, T) if self._positions is None else self._positions
        shapes = [(T,)] if cu is not None else [(T,), (1, T), (len(counts), T)]
        if where.shape not in shapes:
            words = " or ".join(str(shape) for shape in shapes[:: max(len(shapes) - 1, 1)])
            raise ValueError(f"positions has shape {where.shape}; {words} is expected")
        if heads > 1 and max(counts, default=0) > 1 and self._rope.rotary_dim:
            return (inner, None, *self.made(where, counts, cu), self._seq_len)
        return (inner, where, None, None, self._seq_len)


def rotation_of(
    name: str, rope: Any, positions: Any, table: Any, seq_len: Any
) -> Optional[Rotation]:
    """None without a rope, and then nothing else about angles may be given."""
    if rope is not None:
        return Rotation(name, rope, positions, table, seq_len)
    for word, value in (("positions", positions), ("table", table), ("seq_len", seq_len)):
        if value is not None:
            raise ValueError(f"{word} is given without {name}")
    return None
