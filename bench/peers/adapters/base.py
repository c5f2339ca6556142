"""What a library must be able to do to be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from peers.cases import Case
from peers.tensors import Array, Row, Tensors


class Refused(Exception):
    """The library has nothing for this case; the text says what is missing."""


class Peer(ABC):
    """A library, in the process it has to itself.

    Constructing it imports the library and sets the number of threads; ImportError, OSError or
    Refused say why it cannot be used here.
    """

    name: str  # as tables show it
    version: str
    settings: str = ""  # what was set, besides threads, for people

    @abstractmethod
    def __init__(self, threads: int) -> None: ...

    @abstractmethod
    def prepare(self, case: Case, sets: list[Tensors]) -> str:
        """Everything that is done once: copies into the library's own layout, plans, compilation.

        Returns how the case is computed, for people.  Raises Refused.
        """

    @abstractmethod
    def run(self, number: int) -> Any:
        """Compute set `number` and return the output as the library gives it.  This is timed."""

    @abstractmethod
    def rows(self, output: Any, rows: list[Row]) -> Array:
        """Some rows (head, token) of an output of run, as float32 [row][Dv]."""

    def drop(self) -> None:
        """Forget the case that was prepared."""
        self.__dict__.pop("state", None)
