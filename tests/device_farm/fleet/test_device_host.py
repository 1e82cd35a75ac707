"""Processes of a host's devices: forked, called, killed, replaced; and how their turns are spread."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from device_farm.errors import DeviceGone, Refused
from device_farm.fleet.device_actor import Greeting
from device_farm.fleet.device_host import DeviceHost, Turns
from device_farm.simulator.clock import VirtualLoop


@pytest.fixture(autouse=True)
def standins_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def made_with(folder: Path, serial: str = "d0", opens: str = "well") -> tuple[Any, ...]:
    from standins import ScriptedDevice

    return ScriptedDevice(serial, folder / "log", opens=opens), folder / "devices", "standins:ScriptedMeter", None


def with_host(test: Callable[[DeviceHost], Awaitable[None]]) -> None:
    async def main() -> None:
        host = DeviceHost()
        try:
            await asyncio.wait_for(test(host), 20)
        finally:
            await host.close()

    asyncio.run(main())


async def greet(host: DeviceHost, folder: Path, serial: str = "d0", opens: str = "well") -> Greeting:
    greeting = await host.call(serial, made_with(folder, serial, opens), "hello")
    assert isinstance(greeting, Greeting)
    return greeting


def test_every_device_has_a_process_of_its_own_that_stays(tmp_path: Path) -> None:
    async def test(host: DeviceHost) -> None:
        first, other = await asyncio.gather(greet(host, tmp_path), greet(host, tmp_path, "d1"))
        assert len({first.pid, other.pid, os.getpid()}) == 3
        assert first.facts.serial == "d0" and other.facts.serial == "d1"  # type: ignore[union-attr]
        assert await greet(host, tmp_path) == first

    with_host(test)


def test_what_a_device_says_no_with_is_an_answer_and_a_bug_is_raised(tmp_path: Path) -> None:
    async def test(host: DeviceHost) -> None:
        assert isinstance((await greet(host, tmp_path, opens="refused")).facts, Refused)
        with pytest.raises(AttributeError, match="no_such_method"):
            await host.call("d0", made_with(tmp_path), "no_such_method")
        await greet(host, tmp_path)

    with_host(test)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_calls_of_a_process_that_is_ended_raise_and_the_next_has_another(tmp_path: Path, how: signal.Signals) -> None:
    async def test(host: DeviceHost) -> None:
        first, other = await greet(host, tmp_path), await greet(host, tmp_path, "d1")
        watching = asyncio.ensure_future(host.call("d0", made_with(tmp_path), "watch"))
        await asyncio.sleep(0.05)
        os.kill(first.pid, how)
        if how is signal.SIGSTOP:  # it says nothing any more, and only its end helps
            hello = asyncio.ensure_future(greet(host, tmp_path))
            await asyncio.sleep(0.05)
            assert not hello.done()
            await host.end("d0")
            with pytest.raises(DeviceGone, match="d0 died"):
                await hello
        with pytest.raises(DeviceGone, match="the process that serves d0 died"):
            await watching
        again = await greet(host, tmp_path)
        assert again.pid != first.pid and again.instance != first.instance
        assert (await greet(host, tmp_path, "d1")).pid == other.pid

    with_host(test)


def test_a_device_that_hangs_while_it_is_opened_holds_up_no_other(tmp_path: Path) -> None:
    async def test(host: DeviceHost) -> None:
        hangs = asyncio.ensure_future(greet(host, tmp_path, opens="hang"))
        assert (await greet(host, tmp_path, "d1")).facts is not None
        await host.end("d0")
        with pytest.raises(DeviceGone):
            await hangs

    with_host(test)


_HOLDS = """
import asyncio, pathlib, sys
from test_device_host import greet
from device_farm.fleet.device_host import DeviceHost

async def main():
    host = DeviceHost()
    print((await greet(host, pathlib.Path(sys.argv[1]))).pid, host._parent.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_all_end_with_a_host_that_is_killed(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    with holder:
        assert holder.stdout is not None
        pids = [int(word) for word in holder.stdout.readline().split()]
        assert len(pids) == 2
        handles = [os.pidfd_open(pid) for pid in pids]
        holder.kill()
    for handle in handles:
        assert asyncio.run(_ends(handle))
        os.close(handle)


async def _ends(handle: int) -> bool:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, ended.set)
    await asyncio.wait_for(ended.wait(), 10)
    return True


def test_devices_that_begin_together_are_spread_and_those_that_are_spread_do_not_wait() -> None:
    """Ten devices of two seconds each: the second round begins over most of the time that one takes."""
    begun: list[float] = []
    busy_s, count = 2.0, 10

    async def device(turns: Turns, rounds: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(rounds):
            await turns.wait(among=count)
            begun.append(loop.time())
            await asyncio.sleep(busy_s)
            turns.took(busy_s)

    async def main() -> float:
        turns = Turns()
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(device(turns, 6) for _ in range(count)))
        return asyncio.get_running_loop().time() - began_s

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        seconds = runner.run(main())
    assert max(begun[:count]) == min(begun[:count])  # nothing is known yet
    second = begun[count : 2 * count]
    gaps = [later - earlier for earlier, later in pairwise(second)]
    assert min(gaps) == pytest.approx(0.8 * busy_s / count)
    assert seconds < 6 * busy_s + busy_s  # spread once, and never held up again
