"""Files that lie, disks that are full, and the promise that outputs are complete or not there."""

import json
import os
import random
import resource
import struct
import subprocess

import numpy as np
import pytest
from cli_command import COMMAND
from safetensors.numpy import save_file

ONE = np.arange(24, dtype="f4").reshape(1, 2, 3, 4) / 24
DATA = ONE.tobytes()


@pytest.fixture
def kv(save):
    return save(k=ONE, v=ONE)


# ---- .npy ---------------------------------------------------------------------------------


def npy(header, data=DATA, version=1, length=None, magic=b"\x93NUMPY"):
    header = header.encode()
    n = len(header) if length is None else length
    return magic + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", n) + header + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3, 4), }\n"


def changed(old, new):
    assert old in GOOD
    return npy(GOOD.replace(old, new))


BAD_NPY = {
    "empty": b"",
    "short": b"\x93NUMPY",
    "magic": npy(GOOD, magic=b"\x93NUMPZ"),
    "text": b"1 2 3 4 5 6 7 8 9\n",
    "version": npy(GOOD, version=4),
    "header_beyond_file": npy(GOOD, length=60000),
    "header_4_gib": npy(GOOD, version=2, length=0xFFFFFFFF),
    "header_zero": npy(GOOD, length=0),
    "data_truncated": npy(GOOD, DATA[:-1]),
    "data_missing": npy(GOOD, b""),
    "data_too_long": npy(GOOD, DATA + b"\0"),
    "no_newline": npy(GOOD.strip()),
    "shape_larger": changed("(1, 2, 3, 4)", "(1, 2, 3, 5)"),
    "shape_negative": changed("(1, 2, 3, 4)", "(-1, -2, 3, 4)"),
    "shape_overflow": changed("(1, 2, 3, 4)", "(4294967296, 4294967296, 4294967296, 1)"),
    "shape_overflow_to_right_size": changed("(1, 2, 3, 4)", "(4611686018427387904, 4, 3, 2)"),
    "shape_overflow_with_zero": changed("(1, 2, 3, 4)", "(0, 4611686018427387904, 4611686018427387904)"),
    "shape_huge_number": changed("(1, 2, 3, 4)", "(99999999999999999999999, 2, 3, 4)"),
    "shape_terabytes": changed("(1, 2, 3, 4)", "(1, 2, 3, 400000000000)"),
    "shape_number": changed("(1, 2, 3, 4)", "24"),
    "shape_no_tuple": changed("(1, 2, 3, 4)", "(24)"),
    "shape_list": changed("(1, 2, 3, 4)", "[1, 2, 3, 4]"),
    "shape_expression": changed("(1, 2, 3, 4)", "(1, 2, 3, 2+2)"),
    "shape_open": changed("(1, 2, 3, 4)", "(1, 2, 3, 4"),
    "shape_rank_9": changed("(1, 2, 3, 4)", "(1, 1, 1, 1, 1, 1, 2, 3, 4)"),
    "fortran_number": changed("False", "0"),
    "fortran_word": changed("False", "Falsehood"),
    "key_missing": changed("'fortran_order': False, ", ""),
    "key_twice": changed("'fortran_order'", "'descr': '<f4', 'fortran_order'"),
    "key_unknown": changed("'fortran_order'", "'more': True, 'fortran_order'"),
    "key_escape": changed("'descr'", "'d\\x65scr'"),
    "no_dict": npy("[1, 2]\n"),
    "call": npy("__import__('os').abort()\n"),
    "after_dict": changed(", }", ", } + {}"),
    "string_open": changed("'<f4'", "'<f4"),
    "dtype_empty": changed("'<f4'", "''"),
    "dtype_object": changed("'<f4'", "'|O'"),
    "dtype_nonsense": changed("'<f4'", "'<f5'"),
    "dtype_no_order": changed("'<f4'", "'f4'"),
    "dtype_bar": changed("'<f4'", "'|f4'"),
    "dtype_long": changed("'<f4'", "'" + "<" * 500 + "f4'"),
    "dtype_number": changed("'<f4'", "4"),
    "dtype_other_size": changed("'<f4'", "'<f8'"),
    "control_bytes": changed("'<f4'", "'\0\1'"),
}


@pytest.mark.parametrize("name", BAD_NPY)
def test_bad_npy(qkv, tmp_path, kv, name):
    (tmp_path / "q.npy").write_bytes(BAD_NPY[name])
    done = qkv("attend", "--q", "q.npy", *kv, "-o", "o.npy", code=2)
    assert "q.npy: " in done.stderr
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize("header", [
    GOOD,
    GOOD.replace("'", '"'),
    GOOD.replace(", }", "}"),
    "{'shape':(1,2,3,4),'fortran_order':False,'descr':'<f4'}\n",
    " { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 1 , 2 , 3 , 4 , ) , }   \n",
    GOOD.replace("<f4", "=f4"),
])
def test_good_npy(qkv, tmp_path, kv, header):
    (tmp_path / "q.npy").write_bytes(npy(header))
    qkv("attend", "--q", "q.npy", *kv, "-o", "o.npy")


def test_not_a_file(qkv, tmp_path, kv):
    os.mkdir(tmp_path / "d.npy")
    os.mkfifo(tmp_path / "p.npy")
    for name in "d.npy", "p.npy", "missing.npy":
        assert name in qkv("attend", "--q", name, *kv, "-o", "o.npy", code=2).stderr


# ---- .safetensors -------------------------------------------------------------------------


def safetensors(header, data=DATA, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(1, 2, 3, 4), begin=0, end=96):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HALF = {"shape": (1, 1, 3, 4)}
BAD_SAFETENSORS = {
    "empty": b"",
    "short": b"\0\0\0",
    "header_beyond_file": safetensors({"q": entry()}, length=10000),
    "header_huge": safetensors({"q": entry()}, length=2**64 - 1),
    "header_limit": safetensors({"q": entry()}, length=100_000_001),
    "header_zero": safetensors(b"", b""),
    "not_json": safetensors(b"{'q': 1}"),
    "not_an_object": safetensors(b"[1, 2]"),
    "leading_space": safetensors(b" " + json.dumps({"q": entry()}).encode()),
    "not_utf8": safetensors(b'{"\xff\xfe": 1}'),
    "nul_in_name": safetensors(b'{"a\\u0000b": 1}'),
    "after_json": safetensors(json.dumps({"q": entry()}).encode() + b"x"),
    "deep": safetensors(b'{"q":' + b"[" * 100000),
    "duplicate": safetensors(b'{"q":%b,"q":%b}' % ((json.dumps(entry()).encode(),) * 2)),
    "duplicate_key_inside": safetensors(
        b'{"q":{"dtype":"F32","dtype":"F32","shape":[1,2,3,4],"data_offsets":[0,96]}}'),
    "entry_not_object": safetensors({"q": [1]}),
    "dtype_missing": safetensors({"q": {"shape": [24], "data_offsets": [0, 96]}}),
    "dtype_nonsense": safetensors({"q": entry("F33")}),
    "dtype_number": safetensors({"q": entry(32)}),
    "dtype_other_size": safetensors({"q": entry("F64")}),
    "shape_missing": safetensors({"q": {"dtype": "F32", "data_offsets": [0, 96]}}),
    "shape_string": safetensors({"q": {**entry(), "shape": "24"}}),
    "shape_negative": safetensors({"q": entry(shape=(-1, 2, -3, 4))}),
    "shape_real": safetensors({"q": entry(shape=(1.0, 2, 3, 4))}),
    "shape_lie": safetensors({"q": entry(shape=(1, 2, 3, 5))}),
    "shape_overflow": safetensors({"q": entry(shape=(2**32, 2**32, 2**32))}),
    "shape_overflow_to_right_size": safetensors({"q": entry(shape=(2**62, 4, 24))}),
    "shape_overflow_bits": safetensors({"q": entry(shape=(2**60,))}),
    "shape_beyond_64_bits": safetensors(b'{"q":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,96]}}'),
    "shape_rank_9": safetensors({"q": entry(shape=(1, 1, 1, 1, 1, 1, 2, 3, 4))}),
    "offsets_missing": safetensors({"q": {"dtype": "F32", "shape": [24]}}),
    "offsets_one": safetensors({"q": {**entry(), "data_offsets": [96]}}),
    "offsets_backwards": safetensors({"q": entry(begin=96, end=0)}),
    "offsets_negative": safetensors({"q": entry(begin=-96, end=0)}),
    "offsets_real": safetensors({"q": entry(begin=0.5, end=96.5)}),
    "offsets_beyond_file": safetensors({"q": entry(begin=96, end=192)}),
    "offsets_huge": safetensors({"q": entry(begin=2**63 - 97, end=2**63 - 1)}),
    "hole": safetensors({"q": entry(end=48, **HALF), "r": entry(begin=52, end=100, **HALF)}, DATA + b"1234"),
    "hole_at_start": safetensors({"q": entry(begin=4, end=100)}, b"1234" + DATA),
    "overlap": safetensors({"q": entry(), "r": entry()}),
    "bytes_left_over": safetensors({"q": entry()}, DATA + b"\0"),
    "truncated": safetensors({"q": entry()}, DATA[:-1]),
    "sub_byte": safetensors({"q": entry("F4", (3,), 0, 1)}, b"1"),
    "metadata_number": safetensors({"q": entry(), "__metadata__": {"a": 1}}),
    "metadata_list": safetensors({"q": entry(), "__metadata__": ["a"]}),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_bad_safetensors(qkv, tmp_path, kv, name):
    (tmp_path / "q.safetensors").write_bytes(BAD_SAFETENSORS[name])
    for option in "--in", "--q":
        done = qkv("attend", option, "q.safetensors", *kv, "-o", "o.npy", code=2)
        assert "q.safetensors: " in done.stderr
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize("content", [
    safetensors({"q": entry()}),
    safetensors({"q": entry(), "__metadata__": {"format": "pt"}}),
    safetensors(json.dumps({"q": entry()}).encode() + b"     "),
    # Data that is not aligned to its elements, an empty tensor, and a dtype qkv has no use for.
    safetensors({"a": entry("U8", (3,), 0, 3), "e": entry("F32", (0, 5), 3, 3), "q": entry(begin=3, end=99)},
                b"123" + DATA),
    safetensors({"q": entry(), "f": entry("F4", (4,), 96, 98)}, DATA + b"12"),
])
def test_good_safetensors(qkv, tmp_path, kv, content):
    (tmp_path / "q.safetensors").write_bytes(content)
    np.save(tmp_path / "q.npy", ONE)
    qkv("attend", "--in", "q.safetensors", *kv, "-o", "a.npy")
    qkv("attend", "--q", "q.npy", *kv, "-o", "b.npy")
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


# ---- mutations ----------------------------------------------------------------------------


def mutate(rng, content, header_bytes):
    """One to four small changes, most of them in the header."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(content), header_bytes) if rng.random() < 0.9 else len(content))
        kind = rng.random()
        if kind < 0.35:
            content[at] ^= 1 << rng.randrange(8)
        elif kind < 0.55:
            content[at] = rng.choice(b"0123456789-,:[]{}()'\"\\ \0\xff")
        elif kind < 0.7:
            del content[at:at + rng.randint(1, 8)]
        elif kind < 0.85:
            content[at:at] = rng.choice([b"9" * 9, b"[", b"{", b"-", b"00", b"\0\0\0\0", b"'", b'"'])
        elif kind < 0.95:
            del content[at:]
        else:
            other = rng.randrange(len(content) or 1)
            content[at:at + 4] = content[other:other + 4]
        if not content:
            break
    return bytes(content)


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_mutations_never_crash(tmp_path, save, ending):
    """A thousand damaged headers each: read, or refused with a sentence."""
    options = save(q=ONE, k=ONE, v=ONE)
    save_file({"q": ONE, "mask": np.ones((3, 3), bool), "empty": np.ones((0, 3), "f8")},
              tmp_path / "q.safetensors", metadata={"made": "by a test"})
    content = (tmp_path / f"q.{ending}").read_bytes()
    rng = random.Random(20)
    codes = {0: 0, 2: 0}
    for n in range(1000):
        (tmp_path / f"m.{ending}").write_bytes(mutate(rng, content, 80 if ending == "npy" else 300))
        done = subprocess.run([COMMAND, "attend", "--q", f"m.{ending}", *options[2:], "-o", "o.npy",
                               "--threads", "1"], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode in codes, (n, done)
        if done.returncode == 2:
            assert done.stderr.startswith(b"qkv attend: ") and done.stderr.count(b"\n") == 1, (n, done)
        codes[done.returncode] += 1
    assert codes[2] > 500, codes
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.suffix == ".tmp") == []


# ---- writing ------------------------------------------------------------------------------


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("name", ["o.npy", "o.safetensors"])
@pytest.mark.parametrize("existing", [False, True])
def test_file_that_may_not_grow(qkv, tmp_path, save, name, existing):
    """What was there stays, byte for byte; no temporary file stays behind."""
    options = save(q=np.ones((64, 32), "f4"), k=np.ones((64, 32), "f4"), v=np.ones((64, 32), "f4"))
    if existing:
        (tmp_path / name).write_bytes(b"what was there")
    before = sorted(p.name for p in tmp_path.iterdir())
    done = qkv("attend", *options, "-o", name, "--threads", "1", code=2, preexec_fn=limit_file_size)
    assert "cannot write" in done.stderr and name in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    if existing:
        assert (tmp_path / name).read_bytes() == b"what was there"


def test_heatmap_that_may_not_grow(qkv, tmp_path, save):
    options = save(q=np.ones((30, 4), "f4"), k=np.ones((30, 4), "f4"), v=np.ones((30, 4), "f4"))
    done = qkv("attend", *options, "--heatmap", "h.svg", code=2, preexec_fn=limit_file_size)
    assert "h.svg" in done.stderr and not (tmp_path / "h.svg").exists()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KiB, or a skip where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place],
                             capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a tmpfs needs rights this process does not have")
    yield place
    subprocess.run(["umount", place], check=True)


def test_full_disk(qkv, save, full_disk):
    big = np.ones((256, 128), "f4")
    options = save(q=big, k=big, v=big)
    (full_disk / "o.npy").write_bytes(b"what was there")
    done = qkv("attend", *options, "-o", full_disk / "o.npy", code=2)
    assert "No space left on device" in done.stderr
    assert os.listdir(full_disk) == ["o.npy"]
    assert (full_disk / "o.npy").read_bytes() == b"what was there"


def test_device_is_written_to_and_not_replaced(qkv, save, tmp_path):
    options = save(q=ONE, k=ONE, v=ONE)
    os.symlink("/dev/full", tmp_path / "o.npy")
    done = qkv("attend", *options, "-o", "o.npy", code=2)
    assert "No space left on device" in done.stderr
    assert (tmp_path / "o.npy").is_symlink() and os.path.exists("/dev/full")


def test_targets(qkv, save, tmp_path):
    options = save(q=ONE, k=ONE, v=ONE)
    (tmp_path / "folder.npy").mkdir()
    assert "folder.npy" in qkv("attend", *options, "-o", "folder.npy", code=2).stderr
    assert "nowhere" in qkv("attend", *options, "-o", "nowhere/o.npy", code=2).stderr
    # A link is followed; rights of a file that is replaced stay; new files get what umask leaves.
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "real.npy").chmod(0o640)
    os.symlink("real.npy", tmp_path / "link.npy")
    qkv("attend", *options, "-o", "link.npy", "--lse", "new.npy", preexec_fn=lambda: os.umask(0o027))
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "real.npy").shape == ONE.shape
    assert (tmp_path / "real.npy").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new.npy").stat().st_mode & 0o777 == 0o640


def test_output_may_be_an_input(qkv, save, tmp_path):
    options = save(q=ONE, k=ONE, v=ONE)
    qkv("attend", *options, "-o", "o.npy")
    qkv("attend", *options, "-o", "q.npy")
    assert (tmp_path / "q.npy").read_bytes() == (tmp_path / "o.npy").read_bytes()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 2, 3, 4), (10, 10, 10, 4)])
def test_npy_header(qkv, save, tmp_path, shape):
    """Version 1, and data that begins on 64 bytes."""
    x = np.ones(shape, "f4")
    qkv("attend", *save(q=x, k=x, v=x), "-o", "o.npy")
    np.save(tmp_path / "numpy.npy", np.load(tmp_path / "o.npy"))
    ours, theirs = (tmp_path / "o.npy").read_bytes(), (tmp_path / "numpy.npy").read_bytes()
    assert (len(ours) - x.nbytes) % 64 == 0
    assert ours[-x.nbytes:] == theirs[-x.nbytes:]
    assert ours[:8] == b"\x93NUMPY\1\0"
