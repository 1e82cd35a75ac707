"""What tests look at instead of a terminal."""

from __future__ import annotations


class Said:
    """A Progress that remembers what it was told to log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, text: str) -> None: ...
    def update(
        self, done: int, total: int, *, over_budget: int, failed: int, best: str | None, stopped: int = 0
    ) -> None: ...
    def close(self) -> None: ...

    def log(self, text: str) -> None:
        self.lines.append(text)
