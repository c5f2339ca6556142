"""How each library is called.  LIBRARIES maps a name to its class, imported only when asked for:
each library lives in an environment of its own."""

from __future__ import annotations

import importlib

from peers.adapters.base import Peer, Refused

LIBRARIES = {
    "qkv": "own:Qkv",
    "pytorch": "pytorch:PyTorch",
    "byhand": "pytorch:ByHand",
    "onnxruntime": "onnx_runtime:OnnxRuntime",
    "openvino": "open_vino:OpenVino",
    "vllm": "vllm_cpu:Vllm",
    "sglang": "sglang_cpu:SgLang",
    "ggml": "ggml:Ggml",
}

__all__ = ["LIBRARIES", "Peer", "Refused", "make"]


def make(library: str, threads: int) -> Peer:
    """The adapter of a library; ImportError and OSError if it is not there."""
    module, name = LIBRARIES[library].split(":")
    found = getattr(importlib.import_module(f"peers.adapters.{module}"), name)
    peer: Peer = found(threads)
    return peer
