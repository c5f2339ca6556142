"""What the demo measures: errors, times and memory of the attention of each layer."""

import statistics
import time
from typing import Callable

import numpy as np
import qkv
from encoder import plain_attention


def memory_of(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[int, int]:
    """Bytes beside q, k, v and o: qkv's workspace, and one T x T matrix of scores a head."""
    plan = qkv.Plan(q, k, v)
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * q.itemsize
    return plan.workspace_bytes, scores


class Layer:
    """Errors and times of one layer's attention on the tensors it really got."""

    def __init__(
        self, q: np.ndarray, k: np.ndarray, v: np.ndarray, o: np.ndarray, lengths: np.ndarray
    ) -> None:
        q64, k64, v64 = (x.astype(np.float64) for x in (q, k, v))
        exact = plain_attention(q64, k64, v64, lengths)
        self.error = float(np.abs(o - exact).max())
        self.relative = self.error / float(np.abs(exact).max())
        self.plain_error = float(np.abs(plain_attention(q, k, v, lengths) - exact).max())
        self.workspace, self.scores = memory_of(q, k, v)
        self.qkv_ms, self.plain32_ms, self.plain64_ms = interleaved_ms(
            [
                lambda: qkv.attention(q, k, v, kv_lens=lengths),
                lambda: plain_attention(q, k, v, lengths),
                lambda: plain_attention(q64, k64, v64, lengths),
            ]
        )


def interleaved_ms(calls: list[Callable[[], object]], rounds: int = 7) -> list[float]:
    """The median time of each call, in milliseconds; rounds take turns, so that a slow moment of
    the machine does not fall on one of them alone."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, spent in zip(calls, times):
            start = time.perf_counter()
            call()
            spent.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(spent) for spent in times]
