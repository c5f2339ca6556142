"""qkv layer info: what is said of a model, and which configurations are refused."""

import json
import os

import pytest

MISTRAL = {"model_type": "mistral", "num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 8,
           "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256, "vocab_size": 100,
           "max_position_embeddings": 4096, "sliding_window": 512, "rope_theta": 1e6,
           "torch_dtype": "bfloat16"}  # fmt: skip
GEMMA = {"model_type": "gemma3", "text_config": {
    "hidden_size": 256, "num_hidden_layers": 7, "intermediate_size": 512, "sliding_window": 64,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0}}}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    """model(config) writes m/config.json and returns m."""

    def write(config, name="m"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return name

    return write


def test_text(qkv, model):
    text = qkv("layer", "info", model(MISTRAL)).stdout
    for words in ("m: a mistral model", "4, 128 channels", "512 elements a token, 1024 bytes in 16 bits",
                  "0 elements, 0 bytes, when windows", "layers 0-3",
                  "GQA-2: 8 query heads, 2 key/value heads, 32 channels",
                  "scale 0.1767767", "a window of 512 keys", "default, theta 1000000, 32 of 32 channels"):  # fmt: skip
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 100
    assert qkv("layer", "info", "m/config.json").stdout == text.replace("m: a", "m/config.json: a")


def test_kinds_of_layers(qkv, model):
    text = qkv("layer", "info", model(GEMMA)).stdout
    assert "layers 0-4, 6\n" in text and "layer 5\n" in text
    assert text.count("RMS with 1 + w") == 2 and "linear, theta 1000000, factor 8" in text
    one = qkv("layer", "info", "m", "--layer", "5").stdout
    assert "layer 5\n" in one and "layers 0" not in one
    got = json.loads(qkv("layer", "info", "--json", "m").stdout)
    assert [kind["layers"] for kind in got["kinds"]] == [[0, 1, 2, 3, 4, 6], [5]]
    assert [kind["window"] for kind in got["kinds"]] == [64, None]
    only = json.loads(qkv("layer", "info", "--json", "m", "--layer", "6").stdout)
    assert [kind["layers"] for kind in only["kinds"]] == [[6]]
    assert only["kinds"][0]["weights"]["q"]["names"][0] == "model.language_model.layers.6.self_attn.q_proj.weight"


def test_json(qkv, model):
    got = json.loads(qkv("layer", "info", model(MISTRAL), "--json").stdout)
    assert (got["family"], got["n_layers"], got["d_model"], got["dtype"]) == ("mistral", 4, 128, "bf16")
    kind = got["kinds"][0]
    assert kind["variant"] == "GQA-2" and kind["cache_elements"] == 2 * 2 * 32
    assert got["cache_elements"] == {"token": 512, "token_after_windows": 0, "memory_token": 0, "state": 0}
    assert len(kind["rope"]["frequencies"]) == 16 and kind["rope"]["frequencies"][0] == 1
    assert got["unpriced"] == "" and not got["sizing_only"]


def test_forced_family(qkv, model):
    path = model(MISTRAL | {"model_type": "mystery"})
    done = qkv("layer", "info", path, code=2)
    assert 'm/config.json: model_type is "mystery", which is not known; known are llama, mistral' in done.stderr
    assert "m: a mistral model" in qkv("layer", "info", path, "--as", "mistral").stdout
    assert "there is no family mystery" in qkv("layer", "info", path, "--as", "mystery", code=2).stderr


def test_unpriced(qkv, model):
    text = qkv("layer", "info", model(MISTRAL | {"attention_sparkle": True, "hidden_act": "silu"})).stdout
    assert "not looked at  attention_sparkle\n" in text


@pytest.mark.parametrize("arguments, words", [
    ([], "no subcommand is given; accepted "),
    (["frobnicate"], "frobnicate is not a subcommand"),
    (["info"], "info takes one MODEL_DIR"),
    (["info", "m", "m"], "info takes one MODEL_DIR"),
    (["info", "--layer"], "--layer needs a value"),
    (["info", "m", "--layer", "4"], "--layer"),
    (["info", "m", "--layer", "x"], "--layer"),
    (["info", "m", "--frobnicate"], "--frobnicate is not an option of qkv layer info"),
    (["info", "missing"], "missing: cannot open: No such file"),
    (["info", "empty"], "empty/config.json: cannot open: No such file"),
    (["info", "/dev/null"], "/dev/null: cannot read: it is not a regular file"),
])  # fmt: skip
def test_wrong_calls(qkv, model, tmp_path, arguments, words):
    model(MISTRAL)
    os.mkdir(tmp_path / "empty")
    done = qkv("layer", *arguments, code=2)
    assert words in done.stderr, done.stderr


@pytest.mark.parametrize("change, words", [
    ({"num_attention_heads": None}, "num_attention_heads is null; a mistral model needs it"),
    ({"num_attention_heads": "8"}, 'num_attention_heads is "8"; accepted are whole numbers'),
    ({"num_key_value_heads": 3}, "num_key_value_heads is 3; accepted are divisors of num_attention_heads, 8"),
    ({"head_dim": 4096}, "head_dim is 4096"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling/factor is missing"),
    ({"rope_scaling": {"type": "ntk"}}, 'rope_scaling/type is "ntk"'),
    ({"sliding_window": 0}, "sliding_window is 0"),
])  # fmt: skip
def test_refused_models(qkv, model, change, words):
    done = qkv("layer", "info", model(MISTRAL | change), code=2)
    assert done.stderr.startswith("qkv layer: m/config.json: ") and words in done.stderr, done.stderr


def test_broken_files(qkv, tmp_path):
    for content, words in [("", "not valid JSON"), ("[]", "not a table"), ('{"a": 1, "a": 1}', "duplicate"),
                           ("[" * 100000, "not valid JSON"), (json.dumps(MISTRAL)[:-9], "not valid JSON")]:  # fmt: skip
        (tmp_path / "config.json").write_text(content)
        assert words in qkv("layer", "info", "config.json", code=2).stderr
