"""Every fault of a phone alone, through a whole farm: what the farm says of it, how soon, and whether it comes back."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import FarmError
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.farm import PendingMeasurement
from device_farm.fleet.words import DeviceState, Policy
from device_farm.measurement.types import Protocol
from device_farm.testing.phone_lab import PhoneLab, small_network

MODEL = "emu-x86-fast"
PHONES = 3
DEADLINE_S = 8.0
SLACK_S = 4.0  # for ending what hangs, and for a machine that has other work
CONFIG = {
    "protocol": Protocol(warmup_s=0.01, min_time_s=0.05, max_time_s=0.2, deadline_s=DEADLINE_S, attempts=1),
    "policy": Policy(cool_s=0.2, max_cool_s=1.0, absent_s=120.0, unfit_times=2, unfit_rest_s=60.0),
    "connect_timeout_s": 30.0,
}
_TELLING = (Kind.STRUCK, Kind.UNFIT, Kind.ACCUSED)
_RESTING = frozenset({DeviceState.COOLING, DeviceState.QUARANTINED, DeviceState.GONE, DeviceState.CONNECTING})
_numbers = itertools.count()


@dataclass(frozen=True)
class Scenario:
    """A fault, and what the farm must make of it: one of `errors`, for one of `blames`.

    Where "" is among them it is borne, and nothing is held against the phone.
    """

    fault: PhoneFault
    errors: frozenset[str]
    blames: frozenset[str] = frozenset({""})
    lasts_s: float = 1.0  # after it was noticed
    value: float | None = None
    with_orphan: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault}{' with orphan' if self.with_orphan else ''}"


def _scenario(
    fault: PhoneFault, errors: str, blames: str, value: float | None = None, *, with_orphan: bool = False
) -> Scenario:
    return Scenario(
        fault,
        frozenset(errors.split(" ")),
        frozenset(blames.split(" ")),
        value=value,
        with_orphan=with_orphan,
    )


SCENARIOS = (
    _scenario(PhoneFault.REBOOT, "DeviceGone", "lost", 1.0),
    _scenario(PhoneFault.UNPLUG, "DeviceGone", "lost"),
    _scenario(PhoneFault.UNAUTHORIZED, "DeviceGone Refused", "lost device"),
    _scenario(PhoneFault.OFFLINE, "DeviceGone Refused", "lost device"),
    _scenario(PhoneFault.MUTE, "DeadlineExceeded", "device"),
    _scenario(PhoneFault.SLOW, "", "", 0.01),
    _scenario(PhoneFault.REFUSE, "Refused", "device"),
    _scenario(PhoneFault.HANG, "DeadlineExceeded", "device"),
    _scenario(PhoneFault.DISK_FULL, "Refused", "device"),
    _scenario(PhoneFault.UNPLUG, "DeviceGone", "lost", with_orphan=True),
    _scenario(PhoneFault.THROTTLED, "Unfit", "unfit", 0.7),
    _scenario(PhoneFault.NOISY, "Unfit Unstable DeadlineExceeded", "unfit device"),
    _scenario(PhoneFault.FLIPPED, "Unfit", "unfit"),
    _scenario(PhoneFault.CRASH, "Unfit", "unfit"),
    _scenario(PhoneFault.GARBAGE, "Refused", "device"),
    _scenario(PhoneFault.ENDLESS, "Refused DeadlineExceeded", "device"),
    _scenario(PhoneFault.WRONG_LENGTHS, "Refused", "device"),
    _scenario(PhoneFault.LINK_GARBAGE, "DeviceGone ", "lost "),
)


@dataclass(frozen=True)
class Seen:
    """What happened. Times in seconds; None: it did not come to that."""

    scenario: Scenario
    noticed_s: float | None  # until the farm had an error: from the fault's begin, or when the phone got work if later
    error: str
    blame: str
    message: str
    states: tuple[str, ...]  # the phone's, in the order in which they were seen
    back_s: float | None  # from the fault's end until the phone had served again
    measured: int  # of the jobs that were asked meanwhile
    asked: int
    wrong: float  # the largest deviation of a latency from that without the fault, relative
    alive: int  # programs on the phone in the end


class FaultLab(PhoneLab):
    """Three phones of one model; the first of them has the faults."""

    def play(self, scenario: Scenario) -> Seen:
        """The fault begins, work is asked, the farm notices, the fault ends, the phone serves again."""
        clean = [job.result(60).latency_ms for job in self._ask(3)]
        usual_ms = sum(clean) / len(clean)
        phone = self.phones[0]
        before = len(self.history(0))
        began, states = time.time(), _States(self)
        jobs: list[PendingMeasurement] = []
        if scenario.with_orphan:
            phone.inject(PhoneFault.ORPHAN)
            jobs = self._ask(4 * PHONES)
            self.until(lambda: phone.status.alive > 0, timeout_s=20)
            began = time.time()
        phone.inject(scenario.fault, value=scenario.value)
        if not scenario.with_orphan:
            jobs = self._ask(4 * PHONES)
        told = self._until_told(before, jobs, states)
        self._look(states, scenario.lasts_s)
        phone.heal(scenario.fault)
        ended = time.time()
        latencies = [_latency_ms(job) for job in jobs]
        if self.state(0) is DeviceState.QUARANTINED:
            self.farm.release(self.phones.addresses[0])
        back_s = self._back(states, ended)
        phone.heal()
        self.until(lambda: phone.status.alive == 0, timeout_s=DEADLINE_S + SLACK_S)
        off = [abs(ms / usual_ms - 1) for ms in latencies if ms is not None]
        fault = {} if told is None else told.data["fault"]
        if states.busy_s is not None:
            began = max(began, states.busy_s)
        return Seen(
            scenario=scenario,
            noticed_s=None if told is None else max(0.0, told.at_s - began),
            error=fault.get("error", ""),
            blame=fault.get("blame", ""),
            message=fault.get("message", ""),
            states=tuple(states.seen),
            back_s=back_s,
            measured=len(off),
            asked=len(jobs),
            wrong=max(off, default=0.0),
            alive=phone.status.alive,
        )

    def _ask(self, count: int) -> list[PendingMeasurement]:
        graph = small_network(32, kept=9)
        return [self.farm.submit(graph, model=MODEL, replicate=next(_numbers)) for _ in range(count)]

    def _until_told(self, before: int, jobs: list[PendingMeasurement], states: _States) -> Entry | None:
        """The first thing that the journal holds against the phone since; None if all jobs end without one."""
        end = time.monotonic() + 3 * (DEADLINE_S + SLACK_S)
        while time.monotonic() < end:
            states.look()
            for entry in self.history(0)[before:]:
                if entry.kind in _TELLING and "fault" in entry.data:
                    return entry
            if all(_is_done(job) for job in jobs):
                return next((e for e in self.history(0)[before:] if e.kind in _TELLING and "fault" in e.data), None)
            time.sleep(0.02)
        return None

    def _look(self, states: _States, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            states.look()
            time.sleep(0.02)

    def _back(self, states: _States, ended: float) -> float | None:
        """Asks until the phone has served once more."""
        end = time.monotonic() + 60
        serial = self.phones.addresses[0]
        while time.monotonic() < end:
            states.look()
            if self.state(0) in _RESTING:
                time.sleep(0.05)
                continue
            for job in self._ask(PHONES):
                if job.result(60).device.serial == serial:
                    states.look()
                    return time.time() - ended
        return None


class _States:
    def __init__(self, lab: PhoneLab) -> None:
        self._lab = lab
        self.seen: list[str] = []
        self.busy_s: float | None = None  # when the phone was first seen with work

    def look(self) -> None:
        device = self._lab.device(0)
        name = "not listed" if device is None else str(device.state)
        if self.busy_s is None and device is not None and device.job_key is not None:
            self.busy_s = time.time()
        if not self.seen or self.seen[-1] != name:
            self.seen.append(name)


def _is_done(job: PendingMeasurement) -> bool:
    import ray

    return bool(ray.wait([job.ref], timeout=0)[0])


def _latency_ms(job: PendingMeasurement) -> float | None:
    try:
        return job.result(60).latency_ms
    except FarmError:
        return None
