"""qkv convert of whole models: the new folder loads with qkv and with Transformers."""

import json
import os
import resource
import subprocess

import numpy as np
import pytest
from cli_command import COMMAND
from safetensors import safe_open
from safetensors.numpy import save_file

from qkv import layers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HIDDEN, H, D, T = 48, 6, 8, 11
SIZES = {
    "hidden_size": HIDDEN, "num_attention_heads": H, "intermediate_size": 32, "num_hidden_layers": 2,
    "vocab_size": 40, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
DEEPSEEK = SIZES | {
    "num_key_value_heads": H, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "kv_lora_rank": 12, "q_lora_rank": 14, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}  # fmt: skip
FALCON = {"hidden_size": HIDDEN, "num_attention_heads": H, "num_hidden_layers": 2, "vocab_size": 40}
MODELS = {
    "llama": ("LlamaConfig", SIZES | {"num_key_value_heads": H, "attention_bias": True}),
    "qwen3": ("Qwen3Config", SIZES | {"num_key_value_heads": H, "head_dim": 16}),
    "gemma2": ("Gemma2Config", SIZES | {"num_key_value_heads": H, "head_dim": 8, "sliding_window": 4}),
    "phi3": ("Phi3Config", SIZES | {"num_key_value_heads": H}),
    "falcon": ("FalconConfig", FALCON | {"new_decoder_architecture": True, "num_kv_heads": H}),
    "gpt_bigcode": (
        "GPTBigCodeConfig",
        {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "n_positions": 64, "vocab_size": 40, "multi_query": False},
    ),
    "deepseek_v3": ("DeepseekV3Config", DEEPSEEK),
    "deepseek_v2": ("DeepseekV2Config", DEEPSEEK),
    "gpt2": ("GPT2Config", {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "n_positions": 64, "vocab_size": 40}),
}  # fmt: skip


def build(name, folder, dtype=torch.float32, shards="1GB"):
    torch.manual_seed(5)
    kind, fields = MODELS[name]
    config = getattr(transformers, kind)(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) / (p.shape[-1] ** 0.5 if p.ndim > 1 else 3))
    model = model.to(dtype).eval()
    model.save_pretrained(folder, max_shard_size=shards)
    (folder / "tokenizer.json").write_text('{"a": 1}')
    (folder / "pytorch_model.bin").write_bytes(b"old weights")
    return model


def loaded(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def logits(model):
    ids = torch.randint(1, 37, (2, T), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model(input_ids=ids).logits.float().numpy()


def tensors(folder):
    """name -> (dtype, shape, bits)"""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():
                t = file.get_tensor(name)
                assert name not in found
                found[name] = (t.dtype, tuple(t.shape), t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found


@pytest.fixture
def x(tmp_path, rng):
    x = rng.standard_normal((2, T, HIDDEN)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


def change(after, before):
    off = np.abs(after - before).max() / np.abs(before).max()
    return off, np.sqrt(((after - before) ** 2).sum() / (before**2).sum())


def pooled(model, heads):
    """The same means, taken in the modules of the old model."""
    wanted = {n: p.clone() for n, p in model.state_dict().items()}
    for name, p in wanted.items():
        if ".k_proj." in name or ".v_proj." in name:
            apart = p.double().reshape(heads, H // heads, -1, *p.shape[1:])
            wanted[name] = apart.mean(1).reshape(-1, *p.shape[1:]).to(p.dtype)
    return wanted


@pytest.mark.parametrize("to, heads, dtype, shards", [
    ("gqa:2", 2, torch.float32, "1GB"), ("gqa:2", 2, torch.bfloat16, "12KB"),
    ("mqa", 1, torch.float16, "12KB"), ("gqa:3", 3, torch.bfloat16, "1GB"),
])  # fmt: skip
def test_llama(qkv, tmp_path, x, to, heads, dtype, shards):
    """Means, files as before, everything else bit for bit, and a model that Transformers loads."""
    model = build("llama", tmp_path / "old", dtype, shards)
    report = json.loads(
        qkv("convert", "old", "--to", to, "-o", "new", "--in", "x.npy", "--json").stdout
    )
    old, new = tmp_path / "old", tmp_path / "new"
    config = json.loads((old / "config.json").read_text())
    assert json.loads((new / "config.json").read_text()) == config | {"num_key_value_heads": heads}
    assert sorted(p.name for p in new.iterdir()) == sorted(
        p.name for p in old.iterdir() if p.name != "pytorch_model.bin")  # fmt: skip
    assert report["left_out"] == ["pytorch_model.bin"]
    assert (new / "tokenizer.json").read_text() == '{"a": 1}'

    before, after, wanted = tensors(old), tensors(new), pooled(model, heads)
    assert list(before) == list(after)
    changed = 0
    for name, (kind, shape, bits) in after.items():
        assert kind == before[name][0] == dtype and shape == tuple(wanted[name].shape)
        assert bits == wanted[name].contiguous().view(torch.uint8).numpy().tobytes(), name
        changed += bits != before[name][2]
    assert changed == report["tensors_changed"] == 8
    if shards != "1GB":
        index = json.loads((new / "model.safetensors.index.json").read_text())
        assert len(set(index["weight_map"].values())) == report["weight_files"] > 2
        assert index["metadata"]["total_size"] == sum(len(bits) for _, _, bits in after.values())
        if "total_parameters" in index["metadata"]:
            assert index["metadata"]["total_parameters"] == sum(p.numel() for p in wanted.values())

    again = loaded(new)
    assert again.config.num_key_value_heads == heads
    for name, p in again.state_dict().items():
        assert torch.equal(p.to(dtype), wanted[name]), name
    assert np.isfinite(logits(again)).all()
    for i, row in enumerate(report["layers"]):
        was, made = layers.load(old, i), layers.load(new, i)
        assert (row["from"], row["to"]) == ("MHA", was.variant.replace("MHA", made.variant))
        off, rms = change(made(x), was(x))
        assert row["largest_change"] == pytest.approx(off, rel=1e-3) and off > 1e-2
        assert row["rms_change"] == pytest.approx(rms, rel=1e-3)
    assert report["cache_elements"] * H == report["cache_elements_before"] * heads
    assert report["parameters_before"] - report["parameters"] == 2 * 2 * (H - heads) * D * (HIDDEN + 1)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "phi3", "falcon"])
def test_families(qkv, tmp_path, x, name):
    """Fused projections too: what qkv computes from the new folder, Transformers computes."""
    build(name, tmp_path / "old", shards="20KB")
    qkv("convert", "old", "--to", "gqa:3", "-o", "new", "--in", "x.npy")
    model = loaded(tmp_path / "new")
    seen = {}
    base = model.get_submodule("transformer.h" if name == "falcon" else "model.layers")
    for i in range(2):
        module = base[i].self_attention if name == "falcon" else base[i].self_attn
        first = module.get_submodule({"phi3": "qkv_proj", "falcon": "query_key_value"}.get(name, "q_proj"))
        last = module.get_submodule("dense" if name == "falcon" else "o_proj")
        first.register_forward_hook(lambda m, a, o, i=i: seen.update({(i, "x"): a[0].numpy()}))
        last.register_forward_hook(lambda m, a, o, i=i: seen.update({(i, "out"): o.numpy()}))
    logits(model)
    for i in range(2):
        layer = layers.load(tmp_path / "new", i)
        assert layer.variant == "GQA-3"
        out = seen[i, "out"]
        assert np.abs(layer(seen[i, "x"]) - out).max() <= 2e-5 * np.abs(out).max()


def test_heads_that_there_are(qkv, tmp_path):
    """gqa with as many heads changes no bit."""
    build("llama", tmp_path / "old", torch.bfloat16)
    qkv("convert", "old", "--to", f"gqa:{H}", "-o", "new")
    assert tensors(tmp_path / "old") == tensors(tmp_path / "new")


def test_bigcode(qkv, tmp_path):
    """A family that has all heads or one, in one fused tensor."""
    build("gpt_bigcode", tmp_path / "old")
    error = qkv("convert", "old", "--to", "gqa:2", "-o", "new", code=2).stderr
    assert "family gpt_bigcode" in error and not (tmp_path / "new").exists()
    qkv("convert", "old", "--to", "mqa", "-o", "new")
    model = loaded(tmp_path / "new")
    assert model.config.multi_query and np.isfinite(logits(model)).all()
    old, new = layers.load(tmp_path / "old", 1), layers.load(tmp_path / "new", 1)
    assert (old.variant, new.variant) == ("MHA", "MQA")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pairing(qkv, tmp_path, x, dtype):
    """Rows in another order: the model is the same function, says Transformers."""
    model = build("deepseek_v3", tmp_path / "old", dtype, "20KB")
    wanted = logits(model)
    for old, new, to in (("old", "new", "half-split"), ("new", "back", "interleaved")):
        report = json.loads(qkv("convert", old, "--to", to, "-o", new, "--in", "x.npy", "--json").stdout)
        assert all(row["largest_change"] < 1e-5 for row in report["layers"])
        config = json.loads((tmp_path / new / "config.json").read_text())
        assert config["rope_interleave"] is (to == "interleaved")
        got = logits(loaded(tmp_path / new).to(dtype))
        scale = np.abs(wanted).max()
        assert np.abs(got - wanted).max() <= (1e-5 if dtype == torch.float32 else 3e-2) * scale
    assert tensors(tmp_path / "old") != tensors(tmp_path / "new")
    assert tensors(tmp_path / "old") == tensors(tmp_path / "back")


def test_report(qkv, tmp_path, x):
    build("llama", tmp_path / "old")
    text = qkv("convert", "old", "--to", "gqa:2", "-o", "new/", "--in", "x.npy").stdout
    assert "llama, 2 layers of MHA to GQA-2 (gqa:2)" in text and "largest change" in text
    assert "64 elements a token in all layers, before 192" in text
    assert "left out    pytorch_model.bin" in text
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, how, words", [
    ("llama", ["--to", "gqa:4"], ["--to gqa:4: n_kv_heads is 4; accepted are divisors of the layer's 6"]),
    ("llama", ["--to", "interleaved"], ["--to interleaved: no field", "family llama"]),
    ("llama", ["--to", "half-split"], ["rope.type is default", "half-split"]),
    ("llama", ["--to", "mla:8"], ["--to mla:8: family llama", "norm"]),
    ("gpt2", ["--to", "mla:8"], ["--to mla:8: family gpt2", "--layer N"]),
    ("gpt2", ["--to", "mqa"], ["family gpt2"]),
    ("deepseek_v3", ["--to", "mqa"], ["the layer is MLA"]),
    ("deepseek_v2", ["--to", "half-split"], ["family deepseek_v2"]),
    ("llama", ["--to", "mqa", "--in", "missing.npy"], ["--in: missing.npy"]),
    ("llama", ["--to", "mqa", "--part", "decoder"], ["--part is given without --layer"]),
    ("llama", ["--to", "moe"], ["--to is moe"]),
])  # fmt: skip
def test_refusals(qkv, tmp_path, name, how, words):
    build(name, tmp_path / "old")
    error = qkv("convert", "old", *how, "-o", "new", code=2).stderr
    for word in words:
        assert word in error, error
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_layers_that_config_does_not_count(qkv, tmp_path):
    """As DeepSeek-V3's layer for a second token: it would keep the old order of rows."""
    build("deepseek_v3", tmp_path / "old")
    path = tmp_path / "old/config.json"
    config = json.loads(path.read_text())
    config["num_hidden_layers"] -= 1
    path.write_text(json.dumps(config))
    error = qkv("convert", "old", "--to", "half-split", "-o", "new", code=2).stderr
    assert f"belongs to a layer beyond the {config['num_hidden_layers']} of config.json" in error
    assert not (tmp_path / "new").exists()


def test_targets(qkv, tmp_path):
    build("llama", tmp_path / "old")
    (tmp_path / "file").write_text("keep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(p.name for p in tmp_path.iterdir())
    for target in ("file", "empty", "link", "old", "empty/"):
        error = qkv("convert", "old", "--to", "mqa", "-o", target, code=2).stderr
        assert f"-o is {target}, which is there already" in error
    assert "beside which no folder can be made" in qkv(
        "convert", "old", "--to", "mqa", "-o", "no/new", code=2).stderr  # fmt: skip
    assert "-o is not given" in qkv("convert", "old", "--to", "mqa", code=2).stderr
    assert "-o is empty" in qkv("convert", "old", "--to", "mqa", "-o", "", code=2).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize("most", [100, 3_000, 20_000])
def test_a_disk_that_is_full(tmp_path, most):
    """Wherever it happens, nothing is left."""
    build("llama", tmp_path / "old", shards="30KB")
    done = subprocess.run(
        [COMMAND, "convert", "old", "--to", "mqa", "-o", "new"], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip
    assert done.returncode == 2 and "cannot be written: File too large" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_damaged_models(qkv, tmp_path):
    """Files that are cut short, tensors of types and shapes that are none."""
    build("llama", tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    whole = path.read_bytes()
    with safe_open(path, "np") as file:
        good = {name: file.get_tensor(name) for name in file.keys()}
    name = "model.layers.1.self_attn.k_proj.weight"

    def refuse(words):
        error = qkv("convert", "old", "--to", "mqa", "-o", "new", code=2).stderr
        assert words in error, error
        assert [p.name for p in tmp_path.iterdir()] == ["old"]

    for cut in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refuse("model.safetensors")
    save_file({n: a for n, a in good.items() if n != name}, path)
    refuse("k_proj")
    save_file(good | {name: good[name].astype(np.float64)}, path)
    refuse(f"{name} is stored as F64; accepted are F32, F16 and BF16")
    save_file(good | {name: good[name].astype(np.int32)}, path)
    refuse("k_proj")
    save_file(good | {name: good[name][:-1]}, path)
    refuse("k_proj")


def test_tensors_of_other_types_are_copied(qkv, tmp_path):
    """What attention has no use for, NaN and infinities among it."""
    build("llama", tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    with safe_open(path, "np") as file:
        good = {name: file.get_tensor(name) for name in file.keys()}
    good["extra.codes"] = np.arange(7, dtype=np.uint8)
    good["extra.steps"] = np.array([[2**40, -1]])
    good["extra.scale"] = np.array(3.5, np.float64)
    good["extra.empty"] = np.zeros((0, 3), np.float32)
    k = good["model.layers.0.self_attn.k_proj.weight"]
    k[0, :2] = np.nan, np.inf
    good["model.embed_tokens.weight"][0, 0] = np.nan
    save_file(good, path, {"format": "pt"})
    qkv("convert", "old", "--to", "gqa:2", "-o", "new")
    old, new = tensors(tmp_path / "old"), tensors(tmp_path / "new")
    for name in old:
        if not ("k_proj" in name or "v_proj" in name):
            assert old[name] == new[name]
    with safe_open(tmp_path / "new" / "model.safetensors", "np") as file:
        made = file.get_tensor("model.layers.0.self_attn.k_proj.weight")
    assert np.isnan(made[0, 0]) and np.isinf(made[0, 1]) and np.isfinite(made[1:]).all()
