"""The pool with workers of plain asyncio: real time, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from device_farm.errors import DeviceGone, NoSuchDevice, Refused, Unfit, WrongAnswer
from device_farm.fleet.faults import result_of
from device_farm.fleet.pool import InputLost, Pool
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, DeviceState, Done, Failed, Happening, Job, Lease, Note, Policy, Run, Settle

POLICY = Policy(lease_s=0.2, cool_s=0.01, absent_s=5)


@dataclass
class Man:
    """A worker that answers with what its payload does. It keeps a count of everything."""

    serial: str
    boot_id: str = ""
    refusals: int = 0
    restarts: int = 0
    connections: int = 0
    ran: list[int] = field(default_factory=list)
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> str:
        if self.refusals:
            self.refusals -= 1
            raise Refused("unauthorized")
        self.connections += 1
        self.dead = asyncio.Event()
        return "phone"

    async def run(self, lease: Lease, payload: Callable[[Man], Awaitable[str]]) -> str:
        self.ran.append(lease.fence)
        return await payload(self)

    async def watch(self) -> None:
        await self.dead.wait()
        raise DeviceGone("its process died")

    async def restart(self) -> None:
        self.restarts += 1


Task = Callable[[Man], Awaitable[str]]


async def well(man: Man) -> str:
    await asyncio.sleep(0)
    return man.serial


async def hang(man: Man) -> str:
    await asyncio.sleep(1e6)
    return "never"


async def on_a_only(man: Man) -> str:
    if man.serial == "a":
        return await hang(man)
    return man.serial


def play(scene: Callable[[Pool[Task, str]], Awaitable[None]], policy: Policy = POLICY, connect_s: float = 5) -> None:
    async def stage() -> None:
        pool: Pool[Task, str] = Pool(Fleet(policy), connect_s=connect_s)
        try:
            await asyncio.wait_for(scene(pool), 20)
        finally:
            await pool.close()

    asyncio.run(stage())


def job(key: str) -> Job:
    return Job(key, key, "phone")


def test_many_ask_and_one_works() -> None:
    async def scene(pool: Pool[Task, str]) -> None:
        man = Man("a")
        pool.add(man)
        answers = await asyncio.gather(*(pool.ask(job("j"), well) for _ in range(4)))
        assert answers == [Done("a")] * 4 and len(man.ran) == 1
        assert await pool.ask(job("j"), well) == Done("a") and len(man.ran) == 1

    play(scene)


def test_who_stops_waiting_does_not_stop_the_job() -> None:
    async def scene(pool: Pool[Task, str]) -> None:
        impatient = asyncio.ensure_future(pool.ask(job("j"), well))
        patient = asyncio.ensure_future(pool.ask(job("j"), well))
        await asyncio.sleep(0)
        impatient.cancel()
        pool.add(Man("a"))
        assert await patient == Done("a")

    play(scene)


def test_a_hanging_worker_is_restarted_and_its_late_result_ignored() -> None:
    release = asyncio.Event()

    async def slow_on_a(man: Man) -> str:
        if man.serial == "a":
            await release.wait()
            return "late"
        return man.serial

    async def scene(pool: Pool[Task, str]) -> None:
        a, b = Man("a"), Man("b")
        pool.add(a)
        await pool.joined()
        asking = asyncio.ensure_future(pool.ask(job("j"), slow_on_a))
        await asyncio.sleep(0.01)
        pool.add(b)
        assert await asking == Done("b")
        release.set()
        await asyncio.sleep(0.05)
        assert (a.restarts, a.connections, b.restarts) == (1, 2, 0)
        assert await pool.ask(job("j"), well) == Done("b")

    play(scene)


def test_a_worker_that_cannot_be_reached_is_tried_again_and_complained_of() -> None:
    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Man("a", refusals=2))
        await asyncio.sleep(0.01)
        assert pool.complaints == {"a": "Refused: unauthorized"}
        assert await pool.ask(job("j"), well) == Done("a")
        assert pool.complaints == {}

    play(scene)


def test_a_worker_that_never_answers_its_greeting_is_restarted() -> None:
    class Mute(Man):
        async def connect(self) -> str:
            if not self.restarts:
                await asyncio.sleep(1e6)
            return await super().connect()

    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Mute("a"))
        assert await pool.ask(job("j"), well) == Done("a")

    play(scene, connect_s=0.05)


def test_a_worker_that_dies_idle_leaves_and_comes_back() -> None:
    async def scene(pool: Pool[Task, str]) -> None:
        man = Man("a")
        pool.add(man)
        await pool.joined()
        man.dead.set()
        man.refusals = 1
        await asyncio.sleep(0.02)
        assert pool.fleet.devices()[0].state is DeviceState.GONE
        await pool.joined()
        assert pool.fleet.devices()[0].state is DeviceState.HEALTHY and man.connections == 2

    play(scene)


def test_a_worker_that_dies_at_work_is_replaced_by_another() -> None:
    async def die(man: Man) -> str:
        if man.serial == "a":
            man.dead.set()
            return await hang(man)
        return man.serial

    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Man("a"))
        await pool.joined()
        asking = asyncio.ensure_future(pool.ask(job("j"), die))
        await asyncio.sleep(0.01)
        pool.add(Man("b"))
        assert await asking == Done("b")

    play(scene)


def test_faults_are_counted_by_their_kind() -> None:
    async def wrong(man: Man) -> str:
        raise WrongAnswer("off by 3")

    async def lost(man: Man) -> str:
        raise InputLost("its node died")

    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Man("a"))
        pool.add(Man("b"))
        poisoned = await pool.ask(job("p"), wrong)
        assert isinstance(poisoned, Failed) and poisoned.error == "Poisoned"
        again = await pool.ask(job("l"), lost)
        assert isinstance(again, Failed) and not again.final
        assert result_of(await pool.ask(job("l"), well)) in ("a", "b")
        assert {d.strikes for d in pool.fleet.devices()} == {0}

    play(scene)


def test_a_worker_that_is_removed_gives_its_job_back_and_may_be_employed_again() -> None:
    async def scene(pool: Pool[Task, str]) -> None:
        a = Man("a")
        pool.add(a)
        with pytest.raises(ValueError, match="a is employed already"):
            pool.add(a)
        await pool.joined()
        asking = asyncio.ensure_future(pool.ask(job("j"), on_a_only))
        await asyncio.sleep(0.01)
        await pool.remove("a")
        assert a.restarts == 1 and pool.fleet.devices() == []
        with pytest.raises(NoSuchDevice):
            await pool.remove("a")
        pool.add(Man("b"))
        assert await asking == Done("b")
        await asyncio.sleep(0.05)
        assert a.connections == 1
        pool.add(a)
        while len(pool.fleet.devices()) < 2 or not pool.fleet.device("a").state.serves:
            await asyncio.sleep(0.01)

    play(scene)


def test_a_worker_that_was_never_reached_may_be_removed() -> None:
    class Mute(Man):
        async def connect(self) -> str:
            await asyncio.sleep(1e6)
            return "phone"

    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Mute("a"))
        await asyncio.sleep(0)
        assert pool.fleet.device("a").state is DeviceState.CONNECTING
        await pool.remove("a")
        assert pool.fleet.devices() == []

    play(scene)


def test_whoever_observes_is_shown_everything() -> None:
    async def stage() -> list[Action[str]]:
        seen: list[Action[str]] = []
        pool: Pool[Task, str] = Pool(Fleet(POLICY), observe=seen.extend)
        try:
            pool.add(Man("a"))
            await pool.joined()
            await pool.ask(job("j"), well)
            pool.quarantine("a", reason="sentinel off")
            pool.release("a")
            pool.cool("a", reason="hot", seconds=60)
            assert pool.fleet.device("a").state is DeviceState.COOLING
        finally:
            await pool.close()
        return seen

    run, settle, *notes = asyncio.run(stage())
    assert isinstance(run, Run) and settle == Settle("j", Done("a"))
    assert [note.what for note in notes if isinstance(note, Note)] == [Happening.QUARANTINED, Happening.RETURNED]


def test_an_unfit_worker_rests_and_another_does_its_work() -> None:
    async def hot_on_a(man: Man) -> str:
        if man.serial == "a":
            raise Unfit("46 C", retry_after_s=60)
        return man.serial

    async def scene(pool: Pool[Task, str]) -> None:
        pool.add(Man("a"))
        await pool.joined()
        asking = asyncio.ensure_future(pool.ask(job("j"), hot_on_a))
        await asyncio.sleep(0.01)
        assert "was fit" in str(pool.fleet.why_waiting("j"))
        pool.add(Man("b"))
        assert await asking == Done("b")
        assert pool.fleet.device("a").strikes == 0

    play(scene)
