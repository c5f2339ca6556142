"""qkv size: published figures to the byte, refusals, budgets, and what its outputs agree on."""

import csv
import io
import json
import pathlib
import re

import pytest

CONFIGS = pathlib.Path(__file__).parents[1] / "sizing" / "configs"
GIB = 1 << 30
LLAMA70 = ["--layers", 80, "--heads", 64, "--kv-heads", 8, "--head-dim", 128, "--d-model", 8192]


def size(qkv, *arguments, code=0):
    return json.loads(qkv("size", *arguments, "--json", code=code).stdout)


# Bytes a token and at full context, from published figures.
@pytest.mark.parametrize("name, context, token, payload", [
    ("llama-3.1-8b", "128k", 131072, 16 * GIB),
    ("llama-3.1-70b", "128k", 327680, 40 * GIB),
    ("qwen3-0.6b", 40960, 114688, 40960 * 114688),
    ("deepseek-v3", 163840, 70272, 163840 * 70272),
    ("gemma-3-27b", "128k", None, (10 * 131072 + 52 * 1024) * 8192),
    ("gemma-4-31b", "256k", None, 10 * 262144 * 8192 + 50 * 1024 * 16384),
    ("smollm2-135m", "8k", 23040, 180 << 20),
    ("gemma-3-270m", "32k", None, 207 << 19),
])  # fmt: skip
def test_published_sizes(qkv, name, context, token, payload):
    cache = size(qkv, CONFIGS / f"{name}.json", "--context", context)["models"][0]["cache"]
    assert cache["payload"] == payload
    assert token is None or cache["bytes_token"] == token
    assert cache["allocated"] > payload * 0.99


def test_hybrid_has_a_constant_state(qkv):
    one, two = (size(qkv, CONFIGS / "qwen3.6-27b.json", "--context", n)["models"][0]["cache"] for n in ("128k", "256k"))
    assert two["payload"] - two["state_bytes"] == 16 * GIB
    assert one["state_bytes"] == two["state_bytes"] > 0
    assert {g["kind"]: g["layers"] for g in two["groups"]} == {"state": 48, "attention": 16}


def test_chunks_and_shared_caches(qkv, tmp_path):
    llama4 = {"model_type": "llama4_text", "num_hidden_layers": 8, "hidden_size": 512, "num_attention_heads": 8,
              "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 128, "intermediate_size_mlp": 256,
              "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
              "attention_chunk_size": 1024, "vocab_size": 1000, "max_position_embeddings": 65536,
              "no_rope_layers": []}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(llama4))
    model = size(qkv, ".", "--context", "8k")["models"][0]
    assert {(g["layers"], g["window"], g["tokens"]) for g in model["cache"]["groups"]} == {(6, 1024, 1024), (2, None, 8192)}
    square, chunks = 8192 * 8193 // 2, 8 * (1024 * 1025 // 2)
    assert model["work"]["prefill"]["pairs"] == 8 * (2 * square + 6 * chunks)
    gemma = {"model_type": "gemma3n_text", "num_hidden_layers": 6, "hidden_size": 256, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512, "vocab_size": 1000, "sliding_window": 512,
             "max_position_embeddings": 4096, "num_kv_shared_layers": 2,
             "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(gemma))
    cache = size(qkv, ".", "--context", "4k")["models"][0]["cache"]
    own = {(g["window"], g["layers"], g["layers_sharing"]) for g in cache["groups"]}
    assert own == {(512, 3, 1), (None, 1, 1)}
    assert cache["payload"] == 2 * 2 * 64 * 2 * (3 * 512 + 4096)


@pytest.mark.parametrize("kv, gib", [("bf16", 16), ("q8_0", 8.5), ("q4_0", 4.5), ("f32", 32)])
def test_formats(qkv, kv, gib):
    cache = size(qkv, CONFIGS / "llama-3.1-8b.json", "--context", "128k", "--kv", kv)["models"][0]["cache"]
    assert cache["payload"] == gib * GIB
    assert (cache["allocated"] is None) == kv.startswith("q")


def test_formats_with_scales(qkv):
    def token(*kv):
        return size(qkv, *LLAMA70, "--context", 1, "--kv", ",".join(kv))["models"][0]["cache"]["bytes_token"]

    assert token("int8") == 80 * 8 * 2 * (128 + 4)
    assert token("int8:32") == 80 * 8 * 2 * (128 + 16)
    assert token("int4") == 80 * 8 * 2 * (64 + 4)
    assert token("bf16", "int4:64") == 80 * 8 * (256 + 64 + 8)
    assert token("e4m3:head") == 80 * 8 * 2 * 128


def test_facts_of_the_70b(qkv):
    text = qkv("size", *LLAMA70, "--context", 64000, "--compare", "mha,gqa:8,mqa,mla").stdout
    assert "context 64000 tokens" in text
    models = size(qkv, *LLAMA70, "--context", 64000, "--compare", "mha,gqa:8,mqa,mla")["models"]
    payloads = [m["cache"]["payload"] for m in models]
    assert payloads == [20971520000, 167772160000, 20971520000, 20971520000 // 8, 80 * 576 * 2 * 64000]
    for payload in payloads:
        assert str(payload) in text
    one = size(qkv, *["--layers", 1, *LLAMA70[2:4], "--kv-heads", 64, *LLAMA70[6:]], "--context", 4096, "--square")
    stages = one["models"][0]["work"]["prefill"]["stages"]
    adds = {name: stage["multiply_adds"] for name, stage in stages.items()}
    assert adds["project"] + adds["output"] == 1099511627776 == 4096 * 268435456
    assert adds["scores"] + adds["values"] == 274877906944
    assert stages["softmax"]["exponentials"] == 4096 * 4096 * 64


def test_deepseek_expanded_and_latent(qkv):
    models = size(qkv, CONFIGS / "deepseek-v3.json", "--context", 4096, "--compare", "mha")["models"]
    assert [m["cache"]["elements_token"] for m in models] == [61 * 576, 61 * 40960]
    assert models[0]["work"]["decode"]["absorbed"] and not models[0]["work"]["prefill"]["absorbed"]
    text = qkv("size", CONFIGS / "deepseek-v3.json", "--context", 4096, "--explain").stdout
    assert "512 + 64 = 576" in text and "= 40960, 71.1 times" in text


def test_flags_and_configuration_agree(qkv):
    flags = size(qkv, *LLAMA70, "--d-ff", 28672, "--vocab", 128256, "--context", "64k")["models"][0]
    config = size(qkv, CONFIGS / "llama-3.1-70b.json", "--context", "64k")["models"][0]
    for part in "cache", "parameters", "work":
        assert flags[part] == config[part]


def test_folder_and_own_limit(qkv, tmp_path):
    (tmp_path / "config.json").write_text((CONFIGS / "qwen3-0.6b.json").read_text())
    report = size(qkv, ".")
    assert report["setup"]["context"] == 40960 and report["setup"]["context_from_model"]
    assert "40960 tokens (the model's own limit)" in qkv("size", ".").stdout


# ---- budgets -----------------------------------------------------------------------------------


def test_exit_status_says_whether_it_fits(qkv):
    call = [CONFIGS / "llama-3.1-8b.json", "--context", "128k", "--memory"]
    assert "fits?" in qkv("size", *call, "40GiB").stdout
    assert "no: too large" in qkv("size", *call, "24GiB", code=1).stdout
    assert not size(qkv, *call, "24GiB", code=1)["models"][0]["fit"]["fits"]
    qkv("size", *call, "24GiB", "--cache-only")


@pytest.mark.parametrize("what, option", [("context", "--context"), ("users", "--batch")])
def test_solved_is_the_edge(qkv, what, option):
    call = [CONFIGS / "llama-3.1-8b.json", "--memory", "24GiB", "--machine", "h100-sxm", "--latency", "15ms"]
    other = ["--context", "8k"] if what == "users" else []
    answer = size(qkv, *call, *other, "--solve", what)["solved"][0]
    assert answer["what"] == what and answer["found"]
    qkv("size", *call, *other, option, answer["value"])
    qkv("size", *call, *other, option, answer["value"] + 1, code=1)


def test_solved_context_is_the_context(qkv):
    call = [*LLAMA70, "--memory", "30GiB"]
    report = size(qkv, *call, "--solve", "context")
    context = report["solved"][0]["value"]
    assert report["setup"]["context"] == context and not report["setup"]["context_from_model"]
    assert report["models"][0]["cache"]["payload"] == context * 327680
    assert f"context {context} tokens (the most that fits)" in qkv("size", *call, "--solve", "context").stdout


def test_solve_groups_and_format(qkv):
    call = [CONFIGS / "llama-2-70b-mha.json", "--context", 64000, "--memory", "40GB", "--cache-only"]
    solved = {a["what"]: a for a in size(qkv, *call, "--solve", "groups,format", code=1)["solved"]}
    assert solved["groups"]["value"] == 8 and solved["groups"]["found"]
    assert not solved["format"]["found"]
    assert size(qkv, *call[:3], "--memory", "90GB", "--cache-only", "--solve", "format")["solved"][0]["value"] == "int8"


def test_nothing_fits(qkv):
    done = qkv("size", CONFIGS / "llama-3.1-8b.json", "--memory", "1GiB", "--solve", "context", code=1)
    assert "nothing fits: even 1 would need" in done.stdout


def test_ranks(qkv):
    rank = size(qkv, *LLAMA70, "--context", 64000, "--ranks", 4)["models"][0]["rank"]
    assert rank["payload"] * 4 == 20971520000 and rank["copies"] == 1
    assert rank["sent_decode"] == 80 * 8192 * 2 * 2 * 3 // 4
    wide = size(qkv, *LLAMA70, "--context", 64000, "--ranks", 16)["models"][0]["rank"]
    assert wide["payload"] * 8 == 20971520000 and wide["copies"] == 2
    assert size(qkv, *LLAMA70, "--context", 64000, "--ranks", 16, "--split", "context")["models"][0]["rank"]["copies"] == 1


# ---- machines ----------------------------------------------------------------------------------


def profile(**ceilings):
    rates = {name: {"unit": "x", "one_thread": {"median": x / 2, "best": x / 2}, "all_threads": {"median": x, "best": 2 * x}}
             for name, x in ceilings.items()}  # fmt: skip
    return {"schema": "qkv-machine", "schema_version": 1, "threads": 4, "environment": {"cpu": "A CPU"}, "ceilings": rates}


def test_profile(qkv, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(profile(fma_f32_256=100, dot_bf16_512=400, read=50)))
    report = size(qkv, *LLAMA70, "--context", 4096, "--machine", "m.json")
    machine = report["machine"]
    assert machine["flops_f32"] == [1e11, 2e11] and machine["flops_16"] == [4e11, 8e11]
    assert machine["bytes_per_second"] == [5e10, 1e11] and machine["measured"]
    decode = report["models"][0]["work"]["decode"]
    for stage in "project", "scores", "output":
        flops, moved = 2 * decode["stages"][stage]["multiply_adds"], decode["stages"][stage]["bytes"]
        seconds = decode["seconds"][stage]
        assert seconds["worst"] == pytest.approx(2 * max(flops / 4e11, moved / 5e10))
        assert seconds["best"] == pytest.approx(max(flops / 8e11, moved / 1e11))
        assert seconds["bound"] == "bandwidth"
    wide = size(qkv, *LLAMA70, "--context", 4096, "--machine", "m.json", "--compute", "f32")
    assert wide["models"][0]["work"]["prefill"]["seconds"]["all"]["bound"] == "compute"
    assert "A CPU" in qkv("size", *LLAMA70, "--context", 4096, "--machine", "m.json").stdout


def test_calibrated_profile_is_understood(qkv, tmp_path):
    qkv("bench", "--calibrate", "here.json", "--memory", 16, "--threads", 1)
    machine = size(qkv, *LLAMA70, "--context", 4096, "--machine", "here.json")["machine"]
    assert machine["measured"] and 1e9 < machine["flops_f32"][0] <= machine["flops_16"][1]


@pytest.mark.parametrize("content, words", [
    ("{}", "schema is not there"),
    ("[1", "m.json"),
    (json.dumps({**profile(read=1), "schema_version": 2}), "version 2"),
    (json.dumps(profile(read=1)), "ceilings have no fma_f32_"),
    (json.dumps(profile(fma_f32_512=-3, read=1)), "ceilings have no fma_f32_"),
])  # fmt: skip
def test_bad_profiles(qkv, tmp_path, content, words):
    (tmp_path / "m.json").write_text(content)
    assert words in qkv("size", *LLAMA70, "--context", 1, "--machine", "m.json", code=2).stderr


def test_machines_have_sources(qkv):
    lines = qkv("size", "--machines").stdout.splitlines()
    assert len(lines) >= 8
    for line in lines[2:-1]:
        assert re.match(r"\S+ +[\d.]+ +[\d.]+ +[\d.]+ +(\d+|-)  \w.{20,}", line), line


# ---- outputs -----------------------------------------------------------------------------------


def test_csv_and_json_agree(qkv):
    call = [CONFIGS / "llama-3.1-8b.json", "--context", "32k", "--compare", f"mla,{CONFIGS / 'deepseek-v3.json'}"]
    models = size(qkv, *call)["models"]
    rows = list(csv.DictReader(io.StringIO(qkv("size", *call, "--csv").stdout)))
    assert len(rows) == len(models) == 3
    for row, model in zip(rows, models):
        assert row["model"] == model["name"]
        assert int(row["cache_payload_bytes"]) == model["cache"]["payload"]
        assert int(row["parameters"]) == model["parameters"]["total"]
        assert int(row["decode_multiply_adds"]) == model["work"]["decode"]["all"]["multiply_adds"]


def test_json_sums(qkv):
    report = size(qkv, CONFIGS / "gemma-3-27b.json", "--context", "64k", "--batch", 3)
    assert report["schema"] == "qkv-size" and report["schema_version"] == 1
    model = report["models"][0]
    assert model["cache"]["payload"] == sum(g["payload"] for g in model["cache"]["groups"])
    assert model["cache"]["allocated"] == sum(g["allocated"] for g in model["cache"]["groups"])
    parts = model["parameters"]
    assert parts["total"] == sum(parts[k] for k in ("attention", "blocks", "norms", "embeddings", "head"))
    for step in model["work"].values():
        for field in "multiply_adds", "exponentials", "bytes":
            assert step["all"][field] == sum(s[field] for s in step["stages"].values())


def test_advice_holds_the_numbers(qkv):
    report = size(qkv, CONFIGS / "llama-2-70b-mha.json", "--context", "64k", "--machine", "h100-sxm")
    advice = "\n".join(report["advice"])
    assert "GQA-8 would keep 20.000 GiB, 0.125 times" in advice
    assert f"{report['models'][0]['cache']['allocated'] / GIB:.3f} of the" in advice
    assert "this machine reads longer than it computes" in advice
    worst = report["models"][0]["work"]["decode"]["seconds"]["all"]["worst"]
    assert f"instead of {1e3 * worst:.4g} ms at worst" in advice
    for line in report["advice"]:
        assert line in qkv("size", CONFIGS / "llama-2-70b-mha.json", "--context", "64k", "--machine", "h100-sxm").stdout


def test_encoders_do_not_decode(qkv, tmp_path):
    bert = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
            "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 512}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(bert))
    model = size(qkv, ".", "--context", 512)["models"][0]
    assert model["cache"]["payload"] == 0 and model["work"]["decode"] is None
    assert model["work"]["prefill"]["pairs"] == 2 * 4 * 512 * 512
    assert "no layer of this model decodes" in qkv("size", ".").stdout


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", [
    ([], "no model is given"),
    (["missing.json"], "missing.json"),
    ([CONFIGS / "qwen3-0.6b.json", "--layers", 3], "one of them"),
    ([*LLAMA70], "--context is not given, and the model's own limit is not there"),
    ([*LLAMA70, "--context", "1x"], "--context is 1x; accepted are whole numbers from 1 to 2147483647"),
    ([*LLAMA70, "--context", "0"], "--context is 0"),
    ([*LLAMA70, "--context", "-5"], "--context is -5"),
    ([*LLAMA70, "--context", 1 << 60], f"--context is {1 << 60}; accepted are"),
    ([*LLAMA70, "--context", "99999999999999999999999"], "accepted are whole numbers"),
    ([*LLAMA70, "--context", "8192M"], "--context is 8192M"),
    ([*LLAMA70, "--context", "nan"], "--context is nan"),
    ([*LLAMA70, "--context", 1, "--batch", "65536"], "--batch is 65536; accepted are whole numbers from 1 to 65535"),
    ([*LLAMA70, "--context", 1, "--kv", "int9"], "--kv is int9; accepted are f32, f16"),
    ([*LLAMA70, "--context", 1, "--kv", "int8:48"], "--kv is int8:48"),
    ([*LLAMA70, "--context", 1, "--kv", "int8,int8_channel"], "int8_channel; that is for keys"),
    ([*LLAMA70, "--context", 1, "--kv", "bf16:64"], "k_group is 64 with bf16"),
    ([*LLAMA70, "--context", 1, "--memory", "24G"], "--memory is 24G; accepted are numbers above 0 with a unit"),
    ([*LLAMA70, "--context", 1, "--memory", "infGB"], "--memory is infGB"),
    ([*LLAMA70, "--context", 1, "--latency", "5"], "--latency is 5; accepted are times"),
    ([*LLAMA70, "--context", 1, "--latency", "5ms"], "--latency needs --machine"),
    ([*LLAMA70, "--context", 1, "--machine", "pdp-11"], "--machine is pdp-11"),
    ([*LLAMA70, "--context", 1, "--solve", "context"], "--solve needs --memory or --latency"),
    ([*LLAMA70, "--context", 1, "--memory", "1GB", "--solve", "price"], "--solve is price; accepted are context"),
    ([*LLAMA70, "--context", 1, "--compare", "gqa:7"], "n_kv_heads is 7; accepted are divisors of the 64"),
    ([*LLAMA70, "--context", 1, "--compare", "mqa,,mla"], "--compare is mqa,,mla"),
    ([*LLAMA70, "--context", 1, "--ranks", 3], "ranks is 3; with heads split accepted are divisors"),
    ([*LLAMA70, "--context", 1, "--page-tokens", 24], "page_tokens is 24"),
    ([*LLAMA70, "--context", 1, "--weights", "blue"], "--weights is blue"),
    ([*LLAMA70, "--context", 1, "--json", "--csv"], "exclude each other"),
    ([*LLAMA70, "--context", 1, "--frobnicate"], "--frobnicate is not an option of qkv size"),
    ([*LLAMA70, "--context"], "--context needs a value"),
    (["--layers", 2, "--heads", 3, "--d-model", 100, "--context", 1], "not a multiple of"),
    (["--layers", 2, "--heads", 4, "--kv-heads", 3, "--d-model", 64, "--context", 1], "n_kv_heads is 3"),
    (["--heads", 4, "--d-model", 64, "--context", 1], "--layers is not given"),
    ([*LLAMA70, "--context", 1, "--latent", 512], "--kv-heads is given with --latent"),
])  # fmt: skip
def test_refusals(qkv, arguments, words):
    done = qkv("size", *arguments, code=2)
    assert done.stderr.startswith("qkv size: ") and words in done.stderr, done.stderr


@pytest.mark.parametrize("change, words", [
    ({"model_type": "rwkv9"}, "rwkv9"),
    ({"num_attention_heads": None}, "num_attention_heads"),
    ({"num_key_value_heads": 5}, "5"),
    ({"num_hidden_layers": "many"}, "num_hidden_layers"),
])  # fmt: skip
def test_refused_configurations(qkv, tmp_path, change, words):
    config = {**json.loads((CONFIGS / "llama-3.1-8b.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert words in qkv("size", ".", "--context", 1, code=2).stderr


def test_huge_counts_are_left_out_not_wrapped(qkv):
    """Prefill of 2^31 tokens is more than 2^63 multiply-adds; the cache still has a size."""
    model = size(qkv, *LLAMA70, "--context", (1 << 31) - 1, "--chunk", 4096)["models"][0]
    assert model["work"]["prefill"] is None and model["work"]["decode"] is not None
    assert model["cache"]["payload"] == ((1 << 31) - 1) * 327680
