"""The class Layer of qkv.layers."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional, Union

import numpy as np

from . import _layers
from ._arrays import Array
from ._cache import Cache, Sequences
from ._kv_cache import KVCache
from ._latent_cache import LatentCache
from ._options import Lengths, _choice, _integer, lengths

ROLES = (
    "q", "k", "v", "o", "q_norm", "k_norm", "sinks", "q_a", "q_a_norm", "q_b", "kv_a", "kv_a_norm",
    "kv_b", "relative_bias",
)  # fmt: skip
_KINDS = {"attention": 1, "mla": 2}
_NORMS = {"none": 0, "rms": 1, "rms_plus_one": 2, "layer": 3}
_ALIBI = {"none": 0, "plain": 1, "scaled": 2}
_ROPES = {
    "none": 0, "default": 1, "linear": 2, "ntk": 3, "dynamic": 4, "yarn": 5, "longrope": 6,
    "llama3": 7, "proportional": 8,
}  # fmt: skip
_PAIRINGS = {"half_split": 0, "interleaved": 1}
_PRECISIONS = {"exact": 0, "f32": 1}
_PARTS = {"decoder": 0, "encoder": 1, "cross": 2}
_MLA = {"auto": 0, "expanded": 1, "absorbed": 2}
_WHOLE, _CACHED, _MEMORY = 0, 1, 2
_WEIGHTS = {"f32": 0, "bf16": 1, "int8": 2, "f32_packed": 3}
_WORDS = {"weights": _WEIGHTS, "kind": _KINDS, "qk_norm": _NORMS, "latent_norm": _NORMS, "alibi": _ALIBI}
_ROPE_WORDS = {"type": _ROPES, "pairing": _PAIRINGS, "precision": _PRECISIONS}
_UNBOUNDED = ("window_left", "window_right")

Weight = Union[None, Array, tuple[Array, Optional[Array]]]


def _numbers(fields: Mapping[str, Any], words: dict[str, dict[str, int]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in fields.items():
        if name in words and isinstance(value, str):
            value = _choice(name, value, words[name])
        if value is None and name in _UNBOUNDED:
            value = -1
        if value is not None:
            out[name] = value
    return out


def _named(fields: dict[str, Any], words: dict[str, dict[str, int]]) -> dict[str, Any]:
    out = dict(fields)
    for name, table in words.items():
        out[name] = next((word for word, code in table.items() if code == fields[name]), None)
    for name in _UNBOUNDED:
        if out.get(name) == -1:
            out[name] = None
    return out


class Layer:
    """An attention layer with its weights.  MHA(), MQA(), GQA() and MLA() make one from arrays.

    Parameters
    ----------
    weights
        By role: q, k, v, o, q_norm, k_norm, sinks, relative_bias; of MLA q_a, q_a_norm, q_b, kv_a,
        kv_a_norm, kv_b.  An array, or a pair of a matrix (out, in) and its bias.  float64, float32,
        float16 or bfloat16 of any strides; copied.
    fields
        Those of qkv_layer_desc (qkv/model.h): kind, d_model, n_q_heads, n_kv_heads, head_dim ...
        Where the header has constants, words: kind "attention" or "mla", qk_norm and latent_norm
        "none", "rms", "rms_plus_one" or "layer", alibi "none", "plain" or "scaled".  rope is None or
        the fields of qkv_rope, with type "default", "yarn" ... and pairing "half_split" or
        "interleaved".

        weights="bf16" or "int8" keeps the matrices in half or a quarter of the bytes (default "f32"),
        where the build has oneDNN.  bf16: weights and the inputs of projections are rounded to bf16.
        int8: an output channel is 127 steps of its largest weight, inputs are 16-bit integers.
        "f32_packed" is float32 in the order of oneDNN's products: faster, above all with few rows.

    A layer does not change; threads may share it.
    """

    def __init__(self, weights: Mapping[str, Weight], /, **fields: Any) -> None:
        unknown = set(weights) - set(ROLES)
        if unknown:
            raise ValueError(
                f"{sorted(unknown)[0]} is no weight; accepted are {', '.join(ROLES)}"
            )
        given: list[Optional[tuple[Array, Optional[Array]]]] = []
        for role in ROLES:
            weight = weights.get(role)
            pair = weight if isinstance(weight, tuple) else (weight, None)
            given.append(None if pair[0] is None else (pair[0], pair[1]))
        numbers = _numbers(fields, _WORDS)
        if isinstance(numbers.get("rope"), Mapping):
            numbers["rope"] = _numbers(numbers["rope"], _ROPE_WORDS)
        self._c = _layers.Layer(numbers, tuple(given))

    @property
    def desc(self) -> dict[str, Any]:
        """What the layer is: the fields of qkv_layer_desc, with words."""
        fields = _named(self._c.facts()[0], _WORDS)
        if fields["rope"] is not None:
            fields["rope"] = _named(fields["rope"], _ROPE_WORDS)
        return fields

    @property
    def variant(self) -> str:
        """MHA, GQA-8, MQA or MLA."""
        return self._c.facts()[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as the layer keeps them."""
        return self._c.facts()[2]

    def weights(self) -> dict[str, tuple[Any, Any]]:
        """Copies of the weights, as Layer() takes them: arrays in float32 and their biases.

        ValueError if matrices are not kept as "f32".
        """
        pairs = ((role, self._c.weight(i)) for i, role in enumerate(ROLES))
        return {role: pair for role, pair in pairs if pair is not None}

    def pool_heads(self, n_kv_heads: int) -> "Layer":
        """A layer with fewer key and value heads, each the mean of those it stands for.

        Where training of GQA or MQA from MHA begins (Ainslie et al., 2023).
        """
        return self._converted(0, _integer("n_kv_heads", n_kv_heads, 1, 2**31 - 1))

    def factorise(self, rank: int) -> "Layer":
        """MLA without rotary part, for layers without RoPE: keys and values of all heads from a
        latent of rank channels, the nearest there is to the weights.  Exact where rank is d_model.
        """
        return self._converted(1, _integer("rank", rank, 1, 2**31 - 1))

    def paired(self, pairing: str) -> "Layer":
        """The same scores with the other pairing of RoPE: "half_split" or "interleaved"."""
        return self._converted(2, _choice("pairing", pairing, _PAIRINGS))

    def _converted(self, kind: int, n: int) -> "Layer":
        made = Layer.__new__(Layer)
        made._c = self._c.convert(kind, n)
        return made

    def new_cache(
        self, max_tokens: int, max_seqs: int = 1, *, format: str = "f32", n_layers: int = 1,
        page_tokens: int = 64,
    ) -> Union[KVCache, LatentCache]:  # fmt: skip
        """An empty cache that fits: LatentCache for MLA, KVCache for others.

        max_tokens: of each of max_seqs sequences.  format: of keys and values.
        """
        d = self.desc
        pages = max_seqs * -(-_integer("max_tokens", max_tokens, 1, 2**31 - 1) // page_tokens)
        floats = format if format in ("f32", "f16", "bf16") else "bf16"
        if d["kind"] == "mla":
            return LatentCache(
                n_layers, d["kv_lora_rank"], d["rope_dim"], format=format, float_type=floats,
                page_tokens=page_tokens, n_pages=pages, max_seqs=max_seqs,
                window=d["window_left"],
            )  # fmt: skip
        return KVCache(
            n_layers, d["n_kv_heads"], d["head_dim"], d["head_dim_v"], k_format=format,
            v_format="int8" if format == "int8_channel" else format, float_type=floats,
            page_tokens=page_tokens, n_pages=pages, max_seqs=max_seqs, window=d["window_left"],
        )  # fmt: skip

    def __call__(
        self,
        x: Array,
        *,
        memory: Optional[Array] = None,
        positions: Optional[Any] = None,
        q_lens: Optional[Lengths] = None,
        kv_lens: Optional[Lengths] = None,
        kv_starts: Optional[Lengths] = None,
        cu_seqlens: Optional[Lengths] = None,
        cache: Optional[Cache] = None,
        seqs: Sequences = None,
        layer: int = 0,
        mla: str = "auto",
        rope_len: Optional[int] = None,
        threads: Optional[int] = None,
    ) -> Any:
        """One step: (B, T, d_model) to (B, T, d_model); packed (rows, d_model) with cu_seqlens.

        Parameters
        ----------
        x : (B, T, d_model)
        memory : (B, Tm, d_memory)
            Cross-attention without a cache: where keys and values come from.
        positions : int64 (B, T) or (rows,)
            For RoPE.  Default: the numbers of the tokens in their sequences.
        q_lens : (B,)
            Tokens of each sequence where they are fewer than T; results past them are 0.
        kv_lens, kv_starts : (B,)
            Without a cache: end and begin of the keys that exist (padding right and left).
        cu_seqlens : (B + 1,)
            Row numbers of packed sequences.
        cache, seqs, layer
            The step's tokens join those of these sequences (default all) in this layer of the
            cache, and see all of them.  Call cache.commit() after the last layer.  Cross-attention:
            the cache holds the memory, see project_memory().
        mla : "auto", "expanded" or "absorbed"
            How MLA is computed; auto takes what needs fewer multiply-adds.
        rope_len
            The length that dynamic and longrope go by.  Default: the largest position and 1.
        threads
            Default: the processors there are.  Does not change the result.
        """
        form = _WHOLE if cache is None else _CACHED
        cross = bool(self._c.facts()[0]["cross"]) if cache is not None else False
        cu = lengths("cu_seqlens", cu_seqlens)
        counts = self._counts(x, lengths("q_lens", q_lens), cu)
        arrays = (
            x, memory, lengths("q_lens", q_lens), cu, lengths("kv_lens", kv_lens),
            lengths("kv_starts", kv_starts),
            None if positions is None else np.ascontiguousarray(positions, np.int64),
        )  # fmt: skip
        numbers = (form, _choice("mla", mla, _MLA), _auto("rope_len", rope_len))
        if cache is None:
            if seqs is not None:
                raise ValueError("seqs is given and cache is None")
            return self._c.run(*numbers, None, 0, _threads(threads), *arrays, None, None)
        return self._step(cache, layer, seqs, None if cross else counts, numbers, threads, arrays)

    def project_memory(
        self, memory: Array, cache: Cache, seqs: Sequences = None, *, layer: int = 0,
        lens: Optional[Lengths] = None, threads: Optional[int] = None,
    ) -> None:  # fmt: skip
        """Cross-attention: keys and values of memory (B, Tm, d_memory) into the cache, once.

        lens: tokens of each memory, where they are fewer than Tm.  Call cache.commit() afterwards.
        """
        own = lengths("lens", lens)
        counts = list(own) if own is not None else [memory.shape[1]] * memory.shape[0]
        arrays = (None, memory, None, None, own, None, None)
        self._step(cache, layer, seqs, counts, (_MEMORY, 0, -1), threads, arrays)

    def _counts(self, x: Array, q_lens: Any, cu: Any) -> list[int]:
        if cu is not None:
            return [int(n) for n in np.diff(cu)]
        if q_lens is not None:
            return [int(n) for n in q_lens]
        shape = getattr(x, "shape", (0, 0, 0))
        return [int(shape[1])] * int(shape[0]) if len(shape) == 3 else []

    def _step(
        self, cache: Cache, layer: int, seqs: Sequences, counts: Optional[list[int]],
        numbers: tuple[int, ...], threads: Optional[int], arrays: tuple[Any, ...],
    ) -> Any:  # fmt: skip
        """A step from a cache.  counts: tokens that are added to its sequences, or None."""
        ids = cache._ids(seqs)
        states = [cache._state(seq) for seq in ids]
        if not 0 <= layer < cache._layers:
            raise ValueError(f"layer is {layer}; it must be 0 .. {cache._layers - 1}")
        needs = [0] * len(ids)
        if counts is not None:
            if len(counts) != len(ids):
                raise ValueError(f"there are {len(counts)} sequences in x and {len(ids)} in seqs")
            if len(set(ids)) != len(ids):
                raise ValueError(f"seqs is {ids}; no sequence may be there twice")
            for i, (seq, state) in enumerate(zip(ids, states)):
                needs[i] = state.written[layer] + counts[i] - state.length
                if needs[i] < 0:
                    raise ValueError(
                        f"sequence {seq} has {state.length} tokens, of which layer {layer} has "
                        f"{state.written[layer]}; a step is the newest tokens, {-needs[i]} more"
                    )
        reserve = np.array(needs, np.int32) if any(needs) else None
        rows = np.array(ids, np.int32)
        try:
            out = self._c.run(*numbers, cache._c, layer, _threads(threads), *arrays, rows, reserve)
        except BaseException:
            for seq, state, need in zip(ids, states, needs):
                if need and cache._c.info(seq)[0] > state.length:
                    cache._c.truncate(seq, state.length)
            raise
        for i, state in enumerate(states):
            if counts is not None:
                state.written[layer] += counts[i]
                state.length += needs[i]
                state.version += needs[i] > 0
        return out


def _auto(name: str, value: Optional[int]) -> int:
    return -1 if value is None else _integer(name, value, 1, 2**53)


def _threads(threads: Optional[int]) -> int:
    return 0 if threads is None else _integer("threads", threads, 1, 1024)


def load(
    directory: Union[str, os.PathLike[str]], layer: int, part: str = "decoder",
    *, family: Optional[str] = None, weights: str = "f32",
) -> Layer:  # fmt: skip
    """A layer of a checkpoint in the format of Hugging Face: config.json and .safetensors files.

    Parameters
    ----------
    layer
        Counted from 0.
    part : "decoder", "encoder" or "cross"
        Which attention of an encoder-decoder; models that are only one of them have "decoder".
    family
        Read it as that of this family, whatever its model_type says.
    weights : "f32", "bf16", "int8" or "f32_packed"
        How the matrices are kept, as in Layer.

    What is not known is refused: ValueError.
    """
    number = _integer("layer", layer, 0, 2**31 - 1)
    made = Layer.__new__(Layer)
    made._c = _layers.load(
        os.fsencode(directory), _choice("part", part, _PARTS), number, family,
        _choice("weights", weights, _WEIGHTS),
    )  # fmt: skip
    return made
