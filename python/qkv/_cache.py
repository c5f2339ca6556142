"""What KVCache and LatentCache have in common: sequences, their tokens, files."""

from __future__ import annotations

import operator
import os
from collections import OrderedDict
from typing import Any, Iterable, Optional, Union

from . import _qkv
from ._arrays import Array, CacheFull
from ._cache_config import name_config, name_info, name_stats
from ._cache_file import inspect
from ._turn import Rotation

Sequences = Union[None, int, Iterable[int]]


class State:
    """One sequence: how many tokens have a place, how many are written in each layer, and a number
    that changes whenever a view of it is no longer right."""

    __slots__ = ("length", "written", "version")

    def __init__(self, length: int, written: list[int]) -> None:
        self.length = length
        self.written = written
        self.version = 0


class Cache:
    """See KVCache and LatentCache."""

    _c: Any
    _layers: int

    def _make(self, config: tuple[int, ...]) -> None:
        self._c = _qkv.Cache(*config)
        numbers, self._page_bytes, self._open_page_bytes, self._token_bytes = self._c.config()
        self.config: dict[str, Any] = name_config(numbers)
        self._layers = self.config["n_layers"]
        self._states: dict[int, State] = {}
        self._views: OrderedDict[Any, Any] = OrderedDict()

    # ---- sequences ---------------------------------------------------------------------------

    def _ids(self, seqs: Sequences) -> list[int]:
        if seqs is None:
            return list(self._states)
        if isinstance(seqs, int):
            return [seqs]
        return [operator.index(seq) for seq in seqs]

    def _state(self, seq: int) -> State:
        try:
            return self._states[seq]
        except (KeyError, TypeError):
            raise ValueError(f"seq is {seq!r}; it is no sequence of this cache") from None

    @property
    def sequences(self) -> list[int]:
        """The ids of all sequences, in the order in which they came."""
        return list(self._states)

    def add(self) -> int:
        """A new, empty sequence; returns its id.  CacheFull if there are max_seqs."""
        seq = self._c.add()
        self._states[seq] = State(0, [0] * self._layers)
        return int(seq)

    def fork(self, seq: int) -> int:
        """A new sequence with the tokens of another; returns its id.

        No page is copied before one of the two appends to it.  The parent's tokens must be written
        in all layers.
        """
        parent = self._state(seq)
        if min(parent.written) != parent.length:
            raise ValueError(
                f"sequence {seq} has {parent.length} tokens, of which layer "
                f"{parent.written.index(min(parent.written))} has {min(parent.written)}; fork it "
                "when all layers have them"
            )
        child = self._c.fork(seq)
        self._states[child] = State(parent.length, list(parent.written))
        return int(child)

    def reorder(self, parents: Iterable[int], seqs: Sequences = None) -> None:
        """Beam search: all at once, seqs[i] becomes what seqs[parents[i]] was.

        parents may repeat.  seqs: default all sequences.
        """
        ids, numbers = self._ids(seqs), [operator.index(p) for p in parents]
        olds = [self._state(seq) for seq in ids]
        self._c.reorder(ids, numbers)
        copies = [(olds[p].length, list(olds[p].written)) for p in numbers]
        for state, (length, written) in zip(olds, copies):
            state.length, state.written = length, written
            state.version += 1

    def commit(
        self, seqs: Sequences = None, lengths: Union[None, int, Iterable[int]] = None
    ) -> None:
        """The first lengths[i] tokens of sequence seqs[i] are final; default all tokens of all.

        They must be written in all layers.  Tokens that are not committed are speculative:
        truncate() takes them back at no cost.  Committing evicts what no later query sees (window)
        and closes pages (int8_channel).  A length that was committed before changes nothing.
        """
        ids = self._ids(seqs)
        states = [self._state(seq) for seq in ids]
        to = None
        if lengths is not None:
            many = [lengths] * len(ids) if isinstance(lengths, int) else lengths
            to = [operator.index(n) for n in many]
            if len(to) != len(ids):
                raise ValueError(f"lengths has {len(to)} values for {len(ids)} sequences")
        for i, state in enumerate(states):
            length, least = state.length if to is None else to[i], min(state.written)
            if least < length <= state.length:
                raise ValueError(
                    f"{length} tokens of sequence {ids[i]} cannot be committed: layer "
                    f"{state.written.index(least)} has {least}"
                )
        self._c.commit(ids, to)
        for state in states:
            state.version += 1

    def truncate(self, seq: int, length: int) -> None:
        """Takes back all tokens of a sequence from number length on, committed or not.

        ValueError where the next queries would need tokens that were evicted; 0 always works.
        """
        state = self._state(seq)
        self._c.truncate(seq, length)
        state.length = operator.index(length)
        state.written = [min(n, state.length) for n in state.written]
        state.version += 1

    def evict(self, seq: int, before: int) -> None:
        """Forgets tokens sink_tokens .. before - 1, which must be committed.  Positions stay."""
        state = self._state(seq)
        self._c.evict(seq, before)
        state.version += 1

    def reset(self, seqs: Sequences = None) -> None:
        """Takes back all tokens; the sequences stay.  Default: of all."""
        for seq in self._ids(seqs):
            self.truncate(seq, 0)

    def release(self, seqs: Sequences = None) -> None:
        """Ends sequences; their pages are free unless others share them.  Default: all."""
        for seq in self._ids(seqs):
            self._state(seq)
            self._c.release(seq)
            del self._states[seq]
        self._views.clear()

    # ---- facts -------------------------------------------------------------------------------

    def length(self, seq: int) -> int:
        """Tokens of a sequence, which is the position of the next one."""
        return self._state(seq).length

    def info(self, seq: int) -> dict[str, int]:
        """length, committed, kept_from (older tokens but the sinks are gone; 0 if all are there),
        pages, and how many of these are shared."""
        self._state(seq)
        return name_info(self._c.info(seq))

    def stats(self) -> dict[str, int]:
        """Pages, tokens and bytes: what is there, what is used, what is shared.

        allocated are bytes asked for; payload those that hold tokens, with their scales; copied,
        closed, opened and evicted count pages since the cache was made.  page_bytes,
        open_page_bytes and token_bytes are for all layers together.
        """
        return name_stats(self._c.stats()) | {
            "page_bytes": self._page_bytes,
            "open_page_bytes": self._open_page_bytes,
            "token_bytes": self._token_bytes,
        }

    # ---- files -------------------------------------------------------------------------------

    def save(self, path: Union[str, os.PathLike[str]], seqs: Sequences = None) -> None:
        """Writes sequences (default all) with their tokens to a file, pages they share once.

        The file appears when it is complete: a crash or a full disk leaves what was there.  Nothing
        of other sequences gets into it.
        """
        ids = self._ids(seqs)
        for seq in ids:
            state = self._state(seq)
            if min(state.written) != state.length:
                raise ValueError(
                    f"sequence {seq} has {state.length} tokens, of which layer "
                    f"{state.written.index(min(state.written))} has {min(state.written)}; save it "
                    "when all layers have them"
                )
        self._c.save(ids, os.fsencode(path))

    def load(self, path: Union[str, os.PathLike[str]]) -> list[int]:
        """All sequences of a saved cache, as new sequences of this one; returns their ids.

        The caches must agree in all but n_pages, n_open_pages, max_seqs and max_tokens.  ValueError
        for a file that is damaged, cut short or something else, CacheFull where there is no room;
        then nothing was loaded.
        """
        needed, there = inspect(path)["sequences"], self.config["max_seqs"]
        if needed > there:
            raise CacheFull(
                f"{os.fspath(path)}: full: {needed} sequences needed, max_seqs is {there}"
            )
        ids = self._c.load(os.fsencode(path))
        for seq in ids:
            length = self._c.info(seq)[0]
            self._states[seq] = State(length, [length] * self._layers)
        return [int(seq) for seq in ids]

    @staticmethod
    def inspect(path: Union[str, os.PathLike[str]]) -> dict[str, Any]:
        """What a saved cache says about itself: its config, version, sequences, pages, tokens and
        bytes.  Only load() looks at the checksums of everything."""
        return inspect(path)

    # ---- tokens ------------------------------------------------------------------------------

    def _range(self, layer: int, seq: int, start: int, stop: Optional[int]) -> int:
        """How many tokens start .. stop - 1 are, all of which are written."""
        state = self._state(seq)
        if not 0 <= layer < self._layers:
            raise ValueError(f"layer is {layer}; it must be 0 .. {self._layers - 1}")
        stop = state.written[layer] if stop is None else stop
        if not 0 <= start <= stop <= state.written[layer]:
            raise ValueError(
                f"tokens {start} .. {stop - 1} are asked for; layer {layer} of sequence {seq} has "
                f"{state.written[layer]}"
            )
        return stop - start

    def _append(
        self, layer: int, seqs: Sequences, counts: Any, cu: Any, k: Array, v: Any, rope: Any,
        rotation: Optional[Rotation] = None,
    ) -> None:  # fmt: skip
        ids = self._ids(seqs)
        if len(set(ids)) != len(ids):
            raise ValueError(f"seqs is {ids}; no sequence may be there twice")
        states = [self._state(seq) for seq in ids]
        if len(counts) != len(ids):
            raise ValueError(f"k has rows for {len(counts)} sequences; {len(ids)} are appended to")
        if not 0 <= layer < self._layers:
            raise ValueError(f"layer is {layer}; it must be 0 .. {self._layers - 1}")
        starts = [state.written[layer] for state in states]
        needs = [max(w + n - s.length, 0) for s, w, n in zip(states, starts, counts)]
        grow, turn = any(needs), None
        if rotation is not None:
            latent = self.config["latent"]
            T = k.shape[0 if cu is not None else 1 if latent else 2]
            turn = rotation.pack(starts, counts, cu, T, self.config["n_kv_heads"])
        self._c.append(layer, ids, needs if grow else None, starts, counts, k, v, rope, cu, turn)
        for state, need, start, n in zip(states, needs, starts, counts):
            state.written[layer] = start + n
            if need:
                state.length += need
                state.version += 1
