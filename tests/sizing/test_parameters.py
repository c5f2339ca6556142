"""Numbers of parameters against models that Transformers makes of the same configurations.

Models are on the meta device: shapes without memory.  Whole models and their attention are counted.
"""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "model"))

from model_families import CONFIGS  # noqa: E402

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COMMAND = os.environ.get("QKV_COMMAND", "qkv")
OWN = {f.stem: json.loads(f.read_text()) for f in (pathlib.Path(__file__).parent / "configs").glob("*.json")}
ALL = {**CONFIGS, **OWN}



def size(folder, *options):
    done = subprocess.run([COMMAND, "size", str(folder), "--context", "64", "--json", *options],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["models"][0]


def make(config, folder):
    """The model with its output projection, and its own configuration."""
    (folder / "config.json").write_text(json.dumps(config))
    loaded = transformers.AutoConfig.from_pretrained(folder)
    if "text_config" in config:
        loaded = loaded.get_text_config()
    auto = transformers.AutoModelForCausalLM
    if loaded.model_type == "bert":
        auto = transformers.AutoModel
    elif loaded.is_encoder_decoder:
        auto = transformers.AutoModelForSeq2SeqLM
    with torch.device("meta"):
        model = auto.from_config(loaded)
    model.tie_weights()
    return model


def count(model):
    return sum({id(p): p.numel() for p in model.parameters()}.values())


@pytest.mark.parametrize("name", ALL)
def test_whole_model(name, tmp_path):
    model = make(ALL[name], tmp_path)
    found = size(tmp_path)
    parameters = found["parameters"]
    if parameters["not_counted"]:
        assert parameters["not_counted"] == ["other_parts"]
        assert parameters["total"] <= count(model)
    else:
        assert parameters["total"] == count(model), parameters


@pytest.mark.parametrize("seed", range(12))
def test_small_random_models(seed, tmp_path):
    draw = random.Random(seed)
    heads = draw.choice([2, 4, 6, 12])
    kv = draw.choice([g for g in range(1, heads + 1) if heads % g == 0])
    config = {
        "model_type": draw.choice(["llama", "qwen3", "mistral", "gemma2", "qwen2", "mixtral"]),
        "num_hidden_layers": draw.randint(1, 5), "hidden_size": 24 * draw.randint(1, 6), "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": 2 * draw.randint(4, 20), "intermediate_size": draw.randint(8, 200),
        "vocab_size": draw.randint(10, 500), "max_position_embeddings": 128, "num_local_experts": 4,
        "num_experts_per_tok": 2, "tie_word_embeddings": draw.random() < 0.5, "sliding_window": 16,
    }  # fmt: skip
    if config["model_type"] == "qwen2":
        config["hidden_size"] = heads * config.pop("head_dim")
    if config["model_type"] != "mixtral":
        del config["num_local_experts"], config["num_experts_per_tok"]
    if config["model_type"] == "llama":
        config["attention_bias"] = draw.random() < 0.5
        config["mlp_bias"] = draw.random() < 0.5
    model = make(config, tmp_path)
    assert size(tmp_path)["parameters"]["total"] == count(model), config
