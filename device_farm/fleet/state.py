"""The fleet: which job runs on which device, and what becomes of it. A deterministic state machine.

Events come in as method calls with the time; every method returns the actions to be carried out, in order. No Ray, no
threads, no clock: a shell (pool.py) or a simulator drives it.

    submit ---> queued ---> leased ---complete---> settled
                  ^            |
                  +---- fail, expiry, leave ---> settled (out of patience, or poisoned)

It promises: a job has at most one live lease, and is settled exactly once; fences rise strictly; a result under a lease
that has ended is refused; no artifact reaches a device beyond the `poison_devices` that it may harm.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from device_farm.errors import Fenced, NoSuchDevice
from device_farm.fleet.health import Device
from device_farm.fleet.words import (
    Action,
    Blame,
    DeviceStatus,
    Done,
    Failed,
    Failure,
    Fault,
    Job,
    Lease,
    Outcome,
    Policy,
    R,
    Restart,
    Run,
    Settle,
)

_Entry = tuple[int, int, str]  # (-priority, sequence, key): the order of a queue
_Timer = tuple[float, int, str, str]  # (when, fence, kind, serial or model)


@dataclass
class _Record:
    """A job that is not settled."""

    job: Job
    sequence: int
    lease: Lease | None = None
    failures: list[Failure] = field(default_factory=list)

    @property
    def entry(self) -> _Entry:
        return (-self.job.priority, self.sequence, self.job.key)


@dataclass
class _Model:
    """The devices of one model and the jobs that want one."""

    name: str
    queue: list[_Entry] = field(default_factory=list)  # a heap; entries of jobs settled meanwhile are skipped
    usable: dict[str, None] = field(default_factory=dict)
    idle: dict[str, None] = field(default_factory=dict)  # the longest idle first: phones share the heat
    absent_since_s: float | None = None  # known only once somebody asked for it, or it was there


class Fleet(Generic[R]):
    """See the module. `first_fence` must lie above every fence of an earlier life of the same fleet."""

    def __init__(self, policy: Policy, *, first_fence: int = 1) -> None:
        self.policy = policy
        self._fence = first_fence - 1
        self._sequence = 0
        self._now = -math.inf
        self._devices: dict[str, Device] = {}
        self._models: dict[str, _Model] = {}
        self._jobs: dict[str, _Record] = {}
        self._answers: dict[str, Outcome[R]] = {}
        self._evidence: dict[str, list[Failure]] = {}  # artifact -> its own failures, over all jobs and models
        self._running: defaultdict[str, set[str]] = defaultdict(set)  # artifact -> devices that run it now
        self._open: defaultdict[str, dict[str, None]] = defaultdict(dict)  # artifact -> keys of its open jobs
        self._timers: list[_Timer] = []

    # Events

    def submit(self, job: Job, *, now: float) -> list[Action[R]]:
        """Ask for a job. A key that is open already is the same job; a finished key is answered from memory."""
        self._advance(now)
        if job.key in self._answers:
            return [Settle(job.key, self._answers[job.key])]
        if job.key in self._jobs:
            return []
        self._sequence += 1
        record = self._jobs[job.key] = _Record(job, self._sequence)
        self._open[job.artifact_key][job.key] = None
        actions: list[Action[R]] = []
        if self._is_poisoned(job.artifact_key):
            self._settle(record, self._poisoned(job.artifact_key), actions)
            return actions
        self._enqueue(record, actions)
        return self._grant(actions)

    def join(self, serial: str, model: str, *, now: float) -> list[Action[R]]:
        """A device is there, for the first time or again. Its strikes and its quarantine are remembered."""
        self._advance(now)
        actions: list[Action[R]] = []
        device = self._devices.get(serial)
        if device is None:
            device = self._devices[serial] = Device(serial, model)
        self._lose(device, f"{serial} joined anew while it ran a job", actions)
        device.present = False
        self._refresh(device)
        device.model = model
        device.present = True
        self._refresh(device)
        return self._grant(actions)

    def leave(self, serial: str, *, now: float, reason: str = "left the fleet") -> list[Action[R]]:
        """A device is gone; what it ran is tried elsewhere."""
        self._advance(now)
        actions: list[Action[R]] = []
        device = self._device(serial)
        self._lose(device, f"{serial} {reason}", actions)
        device.present = False
        device.reason = reason
        self._refresh(device)
        return self._grant(actions)

    def complete(self, serial: str, fence: int, *, result: R, now: float) -> list[Action[R]]:
        """The lease `fence` of a device ended well. Raises Fenced and changes nothing if it is not live."""
        self._advance(now)
        device, record = self._end(serial, fence)
        device.completed += 1
        device.strikes = 0
        # The program is sound, so the devices that called it broken are the broken ones.
        for accuser in sorted({f.serial for f in record.failures if f.fault.blame is Blame.ARTIFACT} - {serial}):
            self._strike(self._devices[accuser], f"failed {record.job.artifact_key[:12]}, which runs well on {serial}")
        self._refresh(device)
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

    def tick(self, now: float) -> list[Action[R]]:
        """Time passed: leases expire, devices return. Due whenever `wake_at_s` is reached."""
        self._advance(now)
        actions: list[Action[R]] = []
        while self._timers and self._timers[0][0] <= self._now:
            _, fence, kind, name = heapq.heappop(self._timers)
            if kind == "device":
                self._refresh(self._devices[name])
            elif kind == "absent":
                self._give_up_absent(self._models[name], actions)
            elif self._is_live(name, fence):
                message = f"no answer within the {self.policy.lease_s:g} s of the lease"
                self._fail(name, fence, Fault(Blame.LOST, "DeadlineExceeded", message), actions)
                actions.append(Restart(name, message))
        return self._grant(actions)

    def quarantine(self, serial: str, *, reason: str, now: float, until_s: float = math.inf) -> list[Action[R]]:
        """Take a device out of service. What it runs may end. Raises NoSuchDevice."""
        self._advance(now)
        device = self._device(serial)
        device.quarantined_until_s = until_s
        device.reason = reason
        self._refresh(device)
        return self._grant([])

    def cool(self, serial: str, *, reason: str, now: float, until_s: float) -> list[Action[R]]:
        """Let a device rest. Raises NoSuchDevice."""
        self._advance(now)
        device = self._device(serial)
        device.cool_until_s = until_s
        device.reason = reason
        self._refresh(device)
        return self._grant([])

    def release(self, serial: str, *, now: float) -> list[Action[R]]:
        """Forget strikes, cooling and quarantine of a device. Raises NoSuchDevice."""
        self._advance(now)
        device = self._device(serial)
        device.strikes = 0
        device.cool_until_s = device.quarantined_until_s = -math.inf
        device.reason = ""
        self._refresh(device)
        return self._grant([])

    def forget(self, key: str) -> None:
        """Drop a finished key from memory: asked again, it is a new job."""
        self._answers.pop(key, None)

    # Views

    @property
    def wake_at_s(self) -> float | None:
        """When `tick` has something to do. None: not before another event."""
        while self._timers:
            when, fence, kind, name = self._timers[0]
            if kind != "lease" or self._is_live(name, fence):
                return when
            heapq.heappop(self._timers)
        return None

    def devices(self) -> list[DeviceStatus]:
        return [device.status(self._now) for device in self._devices.values()]

    def leases(self) -> list[Lease]:
        return [device.lease for device in self._devices.values() if device.lease is not None]

    def open_keys(self) -> list[str]:
        """Jobs that are queued or leased."""
        return list(self._jobs)

    def evidence(self, artifact_key: str) -> tuple[Failure, ...]:
        """What speaks against an artifact."""
        return tuple(self._evidence.get(artifact_key, ()))

    # Jobs

    def _enqueue(self, record: _Record, actions: list[Action[R]]) -> None:
        model = self._model(record.job.model)
        heapq.heappush(model.queue, record.entry)
        if not model.usable:
            if model.absent_since_s is None:
                self._mark_absent(model)
            self._give_up_absent(model, actions)

    def _grant(self, actions: list[Action[R]]) -> list[Action[R]]:
        """Lease every idle device for which there is a job."""
        for model in self._models.values():
            passed_over: list[_Entry] = []
            while model.idle and model.queue:
                entry = heapq.heappop(model.queue)
                record = self._queued(entry)
                serial = None if record is None else self._pick(record, model)
                if record is not None and serial is not None:
                    actions.append(Run(self._lease(record, self._devices[serial])))
                elif record is not None:
                    passed_over.append(entry)
            for entry in passed_over:
                heapq.heappush(model.queue, entry)
        return actions

    def _queued(self, entry: _Entry) -> _Record | None:
        """The job of a queue's entry, unless it was settled in the meantime."""
        record = self._jobs.get(entry[2])
        return record if record is not None and record.sequence == entry[1] else None

    def _pick(self, record: _Record, model: _Model) -> str | None:
        """An idle device that this job may have: an untried one, or a tried one when all usable ones are tried."""
        accused = self._accusers(record.job.artifact_key)
        exposed = accused | self._running.get(record.job.artifact_key, set())
        tried = self._tried(record)
        others = self._untried_left(record)
        for serial in model.idle:
            if serial in tried and others:
                continue
            # Whoever runs it now may come to harm too, so they count already.
            if serial not in exposed and len(exposed) >= self.policy.poison_devices:
                continue
            return serial
        return None

    def _lease(self, record: _Record, device: Device) -> Lease:
        self._fence += 1
        lease = Lease(self._fence, record.job, device.serial, self._now + self.policy.lease_s)
        record.lease = device.lease = lease
        self._running[record.job.artifact_key].add(device.serial)
        heapq.heappush(self._timers, (lease.deadline_s, lease.fence, "lease", device.serial))
        self._refresh(device)
        return lease

    def _end(self, serial: str, fence: int) -> tuple[Device, _Record]:
        """End a live lease. The device is not refreshed yet. Raises Fenced."""
        if not self._is_live(serial, fence):
            device = self._devices.get(serial)
            lease = None if device is None else device.lease
            holds = "no lease" if lease is None else f"lease {lease.fence}"
            raise Fenced(f"lease {fence} of {serial} has ended ({serial} holds {holds}); its result does not count")
        device = self._devices[serial]
        assert device.lease is not None
        record = self._jobs[device.lease.job.key]
        record.lease = device.lease = None
        artifact_key = record.job.artifact_key
        self._running[artifact_key].discard(serial)
        if not self._running[artifact_key]:
            del self._running[artifact_key]
        return device, record

    def _fail(self, serial: str, fence: int, fault: Fault, actions: list[Action[R]]) -> None:
        device, record = self._end(serial, fence)
        failure = Failure(serial, fence, self._now, fault)
        record.failures.append(failure)
        device.failed += 1
        if fault.blame is Blame.ARTIFACT:
            self._evidence.setdefault(record.job.artifact_key, []).append(failure)
        elif fault.blame.is_infrastructure:
            device.present = fault.blame is not Blame.LOST
            self._strike(device, f"{fault.error}: {fault.message}")
        self._refresh(device)
        if self._is_poisoned(record.job.artifact_key):
            for key in list(self._open[record.job.artifact_key]):
                if self._jobs[key].lease is None:
                    self._settle(self._jobs[key], self._poisoned(record.job.artifact_key), actions)
            return
        verdict = self._verdict(record, failure)
        if verdict is None:
            self._enqueue(record, actions)
        else:
            self._settle(record, verdict, actions)

    def _lose(self, device: Device, message: str, actions: list[Action[R]]) -> None:
        if device.lease is not None:
            self._fail(device.serial, device.lease.fence, Fault(Blame.LOST, "DeviceGone", message), actions)

    def _verdict(self, record: _Record, last: Failure) -> Failed | None:
        """Whether a job that just failed has had enough. Its artifact is not poisoned."""
        failures = tuple(record.failures)
        fault = last.fault
        if fault.blame in (Blame.CALLER, Blame.INPUT):
            return Failed(fault.error, fault.message, failures, final=fault.blame is Blame.CALLER)
        own = self._evidence.get(record.job.artifact_key, [])
        here = sum(failure.serial == last.serial for failure in own)
        if (
            fault.blame is Blame.ARTIFACT
            and here >= self.policy.same_device_attempts
            and not self._untried_left(record)
        ):
            message = f"{here} times on {last.serial}, the only usable device of its model: {fault.message}"
            return Failed(fault.error, message, tuple(own), final=True)
        infrastructure = sum(failure.fault.blame.is_infrastructure for failure in failures)
        if infrastructure >= self.policy.infrastructure_attempts or len(failures) >= self.policy.max_attempts:
            tale = "; ".join(map(str, failures))
            return Failed(fault.error, f"given up after {len(failures)} attempts: {tale}", failures)
        return None

    def _settle(self, record: _Record, outcome: Outcome[R], actions: list[Action[R]]) -> None:
        job = record.job
        del self._jobs[job.key]
        del self._open[job.artifact_key][job.key]
        if not self._open[job.artifact_key]:
            del self._open[job.artifact_key]
        if isinstance(outcome, Done) or outcome.final:
            self._answers[job.key] = outcome
        while len(self._answers) > self.policy.remember:
            del self._answers[next(iter(self._answers))]
        self._trim_evidence()
        actions.append(Settle(job.key, outcome))

    # Artifacts

    def _trim_evidence(self) -> None:
        """Forget the oldest evidence beyond what is remembered, but never that of an artifact in the queue."""
        surplus = len(self._evidence) - self.policy.remember
        if surplus > 0:
            closed = [artifact_key for artifact_key in self._evidence if artifact_key not in self._open]
            for artifact_key in closed[:surplus]:
                del self._evidence[artifact_key]

    def _accusers(self, artifact_key: str) -> set[str]:
        return {failure.serial for failure in self._evidence.get(artifact_key, ())}

    def _is_poisoned(self, artifact_key: str) -> bool:
        return len(self._accusers(artifact_key)) >= self.policy.poison_devices

    def _poisoned(self, artifact_key: str) -> Failed:
        evidence = self.evidence(artifact_key)
        devices = len(self._accusers(artifact_key))
        tale = "; ".join(map(str, evidence))
        return Failed("Poisoned", f"failed on {devices} different devices: {tale}", evidence, final=True)

    def _tried(self, record: _Record) -> set[str]:
        return self._accusers(record.job.artifact_key) | {failure.serial for failure in record.failures}

    def _untried_left(self, record: _Record) -> bool:
        usable = self._model(record.job.model).usable
        return len(usable) > sum(serial in usable for serial in self._tried(record))

    # Devices

    def _device(self, serial: str) -> Device:
        if serial not in self._devices:
            raise NoSuchDevice(f"no device {serial!r}; known: {_listed(self._devices)}")
        return self._devices[serial]

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model(name))

    def _is_live(self, serial: str, fence: int) -> bool:
        device = self._devices.get(serial)
        return device is not None and device.lease is not None and device.lease.fence == fence

    def _strike(self, device: Device, reason: str) -> None:
        replaceable = bool(self._model(device.model).usable.keys() - {device.serial})
        device.strike(reason, policy=self.policy, replaceable=replaceable, now=self._now)
        self._refresh(device)

    def _refresh(self, device: Device) -> None:
        """Bring the indexes in line with a device that changed, and see to being woken when it changes by itself."""
        model = self._model(device.model)
        serial = device.serial
        _place(model.usable, serial, device.is_usable(self._now))
        _place(model.idle, serial, device.is_idle(self._now))
        for until_s in (device.cool_until_s, device.quarantined_until_s):
            if device.present and self._now < until_s < math.inf:
                heapq.heappush(self._timers, (until_s, 0, "device", serial))
        if model.usable:
            model.absent_since_s = None
        elif model.absent_since_s is None:
            self._mark_absent(model)

    def _mark_absent(self, model: _Model) -> None:
        model.absent_since_s = self._now
        heapq.heappush(self._timers, (self._now + self.policy.absent_s, 0, "absent", model.name))

    def _give_up_absent(self, model: _Model, actions: list[Action[R]]) -> None:
        """A model without a usable device for too long fails what waits for it, and whatever is asked then."""
        if model.absent_since_s is None or self._now < model.absent_since_s + self.policy.absent_s:
            return
        states = [f"{d.serial} {d.state(self._now)}" for d in self._devices.values() if d.model == model.name]
        known = [name for name, other in self._models.items() if other.usable]
        message = (
            f"no usable device of model {model.name!r} for {self._now - model.absent_since_s:g} s "
            f"(its devices: {_listed(states)}; models with usable devices: {_listed(known)})"
        )
        for entry in sorted(model.queue):
            record = self._queued(entry)
            if record is not None:
                self._settle(record, Failed("NoSuchDevice", message, tuple(record.failures)), actions)
        model.queue.clear()

    def _advance(self, now: float) -> None:
        self._now = max(self._now, now)


def _place(index: dict[str, None], name: str, present: bool) -> None:
    """Have `name` in the index or not; a name that stays keeps its turn."""
    if present:
        index.setdefault(name)
    else:
        index.pop(name, None)


def _listed(names: Sequence[str] | dict[str, Device]) -> str:
    return ", ".join(names) or "none"
