"""Random lives of caches against plain lists of tokens: what is stored, what is seen, what is refused."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qkv
from cache_model import EXACT, FORMATS, Sequence, allowed_error, check_attend

LAYERS = 2
OPERATIONS = {"add": 2, "append": 8, "attend": 8, "commit": 6, "truncate": 2, "fork": 2, "reorder": 1,
              "reset": 0.3, "release": 0.5, "evict": 1, "read": 1}  # fmt: skip


@st.composite
def lives(draw):
    """(config, number of operations, seed): hypothesis draws what kind of cache, the seed its life."""
    k_format = draw(st.sampled_from([*FORMATS, "int8_channel"]))
    contiguous = k_format != "int8_channel" and draw(st.integers(0, 4)) == 0
    D = draw(st.sampled_from([8, 33, 64]))
    config = {
        "n_layers": LAYERS,
        "n_kv_heads": draw(st.integers(1, 3)),
        "head_dim": D,
        "head_dim_v": draw(st.sampled_from([8, 64])),
        "k_format": k_format,
        "v_format": draw(st.sampled_from(FORMATS)),
        "k_group": draw(st.sampled_from([0, 32])) if D >= 32 and k_format in FORMATS[3:] else 0,
        "page_tokens": 40 if contiguous else draw(st.sampled_from([16, 32])),
        "n_pages": draw(st.sampled_from([40, 12, 4])),
        "max_seqs": draw(st.integers(1, 4)),
        "window": None if contiguous else draw(st.sampled_from([None, None, 5, 40])),
        "sink_tokens": draw(st.sampled_from([0, 0, 3, 20])),
        "contiguous": contiguous,
        "poison": True,
    }
    return config, draw(st.integers(1, 60)), draw(st.integers(0, 2**32 - 1))


class Life:
    """A cache beside its model."""

    def __init__(self, config, seed):
        self.rng = np.random.default_rng(seed)
        self.cache = qkv.KVCache(**config)
        self.config = self.cache.config
        self.models = {}
        self.add()

    def some(self, least=1):
        ids = self.rng.permutation(list(self.models)).tolist()
        return ids[: self.rng.integers(least, len(ids) + 1)] if ids else []

    def add(self):
        try:
            self.models[self.cache.add()] = Sequence(LAYERS)
        except qkv.CacheFull:
            assert len(self.models) == self.config["max_seqs"]

    def fork(self):
        for seq in self.some()[:1]:
            try:
                self.models[self.cache.fork(seq)] = self.models[seq].copy()
            except qkv.CacheFull:
                assert len(self.models) == self.config["max_seqs"]

    def rows(self, ids, counts):
        c, T = self.config, max(counts, default=0)
        shape = (len(ids), c["n_kv_heads"], T)
        k = self.rng.standard_normal((LAYERS, *shape, c["head_dim"]), dtype=np.float32)
        v = self.rng.standard_normal((LAYERS, *shape, c["head_dim_v"]), dtype=np.float32)
        if self.rng.random() < 0.3:
            return [x.astype(EXACT["bf16"]) for x in (k, v)]
        return [k, v]

    def append(self):
        ids = self.some()
        counts = self.rng.integers(0, self.rng.choice([3, 25, 90]), len(ids)).tolist()
        k, v = self.rows(ids, counts)
        packed = ids and self.rng.random() < 0.3
        try:
            for layer in range(LAYERS):
                if packed:
                    cu = np.cumsum([0, *counts])
                    flat = [np.concatenate([x[layer, b, :, :n].swapaxes(0, 1) for b, n in enumerate(counts)])
                            for x in (k, v)]  # fmt: skip
                    self.cache.append(layer, *flat, ids, cu_seqlens=cu)
                else:
                    self.cache.append(layer, k[layer], v[layer], ids, lens=counts)
        except qkv.CacheFull as error:
            assert layer == 0 and "full" in str(error)
        else:
            for b, (seq, n) in enumerate(zip(ids, counts)):
                for layer in range(LAYERS):
                    self.models[seq].k[layer] += list(k[layer, b, :, :n].swapaxes(0, 1))
                    self.models[seq].v[layer] += list(v[layer, b, :, :n].swapaxes(0, 1))

    def commit(self):
        ids = self.some()
        lengths = None
        if self.rng.random() < 0.3:
            lengths = [int(self.rng.integers(0, len(self.models[seq]) + 1)) for seq in ids]
        self.cache.commit(ids, lengths)
        for i, seq in enumerate(ids):
            to = len(self.models[seq]) if lengths is None else lengths[i]
            self.models[seq].committed = max(self.models[seq].committed, to)

    def truncate(self):
        for seq in self.some()[:1]:
            model = self.models[seq]
            length = int(self.rng.integers(0, len(model) + 1))
            kept = self.cache.info(seq)["kept_from"]
            try:
                self.cache.truncate(seq, length)
            except ValueError as error:
                assert "were evicted" in str(error) and kept > 0
                return
            model.cut(length)
            if length <= self.config["sink_tokens"]:
                model.start = 0

    def reorder(self):
        ids = self.some()
        parents = self.rng.integers(0, len(ids), len(ids)).tolist() if ids else []
        self.cache.reorder(parents, ids)
        self.models.update(zip(ids, [self.models[ids[p]].copy() for p in parents]))

    def reset(self):
        for seq in self.some()[:1]:
            self.cache.reset(seq)
            self.models[seq] = Sequence(LAYERS)

    def release(self):
        for seq in self.some()[:1]:
            self.cache.release(seq)
            del self.models[seq]

    def evict(self):
        for seq in self.some()[:1]:
            model = self.models[seq]
            before = int(self.rng.integers(0, model.committed + 1))
            self.cache.evict(seq, before)
            if before > self.config["sink_tokens"]:
                model.start = max(model.start, before)

    def stored(self, layer, seq):
        """What read() gives; NaN for tokens that are gone."""
        c, model = self.config, self.models[seq]
        k = np.full((c["n_kv_heads"], len(model), c["head_dim"]), np.nan, np.float32)
        v = np.full((c["n_kv_heads"], len(model), c["head_dim_v"]), np.nan, np.float32)
        kept, sinks = self.cache.info(seq)["kept_from"], c["sink_tokens"]
        for a, b in ((0, min(sinks, kept, len(model))), (kept, len(model))):
            if a < b:
                k[:, a:b], v[:, a:b] = self.cache.read(layer, seq, a, b)
        return k, v

    def read(self):
        c = self.config
        for layer in range(LAYERS):
            for seq, model in self.models.items():
                for form, rows, got, group in ((c["k_format"], model.k, self.stored(layer, seq)[0], c["k_group"]),
                                               (c["v_format"], model.v, self.stored(layer, seq)[1], 0)):  # fmt: skip
                    if not rows[layer]:
                        continue
                    want = np.stack([np.asarray(r) for r in rows[layer]], 1)
                    gone = np.isnan(got)
                    if form in EXACT:
                        rounded = want.astype(np.float32).astype(EXACT[form]).astype(np.float32)
                        np.testing.assert_array_equal(got[~gone], rounded[~gone])
                    elif form == "int8_channel":  # the largest of a page is below 8 for these numbers
                        assert (abs(got - want.astype(np.float32))[~gone] < 0.1).all()
                    else:
                        room = allowed_error(form, want, group)
                        assert (abs(got - want.astype(np.float32)) <= room)[~gone].all()

    def attend(self):
        ids = [seq for seq in self.some() if len(self.models[seq])]
        if not ids:
            return
        c, layer = self.config, int(self.rng.integers(LAYERS))
        q_lens = [int(self.rng.integers(0, min(len(self.models[s]), 9) + 1)) for s in ids]
        Hq = c["n_kv_heads"] * int(self.rng.integers(1, 4))
        q = self.rng.standard_normal((len(ids), Hq, max(q_lens), c["head_dim"]), dtype=np.float32)
        options = {}
        if self.rng.random() < 0.3:
            options["sinks"] = self.rng.standard_normal(Hq).astype(np.float32)
        if self.rng.random() < 0.3:
            options["softcap"] = 2.0
        stored = {seq: self.stored(layer, seq) for seq in ids}
        try:
            check_attend(self.cache, layer, q, ids, q_lens, self.models, stored, **options)
        except ValueError as error:  # asked after the commit that freed what these queries see
            assert "make the view before the commit" in str(error)
            assert c["window"] is not None
        if c["window"] is None and all(q_lens[:1] == [n] for n in q_lens) and q_lens[0] == 1:
            plain = self.cache.attend(layer, q, ids, **options)
            cascade = self.cache.attend(layer, q, ids, shared_prefix=True, **options)
            np.testing.assert_allclose(plain, cascade, rtol=1e-4, atol=1e-5)

    def check(self):
        stats = self.cache.stats()
        assert stats["sequences"] == len(self.models)
        assert self.cache.sequences == list(self.models)
        for seq, model in self.models.items():
            info = self.cache.info(seq)
            assert self.cache.length(seq) == info["length"] == len(model)
            assert info["committed"] == model.committed
            assert info["kept_from"] <= max(model.committed, 0)
        if not self.models:
            assert stats["used_pages"] == stats["stored_tokens"] == 0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(lives())
def test_random_lives(life):
    config, n, seed = life
    one = Life(config, seed)
    weights = np.array(list(OPERATIONS.values()))
    for name in one.rng.choice(list(OPERATIONS), n, p=weights / weights.sum()):
        getattr(one, name)()
        one.check()
    one.read()
    one.cache.release()
    assert one.cache.stats()["used_pages"] == 0
