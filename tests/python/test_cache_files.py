"""Saved caches: whole or not at all, and believed only as far as their checksums."""

import os
import re
import struct

import numpy as np
import pytest

import qkv
from test_cache import D, H, append_one, filled, queries


def same_tokens(a, ids_a, b, ids_b):
    for x, y in zip(ids_a, ids_b):
        assert {**a.info(x), "shared_pages": 0} == {**b.info(y), "shared_pages": 0}
        for layer in range(a.config["n_layers"]):
            kept = a.info(x)["kept_from"]
            for one, other in zip(a.read(layer, x, kept), b.read(layer, y, kept)):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("config", [
    {}, {"k_format": "int8", "v_format": "int4"}, {"k_format": "int8_channel"}, {"window": 20, "sink_tokens": 4},
    {"contiguous": True, "page_tokens": 100}, {"key_bounds": True, "k_format": "e4m3"},
])  # fmt: skip
def test_there_and_back(rng, tmp_path, config):
    cache, ids = filled(rng, [50, 33, 0], n_layers=2, **config)
    ids.append(cache.fork(ids[0]))
    append_one(rng, cache, 1, ids[0])  # not committed
    path = tmp_path / "c.qkv"
    cache.save(path)
    assert os.listdir(tmp_path) == ["c.qkv"]
    found = qkv.KVCache.inspect(path)
    assert found["sequences"] == 4 and found["bytes"] == path.stat().st_size and found["version"] == 1
    assert found["tokens"] == cache.stats()["tokens"]
    other = qkv.KVCache.from_file(path, n_pages=80, max_seqs=8)
    assert other.sequences and other.stats()["tokens"] == cache.stats()["tokens"]
    assert other.stats()["stored_tokens"] == cache.stats()["stored_tokens"]
    same_tokens(cache, ids, other, other.sequences)
    for name in ("n_layers", "head_dim", "k_format", "page_tokens", "window", "sink_tokens", "contiguous"):
        assert other.config[name] == cache.config[name]
    some = other.load(path) if "contiguous" not in config else []
    same_tokens(cache, ids, other, some)
    q = queries(rng, 2)
    np.testing.assert_array_equal(cache.attend(1, q, ids[:2]), other.attend(1, q, other.sequences[:2]))
    append_one(rng, other, 1, other.sequences[0])
    cache.save(path, [ids[1]])  # in place of the old one
    assert qkv.KVCache.inspect(path)["sequences"] == 1
    small = qkv.KVCache.from_file(path)
    same_tokens(cache, [ids[1]], small, small.sequences)


def test_latent(rng, tmp_path):
    cache = qkv.LatentCache(1, 64, 8, format="int8", n_pages=4, max_seqs=2)
    seq = cache.add()
    cache.append(0, rng.standard_normal((1, 30, 72), dtype=np.float32))
    cache.save(tmp_path / "c")
    other = qkv.LatentCache.from_file(tmp_path / "c")
    np.testing.assert_array_equal(other.read(0, other.sequences[0]), cache.read(0, seq))
    with pytest.raises(ValueError, match="c: it holds a LatentCache"):
        qkv.KVCache.from_file(tmp_path / "c")
    plain, _ = filled(rng, [3])
    with pytest.raises(ValueError, match="flags are|differ|is 72 in the file|in this cache"):
        plain.load(tmp_path / "c")
    plain.save(tmp_path / "c")
    with pytest.raises(ValueError, match="c: it holds a KVCache"):
        qkv.LatentCache.from_file(tmp_path / "c")


def test_every_damage_is_found(rng, tmp_path):
    """A bit flipped anywhere, a file cut anywhere: refused, and nothing is loaded."""
    cache, ids = filled(rng, [20, 3], page_tokens=16)
    cache.fork(ids[0])
    path = tmp_path / "c"
    cache.save(path)
    good = path.read_bytes()
    target = qkv.KVCache(1, H, D, n_pages=9, max_seqs=9, page_tokens=16)
    seq = target.add()
    before = target.stats(), target.sequences
    places = list(range(0, 200)) + rng.integers(200, len(good), 200).tolist()
    for at in places:
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="c: "):
            target.load(path)
    for size in [0, 1, 7, 8, 100, 144, len(good) // 2, len(good) - 1]:
        path.write_bytes(good[:size])
        with pytest.raises((ValueError, OSError), match="c: "):
            target.load(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match=f"the file has {len(good) + 1} bytes; its header says {len(good)}"):
        target.load(path)
    assert (target.stats(), target.sequences) == before and target.length(seq) == 0
    path.write_bytes(good)
    assert len(target.load(path)) == 3


def test_other_files(tmp_path, rng):
    cache, _ = filled(rng, [3])
    np.save(tmp_path / "x.npy", np.zeros(100))
    for call in (cache.load, qkv.KVCache.inspect, qkv.KVCache.from_file):
        with pytest.raises(ValueError, match="x.npy: not a saved cache"):
            call(tmp_path / "x.npy")
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "missing")
        with pytest.raises((ValueError, OSError)):
            call(tmp_path)
    cache.save(tmp_path / "c")
    bad = bytearray((tmp_path / "c").read_bytes())
    bad[8:12] = struct.pack("<i", 2)
    (tmp_path / "c").write_bytes(bad)
    with pytest.raises(ValueError, match="c: version is 2; this library reads version 1"):
        cache.load(tmp_path / "c")


@pytest.mark.parametrize("changed, sentence", [
    ({"page_tokens": 32}, "page_tokens is 16 in the file and 32 in this cache"),
    ({"k_format": "int8"}, "k_format is 3 in the file and 4 in this cache"),
    ({"window": 9}, "window_left is -1 in the file and 9 in this cache"),
    ({"n_layers": 2}, "n_layers is 1 in the file and 2 in this cache"),
])  # fmt: skip
def test_caches_of_another_kind(rng, tmp_path, changed, sentence):
    cache, _ = filled(rng, [30])
    cache.save(tmp_path / "c")
    config = {"n_layers": 1, "n_kv_heads": H, "head_dim": D, "n_pages": 9, "page_tokens": 16} | changed
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/c: {sentence}")):
        qkv.KVCache(**config).load(tmp_path / "c")


def test_no_room(rng, tmp_path):
    cache, _ = filled(rng, [30, 30])
    cache.save(tmp_path / "c")
    for config, sentence in (({"n_pages": 3, "max_seqs": 2}, "full: 4 pages needed, 3 free"),
                             ({"n_pages": 9, "max_seqs": 1}, "c: full: 2 sequences needed, max_seqs is 1")):  # fmt: skip
        other = qkv.KVCache(1, H, D, page_tokens=16, **config)
        with pytest.raises(qkv.CacheFull, match=sentence):
            other.load(tmp_path / "c")
        assert other.sequences == [] and other.stats()["used_pages"] == 0


def test_writing_that_fails(rng, tmp_path):
    cache, _ = filled(rng, [30])
    (tmp_path / "c").write_bytes(b"what was there")
    os.chmod(tmp_path / "c", 0o640)
    with pytest.raises(OSError, match="nowhere/c: .*No such file"):
        cache.save(tmp_path / "nowhere" / "c")
    os.symlink("/dev/full", tmp_path / "full")
    with pytest.raises(OSError, match="No space left on device"):
        cache.save(tmp_path / "full")
    os.unlink(tmp_path / "full")
    assert sorted(os.listdir(tmp_path)) == ["c"] and (tmp_path / "c").read_bytes() == b"what was there"
    os.symlink("c", tmp_path / "link")
    cache.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and qkv.KVCache.inspect(tmp_path / "c")["tokens"] == 30
    assert os.stat(tmp_path / "c").st_mode & 0o777 == 0o640


def test_nothing_of_others_gets_out(rng, tmp_path):
    """Rows of a page that belong to no saved token are zeros in the file."""
    cache = qkv.KVCache(1, H, D, n_pages=2, max_seqs=2, k_format="f32", v_format="f32", page_tokens=16)
    secret = cache.add()
    x = np.full((1, H, 16, D), 1234.5, np.float32)
    cache.append(0, x, x, secret)
    cache.release(secret)
    cache.add()
    cache.append(0, x[:, :, :1] * 0, x[:, :, :1] * 0)
    cache.save(tmp_path / "c")
    assert struct.pack("<f", 1234.5) not in (tmp_path / "c").read_bytes()
