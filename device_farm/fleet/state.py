"""The fleet: which job runs on which device, and what becomes of it. A deterministic state machine.

Events come in as method calls with the time; every method returns the actions to be carried out, in order. No Ray, no
threads, no clock: a shell (pool.py) or a simulator drives it.

    submit ---> queued ---> leased ---complete---> settled
                  ^            |
                  +---- fail, expiry, leave ---> settled (out of patience, or poisoned)

It promises: a job has at most one live lease, and is settled exactly once; fences rise strictly; a result under a lease
that has ended is refused; no artifact reaches a device beyond the `poison_devices` that it may harm; nobody who may be
served waits for ever. An event costs the same however many jobs wait and devices there are, but for logarithms.

The parts: roster.py (devices and models) over health.py (one device); dispatch.py (jobs to devices) over queues.py,
fair.py (whose turn it is) and parking.py (what must wait); evidence.py, jobs.py (what is held against whom); timers.py.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Generic

from device_farm.fleet.dispatch import Dispatch
from device_farm.fleet.evidence import Evidence
from device_farm.fleet.health import Device
from device_farm.fleet.jobs import Record, verdict
from device_farm.fleet.memory import DeviceMemory, Memory, shifted
from device_farm.fleet.restarts import Restarts
from device_farm.fleet.roster import Model, Roster
from device_farm.fleet.timers import Kind, Timer, Timers
from device_farm.fleet.words import (
    Action,
    Blame,
    DeviceStatus,
    Done,
    Failed,
    Failure,
    Fault,
    Happening,
    Job,
    Lease,
    Load,
    Note,
    Outcome,
    Policy,
    R,
    Restart,
    Run,
    Settle,
    check_share,
)


class Fleet(Generic[R]):
    """See the module. `first_fence` must lie above every fence of an earlier life of the same fleet.

    `memory` is what an earlier life knew, `now` the time at which it is taken up again.
    """

    def __init__(
        self, policy: Policy, *, first_fence: int = 1, memory: Memory[R] | None = None, now: float = 0.0
    ) -> None:
        self.policy = policy
        self._sequence = 0
        self._now = -math.inf
        self._weights = dict(policy.shares)
        self._timers = Timers(self._has_a_point)
        self._roster = Roster(policy, timers=self._timers, weights=self._weights)
        self._evidence = Evidence(policy)
        self._dispatch = Dispatch(
            policy, roster=self._roster, evidence=self._evidence, timers=self._timers, fence=first_fence - 1
        )
        self._restarts = Restarts(policy, evidence=self._evidence, timers=self._timers)
        self._answers: OrderedDict[str, Outcome[R]] = OrderedDict()
        if memory is not None:
            self._restore(memory, now=now)

    # Events: jobs

    def submit(self, job: Job, *, now: float) -> list[Action[R]]:
        """Ask for a job. A key that is open already is the same job; a finished key is answered from memory."""
        self._advance(now)
        if job.key in self._answers:
            return [Settle(job.key, self._answers[job.key])]
        if job.key in self._dispatch.jobs:
            return []
        self._sequence += 1
        record = self._dispatch.jobs[job.key] = Record(job, self._sequence)
        self._evidence.opened(job.artifact_key, job.key)
        actions: list[Action[R]] = []
        if self._evidence.is_poisoned(job.artifact_key):
            self._settle(record, self._evidence.poisoned(job.artifact_key), actions)
        else:
            self._enqueue(record, actions)
        return self._grant(actions)

    def complete(self, serial: str, fence: int, *, result: R, now: float) -> list[Action[R]]:
        """The lease `fence` of a device ended well. Raises Fenced and changes nothing if it is not live."""
        self._advance(now)
        device, record = self._dispatch.end(serial, fence, is_free=False, now=self._now)
        device.serve(now=self._now)
        # The program is sound, so the devices that called it broken are the broken ones.
        for accuser in sorted({f.serial for f in record.failures if f.fault.blame is Blame.ARTIFACT} - {serial}):
            if accuser in self._roster.devices:
                reason = f"failed {record.job.artifact_key[:12]}, which runs well on {serial}"
                self._roster.strike(self._roster.devices[accuser], reason, now=self._now)
        self._restarts.ran_well(record.job.artifact_key, serial)
        self._roster.refresh(device, now=self._now)
        actions: list[Action[R]] = []
        self._settle(record, Done(result), actions)
        return self._grant(actions)

    def fail(self, serial: str, fence: int, *, fault: Fault, now: float) -> list[Action[R]]:
        """The lease `fence` of a device ended badly. Raises Fenced and changes nothing if it is not live."""
        self._advance(now)
        actions: list[Action[R]] = []
        self._fail(serial, fence, fault, actions)
        if fault.blame is Blame.LOST:
            actions.append(Restart(serial, f"{fault.error}: {fault.message}"))
        return self._grant(actions)

    def forget(self, key: str) -> None:
        """Drop a finished key from memory: asked again, it is a new job."""
        self._answers.pop(key, None)

    def set_share(self, client: str, share: float) -> None:
        """Give a client another weight, from now on. Raises ValueError unless it is a finite number above 0."""
        self._weights[client] = check_share(client, share)

    # Events: devices

    def expect(self, serial: str, *, now: float) -> list[Action[R]]:
        """Somebody tries to reach a device. If it takes too long, that is noted."""
        self._advance(now)
        device = self._roster.devices.setdefault(serial, Device(serial))
        device.expected = True
        self._roster.refresh(device, now=self._now)
        return self._grant([])

    def join(self, serial: str, model: str, *, now: float, boot_id: str = "") -> list[Action[R]]:
        """A device is there, for the first time or again. Its strikes and its quarantine are remembered.

        `boot_id` is another one after every restart of it, "" if it does not tell.
        """
        self._advance(now)
        actions: list[Action[R]] = []
        device = self._roster.devices.setdefault(serial, Device(serial))
        self._lose(device, f"{serial} joined anew while it ran a job", actions)
        if device.present:
            device.present = False
            self._roster.refresh(device, now=self._now)
        self._roster.assign(device, model, now=self._now)
        device.present = device.expected = True
        self._roster.refresh(device, now=self._now)
        self._hear(serial, boot_id, actions)
        return self._grant(actions)

    def leave(self, serial: str, *, now: float, reason: str = "left the fleet") -> list[Action[R]]:
        """A device is gone; what it ran is tried elsewhere. Raises NoSuchDevice."""
        self._advance(now)
        actions: list[Action[R]] = []
        device = self._roster.device(serial)
        self._lose(device, f"{serial} {reason}", actions)
        device.present = False
        device.reason = reason
        self._roster.refresh(device, now=self._now)
        return self._grant(actions)

    def dismiss(self, serial: str, *, now: float) -> list[Action[R]]:
        """A device leaves for good. Only a quarantine is remembered, should it come back. Raises NoSuchDevice."""
        actions = self.leave(serial, now=now, reason="was dismissed")
        device = self._roster.device(serial)
        device.expected = False
        if self._now >= device.quarantined_until_s and not device.probation:
            self._roster.remove(device)
        return actions

    def quarantine(self, serial: str, *, reason: str, now: float, until_s: float = math.inf) -> list[Action[R]]:
        """Take a device out of service. What it runs may end. Raises NoSuchDevice."""
        self._advance(now)
        device = self._roster.device(serial)
        device.put_away(reason, until_s=until_s, now=self._now)
        self._roster.refresh(device, now=self._now)
        return self._grant([])

    def cool(self, serial: str, *, reason: str, now: float, until_s: float) -> list[Action[R]]:
        """Let a device rest until then at least. Raises NoSuchDevice."""
        self._advance(now)
        device = self._roster.device(serial)
        device.cool(reason, until_s=until_s, now=self._now)
        self._roster.refresh(device, now=self._now)
        return self._grant([])

    def release(self, serial: str, *, now: float) -> list[Action[R]]:
        """Forget strikes, rests and quarantines of a device. Raises NoSuchDevice."""
        self._advance(now)
        device = self._roster.device(serial)
        device.release()
        self._roster.refresh(device, now=self._now)
        return self._grant([])

    # Events: time

    def tick(self, now: float) -> list[Action[R]]:
        """Time passed: leases expire, devices return. Due whenever `wake_at_s` is reached."""
        self._advance(now)
        actions: list[Action[R]] = []
        while (timer := self._timers.due(self._now)) is not None:
            self._ring(timer, actions)
        return self._grant(actions)

    @property
    def wake_at_s(self) -> float | None:
        """When `tick` has something to do. None: not before another event."""
        return self._timers.next_s()

    # Views

    def devices(self) -> list[DeviceStatus]:
        return [device.status(self._now) for device in self._roster.devices.values()]

    def device(self, serial: str) -> DeviceStatus:
        """Raises NoSuchDevice."""
        return self._roster.device(serial).status(self._now)

    def leases(self) -> list[Lease]:
        return [device.lease for device in self._roster.devices.values() if device.lease is not None]

    def lease_of(self, serial: str) -> Lease | None:
        """What a device holds; None if nothing, or if it is unknown."""
        device = self._roster.devices.get(serial)
        return None if device is None else device.lease

    def open_keys(self) -> list[str]:
        """Jobs that are queued or leased."""
        return list(self._dispatch.jobs)

    def load(self) -> dict[str, Load]:
        """By model, what waits and what works."""
        return {model.name: model.load for model in self._roster.models.values()}

    def why_waiting(self, key: str) -> str | None:
        """What an open job waits for, in words; None if it is leased or not open."""
        record = self._dispatch.jobs.get(key)
        if record is None or record.lease is not None:
            return None
        model = self._roster.model(record.job.model)
        if model.unfit_since_s is not None:
            return self._roster.tell_unfit(model, now=self._now)
        if model.absent_since_s is not None:
            return self._roster.tell_absent(model, now=self._now)
        if self._evidence.is_full(record.job.artifact_key):
            return (
                f"{record.job.artifact_key[:12]} runs on as many devices as it may harm ({self.policy.poison_devices})"
            )
        return f"{len(model.usable)} devices of model {model.name!r} have {len(model.waiting)} jobs waiting"

    def evidence(self, artifact_key: str) -> tuple[Failure, ...]:
        """What speaks against an artifact."""
        return self._evidence.of(artifact_key)

    def memory(self, *, answers: bool = True) -> Memory[R]:
        """What a later life should know; a fleet made from it goes on where this one was, its open jobs aside."""
        return Memory(
            devices=tuple(DeviceMemory.of(device, now=self._now) for device in self._roster.devices.values()),
            evidence={key: shifted(failures, -self._now) for key, failures in self._evidence.all().items()},
            answers=dict(self._answers) if answers else {},
            last_fence=self._dispatch.fence,
        )

    # What becomes of jobs

    def _grant(self, actions: list[Action[R]]) -> list[Action[R]]:
        """What every event ends with."""
        actions += map(Run, self._dispatch.grant(now=self._now))
        actions += self._roster.notes
        self._roster.notes.clear()
        return actions

    def _enqueue(self, record: Record, actions: list[Action[R]]) -> None:
        model = self._roster.model(record.job.model)
        if not model.usable:
            self._roster.mark_absent(model, now=self._now)
            if self._roster.absent_too_long(model, self._now):
                message = self._roster.tell_absent(model, now=self._now)
                self._settle(record, Failed("NoSuchDevice", message, tuple(record.failures)), actions)
                return
        if model.unfit_since_s is not None and not model.waiting:
            actions.append(Note(Happening.UNFIT, model.name, self._roster.tell_unfit(model, now=self._now)))
        self._dispatch.enqueue(record, now=self._now)

    def _fail(self, serial: str, fence: int, fault: Fault, actions: list[Action[R]]) -> None:
        device, record = self._dispatch.end(serial, fence, is_free=fault.blame is Blame.UNFIT, now=self._now)
        artifact_key = record.job.artifact_key
        failure = Failure(serial, fence, self._now, fault)
        reason = f"{fault.error}: {fault.message}"
        device.failed += fault.blame is not Blame.UNFIT
        if fault.blame is Blame.UNFIT:
            record.returned_unfit(failure)
            self._roster.rest(device, reason, retry_after_s=fault.retry_after_s, now=self._now)
        else:
            record.failures.append(failure)
        if fault.blame is Blame.ARTIFACT:
            self._evidence.add(artifact_key, failure)
            actions.append(Note(Happening.ACCUSED, artifact_key, str(failure)))
        elif fault.blame.is_infrastructure:
            if fault.blame is Blame.LOST:
                self._restarts.lost(artifact_key, failure)
            device.present = fault.blame is not Blame.LOST
            self._roster.strike(device, reason, now=self._now)
        self._roster.refresh(device, now=self._now)
        if self._settle_poisoned(artifact_key, actions):
            return
        outcome = self._verdict(record, failure)
        if outcome is None:
            self._enqueue(record, actions)
        else:
            self._settle(record, outcome, actions)
        self._dispatch.offer_exposed(artifact_key, now=self._now)

    def _hear(self, serial: str, boot_id: str, actions: list[Action[R]]) -> None:
        """A device that joins says whether what it was lost with made it restart."""
        about = self._restarts.about(serial)
        back = self._restarts.back(serial, boot_id, now=self._now)
        if back is not None:
            actions.append(Note(Happening.RESTARTED, serial, back.reason))
        if back is not None and back.testimony is not None:
            self._evidence.add(back.against, back.testimony)
            actions.append(Note(Happening.ACCUSED, back.against, str(back.testimony)))
            if not self._settle_poisoned(back.against, actions):
                for key in self._evidence.open_keys(back.against):
                    record = self._dispatch.jobs[key]
                    if record.lease is None and (outcome := self._verdict(record, back.testimony)) is not None:
                        self._settle(record, outcome, actions)
        if about is not None:
            self._dispatch.offer_exposed(about, now=self._now)

    def _settle_poisoned(self, artifact_key: str, actions: list[Action[R]]) -> bool:
        """Answers whoever waits for it, if it is poisoned."""
        if not self._evidence.is_poisoned(artifact_key):
            return False
        for key in self._evidence.open_keys(artifact_key):
            if self._dispatch.jobs[key].lease is None:
                self._settle(self._dispatch.jobs[key], self._evidence.poisoned(artifact_key), actions)
        return True

    def _verdict(self, record: Record, last: Failure) -> Failed | None:
        own = self._evidence.of(record.job.artifact_key)
        untried_left = self._dispatch.untried_left(record)
        return verdict(record, last, own=own, untried_left=untried_left, policy=self.policy)

    def _lose(self, device: Device, message: str, actions: list[Action[R]]) -> None:
        if device.lease is not None:
            self._fail(device.serial, device.lease.fence, Fault(Blame.LOST, "DeviceGone", message), actions)

    def _settle(self, record: Record, outcome: Outcome[R], actions: list[Action[R]]) -> None:
        job = record.job
        self._dispatch.close(record)
        if isinstance(outcome, Done) or outcome.final:
            self._answers[job.key] = outcome
            if len(self._answers) > self.policy.remember:
                self._answers.popitem(last=False)
        actions.append(Settle(job.key, outcome))
        self._dispatch.offer_exposed(job.artifact_key, now=self._now)

    # Time

    def _advance(self, now: float) -> None:
        self._now = max(self._now, now)

    def _has_a_point(self, timer: Timer) -> bool:
        match timer.kind:
            case Kind.LEASE:
                return self._dispatch.is_live(timer.name, timer.fence)
            case Kind.DEVICE:
                device = self._roster.devices.get(timer.name)
                return device is not None and device.alarm_s == timer.at_s
            case Kind.ABSENT:
                return self._roster.absent_too_long(self._roster.model(timer.name), timer.at_s)
            case Kind.UNFIT:
                return self._roster.model(timer.name).unfit_alarm_s == timer.at_s
            case Kind.SUSPICION:
                return self._restarts.is_due(timer.name, timer.at_s)

    def _ring(self, timer: Timer, actions: list[Action[R]]) -> None:
        """Do what a timer was set for."""
        match timer.kind:
            case Kind.LEASE:
                message = f"no answer within the {self.policy.lease_s:g} s of the lease"
                fault = Fault(Blame.LOST, "DeadlineExceeded", message)
                self._fail(timer.name, timer.fence, fault, actions)
                actions.append(Restart(timer.name, message))
            case Kind.DEVICE:
                self._roster.alarm(self._roster.devices[timer.name], now=self._now)
            case Kind.ABSENT:
                model = self._roster.model(timer.name)
                self._give_up(model, "NoSuchDevice", self._roster.tell_absent(model, now=self._now), actions)
            case Kind.UNFIT:
                model = self._roster.model(timer.name)
                self._give_up(model, "Unfit", self._roster.tell_unfit(model, now=self._now), actions)
                # The devices go on trying with whatever is asked next, and that waits as long.
                self._roster.set_unfit_alarm(model, now=self._now)
            case Kind.SUSPICION:
                if (artifact_key := self._restarts.drop(timer.name)) is not None:
                    self._dispatch.offer_exposed(artifact_key, now=self._now)

    def _give_up(self, model: Model, error: str, message: str, actions: list[Action[R]]) -> None:
        """Nobody can serve what waits for the model."""
        for _, _, key in sorted(self._dispatch.jobs[key].entry for key in model.waiting):
            record = self._dispatch.jobs[key]
            self._settle(record, Failed(error, message, (*record.failures, *record.unfit)), actions)

    def _restore(self, memory: Memory[R], *, now: float) -> None:
        self._advance(now)
        self._dispatch.fence = max(self._dispatch.fence, memory.last_fence)
        for known in memory.devices:
            self._roster.devices[known.serial] = known.device(now=now)
            if known.model is not None:
                self._roster.model(known.model).members[known.serial] = None
        for artifact_key, failures in memory.evidence.items():
            for failure in shifted(failures, now):
                self._evidence.add(artifact_key, failure)
        for key, outcome in memory.answers.items():
            self._answers[key] = outcome
