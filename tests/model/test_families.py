"""Every family against Transformers: its own configuration and model objects, without weights.

Models are built on the meta device with the published sizes, so names and shapes of weights, counts
of parameters, windows and scales are those of Transformers itself.  Rotations are instantiated for
real, because their frequencies are what counts.
"""

import copy
import json
import math
import os
import subprocess

import pytest
import torch
import transformers
from model_families import CONFIGS, TOKEN_ELEMENTS

COMMAND = os.environ.get("QKV_COMMAND", "qkv")

# Where a family's attention modules are in its model, by part; the layer's number for {}.
MODULES = {
    "gpt2": {"decoder": "h.{}.attn"},
    "gpt_bigcode": {"decoder": "h.{}.attn"},
    "gptj": {"decoder": "h.{}.attn"},
    "gpt_neox": {"decoder": "layers.{}.attention"},
    "falcon": {"decoder": "h.{}.self_attention"},
    "bloom": {"decoder": "h.{}.self_attention"},
    "mpt": {"decoder": "blocks.{}.attn"},
    "bert": {"decoder": "encoder.layer.{}.attention"},
    "t5": {"decoder": "decoder.block.{}.layer.0.SelfAttention", "encoder": "encoder.block.{}.layer.0.SelfAttention",
           "cross": "decoder.block.{}.layer.1.EncDecAttention"},
    "bart": {"decoder": "decoder.layers.{}.self_attn", "encoder": "encoder.layers.{}.self_attn",
             "cross": "decoder.layers.{}.encoder_attn"},
}  # fmt: skip
LLAMA_LIKE = {"decoder": "layers.{}.self_attn"}


def describe(folder):
    done = subprocess.run([COMMAND, "layer", "info", str(folder), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Case:
    """One configuration: what qkv says, and the model that Transformers makes of it."""

    def __init__(self, name, folder):
        (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
        self.info = describe(folder)
        config = transformers.AutoConfig.from_pretrained(folder)
        self.config = config.get_text_config() if "text_config" in CONFIGS[name] else config
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(self.config)
        self.model = model
        self.family = self.info["family"]

    def attention(self, part, layer):
        return self.model.get_submodule(MODULES.get(self.family, LLAMA_LIKE)[part].format(layer))

    def layers(self):
        for kind in self.info["kinds"]:
            for layer in kind["layers"]:
                yield kind, layer


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made.clear()  # one model at a time
            made[name] = Case(name, tmp_path_factory.mktemp("model"))
        return made[name]

    return get


@pytest.fixture(scope="module", params=CONFIGS)  # of module scope: one model at a time
def case(request, cases):
    return cases(request.param)


def test_every_family_has_a_configuration(tmp_path):
    seen = set()
    for config in CONFIGS.values():
        (tmp_path / "config.json").write_text(json.dumps(config))
        seen.add(describe(tmp_path)["family"])
    refused = subprocess.run([COMMAND, "layer", "info", str(tmp_path), "--as", "x"], capture_output=True, text=True)
    assert set(refused.stderr.split("known are ")[1].strip().split(", ")) == seen


def first_there(module, *names, default=None):
    for name in names:
        value = getattr(module, name, None)
        if value is not None:
            return value
    return default


def get_window(case, layer):
    """The window of a layer, from Transformers' own configuration."""
    kinds = getattr(case.config, "layer_types", None)
    window = getattr(case.config, "sliding_window", None)
    if kinds is not None:
        return window if kinds[layer] == "sliding_attention" else None
    return window


def test_attention(case):
    """Heads, widths, scale, window, sinks and causality, layer by layer."""
    seen = set()
    for kind, layer in case.layers():
        if kind["variant"] == "state":
            assert case.config.layer_types[layer] == "linear_attention"
            continue
        module = case.attention(kind["part"], layer)
        seen.add((kind["part"], layer))
        module = getattr(module, "self", module)  # BERT's
        dim = first_there(module, "qk_head_dim", "head_dim", "attention_head_size", "head_size", "key_value_proj_dim")
        heads = first_there(module, "num_heads", "num_attention_heads", "n_heads",
                            default=getattr(case.config, "num_attention_heads", None))  # fmt: skip
        assert kind["head_dim"] == dim and kind["n_q_heads"] == heads, (kind, layer)
        groups = getattr(module, "num_key_value_groups", None)
        if groups is not None and kind["variant"] != "MLA":
            assert kind["n_kv_heads"] * groups == heads
        scale = first_there(module, "scaling", "softmax_scale", "inv_norm_factor")
        if scale is not None and case.family != "t5":
            expected = 1 / module.scale_attn if case.family == "gptj" else scale
            if case.info["scale_by_layer"]:  # GPT-2 divides in another place
                expected = kind["head_dim"] ** -0.5
            assert kind["scale"] == pytest.approx(expected, rel=1e-8)  # nine digits are printed
        if case.family not in ("t5", "bart"):
            assert kind["window"] == get_window(case, layer), layer
        assert kind["sinks"] == (first_there(module, "sinks") is not None)
        causal = getattr(module, "is_causal", None)
        if causal is not None and not kind["cross"]:
            assert kind["causal"] == causal
    assert {layer for part, layer in seen if part == "decoder"} <= set(range(case.info["n_layers"]))


def test_every_layer_is_there_once(case):
    for part, n in ("decoder", case.info["n_layers"]), ("encoder", case.info["encoder_layers"]):
        layers = sorted(i for kind in case.info["kinds"] if kind["part"] == part for i in kind["layers"])
        assert layers == list(range(n))
    assert case.info["n_layers"] == first_there(case.config, "num_decoder_layers", "decoder_layers",
                                                "num_hidden_layers")  # fmt: skip


def test_weights(case):
    """Names, shapes and biases of every weight of every attention, and that there are no others."""
    if case.info["sizing_only"]:
        assert not any("weights" in kind for kind in case.info["kinds"])
        return
    state = {name: tuple(tensor.shape) for name, tensor in case.model.state_dict().items()}
    for kind in case.info["kinds"]:
        layer, used = kind["layers"][0], set()
        for role, weight in kind["weights"].items():
            name = next((n for n in weight["names"] if n in state), None)
            assert name is not None, (role, weight["names"])
            shape = [weight["rows"]] + ([weight["columns"]] if weight["columns"] else [])
            assert state[name] == tuple(shape[::-1] if weight["transposed"] else shape), (role, name)
            bias = name.removesuffix(".weight") + ".bias"
            assert (bias in state) == weight["bias"], (role, bias)
            used |= {name, bias}
        place = MODULES.get(case.family, LLAMA_LIKE)[kind["part"]].format(layer) + "."
        others = {name for name in state if name.startswith(place)} - used
        assert not {name for name in others if "LayerNorm" not in name}, others


def test_saved_by_transformers(case, tmp_path):
    """What Transformers makes of the file and saves, in the form of its version 5, says the same."""
    case.config.save_pretrained(tmp_path)
    again, before = describe(tmp_path), copy.deepcopy(case.info)
    assert again["unpriced"] == before["unpriced"] or before["unpriced"] == ""
    for info in again, before:
        for name in "model", "model_type", "unpriced", "tied_embeddings", "dtype":  # may stand outside of text_config
            del info[name]
        for kind in info["kinds"]:
            kind.pop("weights", None)
            if kind.get("rope"):  # defaults of Transformers that these files leave out
                del kind["rope"]["max_positions"], kind["rope"]["original_max_positions"]
    if again["max_positions"] != before["max_positions"]:
        assert before["max_positions"] == 0
        again["max_positions"] = 0
    assert again == before


def get_rope(case, kind):
    """(frequencies, factor) of Transformers for a layer of this kind; None without a rotation."""
    layer = kind["layers"][0]
    if case.family == "gptj":
        dim = case.config.rotary_dim
        return 1.0 / 10000 ** (torch.arange(0, dim, 2) / dim), 1.0
    module = getattr(case.model, "rotary_emb", None)
    if module is None:
        return None
    rope = type(module)(config=case.config)
    name = getattr(case.config, "layer_types", None) and f"{case.config.layer_types[layer]}_inv_freq"
    if name and hasattr(rope, name):
        return getattr(rope, name), getattr(rope, name.replace("inv_freq", "attention_scaling"))
    return rope.inv_freq, rope.attention_scaling


def test_rope(case):
    for kind in case.info["kinds"]:
        if kind["variant"] == "state":
            continue
        rope, expected = kind["rope"], get_rope(case, kind)
        unrotated = case.family == "falcon" and case.config.alibi
        if case.family == "llama4" and not case.config.no_rope_layers[kind["layers"][0]]:
            unrotated = True
        if expected is None or unrotated:
            assert rope is None
            continue
        frequencies, factor = expected
        got = torch.tensor(rope["frequencies"], dtype=torch.float64)
        if rope["type"] == "proportional":  # Transformers has zeros for the pairs that do not turn
            got = torch.cat([got, torch.zeros(len(frequencies) - len(got))])
        assert got.shape == frequencies.shape
        torch.testing.assert_close(got, frequencies.double(), rtol=2e-6, atol=0)
        assert rope["attention_factor"] == pytest.approx(factor, rel=1e-6)


def test_longrope_switches(cases):
    case = cases("phi-3-longrope")
    rope = case.info["kinds"][0]["rope"]
    make = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"]
    for name, tokens in ("frequencies", 4096), ("long_frequencies", 4097):
        expected, factor = make(case.config, "cpu", seq_len=tokens)
        torch.testing.assert_close(torch.tensor(rope[name]), expected, rtol=2e-6, atol=0)
        assert rope["attention_factor"] == pytest.approx(factor)


def count_ffn(ffn, d):
    """Parameters of a dense block, and of one with experts."""
    matrices = 3 if ffn["gated"] else 2

    def block(width):
        bias = (matrices - 1) * width + d if ffn["bias"] else 0
        return matrices * d * width + bias

    dense = block(ffn["width"])
    shared = block(ffn["shared_width"]) if ffn["shared_width"] else 0
    sparse = ffn["experts"] * (block(ffn["expert_width"]) + d) + shared
    return dense, sparse


def count(info):
    """Parameters from what qkv says, for families that have nothing besides."""
    d, total = info["d_model"], 0
    dense, sparse = count_ffn(info["ffn"], d)
    for kind in info["kinds"]:
        attention = kind.get("state_parameters", 0)
        seen = set()
        for role, weight in kind.get("weights", {}).items():
            parameters = weight["rows"] * (max(weight["columns"], 1) + weight["bias"])
            if role == "relative_bias":  # one for all layers
                total += parameters
            elif weight["names"][0] not in seen:
                attention += parameters
            seen.add(weight["names"][0])
        total += attention * len(kind["layers"])
    ffn = info["ffn"]
    for i in range(info["n_layers"]):
        first, every = ffn["first_dense_layers"], ffn["expert_every"]
        has = ffn["experts"] and i >= first and (i - first + 1) % every == 0
        total += (sparse if has else dense) + info["norms"][0] * d
    total += info["encoder_layers"] * (dense + info["norms"][1] * d)
    rows = info["vocab_size"] + info["position_embeddings"] + info["token_types"]
    return total + (rows + info["norms"][2]) * d


# What some models have besides attention, feed-forward blocks, embeddings and norms.
BESIDES = {
    "bert": lambda c: c.hidden_size * (c.hidden_size + 1),  # the pooler
    "gpt_oss": lambda c: c.num_hidden_layers * c.num_local_experts,  # biases of the routers
}


def test_parameters(case):
    """Feed-forward blocks, norms and embeddings: all parameters of the model, but its head."""
    if case.info["sizing_only"]:
        pytest.skip("it has parts that are not described")
    expected = sum(p.numel() for p in case.model.parameters())
    assert count(case.info) + BESIDES.get(case.family, lambda c: 0)(case.config) == expected


@pytest.mark.parametrize("name", TOKEN_ELEMENTS)
def test_published_cache_sizes(name, cases):
    assert cases(name).info["cache_elements"]["token"] == TOKEN_ELEMENTS[name]


def test_cache_when_windows_are_full(cases):
    """Figures of ecosystem.md: bytes at full context, bf16, windows kept and no more."""
    for name, tokens, gib in ("gemma-3-27b", 131072, 10.406), ("gemma-4-31b", 262144, 20.781):
        info = cases(name).info
        elements = 0
        for kind in info["kinds"]:
            kept = tokens if kind["window"] is None else kind["window"]
            elements += kept * kind["cache_elements"] * len(kind["layers"])
        assert 2 * elements / 2**30 == pytest.approx(gib, abs=6e-4)


def test_shared_caches(cases):
    """Gemma 3n's last layers use the keys and values of the last layers of their sort before."""
    case = cases("gemma-3n-e2b")
    of, first = case.info["cache_of"], 30 - 10
    assert of[:first] == list(range(first))
    types = case.config.layer_types
    for i in range(first, 30):
        assert of[i] == max(j for j in range(first) if types[j] == types[i])
    modes = case.config.kv_sharing_modes
    assert [mode == "reuse" for mode in modes] == [of[i] != i for i in range(30)]
    assert all(modes[of[i]] == "store" for i in range(first, 30))


def test_mla_scale(cases):
    """192^-1/2 times (0.1 ln 40 + 1)^2, which a test at position 0 could not see."""
    kind = cases("deepseek-v3").info["kinds"][0]
    assert kind["scale"] == pytest.approx(192**-0.5 * (0.1 * math.log(40) + 1) ** 2)
    assert kind["scale"] == pytest.approx(0.135234, abs=1e-6)
    assert cases("deepseek-v3-small").info["kinds"][0]["scale"] == pytest.approx(24**-0.5)
    lite = cases("deepseek-v2-lite").info["kinds"][0]
    assert lite["scale"] == pytest.approx(192**-0.5 * 1.58963, rel=1e-5)
    assert lite["rope"]["attention_factor"] == 1 and lite["q_lora_rank"] == 0


def test_state_of_hybrids(cases):
    """What Transformers' cache holds, but for the convolution's newest column."""
    case = cases("qwen3-next-80b-a3b")
    kind = next(k for k in case.info["kinds"] if k["variant"] == "state")
    module = case.model.layers[0].linear_attn
    assert kind["state_parameters"] == sum(p.numel() for p in module.parameters())
    matrices = module.num_v_heads * module.head_k_dim * module.head_v_dim
    assert kind["state_elements"] == matrices + module.conv_dim * (module.conv_kernel_size - 1)
