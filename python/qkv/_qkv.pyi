"""The C module.  Its functions trust the package about the order of arguments only."""

from typing import Any

SCALE_DEFAULT: float

class Plan:
    def __new__(cls, *args: Any) -> "Plan": ...
    def run(self, *args: Any) -> Any: ...
    def facts(self) -> tuple[str, int, int, int]: ...

def attention(*args: Any) -> Any: ...
def reference(*args: Any) -> None: ...
def merge(
    parts: tuple[tuple[Any, Any], ...],
    sinks: Any,
    results: tuple[Any, Any],
    sizes: tuple[bool, bool, int, int, int, int],
    /,
) -> None: ...
def info() -> tuple[
    str,
    str,
    int,
    tuple[tuple[str, int, int, str], ...],
    tuple[tuple[str, str, str, str, str, str, int], ...],
]: ...
