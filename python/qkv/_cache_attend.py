"""Attention over the tokens of a cache: options to a View, which is kept while it is right."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from numpy import ndarray

from . import _options, _qkv
from ._arrays import Array, own
from ._cache import Cache, Sequences, State
from ._options import _PRECISION, _choice, _integer, _number, cu_seqlens, lengths, logits

_KEPT_VIEWS = 8
_OWN_WINDOW = -2  # of the cache, as in view.h


def _list(name: str, value: Any, n: Optional[int] = None) -> Optional[tuple[int, ...]]:
    array = lengths(name, value, n)
    return None if array is None else tuple(array.tolist())


def tree_to_mask(
    tree: Array, states: list[State], q_lens: Optional[tuple[int, ...]], Tq: int
) -> Any:
    """bool (B, 1, Tq, Tk): all older tokens, and of the newest what the tree says."""
    array = np.asarray(tree)
    if array.dtype != np.bool_:
        raise TypeError(f"tree_mask has dtype {array.dtype}; it must be bool, True where visible")
    if array.ndim == 2:
        array = np.broadcast_to(array, (len(states), *array.shape))
    if array.shape != (len(states), Tq, Tq):
        raise ValueError(f"tree_mask has shape {array.shape}; {(len(states), Tq, Tq)} is expected")
    mask = np.ones((len(states), 1, Tq, max((s.length for s in states), default=0)), bool)
    for b, state in enumerate(states):
        n = Tq if q_lens is None else q_lens[b]
        if not 0 <= n <= state.length:
            raise ValueError(f"there are {n} queries for the newest of {state.length} tokens")
        mask[b, 0, :n, state.length - n : state.length] = array[b, :n, :n]
    return mask


def refuse(options: dict[str, Any], why: str) -> None:
    for name, given in options.items():
        if given:
            raise ValueError(f"{name} is given; it is not there {why}")


class Attending(Cache):
    """A cache that can be attended to."""

    def _prefix(self, ids: list[int], states: list[State], q_lens: list[int]) -> int:
        """Tokens that all sequences share in front of every query."""
        if len(ids) < 2 or len(set(ids)) != len(ids):
            return 0
        newest = min(state.length - n for state, n in zip(states, q_lens))
        shared = max(min(self._c.shared_prefix(ids), newest), 0)
        return int(shared - shared % self.config["page_tokens"])

    def _check_written(self, layer: int, ids: list[int], states: list[State]) -> None:
        if not 0 <= layer < self._layers:
            raise ValueError(f"layer is {layer}; it must be 0 .. {self._layers - 1}")
        for seq, state in zip(ids, states):
            if state.written[layer] != state.length:
                raise ValueError(
                    f"sequence {seq} has {state.length} tokens, of which layer {layer} has "
                    f"{state.written[layer]}; append to it before attending"
                )

    def _check_combination(
        self, causal: bool, window: Optional[int], masks: dict[str, Any], shared: bool, picked: bool
    ) -> None:
        windows = {"window": window is not None or self.config["window"] is not None}
        positions = windows | {name: masks[name] for name in ("q_offset", "alibi_slopes")}
        if not causal:
            refuse(positions, "without causal: it needs positions")
        if window is not None and self.config["sink_tokens"] > 0:
            refuse(windows, "for a cache with sink_tokens; give it when the cache is made")
        if masks["tree_mask"]:
            refuse(positions | {"mask": masks["mask"]}, "together with tree_mask")
        if shared:
            refuse(windows | masks, "together with shared_prefix")
        if picked:
            others = {"causal=False": not causal, "shared_prefix": shared}
            refuse(windows | masks | others, "together with pages")

    def _attend(
        self,
        layer: int,
        q: Array,
        seqs: Sequences,
        q_lens: Any,
        cu_seqlens_q: Any,
        causal: bool,
        q_offset: Any,
        window: Optional[int],
        scale: Optional[float],
        softcap: float,
        mask: Any,
        bias: Any,
        tree_mask: Any,
        sinks: Any,
        alibi_slopes: Any,
        shared_prefix: bool,
        pages: Optional[int],
        return_lse: bool,
        out: Any,
        precision: str,
        threads: Optional[int],
    ) -> Any:
        ids = self._ids(seqs)
        states = [self._state(seq) for seq in ids]
        self._check_written(layer, ids, states)
        shape = _options.shape_of("q", q, 4 if cu_seqlens_q is None else 3)
        if cu_seqlens_q is not None:
            cu_seqlens_q = tuple(cu_seqlens("cu_seqlens_q", cu_seqlens_q, shape[0], True).tolist())
            refuse({"q_lens": q_lens is not None}, "together with cu_seqlens_q")
        q_lens = _list("q_lens", q_lens)
        q_offset = _list("q_offset", q_offset, len(ids))
        masks = {
            "mask": mask is not None,
            "bias": bias is not None,
            "tree_mask": tree_mask is not None,
            "alibi_slopes": alibi_slopes is not None,
            "q_offset": q_offset is not None,
        }
        if window is not None:
            window = _integer("window", window, 0, 2**31 - 1)
        if pages is not None:
            pages = _integer("pages", pages, 1, 2**31 - 1)
            if shape[2:-1] != (1,) or q_lens is not None:
                raise ValueError(f"q has shape {shape}; pages are picked for one query a sequence")
        if window is not None or not causal or shared_prefix or tree_mask is not None or pages:
            self._check_combination(causal, window, masks, shared_prefix, pages is not None)
        if tree_mask is not None:
            mask, causal = tree_to_mask(tree_mask, states, q_lens, shape[2]), False
        sinks, alibi_slopes = logits(sinks, q), logits(alibi_slopes, q)
        key = (
            tuple(ids), shape, q_lens, cu_seqlens_q, q_offset, causal, window, scale, softcap,
            shared_prefix, pages, return_lse, precision, threads, _options.cpu_mask,
        )  # fmt: skip
        versions = [state.version for state in states]
        tensors = (q, out, mask, bias, sinks, alibi_slopes)
        kept = self._views.get(key)
        result = None
        if kept is not None and kept[0] == versions:
            result = kept[1].run(layer, *tensors)
        if result is None:
            shared = 0
            if shared_prefix:
                counts = self._queries(shape, q_lens, cu_seqlens_q, len(ids))
                shared = self._prefix(ids, states, counts)
            options = (
                causal, return_lse, _choice("precision", precision, _PRECISION), _options.cpu_mask,
                0 if threads is None else _integer("threads", threads, 1, 1024),
                _OWN_WINDOW if window is None else window,
                _qkv.SCALE_DEFAULT if scale is None else _number("scale", scale),
                _number("softcap", softcap), shared, min(pages or 0, self.config["n_pages"]),
            )  # fmt: skip
            view = _qkv.View(self._c, ids, q_lens, q_offset, cu_seqlens_q, *tensors, options)
            self._keep(key, (versions, view))
            result = view.run(layer, *tensors)
        return result if type(q) is ndarray else own(result, q)

    @staticmethod
    def _queries(shape: Any, q_lens: Any, cu: Any, n: int) -> list[int]:
        if cu is not None:
            return [b - a for a, b in zip(cu, cu[1:])]
        if shape[2] > 1:
            raise ValueError(
                f"q has shape {shape}; shared_prefix takes one query a sequence, or packed queries"
            )
        return [int(shape[2])] * n if q_lens is None else list(q_lens)

    def _keep(self, key: Any, kept: Any) -> None:
        self._views[key] = kept
        while len(self._views) > _KEPT_VIEWS:
            try:
                self._views.popitem(last=False)
            except KeyError:  # another thread was faster
                break


