"""PyTorch, as models call it and as a person who knows its kernels would call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from peers.adapters.base import Peer, Refused
from peers.cases import Case
from peers.tensors import Array, Row, Tensors


def tensor(x: Array) -> torch.Tensor:
    """A stored array as a tensor on the same memory."""
    if x.dtype == np.uint16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


class PyTorch(Peer):
    """torch.nn.functional.scaled_dot_product_attention.  The backend is the one PyTorch chooses:
    flash for D = Dv, otherwise plain mathematics."""

    name = "PyTorch"
    version = torch.__version__

    def __init__(self, threads: int) -> None:
        set_threads(threads)

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        calls = [tuple(tensor(x)[None] for x in (s.q, s.k, s.v)) for s in sets]
        self.state = calls, case.causal, case.q_heads != case.kv_heads
        return "scaled_dot_product_attention" + (", enable_gqa" if self.state[2] else "")

    def run(self, number: int) -> Any:
        calls, causal, grouped = self.state
        q, k, v = calls[number]
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

    def rows(self, output: Any, rows: list[Row]) -> Array:
        return np.stack([output[0, h, t].float().numpy() for h, t in rows])


class ByHand(Peer):
    """One query a head, rewritten: the heads of a group become the rows of one problem, so that K
    and V are read once for all of them.  Latent decoding, for which the flash kernel does not
    exist (Dv differs from D), becomes two matrix products."""

    name = "PyTorch by hand"
    version = torch.__version__

    def __init__(self, threads: int) -> None:
        set_threads(threads)

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        if case.q_len != 1:
            raise Refused("the same as PyTorch for many queries")
        shape = (case.kv_heads, case.q_heads // case.kv_heads, case.head_dim)
        calls = [(tensor(s.q).view(shape), tensor(s.k), tensor(s.v)) for s in sets]
        if case.latent:
            calls = [(q[0], k[0], v[0]) for q, k, v in calls]
        self.state = calls, case
        return "softmax(q @ k.T) @ v" if case.latent else "SDPA, heads of a group as rows"

    def run(self, number: int) -> Any:
        calls, case = self.state
        q, k, v = calls[number]
        if case.latent:
            return torch.softmax((q @ k.T).mul_(case.head_dim**-0.5), -1) @ v
        return F.scaled_dot_product_attention(q[None], k[None], v[None])

    def rows(self, output: Any, rows: list[Row]) -> Array:
        by_head = output.reshape(-1, output.shape[-1])
        return np.stack([by_head[h].float().numpy() for h, _ in rows])
