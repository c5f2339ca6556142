"""Which rows of a fused projection are whose: Transformers' own modules split 0, 1, 2, ...

A projection whose output is the number of each row shows where Transformers takes queries, keys and
values from.  At position 0 no rotation turns anything, and a softmax over one key has the weight 1, so
what enters the output projection are the values themselves.
"""

import json
import os
import subprocess

import pytest
import torch
import transformers
from model_families import gpt, hf

COMMAND = os.environ.get("QKV_COMMAND", "qkv")
FALCON = {"model_type": "falcon", "hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 1,
          "vocab_size": 100, "bias": True}  # fmt: skip
SMALL = {
    "phi3": hf("phi3", 1, 96, 6, 2, 64, 32064, 64),
    "gpt_neox": hf("gpt_neox", 1, 96, 6, None, 64, 100, 64, rotary_pct=0.5),
    "gpt2": gpt("gpt2", 1, 96, 6, 50257, 64),
    "gpt_bigcode-mqa": gpt("gpt_bigcode", 1, 96, 6, 50257, 64, multi_query=True),
    "gpt_bigcode-mha": gpt("gpt_bigcode", 1, 96, 6, 50257, 64, multi_query=False),
    "bloom": {"model_type": "bloom", "hidden_size": 96, "n_layer": 1, "n_head": 6, "vocab_size": 100},
    "falcon-groups": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 3},
    "falcon-one": FALCON | {"multi_query": True},
    "falcon-all": FALCON | {"multi_query": False, "alibi": True, "parallel_attn": False},
    "mpt": {"model_type": "mpt", "d_model": 96, "n_heads": 6, "n_layers": 1, "max_seq_len": 64, "vocab_size": 100,
            "attn_config": {}},
}  # fmt: skip
PLACES = {"phi3": "layers.0.self_attn.qkv_proj", "gpt_neox": "layers.0.attention.query_key_value",
          "gpt2": "h.0.attn.c_attn", "gpt_bigcode": "h.0.attn.c_attn", "bloom": "h.0.self_attention.query_key_value",
          "falcon": "h.0.self_attention.query_key_value", "mpt": "blocks.0.attn.Wqkv"}  # fmt: skip
CAPTURED = {}


def capture(module, query, key, value, attention_mask, **more):
    """An attention function that only looks."""
    CAPTURED.update(q=query[0, :, 0], k=key[0, :, 0], v=value[0, :, 0])
    return torch.zeros(*query.shape[:1], 1, query.shape[1], value.shape[-1]), None


transformers.AttentionInterface.register("capture", capture)


class Numbers(torch.nn.Module):
    """Gives every row its number."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.arange(rows, dtype=torch.float32)

    def forward(self, x):
        return self.rows.expand(*x.shape[:-1], -1)


def load(name, folder):
    (folder / "config.json").write_text(json.dumps(SMALL[name]))
    done = subprocess.run([COMMAND, "layer", "info", str(folder), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights = json.loads(done.stdout)["kinds"][0]["weights"]
    config = transformers.AutoConfig.from_pretrained(folder)
    config.alibi = getattr(config, "alibi", False)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    place = PLACES[config.model_type]
    outer, last = place.rsplit(".", 1)
    rows = weights["q"]["rows"]
    old = getattr(model.get_submodule(outer), last).weight
    assert rows in old.shape and rows != weights["q"]["columns"]
    setattr(model.get_submodule(outer), last, Numbers(rows))
    return weights, model, model.get_submodule(outer)


def rows_of(weight):
    """The formula of qkv/model.h."""
    return torch.tensor(
        [[weight["first"] + h // weight["group_heads"] * weight["group_stride"]
          + h % weight["group_heads"] * weight["head_stride"] + d for d in range(weight["width"])]
         for h in range(weight["heads"])], dtype=torch.float32)  # fmt: skip


def expect(weights, role, heads):
    """Rows of a role, keys and values repeated as often as Transformers has them."""
    rows = rows_of(weights[role])
    return rows.repeat_interleave(heads // len(rows), 0)


@pytest.mark.parametrize("name", SMALL)
def test_values_reach_the_output(name, tmp_path):
    weights, model, attention = load(name, tmp_path)
    output = attention.get_submodule(next(n for n in ("o_proj", "dense", "c_proj", "out_proj")
                                          if hasattr(attention, n)))  # fmt: skip
    seen = []
    output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([[1]]))
    assert torch.equal(seen[0].flatten(), expect(weights, "v", 6).flatten())


@pytest.mark.parametrize("name", ["phi3", "gpt_neox", "gpt2", "gpt_bigcode-mqa", "gpt_bigcode-mha"])
def test_queries_and_keys(name, tmp_path):
    weights, model, _ = load(name, tmp_path)
    model.set_attn_implementation("capture")
    CAPTURED.clear()
    with torch.no_grad():
        model(input_ids=torch.tensor([[1]]))
    for role, tensor in CAPTURED.items():
        assert torch.equal(tensor, expect(weights, role, len(tensor))), role


@pytest.mark.parametrize("name", ["falcon-groups", "falcon-one", "falcon-all", "bloom"])
def test_split_functions(name, tmp_path):
    weights, _, attention = load(name, tmp_path)
    rows = torch.arange(weights["q"]["rows"], dtype=torch.float32)[None, None]
    split = attention._reshape if name == "bloom" else attention._split_heads
    for role, tensor in zip("qkv", split(rows), strict=True):
        tensor = tensor.reshape(-1, 16)
        assert torch.equal(tensor, expect(weights, role, len(tensor))), role
