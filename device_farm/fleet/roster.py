"""Who is there: the devices, the models that they are of, and what their states lead to by themselves."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from device_farm.errors import NoSuchDevice
from device_farm.fleet.health import Device
from device_farm.fleet.parking import Parking
from device_farm.fleet.queues import JobQueue
from device_farm.fleet.timers import Kind, Timers
from device_farm.fleet.words import DeviceState, Happening, Load, Note, Policy

_LISTED = 8


@dataclass
class Model:
    """The devices of one model and the jobs that want one."""

    name: str
    queue: JobQueue
    parking: Parking = field(default_factory=Parking)
    waiting: dict[str, None] = field(default_factory=dict)  # keys of the jobs that are queued or parked
    members: dict[str, None] = field(default_factory=dict)  # present or not
    usable: dict[str, None] = field(default_factory=dict)
    idle: OrderedDict[str, None] = field(default_factory=OrderedDict)  # the longest idle first: phones share the heat
    unfit: dict[str, None] = field(default_factory=dict)  # usable, but unfit when last asked
    leased: int = 0
    absent_since_s: float | None = None  # known only once somebody asked for it, or it was there
    unfit_since_s: float | None = None
    unfit_alarm_s: float | None = None  # the timer of that which counts

    @property
    def load(self) -> Load:
        return Load(waiting=len(self.waiting), idle=len(self.idle), leased=self.leased)


class Roster:
    """Keeps the models' indexes in line with the devices. `notes` fills with what happens to them."""

    def __init__(self, policy: Policy, *, timers: Timers, weights: Mapping[str, float]) -> None:
        self._policy = policy
        self._timers = timers
        self._weights = weights
        self.devices: dict[str, Device] = {}
        self.models: dict[str, Model] = {}
        self.touched: dict[str, None] = {}  # models in which a device may have become idle
        self.notes: list[Note] = []

    def model(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(name, JobQueue(self._policy, self._weights))
        return model

    def device(self, serial: str) -> Device:
        """Raises NoSuchDevice."""
        if serial not in self.devices:
            raise NoSuchDevice(f"no device {serial!r}; known: {listed(self.devices)}")
        return self.devices[serial]

    def is_replaceable(self, device: Device) -> bool:
        """Other devices of its model are usable."""
        if device.model is None:
            return False
        usable = self.model(device.model).usable
        return len(usable) > (device.serial in usable)

    def assign(self, device: Device, model: str, *, now: float) -> None:
        """The device is of this model from now on."""
        if device.model is not None and device.model != model:
            device.present = False
            self.refresh(device, now=now)
            del self.model(device.model).members[device.serial]
        device.model = model
        self.model(model).members[device.serial] = None

    def remove(self, device: Device) -> None:
        """Forget a device that is not present."""
        del self.devices[device.serial]
        if device.model is not None:
            del self.model(device.model).members[device.serial]

    # What befalls devices

    def strike(self, device: Device, reason: str, *, now: float) -> None:
        device.strike(reason, policy=self._policy, replaceable=self.is_replaceable(device), now=now)
        self.refresh(device, now=now)

    def rest(self, device: Device, reason: str, *, retry_after_s: float, now: float) -> None:
        """The device said that it is unfit."""
        replaceable = self.is_replaceable(device)
        device.rest(reason, retry_after_s=retry_after_s, policy=self._policy, replaceable=replaceable, now=now)
        self.refresh(device, now=now)

    def alarm(self, device: Device, *, now: float) -> None:
        """The device's timer fired: its state ended by itself, or has lasted too long."""
        device.alarm_s = -math.inf
        if device.overdue_s(self._policy, now) <= now < device.ends_s(now):
            state, lasted_s = device.state(now), now - device.since_s
            reason = f"{state} for {lasted_s:g} s" + (f": {device.reason}" if device.reason else "")
            if state is DeviceState.COOLING and self.is_replaceable(device):
                device.quarantine(reason, policy=self._policy, now=now)
            else:
                device.told_s = now
                self.notes.append(Note(Happening.STUCK, device.serial, reason))
        self.refresh(device, now=now)

    def refresh(self, device: Device, *, now: float) -> None:
        """Bring the indexes in line with a device that changed, and see to being woken when it changes by itself."""
        state = device.state(now)
        if state is not device.seen or device.since_s == -math.inf:
            self._changed(device, state)
            device.seen, device.since_s = state, now
        self._set_alarm(device, now=now)
        if device.model is None:
            return
        model, serial = self.model(device.model), device.serial
        usable = state not in (DeviceState.QUARANTINED, DeviceState.GONE, DeviceState.CONNECTING)
        _place(model.usable, serial, usable)
        _place(model.idle, serial, device.lease is None and state.serves)
        _place(model.unfit, serial, usable and device.unfit > 0)
        self.touched[model.name] = None
        self._count(model, now=now)

    def absent_too_long(self, model: Model, now: float) -> bool:
        return model.absent_since_s is not None and now >= model.absent_since_s + self._policy.absent_s

    def mark_absent(self, model: Model, *, now: float) -> None:
        """No device of the model is usable; counted from the first time that this was noticed."""
        if model.absent_since_s is None:
            model.absent_since_s = now
            self._timers.set(now + self._policy.absent_s, Kind.ABSENT, model.name)

    def tell_absent(self, model: Model, *, now: float) -> str:
        """Why there is no device of a model."""
        assert model.absent_since_s is not None
        known = [name for name, other in self.models.items() if other.usable]
        return (
            f"no usable device of model {model.name!r} for {now - model.absent_since_s:g} s "
            f"(its devices: {listed(self._tales(model, now))}; models with usable devices: {listed(known)})"
        )

    def set_unfit_alarm(self, model: Model, *, now: float) -> None:
        """Whoever waits for the model then has waited long enough."""
        model.unfit_alarm_s = now + self._policy.unfit_wait_s
        self._timers.set(model.unfit_alarm_s, Kind.UNFIT, model.name)

    def tell_unfit(self, model: Model, *, now: float) -> str:
        """Why no device of a model may measure."""
        assert model.unfit_since_s is not None
        since_s = now - model.unfit_since_s
        return f"no device of model {model.name!r} was fit for {since_s:g} s ({listed(self._tales(model, now))})"

    def _tales(self, model: Model, now: float) -> Collection[str]:
        devices = (self.devices[serial] for serial in islice(model.members, _LISTED + 1))
        tales = [f"{d.serial} {d.state(now)}" + (f", {d.reason}" if d.reason else "") for d in devices]
        return tales + [""] * (len(model.members) - len(tales))

    def _count(self, model: Model, *, now: float) -> None:
        if model.usable:
            model.absent_since_s = None
        else:
            self.mark_absent(model, now=now)
        if not model.usable or len(model.unfit) < len(model.usable):
            model.unfit_since_s = model.unfit_alarm_s = None
        elif model.unfit_since_s is None:
            model.unfit_since_s = now
            self.set_unfit_alarm(model, now=now)
            if model.waiting:
                self.notes.append(Note(Happening.UNFIT, model.name, self.tell_unfit(model, now=now)))

    def _set_alarm(self, device: Device, *, now: float) -> None:
        at_s = min(device.ends_s(now), device.overdue_s(self._policy, now))
        if now < at_s < math.inf and at_s != device.alarm_s:
            device.alarm_s = at_s
            self._timers.set(at_s, Kind.DEVICE, device.serial)

    def _changed(self, device: Device, state: DeviceState) -> None:
        """Note what is worth it of a device that was seen in another state."""
        if state is DeviceState.QUARANTINED:
            self.notes.append(Note(Happening.QUARANTINED, device.serial, device.reason))
        elif state is DeviceState.PROBATION and device.seen is DeviceState.QUARANTINED:
            self.notes.append(Note(Happening.PROBATION, device.serial, device.reason))
        elif state is DeviceState.HEALTHY and device.seen in (DeviceState.PROBATION, DeviceState.QUARANTINED):
            self.notes.append(Note(Happening.RETURNED, device.serial, "serves again"))


def listed(names: Iterable[str]) -> str:
    """Some names and how many there are beside, or "none"."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _place(index: dict[str, None], name: str, present: bool) -> None:
    """Have `name` in the index or not; a name that stays keeps its turn."""
    if present:
        index.setdefault(name)
    else:
        index.pop(name, None)
