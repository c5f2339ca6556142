"""qkv cache: what is said of saved caches, and which files are refused."""

import json
import os
import re

import numpy as np
import pytest

import qkv as package


def fill(cache, rng, seq, tokens, layers=2):
    c = cache.config
    for layer in range(layers):
        k = rng.standard_normal((1, c["n_kv_heads"], tokens, c["head_dim"]), dtype=np.float32)
        cache.append(layer, k, k[..., : c["head_dim_v"]], seq)


@pytest.fixture
def saved(rng, tmp_path):
    """Three sequences, two of which share what they have; one token is not committed."""
    cache = package.KVCache(2, 3, 64, 32, k_format="int8", k_group=32, v_format="int4", n_pages=30,
                            max_seqs=3, page_tokens=16, window=40, sink_tokens=4)  # fmt: skip
    ids = [cache.add(), cache.add()]
    fill(cache, rng, ids[0], 100)
    fill(cache, rng, ids[1], 33)
    cache.commit()
    cache.fork(ids[0])
    fill(cache, rng, ids[1], 1)
    cache.save(tmp_path / "c.qkv")
    return cache


def test_inspect(qkv, saved, tmp_path):
    got = json.loads(qkv("cache", "inspect", "c.qkv", "--json").stdout)
    assert got["file"] == "c.qkv" and got["version"] == 1 and got["checksums"] == "good"
    assert got["bytes"] == (tmp_path / "c.qkv").stat().st_size
    for name, value in got["config"].items():
        assert saved.config[name] == value, name
    assert got["sequences"] == [saved.info(seq) for seq in saved.sequences]
    assert (got["n_seqs"], got["tokens"]) == (3, saved.stats()["tokens"])
    assert got["pages"] == saved.stats()["used_pages"] and got["open_pages"] == 0
    text = qkv("cache", "inspect", "c.qkv").stdout
    for words in ("c.qkv: a saved cache, version 1", "checksums    good", "2, of 3 key/value heads with 64 and 32 channels",
                  "keys int8 in groups of 32, values int4", "of 16 tokens", "40 keys before a query", "the first 4 tokens",
                  f"3 sequences, {got['tokens']} tokens, {got['pages']} pages"):  # fmt: skip
        assert words in text, words
    for n, seq in enumerate(got["sequences"]):
        assert re.search(rf"^ +{n} +{' +'.join(map(str, seq.values()))}$", text, re.M)
    assert max(map(len, text.splitlines())) <= 100


def test_header_only(qkv, saved, tmp_path):
    content = bytearray((tmp_path / "c.qkv").read_bytes())
    content[-10] ^= 1
    (tmp_path / "c.qkv").write_bytes(content)
    text = qkv("cache", "inspect", "c.qkv", "--header").stdout
    assert "checksums    header good, rest not read" in text and "sequence  " not in text
    got = json.loads(qkv("cache", "inspect", "--header", "--json", "c.qkv").stdout)
    assert got["n_seqs"] == 3 and got["sequences"] == []


def test_stats(qkv, saved, tmp_path):
    got = json.loads(qkv("cache", "stats", "c.qkv", "--json").stdout)
    there = saved.stats()
    assert got["n_seqs"] == there["sequences"] and got["pages"] == there["used_pages"]
    for name in ("shared_pages", "tokens", "stored_tokens", "payload", "page_bytes", "token_bytes"):
        assert got[name] == there[name], name
    assert got["payload_16_bits"] == 2 * 2 * 3 * (64 + 32) * there["stored_tokens"]
    assert got["bytes"] == (tmp_path / "c.qkv").stat().st_size and got["allocated"] > got["payload"]
    text = qkv("cache", "stats", "c.qkv").stdout
    for number in got.values():
        assert str(number) in text
    assert f"({got['payload_16_bits'] / got['payload']:.2f} times as many)" in text


def test_latent_and_open_pages(qkv, rng, tmp_path):
    cache = package.LatentCache(3, 512, 64, format="e4m3", n_pages=2)
    cache.add()
    for layer in range(3):
        cache.append(layer, rng.standard_normal((1, 7, 576), dtype=np.float32))
    cache.save(tmp_path / "latent")
    text = qkv("cache", "inspect", "latent").stdout
    assert "3, rows of 512 + 64 channels" in text and "e4m3 in groups of 128, rotary bf16" in text
    assert "1 sequence, 7 tokens, 1 pages" in text
    stats = json.loads(qkv("cache", "stats", "latent", "--json").stdout)
    assert stats["token_bytes"] == 3 * (512 + 16 + 128) and stats["payload_16_bits"] == 7 * 3 * 576 * 2
    channel = package.KVCache(2, 1, 32, k_format="int8_channel", n_pages=9, page_tokens=16)
    seq = channel.add()
    fill(channel, rng, seq, 40)
    channel.commit(seq, 20)
    channel.save(tmp_path / "channel")
    assert re.search(r"3 pages, 2 of them open", qkv("cache", "inspect", "channel").stdout)
    empty = package.KVCache(1, 1, 8, n_pages=1)
    empty.save(tmp_path / "empty")
    assert "0 sequences, 0 tokens, 0 pages" in qkv("cache", "inspect", "empty").stdout
    assert json.loads(qkv("cache", "stats", "empty", "--json").stdout)["payload"] == 0


@pytest.mark.parametrize("arguments, words", [
    ([], "no subcommand is given; accepted are inspect FILE and stats FILE"),
    (["frobnicate", "c.qkv"], "frobnicate is not a subcommand"),
    (["inspect"], "inspect takes one FILE; 0 were given"),
    (["stats", "c.qkv", "c.qkv"], "stats takes one FILE; 2 were given"),
    (["stats", "--header", "c.qkv"], "--header is given; it is for inspect"),
    (["inspect", "--frobnicate", "c.qkv"], "--frobnicate is not an option of qkv cache"),
    (["inspect", "missing"], "No such file"),
    (["inspect", "."], ".: cannot read: it is not a regular file"),
    (["stats", "/dev/null"], "/dev/null: cannot read: it is not a regular file"),
])  # fmt: skip
def test_wrong_calls(qkv, saved, arguments, words):
    done = qkv("cache", *arguments, code=2)
    assert done.stderr.startswith("qkv cache: ") and words in done.stderr, done.stderr


def test_damaged_and_foreign_files(qkv, saved, tmp_path, rng):
    good = (tmp_path / "c.qkv").read_bytes()
    for name, content, words in [
        ("empty", b"", "not a saved cache"),
        ("text", b"1 2 3 4 5 6 7 8 9 10 11 12\n" * 20, "not a saved cache"),
        ("short", good[:100], "in the header"),
        ("cut", good[:-1], f"the file has {len(good) - 1} bytes; its header says {len(good)}"),
        ("longer", good + b"\0", f"the file has {len(good) + 1} bytes"),
        ("newer", good[:8] + b"\2" + good[9:], "version is 2; this library reads version 1"),
    ]:
        (tmp_path / name).write_bytes(content)
        for verb in "inspect", "stats":
            assert words in qkv("cache", verb, name, code=2).stderr, name
    for at in [20, 60, 100, 143, 150, 200, *rng.integers(144, len(good), 20).tolist()]:
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad").write_bytes(bad)
        assert "bad: the file is damaged" in qkv("cache", "inspect", "bad", code=2).stderr, at
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
