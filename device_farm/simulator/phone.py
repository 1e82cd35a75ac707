"""One simulated phone, as a worker of the pool."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from device_farm.errors import DeviceGone, Refused, RunnerFailed, Unfit, Unstable, WrongAnswer
from device_farm.fleet.words import Lease
from device_farm.simulator.faults import PhoneFault
from device_farm.simulator.scenario import PhoneModel, Scenario

_SENTINEL_S = 0.4
_SENTINEL_NOISE = 0.004
_NOISE = 0.005
_SLOW_LINK = 10.0
_BOOT_S = 40.0
_CAPPED_CLOCK = 0.7
# Where the temperature that it may work at again cannot be reached, somebody must move it.
_TOO_WARM_S = 900.0


@dataclass(frozen=True)
class Candidate:
    """What a phone is asked to measure: for `seconds`; at speed 1 it takes `cost_ms`."""

    cost_ms: float
    seconds: float
    crashes: bool = False
    restarts: bool = False  # the phone that runs it


@dataclass(frozen=True)
class Reading:
    """A simulated measurement, and what it should be."""

    latency_ms: float
    true_ms: float
    held_s: float  # for how long it took the phone

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return abs(self.latency_ms / self.true_ms - 1.0)


class Station:
    """The one broker: whoever wants something of it waits for his turn."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self._free_at_s = 0.0
        self.waited_s = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at_s = max(self._free_at_s, now) + self._service_s
        self.waited_s += self._free_at_s - now
        if self._free_at_s > now:
            await asyncio.sleep(self._free_at_s - now)


class SimulatedPhone:
    """Measures with its own heat, speed, noise and mishaps. `crashes` counts the programs that died on it."""

    def __init__(
        self, serial: str, *, model: PhoneModel, scenario: Scenario, station: Station, rng: random.Random
    ) -> None:
        self._serial = serial
        self._model = model
        self._scenario = scenario
        self._station = station
        self._rng = rng
        self._ambient_c = rng.gauss(scenario.ambient_c, scenario.ambient_spread_c)
        self._warm_c = self._ambient_c  # its temperature at `_at_s`
        self._at_s = 0.0
        self._until_s: dict[PhoneFault, float] = {}  # the faults that last
        self._next: PhoneFault | None = None  # befalls the next program
        self._lost = asyncio.Event()
        self._work: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.harmed_by: list[str] = []  # artifacts that crashed on it
        self.measured = 0
        self._boots = 0
        self.unfit = 0  # times that it said so

    @property
    def serial(self) -> str:
        return self._serial

    # As the pool sees it

    async def connect(self) -> str:
        await asyncio.sleep(self._model.connect_s)
        if self._suffers(PhoneFault.MUTE):
            await asyncio.get_running_loop().create_future()
        if self._suffers(PhoneFault.VANISH) or self._suffers(PhoneFault.REBOOT):
            raise DeviceGone(f"no device {self._serial!r}")
        if self._suffers(PhoneFault.UNAUTHORIZED):
            raise Refused("unauthorized: accept the key on its screen")
        self._lost = asyncio.Event()
        return self._model.name

    @property
    def boot_id(self) -> str:
        return f"{self._serial}-{self._boots}"

    async def watch(self) -> None:
        await self._lost.wait()
        raise DeviceGone("its link closed")

    async def restart(self) -> None:
        self._abort("its worker was restarted")

    async def run(self, lease: Lease, payload: Candidate) -> Reading:
        await self._station.turn()
        mishap, self._next = self._next, None
        if mishap is PhoneFault.LATE:
            await asyncio.sleep(2 * self._scenario.policy.lease_s)
            self.measured += 1
            return Reading(latency_ms=1e9, true_ms=1.0, held_s=2 * self._scenario.policy.lease_s)
        if mishap is PhoneFault.HANG or self._suffers(PhoneFault.MUTE):
            await self._spend(None)
        link_s = self._model.link_s * (_SLOW_LINK if self._suffers(PhoneFault.SLOW) else 1.0)
        if self._suffers(PhoneFault.REFUSE):
            await self._spend(link_s)
            raise Refused("no space left on device")
        return await self._measure(lease.job.artifact_key, payload, link_s=link_s)

    async def _measure(self, artifact_key: str, candidate: Candidate, *, link_s: float) -> Reading:
        begun_s = asyncio.get_running_loop().time()
        await self._spend(link_s + _SENTINEL_S)
        before, begun_c = self._admitted(), self._warm_c
        boot_id = self.boot_id
        try:
            await self._spend(candidate.seconds / (2 if candidate.crashes or candidate.restarts else 1), works=True)
            if candidate.restarts:
                self.harmed_by.append(artifact_key)
                self.befall(PhoneFault.REBOOT, spell_s=_BOOT_S)
                raise DeviceGone(f"{self._serial}: its link closed")
        except DeviceGone as error:
            error.boot_id = boot_id
            raise
        if candidate.crashes:
            self.harmed_by.append(artifact_key)
            raise RunnerFailed("signal 11")
        if self._suffers(PhoneFault.FLIP):
            raise WrongAnswer("the output differs from the reference by 7")
        if self._suffers(PhoneFault.NOISY):
            raise Unstable("the interval is 20 % wide")
        # The clock fell while it measured; what the sentinel says before and after corrects for it.
        midway_c = (begun_c + self._warm_c) / 2
        clock = (self._clock(begun_c) + self._clock(midway_c) + self._clock(self._warm_c)) / 3
        after = self._admitted()
        true_ms = candidate.cost_ms / self._model.speed
        seen_ms = true_ms / clock * self._rng.gauss(1.0, _NOISE)
        self.measured += 1
        held_s = asyncio.get_running_loop().time() - begun_s
        return Reading(latency_ms=seen_ms * (before + after) / 2, true_ms=true_ms, held_s=held_s)

    def _admitted(self) -> float:
        """What the sentinel says of the clock, 1 when all is well. Raises Unfit."""
        sentinel = self._clock(self._warm_c) * self._rng.gauss(1.0, _SENTINEL_NOISE)
        if self._warm_c > self._scenario.admit_c or sentinel < 1.0 - self._scenario.drift_limit:
            rest_s = self._model.thermal.seconds_to(
                self._scenario.resume_c, start_c=self._warm_c, ambient_c=self._ambient_c
            )
            self.unfit += 1
            why = f"{self._warm_c:.1f} C, sentinel at {sentinel:.0%}"
            raise Unfit(why, retry_after_s=min(max(rest_s, 30.0), _TOO_WARM_S))
        return sentinel

    # Its body

    def _clock(self, warm_c: float) -> float:
        cap = _CAPPED_CLOCK if self._suffers(PhoneFault.THROTTLE) else 1.0
        return min(cap, self._model.thermal.clock(warm_c))

    async def _spend(self, seconds: float | None, *, works: bool = False) -> None:
        """Pass time, for ever if None. Raises DeviceGone when it is aborted."""
        loop = asyncio.get_running_loop()
        self._live(loop.time(), works=False)
        work = self._work = loop.create_future()
        if seconds is not None:
            self._timer = loop.call_later(seconds, _finish, work)
        try:
            await work
        finally:
            if self._work is work:
                self._work = None
            self._live(loop.time(), works=works)

    def _live(self, now: float, *, works: bool) -> None:
        """Its temperature, now that it has worked or rested since it was last looked at."""
        self._warm_c = self._model.thermal.after(self._warm_c, now - self._at_s, ambient_c=self._ambient_c, works=works)
        self._at_s = now

    def _abort(self, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None and not self._work.done():
            self._work.set_exception(DeviceGone(f"{self._serial}: {why}"))

    # What befalls it

    async def suffer(self) -> None:
        """Its mishaps, one after the other, for ever."""
        rates = self._scenario.faults
        while rates.per_hour > 0:
            after_s, fault, spell_s = rates.draw(self._rng)
            await asyncio.sleep(after_s)
            self.befall(fault, spell_s=spell_s)

    def befall(self, fault: PhoneFault, *, spell_s: float) -> None:
        """This fault begins now and lasts for `spell_s`, or strikes the next program."""
        now = asyncio.get_running_loop().time()
        match fault:
            case PhoneFault.HANG | PhoneFault.LATE:
                self._next = fault
                return
            case PhoneFault.MUTE:
                if self._timer is not None:
                    self._timer.cancel()  # what it runs is never heard of again
            case PhoneFault.VANISH | PhoneFault.REBOOT | PhoneFault.UNAUTHORIZED:
                self._lost.set()
                self._abort(f"its link closed ({fault})")
            case _:
                pass
        if fault is PhoneFault.REBOOT:
            self._warm_c, self._at_s = self._ambient_c, now
            self._boots += 1
        self._until_s[fault] = now + spell_s

    def _suffers(self, fault: PhoneFault) -> bool:
        until_s = self._until_s.get(fault)
        return until_s is not None and asyncio.get_running_loop().time() < until_s


def _finish(work: asyncio.Future[None]) -> None:
    if not work.done():
        work.set_result(None)
