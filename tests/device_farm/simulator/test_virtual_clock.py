"""Time that jumps."""

from __future__ import annotations

import asyncio
import time

import pytest

from device_farm.simulator.clock import NothingHappens, run_virtually


def test_a_year_passes_in_no_time_and_in_order() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time()))

        await asyncio.gather(sleeper("year", 365 * 86400.0), sleeper("hour", 3600.0), sleeper("now", 0.0))
        return seen

    begun = time.monotonic()
    assert run_virtually(main()) == [("now", 0.0), ("hour", 3600.0), ("year", 365 * 86400.0)]
    assert time.monotonic() - begun < 60


def test_deadlines_are_kept_on_the_virtual_clock() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 90.0)
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == 90.0


def test_waiting_for_ever_is_an_error_at_once() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingHappens, match="every task waits for another"):
        run_virtually(main())


def test_errors_come_through() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        run_virtually(main())
