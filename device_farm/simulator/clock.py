"""An asyncio event loop whose time is virtual: nobody sleeps, the clock jumps to whatever is due next.

Whatever runs in it is deterministic, if it does no input or output, starts no threads and draws from seeded generators.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingHappens(RuntimeError):
    """Every task waits for another one: on a virtual clock this lasts for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`loop.time()` begins at 0 and moves only when nothing else can be done."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        super().__init__(_Jumps(self._pass))
        # What is due within a clock's tick is done at once. Of the real clock that is 1 ns, less than a double can tell
        # apart after a few weeks: the loop would wait for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual_s

    def _pass(self, seconds: float) -> None:
        self._virtual_s += seconds


class _Jumps(selectors.SelectSelector):
    """Stands where a loop waits for files and timers; there are no files."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingHappens("every task waits for another, and no timer is set")
        if timeout > 0:
            self._pass_time(timeout)
        return []


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, run on a virtual clock. Raises NothingHappens when it could never end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
