"""The fleet's promises, under any order of events that hypothesis thinks of."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_farm.errors import Fenced
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import (
    Action,
    Blame,
    DeviceState,
    DeviceStatus,
    Done,
    Failed,
    Fault,
    Job,
    Lease,
    Policy,
    Restart,
    Run,
    Settle,
)

SERIALS = [f"d{n}" for n in range(6)]
MODELS = ["phone", "tablet"]
POLICY = Policy(
    lease_s=10,
    absent_s=40,
    unfit_wait_s=60,
    patience_s=20,
    overdue_every=3,
    shares={"a": 2.0},
    cool_s=1,
    max_cool_s=4,
    quarantine_s=30,
    max_quarantine_s=100,
    unfit_times=3,
    unfit_rest_s=50,
    cooling_s=25,
    connecting_s=15,
    quarantine_note_s=200,
    suspect_s=25,
    restart_memory_s=60,
    infrastructure_attempts=3,
    max_attempts=6,
)

serials = st.sampled_from(SERIALS)
models = st.sampled_from(MODELS)
blames = st.sampled_from([*Blame, Blame.ARTIFACT, Blame.ARTIFACT])  # the rarest to lead anywhere alone
artifacts = st.integers(0, 5)
picks = st.integers(0, 1_000)


class FleetMachine(RuleBasedStateMachine):
    """Runs a fleet beside plain bookkeeping of what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet: Fleet[str] = Fleet(POLICY)
        self.now = 0.0
        self.model_of: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.waiting: Counter[str] = Counter()  # key -> jobs asked for and not settled; never above 1
        self.attempts: defaultdict[str, list[tuple[str, Blame]]] = defaultdict(list)  # key -> that count
        self.live: dict[int, Lease] = {}
        self.ended: list[Lease] = []
        self.last_fence = 0
        self.accused: defaultdict[str, set[str]] = defaultdict(set)
        self.boots: Counter[str] = Counter()  # restarts of each device
        self.suspects: dict[str, tuple[str, float]] = {}  # serial -> the artifact that it was lost with, until when

    def apply(self, actions: list[Action[str]]) -> None:
        for action in actions:
            match action:
                case Run(lease):
                    assert lease.fence > self.last_fence
                    self.last_fence = lease.fence
                    assert self.waiting[lease.job.key] == 1
                    assert all(lease.job.key != other.job.key for other in self.live.values())
                    assert all(lease.serial != other.serial for other in self.live.values())
                    assert self.model_of[lease.serial] == lease.job.model
                    # No artifact is brought to a device beyond the two that it may harm.
                    artifact = lease.job.artifact_key
                    assert len(self.exposed(artifact) | {lease.serial}) <= POLICY.poison_devices
                    self.live[lease.fence] = lease
                case Settle(key, outcome):
                    assert self.waiting[key] == 1
                    self.waiting[key] = 0
                    assert all(key != lease.job.key for lease in self.live.values())
                    if isinstance(outcome, Failed):
                        self.check_failed(key, outcome)
                    self.attempts.pop(key, None)
                case Restart() | _:
                    pass

    def check_failed(self, key: str, outcome: Failed) -> None:
        """A job ends for what counted, never because devices were unfit, unless all were for too long."""
        attempts = self.attempts[key]
        if outcome.error == "Poisoned":
            assert len({failure.serial for failure in outcome.evidence}) >= POLICY.poison_devices
        elif outcome.message.startswith("given up"):
            infrastructure = sum(blame.is_infrastructure for _, blame in attempts)
            assert infrastructure >= POLICY.infrastructure_attempts or len(attempts) >= POLICY.max_attempts
            assert len(outcome.evidence) == len(attempts)
            assert all(failure.fault.blame is not Blame.UNFIT for failure in outcome.evidence)
        elif outcome.error == "Unfit":
            assert "fit for" in outcome.message and self.now >= POLICY.unfit_wait_s

    def exposed(self, artifact: str) -> set[str]:
        running = {lease.serial for lease in self.live.values() if lease.job.artifact_key == artifact}
        suspected = {serial for serial, (key, _) in self.suspects.items() if key == artifact}
        return self.accused[artifact] | running | suspected

    def end(self, lease: Lease, blame: Blame | None = None) -> None:
        del self.live[lease.fence]
        self.ended.append(lease)
        if blame is not None and blame is not Blame.UNFIT:
            self.attempts[lease.job.key].append((lease.serial, blame))
        if blame is Blame.ARTIFACT:
            self.accused[lease.job.artifact_key].add(lease.serial)
            assert len(self.accused[lease.job.artifact_key]) <= POLICY.poison_devices

    def drop(self, serial: str) -> None:
        for lease in [lease for lease in self.live.values() if lease.serial == serial]:
            self.end(lease, Blame.LOST)

    def some_device(self, pick: int) -> DeviceStatus:
        devices = self.fleet.devices()
        return devices[pick % len(devices)]

    @rule(
        artifact=artifacts,
        model=models,
        priority=st.integers(0, 2),
        client=st.sampled_from(["a", "b", "c"]),
        variant=st.integers(0, 2),
    )
    def submit(self, artifact: int, model: str, priority: int, client: str, variant: int) -> None:
        key = f"{artifact}/{model}/{variant}"
        job = Job(key, str(artifact), model, client=client, priority=priority)
        if not self.waiting[key]:
            self.jobs[key] = job
        self.waiting[key] = 1
        self.apply(self.fleet.submit(job, now=self.now))

    @rule(serial=serials, model=models)
    def join(self, serial: str, model: str) -> None:
        self.drop(serial)
        self.model_of[serial] = model
        about, _ = self.suspects.pop(serial, ("", 0.0))
        known = {artifact: self.accusers(artifact) for artifact in map(str, range(6))}
        actions = self.fleet.join(serial, model, now=self.now, boot_id=f"boot {self.boots[serial]}")
        for artifact, before in known.items():
            if new := self.accusers(artifact) - before:
                assert (new, artifact) == ({serial}, about)
                self.accused[artifact] |= new
        self.apply(actions)

    def accusers(self, artifact: str) -> set[str]:
        return {failure.serial for failure in self.fleet.evidence(artifact)}

    @rule(serial=serials)
    def restart(self, serial: str) -> None:
        self.boots[serial] += 1

    @precondition(lambda self: self.live)
    @rule(pick=picks, restarts=st.booleans())
    def lost_in_a_program(self, pick: int, restarts: bool) -> None:
        lease = list(self.live.values())[pick % len(self.live)]
        fault = Fault(Blame.LOST, "DeviceGone", "x", boot_id=f"boot {self.boots[lease.serial]}")
        self.end(lease, Blame.LOST)
        self.suspects[lease.serial] = lease.job.artifact_key, self.now + POLICY.suspect_s
        self.boots[lease.serial] += restarts
        self.apply(self.fleet.fail(lease.serial, lease.fence, fault=fault, now=self.now))

    @rule(serial=serials)
    def expect(self, serial: str) -> None:
        self.apply(self.fleet.expect(serial, now=self.now))

    @precondition(lambda self: self.fleet.devices())
    @rule(pick=picks, for_good=st.booleans())
    def leave(self, pick: int, for_good: bool) -> None:
        serial = self.some_device(pick).serial
        self.drop(serial)
        self.apply((self.fleet.dismiss if for_good else self.fleet.leave)(serial, now=self.now))

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def complete(self, pick: int) -> None:
        lease = list(self.live.values())[pick % len(self.live)]
        self.end(lease)
        self.clear(lease.job.artifact_key)
        actions = self.fleet.complete(lease.serial, lease.fence, result=str(lease.fence), now=self.now)
        assert actions[0] == Settle(lease.job.key, Done(str(lease.fence)))
        self.apply(actions)

    def clear(self, artifact: str) -> None:
        """It runs well somewhere."""
        self.suspects = {serial: about for serial, about in self.suspects.items() if about[0] != artifact}

    @precondition(lambda self: self.live)
    @rule(pick=picks, blame=blames, rest_s=st.sampled_from([0.0, 2.0, 12.0, math.nan, math.inf]))
    def fail(self, pick: int, blame: Blame, rest_s: float) -> None:
        lease = list(self.live.values())[pick % len(self.live)]
        before = self.fleet.device(lease.serial)
        last = [d.serial for d in self.usable(lease.job.model)] == [lease.serial]
        self.end(lease, blame)
        fault = Fault(blame, "Refused", "x", retry_after_s=rest_s)
        self.apply(self.fleet.fail(lease.serial, lease.fence, fault=fault, now=self.now))
        after = self.fleet.device(lease.serial)
        if blame is Blame.UNFIT and before.state.serves:
            assert after.failed == before.failed
            assert after.state in (DeviceState.COOLING, DeviceState.QUARANTINED)
            assert after.until_s >= self.now + max(POLICY.cool_s, min(rest_s, POLICY.cooling_s) if rest_s > 0 else 0)
            if last:
                assert after.state is DeviceState.COOLING
        if blame is Blame.DEVICE and before.state is DeviceState.PROBATION:
            assert after.state is (DeviceState.COOLING if last else DeviceState.QUARANTINED)

    @precondition(lambda self: self.ended)
    @rule(pick=picks, well=st.booleans())
    def late(self, pick: int, well: bool) -> None:
        lease = self.ended[pick % len(self.ended)]
        before = (self.fleet.devices(), self.fleet.open_keys(), self.fleet.leases())
        fault = Fault(Blame.ARTIFACT, "WrongAnswer", "")
        report: Callable[[], object] = partial(self.fleet.fail, lease.serial, lease.fence, fault=fault, now=self.now)
        if well:
            report = partial(self.fleet.complete, lease.serial, lease.fence, result="late", now=self.now)
        with pytest.raises(Fenced):
            report()
        assert before == (self.fleet.devices(), self.fleet.open_keys(), self.fleet.leases())

    @rule(seconds=st.sampled_from([0.5, 1, 3, 9, 35, 70]))
    def wait(self, seconds: float) -> None:
        until_s = self.now + seconds
        while (wake_at_s := self.fleet.wake_at_s) is not None and wake_at_s <= until_s:
            assert wake_at_s > self.now, "a timer did not fire"
            self.pass_to(wake_at_s)
        self.pass_to(until_s)

    def pass_to(self, now: float) -> None:
        self.now = now
        self.suspects = {serial: about for serial, about in self.suspects.items() if about[1] > now}
        for lease in [lease for lease in self.live.values() if lease.deadline_s <= self.now]:
            self.end(lease, Blame.LOST)
        self.apply(self.fleet.tick(self.now))

    @precondition(lambda self: self.fleet.devices())
    @rule(pick=picks, what=st.sampled_from(["quarantine", "for ever", "cool", "release"]))
    def operate(self, pick: int, what: str) -> None:
        serial = self.some_device(pick).serial
        match what:
            case "quarantine":
                self.apply(self.fleet.quarantine(serial, reason="x", now=self.now, until_s=self.now + 20))
            case "for ever":
                self.apply(self.fleet.quarantine(serial, reason="x", now=self.now))
            case "cool":
                self.apply(self.fleet.cool(serial, reason="x", now=self.now, until_s=self.now + 2))
            case _:
                self.apply(self.fleet.release(serial, now=self.now))

    @rule()
    def begin_anew(self) -> None:
        """The broker dies, and takes up what it knew; what was open is asked for again by those who wait."""
        before = self.fleet
        self.ended = []
        self.live = {}
        self.suspects = {}
        self.attempts.clear()
        self.fleet = Fleet(POLICY, memory=before.memory(), now=self.now)
        for was in before.devices():
            device = self.fleet.device(was.serial)
            assert (device.model, device.strikes, device.quarantines) == (was.model, was.strikes, was.quarantines)
            if was.state.is_present:
                self.apply(self.fleet.join(was.serial, was.model, now=self.now))
                now = self.fleet.device(was.serial)
                assert (now.state is DeviceState.QUARANTINED) == (was.state is DeviceState.QUARANTINED)
                if now.state is DeviceState.QUARANTINED:
                    assert now.until_s == pytest.approx(was.until_s)
        for artifact in map(str, range(6)):
            assert len(self.fleet.evidence(artifact)) == len(before.evidence(artifact))
        for key in [key for key, count in self.waiting.items() if count]:
            self.apply(self.fleet.submit(self.jobs[key], now=self.now))

    def usable(self, model: str) -> list[DeviceStatus]:
        states = (DeviceState.HEALTHY, DeviceState.PROBATION, DeviceState.COOLING)
        return [d for d in self.fleet.devices() if d.model == model and d.state in states]

    @invariant()
    def nothing_is_lost_and_the_books_agree(self) -> None:
        assert sorted(self.fleet.open_keys()) == sorted(key for key, count in self.waiting.items() if count)
        assert {lease.fence for lease in self.fleet.leases()} == set(self.live)
        for model, load in self.fleet.load().items():
            devices = [d for d in self.fleet.devices() if d.model == model]
            assert load.leased == sum(d.job_key is not None for d in devices)
            assert load.idle == sum(d.job_key is None and d.state.serves for d in devices)
            leased = {lease.job.key for lease in self.live.values()}
            asked = [key for key, count in self.waiting.items() if count and self.jobs[key].model == model]
            assert load.waiting == len([key for key in asked if key not in leased])

    @invariant()
    def every_state_has_an_end(self) -> None:
        wake_at_s = self.fleet.wake_at_s
        wake_at_s = math.inf if wake_at_s is None else wake_at_s
        assert all(wake_at_s <= lease.deadline_s for lease in self.live.values())
        for device in self.fleet.devices():
            match device.state:
                case DeviceState.COOLING:
                    assert wake_at_s <= min(device.until_s, self.now + POLICY.cooling_s)
                case DeviceState.QUARANTINED:
                    assert wake_at_s <= min(device.until_s, self.now + POLICY.quarantine_note_s)
                case DeviceState.CONNECTING:
                    assert wake_at_s <= self.now + POLICY.connecting_s

    @invariant()
    def no_idle_device_beside_a_job_that_it_may_have(self) -> None:
        leased = {lease.job.key for lease in self.live.values()}
        for key in [key for key, count in self.waiting.items() if count and key not in leased]:
            job = self.jobs[key]
            usable = {device.serial for device in self.usable(job.model)}
            tried = self.accused[job.artifact_key] | {serial for serial, _ in self.attempts[key]}
            if len(self.exposed(job.artifact_key)) < POLICY.poison_devices:
                for device in self.usable(job.model):
                    if device.job_key is None and device.state is not DeviceState.COOLING:
                        assert device.serial in tried and usable - tried, f"{key} could run on {device.serial}"
            assert self.fleet.why_waiting(key)

    def teardown(self) -> None:
        """Given working devices, every job ends, and soon."""
        for n, serial in enumerate(SERIALS):
            self.join(serial, MODELS[n % 2])
            self.apply(self.fleet.release(serial, now=self.now))
        for _ in range(10 * (len(self.fleet.open_keys()) + 1)):
            for lease in list(self.live.values()):
                self.end(lease)
                self.clear(lease.job.artifact_key)
                self.apply(self.fleet.complete(lease.serial, lease.fence, result=str(lease.fence), now=self.now))
            self.pass_to(self.now + 1)
        assert self.fleet.open_keys() == []
        assert not +self.waiting


FleetMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestFleet = FleetMachine.TestCase
