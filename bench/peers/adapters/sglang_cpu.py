"""SGLang's operators for CPUs, as vLLM's wheel carries them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from peers.adapters.base import Peer, Refused
from peers.adapters.pytorch import set_threads, tensor
from peers.adapters.vllm_cpu import load_operators
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, contiguous

KEYS_A_SPLIT = 512  # as vLLM calls decode_attention_cpu: 512 keys or more a part,
SPLITS_A_THREAD = 2  # and at most two parts a thread


def _by_token(x: Array) -> torch.Tensor:
    return tensor(contiguous(x.swapaxes(0, 1)))


class SgLang(Peer):
    """extend_attention_cpu for many queries, decode_attention_cpu for one a head."""

    name = "SGLang"
    version = f"in vllm-cpu {version('vllm-cpu')}"
    settings = "tokens in slots of a flat cache"

    def __init__(self, threads: int) -> None:
        set_threads(threads)
        self.threads = threads
        self.ops = load_operators()
        if not hasattr(self.ops, "decode_attention_cpu"):
            raise Refused("vLLM's object for this processor has no SGLang operators")

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        if case.dtype == "f32":
            raise Refused("bf16 and f16 only")
        if case.kind == "prefill":
            return self._prepare_extend(case, sets)
        return self._prepare_decode(case, sets)

    def _prepare_extend(self, case: Case, sets: list[Tensors]) -> str:
        """Causal: all tokens are new.  Full: queries of a decoder on all keys of an encoder."""
        q = _by_token(sets[0].q)
        out = torch.empty_like(q)
        one = torch.zeros(1, dtype=torch.int64)
        n_new = torch.tensor([case.q_len], dtype=torch.int64)
        lengths = torch.tensor([case.kv_len], dtype=torch.int64)
        slots = torch.arange(case.kv_len, dtype=torch.int64)[None]
        cross = not case.causal
        encoder = lengths if cross else None
        scale = case.head_dim**-0.5

        def call(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.ops.extend_attention_cpu(
                q, k, v, out, k, v, slots, one, lengths, n_new, one, case.q_len, scale, 0.0, cross,
                0, encoder, None,
            )  # fmt: skip
            return out

        self.state = call, [(_by_token(s.k), _by_token(s.v)) for s in sets]
        return "extend_attention_cpu" + (", cross attention" if cross else "")

    def _prepare_decode(self, case: Case, sets: list[Tensors]) -> str:
        q = _by_token(sets[0].q)
        out = torch.empty((1, case.q_heads, case.head_dim_v), dtype=q.dtype)
        splits = 1
        while splits < case.kv_len // KEYS_A_SPLIT:
            splits *= 2
        splits = min(splits, SPLITS_A_THREAD * self.threads)
        parts = torch.zeros((1, case.q_heads, splits, case.head_dim_v + 1))
        one = torch.zeros(1, dtype=torch.int64)
        lengths = torch.tensor([case.kv_len], dtype=torch.int64)
        slots = torch.arange(case.kv_len, dtype=torch.int32)[None]
        scale = case.head_dim**-0.5

        def call(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            self.ops.decode_attention_cpu(
                q, k, v, out, None, None, None, parts, slots, one, lengths, scale, 0.0, False, 0,
                None, None,
            )  # fmt: skip
            return out

        caches = []
        for s in sets:
            k = _by_token(s.k)
            caches.append((k, k[..., : case.head_dim_v] if case.latent else _by_token(s.v)))
        self.state = call, caches
        return f"decode_attention_cpu, {splits} parts"

    def run(self, number: int) -> Any:
        call, caches = self.state
        return call(*caches[number])

    def rows(self, output: Any, rows: list[Row]) -> Array:
        return np.stack([output[t, h].float().numpy() for h, t in rows])
