"""ggml's flash attention, from the libraries that llama-cpp-python compiles for this processor.

Only what these calls need is declared here, for the pinned version.  ggml takes queries and gives
results in f32 whatever the types of K and V are.
"""

from __future__ import annotations

import ctypes
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from peers.adapters.base import Peer, Refused
from peers.cases import Case
from peers.tensors import Array, Row, Tensors, empty, to_float

TYPE = {"f32": 0, "f16": 1, "bf16": 30}  # enum ggml_type
PREC_F32 = 10  # enum ggml_prec
ROOM = 8 << 20  # for tensors' headers, a graph and alignment


class InitParams(ctypes.Structure):
    """struct ggml_init_params"""

    _fields_ = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


class Plan(ctypes.Structure):
    """struct ggml_cplan"""

    _fields_ = [
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    ]


P, I, N, F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
CALLS = {
    "ggml_init": (P, [InitParams]),
    "ggml_new_tensor_4d": (P, [P, I, N, N, N, N]),
    "ggml_view_4d": (P, [P, P, N, N, N, N, *[ctypes.c_size_t] * 4]),
    "ggml_get_data": (P, [P]),
    "ggml_flash_attn_ext": (P, [P, P, P, P, P, F, F, F]),
    "ggml_flash_attn_ext_set_prec": (None, [P, I]),
    "ggml_new_graph": (P, [P]),
    "ggml_build_forward_expand": (None, [P, P]),
    "ggml_graph_plan": (Plan, [P, I, P]),
    "ggml_graph_compute": (I, [P, ctypes.POINTER(Plan)]),
    "ggml_cpu_init": (None, []),
    "ggml_free": (None, [P]),
}


def load() -> dict[str, Any]:
    """The functions of CALLS."""
    place = importlib.util.find_spec("llama_cpp")
    if place is None or not place.submodule_search_locations:
        raise ImportError("the package llama-cpp-python is not installed")
    folder = Path(place.submodule_search_locations[0]) / "lib"
    parts = [ctypes.CDLL(str(folder / f"libggml{x}.so"), ctypes.RTLD_GLOBAL)
             for x in ("-base", "-cpu", "")]  # fmt: skip
    found = {}
    for name, (result, arguments) in CALLS.items():
        function = next(getattr(p, name) for p in parts if hasattr(p, name))
        function.restype, function.argtypes = result, arguments
        found[name] = function
    return found


class Problem:
    """One context with its tensors in memory of ours, and the graph that computes them."""

    def __init__(self, g: dict[str, Any], case: Case, s: Tensors, threads: int) -> None:
        mask = self._mask(case)
        out_bytes = 4 * case.q_heads * case.q_len * case.head_dim_v
        q = to_float(s.q)
        inputs = [q, s.k, *([] if case.latent else [s.v]), *([] if mask is None else [mask])]
        self.memory = empty((sum(x.nbytes for x in inputs) + out_bytes + ROOM,), np.uint8)
        self.g, self.case = g, case
        params = InitParams(self.memory.nbytes, self.memory.ctypes.data, False)
        self.context = g["ggml_init"](params)
        tensors = [self._tensor(q, 0), self._tensor(s.k, TYPE[case.dtype])]
        tensors.append(self._values(tensors[1], s))
        tensors.append(None if mask is None else self._tensor(mask[None], TYPE["f16"]))
        scale = case.head_dim**-0.5
        self.out = g["ggml_flash_attn_ext"](self.context, *tensors, scale, 0.0, 0.0)
        g["ggml_flash_attn_ext_set_prec"](self.out, PREC_F32)
        self.graph = g["ggml_new_graph"](self.context)
        g["ggml_build_forward_expand"](self.graph, self.out)
        self.plan = g["ggml_graph_plan"](self.graph, threads, None)
        self.work = empty((self.plan.work_size + 64,), np.uint8)
        self.plan.work_data = self.work.ctypes.data

    @staticmethod
    def _mask(case: Case) -> Array | None:
        """What a model adds to the scores: f16 [Tq][Tk], 0 or -infinity.  There is no flag."""
        if not case.causal:
            return None
        hidden = np.arange(case.kv_len) > np.arange(case.q_len)[:, None] + case.kv_len - case.q_len
        return np.where(hidden, np.float16("-inf"), np.float16(0))

    def _tensor(self, x: Array, kind: int) -> Any:
        """[H][T][D], copied in."""
        heads, tokens, channels = x.shape
        made = self.g["ggml_new_tensor_4d"](self.context, kind, channels, tokens, heads, 1)
        if made is None:
            raise Refused("its context is too small")
        source = np.ascontiguousarray(x)
        ctypes.memmove(self.g["ggml_get_data"](made), source.ctypes.data, source.nbytes)
        return made

    def _values(self, keys: Any, s: Tensors) -> Any:
        """V; in latent cases a view of K's first channels."""
        case = self.case
        if not case.latent:
            return self._tensor(s.v, TYPE[case.dtype])
        row = s.k.itemsize * case.head_dim
        head = row * case.kv_len
        return self.g["ggml_view_4d"](
            self.context, keys, case.head_dim_v, case.kv_len, 1, 1, row, head, head, 0
        )

    def run(self) -> Problem:
        if self.g["ggml_graph_compute"](self.graph, ctypes.byref(self.plan)) != 0:
            raise RuntimeError("ggml_graph_compute failed")
        return self

    def result(self) -> Array:
        """[Tq][Hq][Dv], as ggml lays it out."""
        shape = (self.case.q_len, self.case.q_heads, self.case.head_dim_v)
        raw = ctypes.string_at(self.g["ggml_get_data"](self.out), 4 * int(np.prod(shape)))
        return np.frombuffer(raw, np.float32).reshape(shape)

    def __del__(self) -> None:
        if getattr(self, "context", None):
            self.g["ggml_free"](self.context)


class Ggml(Peer):
    """ggml_flash_attn_ext.  Queries and results are f32; causal is a dense mask, made once."""

    name = "ggml"
    version = f"of llama-cpp-python {version('llama-cpp-python')}"
    settings = "queries, results and accumulation setting f32"

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.calls = load()
        self.calls["ggml_cpu_init"]()

    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        self.state = [Problem(self.calls, case, s, self.threads) for s in sets]
        return "ggml_flash_attn_ext" + (", dense mask" if case.causal else "")

    def run(self, number: int) -> Any:
        return self.state[number].run()

    def rows(self, output: Any, rows: list[Row]) -> Array:
        data = output.result()
        return np.stack([data[t, h] for h, t in rows])
