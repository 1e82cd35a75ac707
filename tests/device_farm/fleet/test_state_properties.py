"""The fleet's promises, under any order of events that hypothesis thinks of."""

from __future__ import annotations

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

SERIALS = [f"d{n}" for n in range(5)]
MODEL_OF = {serial: ("phone" if n < 3 else "tablet") for n, serial in enumerate(SERIALS)}
POLICY = Policy(
    lease_s=10, absent_s=40, cool_s=1, max_cool_s=4, quarantine_s=30, infrastructure_attempts=3, max_attempts=6
)

serials = st.sampled_from(SERIALS)
blames = st.sampled_from(list(Blame))
artifacts = st.integers(0, 5)
picks = st.integers(0, 1_000)


class FleetMachine(RuleBasedStateMachine):
    """Runs a fleet beside plain bookkeeping of what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet: Fleet[str] = Fleet(POLICY)
        self.now = 0.0
        self.asked = 0
        self.waiting: Counter[str] = Counter()  # key -> jobs asked for and not settled; never above 1
        self.live: dict[int, Lease] = {}
        self.ended: list[Lease] = []
        self.last_fence = 0
        self.results: dict[int, str] = {}  # fence -> what the device said
        self.accused: defaultdict[str, set[str]] = defaultdict(set)
        self.exposed: defaultdict[str, list[str]] = defaultdict(list)

    def apply(self, actions: list[Action[str]]) -> None:
        for action in actions:
            match action:
                case Run(lease):
                    assert lease.fence > self.last_fence
                    self.last_fence = lease.fence
                    assert self.waiting[lease.job.key] == 1
                    assert all(lease.job.key != other.job.key for other in self.live.values())
                    assert all(lease.serial != other.serial for other in self.live.values())
                    assert MODEL_OF[lease.serial] == lease.job.model
                    # No artifact is brought to a device beyond the two that it may harm.
                    artifact = lease.job.artifact_key
                    running = {other.serial for other in self.live.values() if other.job.artifact_key == artifact}
                    assert len(self.accused[artifact] | running | {lease.serial}) <= POLICY.poison_devices
                    self.live[lease.fence] = lease
                case Settle(key, outcome):
                    assert self.waiting[key] == 1
                    self.waiting[key] = 0
                    assert all(key != lease.job.key for lease in self.live.values())
                    if isinstance(outcome, Failed) and outcome.error == "Poisoned":
                        assert len({failure.serial for failure in outcome.evidence}) >= POLICY.poison_devices
                case Restart():
                    pass

    def end(self, lease: Lease) -> None:
        del self.live[lease.fence]
        self.ended.append(lease)

    def drop(self, serial: str) -> None:
        for lease in [lease for lease in self.live.values() if lease.serial == serial]:
            self.end(lease)

    @rule(
        artifact=artifacts,
        model=st.sampled_from(["phone", "tablet"]),
        priority=st.integers(0, 1),
        variant=st.integers(0, 2),
    )
    def submit(self, artifact: int, model: str, priority: int, variant: int) -> None:
        key = f"{artifact}/{model}/{variant}"
        self.waiting[key] = 1
        self.apply(self.fleet.submit(Job(key, str(artifact), model, priority=priority), now=self.now))

    @rule(serial=serials)
    def join(self, serial: str) -> None:
        self.drop(serial)
        self.apply(self.fleet.join(serial, MODEL_OF[serial], now=self.now))

    @precondition(lambda self: self.fleet.devices())
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        devices = self.fleet.devices()
        serial = devices[pick % len(devices)].serial
        self.drop(serial)
        self.apply(self.fleet.leave(serial, now=self.now))

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def complete(self, pick: int) -> None:
        lease = list(self.live.values())[pick % len(self.live)]
        self.end(lease)
        actions = self.fleet.complete(lease.serial, lease.fence, result=str(lease.fence), now=self.now)
        assert actions[0] == Settle(lease.job.key, Done(str(lease.fence)))
        self.apply(actions)

    @precondition(lambda self: self.live)
    @rule(pick=picks, blame=blames)
    def fail(self, pick: int, blame: Blame) -> None:
        lease = list(self.live.values())[pick % len(self.live)]
        self.end(lease)
        if blame is Blame.ARTIFACT:
            self.accused[lease.job.artifact_key].add(lease.serial)
        self.apply(self.fleet.fail(lease.serial, lease.fence, fault=Fault(blame, "Refused", "x"), now=self.now))

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

    @rule(seconds=st.sampled_from([0.5, 1, 3, 9, 35]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for lease in [lease for lease in self.live.values() if lease.deadline_s <= self.now]:
            self.end(lease)
        self.apply(self.fleet.tick(self.now))

    @precondition(lambda self: self.fleet.devices())
    @rule(pick=picks, what=st.sampled_from(["quarantine", "cool", "release"]))
    def operate(self, pick: int, what: str) -> None:
        devices = self.fleet.devices()
        serial = devices[pick % len(devices)].serial
        match what:
            case "quarantine":
                self.apply(self.fleet.quarantine(serial, reason="x", now=self.now, until_s=self.now + 20))
            case "cool":
                self.apply(self.fleet.cool(serial, reason="x", now=self.now, until_s=self.now + 2))
            case _:
                self.apply(self.fleet.release(serial, now=self.now))

    @invariant()
    def nothing_is_lost_and_the_books_agree(self) -> None:
        assert sorted(self.fleet.open_keys()) == sorted(key for key, count in self.waiting.items() if count)
        assert {lease.fence for lease in self.fleet.leases()} == set(self.live)

    @invariant()
    def no_idle_device_beside_a_job_that_it_could_have(self) -> None:
        leased = {lease.job.key for lease in self.live.values()}
        fresh = {k.split("/")[1] for k, n in self.waiting.items() if n and k not in leased and not self.touched(k)}
        for device in self.fleet.devices():
            if device.state is DeviceState.HEALTHY and device.job_key is None:
                assert device.model not in fresh

    def touched(self, key: str) -> bool:
        """The job, or another one of its artifact, was leased before or is now: it may have to wait."""
        artifact = key.split("/")[0]
        return any(lease.job.artifact_key == artifact for lease in [*self.live.values(), *self.ended])

    def teardown(self) -> None:
        """Given working devices, every job ends, and soon."""
        for serial in SERIALS:
            self.join(serial)
            self.apply(self.fleet.release(serial, now=self.now))
        for _ in range(10 * (len(self.fleet.open_keys()) + 1)):
            for lease in list(self.live.values()):
                self.end(lease)
                self.apply(self.fleet.complete(lease.serial, lease.fence, result=str(lease.fence), now=self.now))
            self.now += 1
            self.apply(self.fleet.tick(self.now))
        assert self.fleet.open_keys() == []
        assert not +self.waiting


FleetMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestFleet = FleetMachine.TestCase
