"""The rope of a model, from its config.json."""

from __future__ import annotations

from typing import Any, Mapping, Optional

# Models that pair neighbouring channels without a field that says so.
_INTERLEAVED = {
    "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe", "glm",
    "glm4", "gptj", "helium", "llama4_text",
}  # fmt: skip

# A field of rope_parameters, and the parameter of Rope that it is.
_FIELDS = {
    "rope_theta": "theta", "factor": "factor", "attention_factor": "attention_factor",
    "beta_fast": "beta_fast", "beta_slow": "beta_slow", "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim", "truncate": "truncate", "short_factor": "short_factor",
    "long_factor": "long_factor", "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_positions",
}  # fmt: skip
# Of these the sections of multimodal positions are not used: a token of text has one position.
_OTHERS = {
    "rope_type", "type", "partial_rotary_factor", "mrope_section", "mrope_interleaved", "finetuned",
}  # fmt: skip
_OLD_NAMES = {"su": "longrope", "mrope": "default"}


def _first(config: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that is there and not null."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def _head_dim(config: Mapping[str, Any]) -> int:
    given = _first(config, "qk_rope_head_dim", "head_dim")
    if given is not None:
        return int(given)
    width = _first(config, "hidden_size", "n_embd", "d_model")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    if width is None or heads is None:
        raise ValueError(
            "the config has no head_dim, and not both of hidden_size and num_attention_heads"
        )
    return int(width) // int(heads)


def _parameters(config: Mapping[str, Any], layer_type: Optional[str]) -> Mapping[str, Any]:
    """rope_parameters or rope_scaling for this layer type; {} if there are none."""
    given = _first(config, "rope_parameters", "rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise TypeError(f"the config's rope parameters are {given!r}; a dict is accepted")
    kinds = [key for key, value in given.items() if isinstance(value, Mapping)]
    if not kinds:
        return given
    if layer_type not in given:
        words = ", ".join(repr(kind) for kind in given)
        raise ValueError(f"layer_type is {layer_type!r}; this config has ropes for {words}")
    if given[layer_type] is None:
        return {"rope_type": "none"}
    kind: Mapping[str, Any] = given[layer_type]
    return kind


def _rotary_dim(
    config: Mapping[str, Any], rope: Mapping[str, Any], kind: str, dim: int
) -> Optional[int]:
    share = _first(rope, "partial_rotary_factor")
    if share is None:
        share = _first(config, "partial_rotary_factor", "rotary_pct")
    if share is not None and kind == "proportional":
        return 2 * int(share * dim // 2)
    if share is not None:
        return int(share * dim)
    given = config.get("rotary_dim")
    return None if given is None else int(given)


def words_of(
    config: Mapping[str, Any], layer_type: Optional[str], head_dim: Optional[int]
) -> dict[str, Any]:
    """The parameters of Rope; head_dim None: that of the config."""
    if isinstance(config.get("text_config"), Mapping) and _first(config, "hidden_size") is None:
        config = config["text_config"]
    rope = _parameters(config, layer_type)
    theta = _first(config, "rope_theta", "rotary_emb_base")
    local = config.get("rope_local_base_freq")
    if layer_type == "sliding_attention" and local is not None and "rope_parameters" not in config:
        rope, theta = {}, local  # Gemma 3 before version 5 scales the full layers only
    unknown = sorted(set(rope) - set(_FIELDS) - _OTHERS)
    if unknown:
        raise ValueError(f"the config's rope parameters have {', '.join(unknown)}; not known here")
    kind = _first(rope, "rope_type", "type") or "default"
    kind = _OLD_NAMES.get(kind, kind)
    dim = _head_dim(config) if head_dim is None else head_dim
    words: dict[str, Any] = {
        _FIELDS[name]: value
        for name, value in rope.items()
        if name in _FIELDS and value is not None
    }
    words.update(head_dim=dim, type=kind, max_positions=config.get("max_position_embeddings"))
    if "theta" not in words and theta is not None:
        words["theta"] = theta
    outside = config.get("original_max_position_embeddings")
    if outside is not None:  # Phi-3 keeps it here, and this one counts
        words["original_max_positions"] = outside
    turning = _rotary_dim(config, rope, kind, dim)
    if turning == 0:
        words["type"] = "none"
    elif turning is not None:
        words["rotary_dim"] = turning
    paired = config.get("rope_interleave")
    words["interleaved"] = config.get("model_type") in _INTERLEAVED if paired is None else paired
    return words
