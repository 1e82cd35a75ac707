"""What a simulated phone does to whoever employs it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from device_farm.errors import DeviceGone, Refused, RunnerFailed, Unfit, Unstable, WrongAnswer
from device_farm.fleet.words import Job, Lease
from device_farm.simulator.clock import run_virtually
from device_farm.simulator.faults import FaultRates, PhoneFault
from device_farm.simulator.phone import Candidate, Reading, SimulatedPhone, Station
from device_farm.simulator.scenario import MIDRANGE, PhoneModel, Scenario, Search
from device_farm.simulator.thermal import ThermalModel

SCENARIO = Scenario(phones=((MIDRANGE, 1),), searches=(), ambient_spread_c=0.0)
LEASE = Lease(1, Job("j", "artifact", MIDRANGE.name), "p", 90.0)
CANDIDATE = Candidate(cost_ms=15.0, seconds=8.0)

Scene = Callable[[SimulatedPhone], Awaitable[object]]


def play(scene: Scene, *, model: PhoneModel = MIDRANGE, scenario: Scenario = SCENARIO) -> object:
    async def stage() -> object:
        station = Station(scenario.broker_s)
        phone = SimulatedPhone("p", model=model, scenario=scenario, station=station, rng=random.Random(0))
        assert await phone.connect() == model.name
        return await scene(phone)

    return run_virtually(stage())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_cool_phone_tells_the_truth_within_its_noise() -> None:
    async def scene(phone: SimulatedPhone) -> object:
        return [await phone.run(LEASE, CANDIDATE) for _ in range(5)]

    readings = play(scene)
    assert isinstance(readings, list)
    assert all(isinstance(reading, Reading) and reading.error < 0.03 for reading in readings)
    assert readings[0].true_ms == pytest.approx(10.0) and len({reading.latency_ms for reading in readings}) == 5


def test_a_hot_phone_says_so_and_is_fit_again_when_it_has_rested_as_it_asked() -> None:
    model = replace(MIDRANGE, thermal=ThermalModel(rise_c=25.0, tau_s=60.0))

    async def scene(phone: SimulatedPhone) -> object:
        async def until_hot() -> None:
            while (await phone.run(LEASE, CANDIDATE)).error < 0.03:
                pass

        with pytest.raises(Unfit, match=r"\d\d\.\d C, sentinel at \d+%") as unfit:
            await until_hot()
        assert 30 <= unfit.value.retry_after_s <= 900
        with pytest.raises(Unfit):
            await phone.run(LEASE, CANDIDATE)
        await asyncio.sleep(unfit.value.retry_after_s)
        return await phone.run(LEASE, CANDIDATE)

    assert isinstance(play(scene, model=model), Reading)


def test_a_phone_whose_clock_is_capped_is_found_out_by_its_sentinel() -> None:
    async def scene(phone: SimulatedPhone) -> None:
        phone.befall(PhoneFault.THROTTLE, spell_s=60)
        with pytest.raises(Unfit, match="sentinel at 70%"):
            await phone.run(LEASE, CANDIDATE)
        await asyncio.sleep(60)
        await phone.run(LEASE, CANDIDATE)

    play(scene)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (PhoneFault.FLIP, WrongAnswer),
        (PhoneFault.NOISY, Unstable),
        (PhoneFault.REFUSE, Refused),
    ],
)
def test_a_spell_ends_in_its_error_and_then_it_is_over(fault: PhoneFault, error: type[Exception]) -> None:
    async def scene(phone: SimulatedPhone) -> None:
        phone.befall(fault, spell_s=30)
        with pytest.raises(error):
            await phone.run(LEASE, CANDIDATE)
        await asyncio.sleep(30)
        await phone.run(LEASE, CANDIDATE)

    play(scene)


@pytest.mark.parametrize("fault", [PhoneFault.VANISH, PhoneFault.REBOOT, PhoneFault.UNAUTHORIZED])
def test_a_closed_link_ends_what_runs_and_is_refused_for_a_while(fault: PhoneFault) -> None:
    async def scene(phone: SimulatedPhone) -> None:
        running = asyncio.ensure_future(phone.run(LEASE, CANDIDATE))
        watch = asyncio.ensure_future(phone.watch())
        await asyncio.sleep(3)
        phone.befall(fault, spell_s=30)
        for task in (running, watch):
            with pytest.raises(DeviceGone):
                await task
        assert now() == MIDRANGE.connect_s + 3
        with pytest.raises(Refused if fault is PhoneFault.UNAUTHORIZED else DeviceGone):
            await phone.connect()
        await asyncio.sleep(30)
        assert await phone.connect() == MIDRANGE.name

    play(scene)


def test_a_mute_phone_answers_nothing_until_it_is_restarted() -> None:
    async def scene(phone: SimulatedPhone) -> None:
        running = asyncio.ensure_future(phone.run(LEASE, CANDIDATE))
        await asyncio.sleep(3)
        phone.befall(PhoneFault.MUTE, spell_s=500)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 90)
        await phone.restart()
        with pytest.raises(DeviceGone):
            await running
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(phone.connect(), 60)

    play(scene)


def test_a_late_answer_comes_long_after_the_lease_and_is_wrong() -> None:
    async def scene(phone: SimulatedPhone) -> None:
        phone.befall(PhoneFault.LATE, spell_s=1)
        reading = await phone.run(LEASE, CANDIDATE)
        assert now() > LEASE.deadline_s and reading.error > 1

    play(scene)


def test_a_crashing_candidate_harms_its_phone() -> None:
    async def scene(phone: SimulatedPhone) -> None:
        with pytest.raises(RunnerFailed):
            await phone.run(LEASE, replace(CANDIDATE, crashes=True))
        assert phone.harmed_by == ["artifact"]

    play(scene)


def test_heat_follows_its_law() -> None:
    thermal = ThermalModel(rise_c=20, tau_s=100, throttle_c=40, span_c=10, slowest=0.5)
    assert thermal.after(25, math.inf, ambient_c=25, works=True) == 45
    there = thermal.after(25, 60, ambient_c=25, works=True)
    assert there == pytest.approx(25 + 20 * (1 - math.exp(-0.6)))
    assert thermal.after(thermal.after(25, 20, ambient_c=25, works=True), 40, ambient_c=25, works=True) == there
    assert [thermal.clock(c) for c in (39, 40, 45, 50, 80)] == [1, 1, 0.75, 0.5, 0.5]
    rest_s = thermal.seconds_to(30, start_c=45, ambient_c=25)
    assert thermal.after(45, rest_s, ambient_c=25, works=False) == pytest.approx(30)
    assert thermal.seconds_to(30, start_c=29, ambient_c=25) == 0
    assert thermal.seconds_to(24, start_c=29, ambient_c=25) == math.inf


def test_impossible_scenarios_are_refused() -> None:
    search = Search("s", ("phnoe",), 1, 1)
    with pytest.raises(ValueError, match="search 's' wants 'phnoe'; models: midrange"):
        replace(SCENARIO, searches=(search,))
    with pytest.raises(ValueError, match="two models or searches are called 'midrange'"):
        replace(SCENARIO, phones=((MIDRANGE, 1), (MIDRANGE, 2)))
    with pytest.raises(ValueError, match="mute must be a finite number, 0 or more, got -1"):
        FaultRates(mute=-1)
