"""What a run tells whoever waits for it. The command line has a terminal's and a log's version."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by a search how it goes."""

    def phase(self, text: str) -> None:
        """What is being done now, such as "training the teacher"."""

    def update(
        self, done: int, total: int, *, over_budget: int, failed: int, best: str | None, stopped: int = 0
    ) -> None:
        """`done` of `total` candidates are concluded, some of them over budget, failed, or stopped by the ladder."""

    def log(self, text: str) -> None:
        """One line that stays."""

    def close(self) -> None:
        """The end, good or bad; nothing is told after it."""
