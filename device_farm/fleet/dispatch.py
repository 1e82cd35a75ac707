"""Which waiting job gets which idle device, and what a lease changes in the books."""

from __future__ import annotations

from collections import defaultdict

from device_farm.errors import Fenced
from device_farm.fleet.evidence import Evidence
from device_farm.fleet.health import Device
from device_farm.fleet.jobs import Record
from device_farm.fleet.parking import Entry
from device_farm.fleet.roster import Model, Roster
from device_farm.fleet.timers import Kind, Timers
from device_farm.fleet.words import Lease, Policy


class Dispatch:
    """Begins and ends leases. `fence` is the last one that was given away."""

    def __init__(self, policy: Policy, *, roster: Roster, evidence: Evidence, timers: Timers, fence: int) -> None:
        self._policy = policy
        self._roster = roster
        self._evidence = evidence
        self._timers = timers
        self.fence = fence
        self.jobs: dict[str, Record] = {}  # all that are open
        self._parked: defaultdict[str, dict[str, None]] = defaultdict(dict)  # artifact -> models that park jobs of it

    def enqueue(self, record: Record, *, now: float) -> None:
        """The job waits for a device."""
        model = self._roster.model(record.job.model)
        model.waiting[record.job.key] = None
        self._queue(record, model, now=now)

    def grant(self, *, now: float) -> list[Lease]:
        """Lease every idle device for which there is a job, of the models that something happened to."""
        leases: list[Lease] = []
        touched = self._roster.touched
        while touched:
            name, _ = touched.popitem()
            model = self._roster.model(name)
            while model.idle:
                self._offer_tried(model, now=now)
                if not model.queue:
                    break
                self._lease_next(model, leases, now=now)
        return leases

    def is_live(self, serial: str, fence: int) -> bool:
        device = self._roster.devices.get(serial)
        return device is not None and device.lease is not None and device.lease.fence == fence

    def end(self, serial: str, fence: int, *, is_free: bool, now: float) -> tuple[Device, Record]:
        """End a live lease, at no cost to the client if it is free. The device is not refreshed yet. Raises Fenced."""
        if not self.is_live(serial, fence):
            device = self._roster.devices.get(serial)
            lease = None if device is None else device.lease
            holds = "no lease" if lease is None else f"lease {lease.fence}"
            raise Fenced(f"lease {fence} of {serial} has ended ({serial} holds {holds}); its result does not count")
        device = self._roster.devices[serial]
        assert device.lease is not None
        record = self.jobs[device.lease.job.key]
        record.lease = device.lease = None
        held_s = None if is_free else now - record.leased_s
        model = self._roster.model(record.job.model)
        model.leased -= 1
        model.queue.end(record.job, charged_s=record.charged_s, held_s=held_s)
        self._evidence.end(record.job.artifact_key, serial)
        return device, record

    def close(self, record: Record) -> None:
        """The job is settled."""
        job = record.job
        del self.jobs[job.key]
        self._roster.model(job.model).waiting.pop(job.key, None)
        self._evidence.closed(job.artifact_key, job.key)

    def offer_exposed(self, artifact_key: str, *, now: float) -> None:
        """Fewer devices are exposed to the artifact, or might be: who waits for that goes back to the queue."""
        if artifact_key not in self._parked or self._evidence.is_full(artifact_key):
            return
        for name in list(self._parked[artifact_key]):
            model = self._roster.model(name)
            for _, _, key in model.parking.offer_artifact(artifact_key, self._is_waiting):
                self._queue(self.jobs[key], model, now=now)
            if not model.parking.holds(artifact_key):
                del self._parked[artifact_key][name]
        if not self._parked[artifact_key]:
            del self._parked[artifact_key]

    def tried(self, record: Record) -> set[str]:
        """Devices that failed the job, or any of its artifact by the artifact's own fault."""
        accusers = self._evidence.accusers(record.job.artifact_key)
        return accusers.union(failure.serial for failure in record.failures)

    def untried_left(self, record: Record) -> bool:
        return _reaches_beyond(self._roster.model(record.job.model).usable, self.tried(record))

    def _last_resort(self, record: Record) -> set[str]:
        """Devices that get the job only if no other one is usable."""
        return self.tried(record).union(record.job.avoid)

    def _queue(self, record: Record, model: Model, *, now: float) -> None:
        model.queue.push(record.job, record.sequence, now=now)
        self._roster.touched[model.name] = None

    def _lease_next(self, model: Model, leases: list[Lease], *, now: float) -> None:
        """Take the next job from the queue: lease it, or park it if none of the idle devices may have it."""
        sequence, key = model.queue.pop(now=now)
        artifact_key = model.parking.taken(sequence)
        record = self.jobs.get(key)
        if record is not None and record.sequence == sequence:
            serial = self._pick(record, model)
            if serial is not None:
                leases.append(self._lease(record, self._roster.devices[serial], model, now=now))
            elif self._evidence.is_full(record.job.artifact_key):
                model.parking.park_exposed(record.entry, record.job.artifact_key)
                self._parked[record.job.artifact_key][model.name] = None
            else:
                model.parking.park_tried(record.entry, self._last_resort(record))
        if artifact_key is not None:
            self.offer_exposed(artifact_key, now=now)

    def _pick(self, record: Record, model: Model) -> str | None:
        """An idle device that this job may have: an untried one, or a tried one when all usable ones are tried."""
        exposed = self._evidence.exposed(record.job.artifact_key)
        tried = self._last_resort(record)
        others = _reaches_beyond(model.usable, tried)
        # Whoever runs it now may come to harm too, so they count already.
        if len(exposed) >= self._policy.poison_devices:
            return next((s for s in sorted(exposed) if s in model.idle and not (others and s in tried)), None)
        return next((s for s in model.idle if not (others and s in tried)), None)

    def _offer_tried(self, model: Model, *, now: float) -> None:
        def fits(tried: frozenset[str]) -> bool:
            return _reaches_beyond(model.idle, tried) or not _reaches_beyond(model.usable, tried)

        for _, _, key in model.parking.offer_tried(fits, self._is_waiting):
            self._queue(self.jobs[key], model, now=now)

    def _is_waiting(self, entry: Entry) -> bool:
        record = self.jobs.get(entry[2])
        return record is not None and record.sequence == entry[1]

    def _lease(self, record: Record, device: Device, model: Model, *, now: float) -> Lease:
        self.fence += 1
        lease = Lease(self.fence, record.job, device.serial, now + self._policy.lease_s)
        record.lease = device.lease = lease
        record.leased_s = now
        record.charged_s = model.queue.begin(record.job, now=now)
        del model.waiting[record.job.key]
        model.leased += 1
        self._evidence.begin(record.job.artifact_key, device.serial)
        self._timers.set(lease.deadline_s, Kind.LEASE, device.serial, fence=lease.fence)
        self._roster.refresh(device, now=now)
        return lease


def _reaches_beyond(serials: dict[str, None], tried: set[str] | frozenset[str]) -> bool:
    """Some are not among those tried. Costs no more than these are."""
    return len(serials) > len(tried) or any(serial not in tried for serial in serials)
