"""What storing keys and values in a format does to attention.

For each query head, against attention over the numbers as they were, everything in double:

    KL      sum_j p_j log(p_j / p'_j) of the attention weights, mean over the queries, in nats
    output  |o' - o| / |o|, the norms over all queries and channels of the head
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from codecs_of_caches import Array, Store
from sources import Layer


class Errors(NamedTuple):
    """Of all heads of all layers: the mean, and the head that is worst."""

    kl: float
    worst_kl: float
    output: float
    worst_output: float


def log_weights(q: Array, k: Array, causal: bool) -> Array:
    """log softmax(q k^T / sqrt(D)), (T, Tk)."""
    s = q @ k.T / np.sqrt(q.shape[1])
    if causal:
        s[np.arange(len(q))[:, None] < np.arange(len(k))] = -np.inf
    s -= s.max(axis=1, keepdims=True)
    return s - np.log(np.exp(s).sum(axis=1, keepdims=True))


class Head:
    """Attention of one head over the numbers as they were."""

    def __init__(self, q: Array, k: Array, v: Array, causal: bool) -> None:
        self.q, self.causal = q, causal
        self.log_p = log_weights(q, k, causal)
        self.p = np.exp(self.log_p)
        self.o = self.p @ v
        self.size = np.linalg.norm(self.o)

    def errors(self, k: Array, v: Array) -> tuple[float, float]:
        """(KL, output) with stored keys and values."""
        log_r = log_weights(self.q, k, self.causal)
        with np.errstate(invalid="ignore"):  # hidden keys: 0 (-inf - -inf)
            kl = np.where(self.p > 0, self.p * (self.log_p - log_r), 0).sum(axis=1).mean()
        return float(kl), float(np.linalg.norm(np.exp(log_r) @ v - self.o) / self.size)


def of_layers(layers: list[Layer], stores: list[Store]) -> list[Errors]:
    """Of each way to store."""
    found: list[list[tuple[float, float]]] = [[] for _ in stores]
    for layer in layers:
        group = len(layer.q) // len(layer.k)
        wide = [x.astype(np.float64) for x in (layer.q, layer.k, layer.v)]
        heads = [
            Head(q, wide[1][h // group], wide[2][h // group], layer.causal)
            for h, q in enumerate(wide[0])
        ]
        for errors, store in zip(found, stores):
            k, v = (x.astype(np.float64) for x in store(layer.k, layer.v))
            errors += [x.errors(k[h // group], v[h // group]) for h, x in enumerate(heads)]
    columns = [np.array(errors).T for errors in found]
    return [Errors(kl.mean(), kl.max(), o.mean(), o.max()) for kl, o in columns]
