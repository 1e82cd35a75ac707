"""What a search says while it runs: a live line on a terminal, timestamped lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from npas_ray.config.words import duration, printable
from npas_ray.runs.progress import Progress

QUIET_S = 5.0  # a plain line at most so often


@dataclass(frozen=True)
class Pace:
    """How fast it goes, since the first update of this session."""

    per_minute: float | None = None
    left_s: float | None = None

    def __str__(self) -> str:
        if self.per_minute is None:
            return ""
        left = "" if self.left_s is None else f", {duration(self.left_s)} left"
        return f"{self.per_minute:.1f}/min{left}"


class Stopwatch:
    """Counts from the first update, so that a resumed run is not credited with what it did before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def pace(self, done: int, total: int) -> Pace:
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first = (now, done)
        since, before = self._first
        if done == before or now <= since:
            return Pace()
        per_s = (done - before) / (now - since)
        return Pace(per_s * 60, max(0, total - done) / per_s)


def counts(done: int, total: int, *, over_budget: int, failed: int, best: str | None, stopped: int = 0) -> str:
    """12/48 candidates, 3 over budget, 1 failed, best 91.2 % at 0.071 ms"""
    parts = [f"{done}/{total} candidates"]
    parts += [f"{over_budget} over budget"] if over_budget else []
    parts += [f"{stopped} stopped early"] if stopped else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"best {printable(best)}"] if best else []
    return ", ".join(parts)


class PlainProgress:
    """Timestamped lines, for logs and pipes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._stopwatch = Stopwatch(clock)
        self._said_at = float("-inf")
        self._latest: str | None = None  # an update that was too early to be said

    def phase(self, text: str) -> None:
        self._flush()
        self._say(text)

    def update(
        self, done: int, total: int, *, over_budget: int, failed: int, best: str | None, stopped: int = 0
    ) -> None:
        pace = str(self._stopwatch.pace(done, total))
        line = counts(done, total, over_budget=over_budget, failed=failed, best=best, stopped=stopped)
        self._latest = f"{line} ({pace})" if pace else line
        if self._clock() - self._said_at >= QUIET_S:
            self._flush()

    def log(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._latest is not None:
            self._said_at = self._clock()
            self._say(self._latest)
            self._latest = None

    def _say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), printable(text), file=self._stream, flush=True)


class LiveProgress:
    """One line that moves at the bottom of a terminal, with everything else scrolling above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        self._stopwatch = Stopwatch()
        self._phase = "starting"
        self._console = Console(file=stream, highlight=False)
        counted = TextColumn("{task.fields[counts]}", markup=False, table_column=Column(no_wrap=True, ratio=1))
        self._bar = Bar(
            SpinnerColumn(), BarColumn(bar_width=16), counted, console=self._console, transient=True, expand=True
        )
        self._task = self._bar.add_task("", total=None, counts=self._phase)
        self._bar.start()

    def phase(self, text: str) -> None:
        self._phase = printable(text)
        self._bar.update(self._task, counts=self._phase)

    def update(
        self, done: int, total: int, *, over_budget: int, failed: int, best: str | None, stopped: int = 0
    ) -> None:
        pace = str(self._stopwatch.pace(done, total))
        line = counts(done, total, over_budget=over_budget, failed=failed, best=best, stopped=stopped)
        said = " · ".join(part for part in (line, pace, self._phase) if part)
        self._bar.update(self._task, completed=done, total=total, counts=said)

    def log(self, text: str) -> None:
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def make_progress(stream: TextIO | None = None) -> Progress:
    """The live line if the stream (default: stderr) is a terminal that can move its cursor, else plain lines."""
    import os

    stream = sys.stderr if stream is None else stream
    movable = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and "CI" not in os.environ
    return LiveProgress(stream) if movable else PlainProgress(stream)
