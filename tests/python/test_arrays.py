"""How arrays lie in memory, who owns them, who may write them; threads and forks."""

import gc
import multiprocessing
import os
import sys
import threading
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import qkv
from formula import close, formula


@pytest.fixture
def qkv_arrays(rng):
    return list(rng.standard_normal((3, 2, 4, 9, 16), dtype=np.float32))


def packed_qkv(x):
    """As a slice of an array that holds q, k and v side by side, tokens before heads."""
    B, H, T, D = x.shape
    whole = np.full((B, T, 3, H, D), np.nan, x.dtype)
    whole[:, :, 1] = x.transpose(0, 2, 1, 3)
    return whole[:, :, 1].transpose(0, 2, 1, 3)


def misaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape) if x.itemsize == 1 else np.ndarray(x.shape, x.dtype, raw, 1)
    view[...] = x
    return view


def field(x):
    record = np.zeros(x.shape, [("flag", np.int8), ("x", x.dtype)])
    record["x"] = x
    return record["x"]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


VIEWS = {
    "dense": lambda x: x.copy(),
    "reversed tokens": lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
    "reversed everywhere": lambda x: x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "reversed channels": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every other channel": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "every third token": lambda x: np.repeat(x, 3, axis=2)[:, :, 1::3],
    "tokens first": lambda x: x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
    "channels first": lambda x: x.swapaxes(2, 3).copy().swapaxes(2, 3),
    "fortran": np.asfortranarray,
    "packed q k v": packed_qkv,
    "read-only": read_only,
    "misaligned": misaligned,
    "a field of records": field,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", VIEWS)
def test_views(qkv_arrays, name, dtype):
    arrays = [x.astype(dtype) for x in qkv_arrays]
    want = qkv.attention(*arrays, causal=True)
    views = [VIEWS[name](x) for x in arrays]
    assert all((a == b).all() for a, b in zip(arrays, views))
    np.testing.assert_array_equal(qkv.attention(*views, causal=True), want)


def test_broadcast_inputs(qkv_arrays):
    q, k, v = qkv_arrays
    for axes in ((0,), (1,), (0, 1), (2,), (3,), (0, 1, 2, 3)):
        index = tuple(slice(0, 1) if i in axes else slice(None) for i in range(4))
        wide = np.broadcast_to(k[index], k.shape)
        np.testing.assert_array_equal(qkv.attention(q, wide, v), qkv.attention(q, wide.copy(), v))


def test_copies_of_broadcast_arrays_stay_small():
    """Turning the channels of an array that is broadcast over 4096 sequences copies one."""
    k = np.broadcast_to(np.ones((1, 8, 64, 64), np.float32)[..., ::-1], (4096, 8, 64, 64))
    q = np.ones((4096, 8, 0, 64), np.float32)
    tracemalloc.start()
    qkv.attention(q, k, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_v_may_be_part_of_k(qkv_arrays):
    q, k, _ = qkv_arrays
    np.testing.assert_array_equal(qkv.attention(q, k, k[..., :10]), qkv.attention(q, k, k[..., :10].copy()))


@pytest.mark.parametrize("shape", [(), (9,), (1, 9), (9, 1), (4, 1, 9), (2, 1, 9, 9), (2, 4, 9, 9), (1, 1, 1, 1)])
def test_masks_and_biases_broadcast(qkv_arrays, rng, shape):
    mask, bias = rng.random(shape) < 0.7, rng.standard_normal(shape).astype(np.float32)
    for options in ({"mask": np.asarray(mask)}, {"bias": np.asarray(bias)}):
        close(qkv.attention(*qkv_arrays, **options), formula(*qkv_arrays, **options)["o"])
    turned = np.broadcast_to(mask, (2, 4, 9, 9))[:, ::-1, ::-1, ::-1]
    np.testing.assert_array_equal(
        qkv.attention(*qkv_arrays, mask=turned), qkv.attention(*qkv_arrays, mask=turned.copy())
    )


# ---- out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_out(qkv_arrays, dtype):
    want = qkv.attention(*qkv_arrays)
    whole = np.full((2, 9, 6, 16), 7, dtype)
    out = whole[:, :, 1:5].transpose(0, 2, 1, 3)
    assert qkv.attention(*qkv_arrays, out=out) is out
    np.testing.assert_array_equal(out, want.astype(dtype))
    assert (whole[:, :, 0] == 7).all() and (whole[:, :, 5] == 7).all()
    o, lse = qkv.attention(*qkv_arrays, out=out[:, :, ::-1], return_lse=True)
    np.testing.assert_array_equal(out[:, :, ::-1], want.astype(dtype))


def test_out_that_overlaps(qkv_arrays):
    q, k, v = qkv_arrays
    for out in (q, k, v):
        with pytest.raises(ValueError, match="overlap"):
            qkv.attention(q, k, v, out=out)
    memory = np.zeros(q.size + 5, np.float32)
    inside = memory[: q.size].reshape(q.shape)
    with pytest.raises(ValueError, match="overlap"):
        qkv.attention(inside, k, v, out=memory[5:].reshape(q.shape))


def test_slots_of_one_packed_array_do_not_overlap(rng):
    whole = rng.standard_normal((2, 9, 4, 4, 16), dtype=np.float32)
    q, k, v, out = (whole[:, :, i].transpose(0, 2, 1, 3) for i in range(4))
    want = qkv.attention(q, k, v)
    np.testing.assert_array_equal(qkv.attention(q, k, v, out=out), want)


# ---- DLPack ----------------------------------------------------------------------------------


class Speaker:
    """Something with __dlpack__ and a shape, counting who holds it."""

    def __init__(self, array, versioned=True):
        self.array, self.shape, self.dtype, self.versioned = array, array.shape, array.dtype, versioned

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **words):
        if "max_version" in words and not self.versioned:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**words)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("name", ["dense", "tokens first", "reversed tokens", "reversed channels"])
def test_dlpack(qkv_arrays, versioned, name):
    want = qkv.attention(*qkv_arrays)
    views = [VIEWS[name](x) for x in qkv_arrays]
    counts = [sys.getrefcount(x) for x in views]
    got = qkv.attention(*(Speaker(x, versioned) for x in views), mask=Speaker(np.ones((9, 9), bool), versioned))
    gc.collect()
    assert [sys.getrefcount(x) for x in views] == counts
    np.testing.assert_array_equal(np.asarray(got), want)


def test_what_dlpack_refuses(qkv_arrays):
    q, k, v = qkv_arrays

    class Silent(Speaker):
        def __dlpack__(self, **words):
            raise BufferError("not today")

    class Liar(Speaker):
        def __dlpack__(self, **words):
            return 3

    with pytest.raises(TypeError, match="k cannot be exported through DLPack: not today"):
        qkv.attention(q, Silent(k), v)
    with pytest.raises(TypeError, match="did not return a DLPack capsule"):
        qkv.attention(q, Liar(k), v)
    frozen = q.copy()
    frozen.flags.writeable = False
    with pytest.raises((TypeError, ValueError), match="read-?only"):
        qkv.attention(q, k, v, out=Speaker(frozen))


def test_other_buffers(qkv_arrays):
    q, k, v = qkv_arrays
    got = qkv.attention(memoryview(q), memoryview(k), v)
    np.testing.assert_array_equal(got, qkv.attention(q, k, v))


# ---- memory, threads, processes --------------------------------------------------------------


def test_nothing_leaks(qkv_arrays):
    q, k, v = qkv_arrays
    b = [x.astype(ml_dtypes.bfloat16) for x in qkv_arrays]

    def everything():
        qkv.attention(q, k, v, causal=True, return_lse=True, return_weights=True, q_lens=[1, 2])
        qkv.attention(q[..., ::-1], k, v, mask=np.ones((9, 9), bool), sinks=[1.0] * 4)
        qkv.attention(*b)
        qkv.Plan(q, k, v)(q, k, v)
        qkv.reference_attention(q, k, v)
        qkv.merge([qkv.attention(q, k, v, return_lse=True)] * 2)
        qkv.info()
        for bad in (q.astype(int), q[0], q.astype(">f4")):
            with pytest.raises((TypeError, ValueError)):
                qkv.attention(bad, k, v)

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    counts = [sys.getrefcount(x) for x in (q, k, v, None, np.float32)]
    growth = []
    for _ in range(4):  # the first rounds warm allocators up; a leak shows in every round
        before = resident()
        for _ in range(300):
            everything()
        gc.collect()
        growth.append(resident() - before)
    assert min(growth) < 2**18, growth
    after = [sys.getrefcount(x) for x in (q, k, v, None, np.float32)]
    assert all(b - a < 100 for a, b in zip(counts, after))


def test_many_threads_and_one_plan(rng):
    q, k, v = rng.standard_normal((3, 2, 4, 130, 32), dtype=np.float32)
    plan = qkv.Plan(q, k, v, causal=True, threads=2)
    want = qkv.attention(q, k, v, causal=True)
    wrong = []

    def work():
        for _ in range(30):
            if not ((plan(q, k, v) == want).all() and (qkv.attention(q, k, v, causal=True) == want).all()):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_gil_is_released():
    """Python runs while C does: another thread counts during one long call."""
    q = np.ones((1, 8, 1500, 64), np.float32)
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1
            done.wait(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    qkv.set_cpu_tier("scalar")
    qkv.attention(q, q, q, threads=1)
    qkv.set_cpu_tier(None)
    during = counted[0] - before
    done.set()
    thread.join()
    assert during >= 5


def compute(q, queue):
    queue.put(qkv.attention(q, q, q, threads=3).tobytes())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_fork(rng):
    q = rng.standard_normal((2, 4, 200, 32), dtype=np.float32)
    want = qkv.attention(q, q, q, threads=3).tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=compute, args=(q, queue))
    child.start()
    try:
        got = queue.get(timeout=60)
        child.join(60)
    finally:
        child.kill()
    assert child.exitcode == 0 and got == want
    assert qkv.attention(q, q, q, threads=3).tobytes() == want
