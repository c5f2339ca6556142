"""Saved caches: files that appear complete or not at all, and are believed only as far as checked."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import Any, Callable, Iterator, Union

from . import _qkv
from ._cache_config import name_config

Path = Union[str, os.PathLike[str]]
_INSPECTED = ("version", "sequences", "pages", "open_pages", "tokens", "bytes")


class OpenFile:
    """A file that was found to be as long as its header says."""

    def __init__(self, path: Path, fd: int, sequences: int) -> None:
        self.path, self._fd, self.sequences = path, fd, sequences

    def call(self, function: Callable[[int], Any]) -> Any:
        """function(fd), with the path in the sentence if it refuses."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        with named(self.path):
            return function(self._fd)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{os.fspath(path)}: {error}") from None
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def inspect(path: Path) -> dict[str, Any]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _inspect(path, fd)
    finally:
        os.close(fd)


def _inspect(path: Path, fd: int) -> dict[str, Any]:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{os.fspath(path)}: not a file that can be looked at twice")
    with named(path):
        config, *rest = _qkv.cache_inspect(fd)
    found = dict(zip(_INSPECTED, rest))
    if about.st_size != found["bytes"]:
        raise ValueError(
            f"{os.fspath(path)}: the file has {about.st_size} bytes; its header says {found['bytes']}"
        )
    return {"config": name_config(config), **found}


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield OpenFile(path, fd, _inspect(path, fd)["sequences"])
    finally:
        os.close(fd)


def write_file(path: Path, write: Callable[[int], None]) -> None:
    """Writes beside the file under another name, and renames.  Links are followed, rights stay."""
    target = os.path.realpath(path)
    beside = f"{target}.{os.getpid()}.{threading.get_ident()}.tmp"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(fd, stat.S_IMODE(os.stat(target).st_mode))
            with named(path):
                write(fd)
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
