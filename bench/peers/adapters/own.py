"""qkv itself, through its Python package."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import qkv

from peers.adapters.base import Peer
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, empty


def _typed(x: Array) -> Array:
    return x.view(ml_dtypes.bfloat16) if x.dtype == np.uint16 else x


class Qkv(Peer):
    """A plan made once, run on plain arrays: nothing is packed."""

    name = "qkv"
    version = qkv.__version__

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        calls = [tuple(_typed(x)[None] for x in (s.q, s.k, s.v)) for s in sets]
        q, k, v = calls[0]
        out = _typed(empty((1, case.q_heads, case.q_len, case.head_dim_v), sets[0].q.dtype))
        plan = qkv.Plan(q, k, v, out=out, causal=case.causal, threads=self.threads)
        self.state = plan, calls, out
        return str(plan.kernel)

    def run(self, number: int) -> Any:
        plan, calls, out = self.state
        return plan(*calls[number], out=out)

    def rows(self, output: Any, rows: list[Row]) -> Array:
        return np.stack([output[0, h, t].astype(np.float32) for h, t in rows])
