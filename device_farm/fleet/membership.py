"""Which devices a farm has now: those of its configuration, those attached by hand, and those that hosts list.

What ought to be there is computed from these three lists, and devices are employed and dismissed until it is so:
whatever happens in whichever order, equal lists give equal farms.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from device_farm.compiler.target import TARGETS
from device_farm.errors import NoSuchDevice, Refused
from device_farm.fleet import devices as device_specs
from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.entries import Entry, Kind
from device_farm.measurement.types import DeviceFacts

_log = logging.getLogger(__name__)


class Employer(Protocol):
    """Who has the devices' workers: a pool."""

    def employ(self, spec: DeviceSpec) -> None: ...

    async def dismiss(self, serial: str) -> None: ...


class Membership:
    """The devices of one farm. Equal serials are one device: what was attached by hand goes before the configuration,
    and that before the hosts' lists, of which the latest counts."""

    def __init__(self, configured: Iterable[DeviceSpec], *, tell: Callable[[Entry], None]) -> None:
        self._configured = {spec.serial: spec for spec in configured}
        self._by_hand: dict[str, DeviceSpec] = {}
        self._listings: dict[str, dict[str, DeviceSpec]] = {}  # by host, the latest last
        self._detached: set[str] = set()  # by hand
        self._employer: Employer | None = None
        self._settling = asyncio.Lock()
        self._news = asyncio.Event()
        self._tell = tell
        self._facts: dict[str, DeviceFacts] = {}
        self.specs: dict[str, DeviceSpec] = {}  # that are employed now

    def begin(self, employer: Employer, attached: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Employ the configured devices, and what an earlier life of this farm attached or, None, detached."""
        self._employer = employer
        for serial, data in attached.items():
            if data is None:
                self._detached.add(serial)
            elif (spec := _spec_from_json(data)) is not None:
                self._by_hand[serial] = spec
        for spec in self._wanted().values():
            self._employ(spec)

    async def attach(self, spec: DeviceSpec) -> None:
        """Employ a device, or the same serial by another description."""
        self._by_hand[spec.serial] = spec
        self._detached.discard(spec.serial)
        self._tell(Entry(Kind.ATTACHED, serial=spec.serial, data=_spec_to_json(spec)))
        await self._settle()

    async def detach(self, serial: str) -> None:
        """Dismiss a device until it is attached by hand, or has left its host's list and is on it again.

        Raises NoSuchDevice.
        """
        self.check(serial)
        self._by_hand.pop(serial, None)
        self._detached.add(serial)
        self._tell(Entry(Kind.DETACHED, serial=serial))
        await self._settle()

    async def listed(self, host: str, specs: Sequence[DeviceSpec]) -> None:
        """What a host has now. A host that is gone keeps what it had: its devices are gone, too, and may come back."""
        before = self._listings.pop(host, {})
        now = self._listings[host] = {spec.serial: spec for spec in specs}
        for serial in before.keys() - now.keys():
            if serial in self._detached and not any(serial in listing for listing in self._listings.values()):
                self._detached.discard(serial)
        for other, listing in list(self._listings.items()):
            if other != host:  # a phone is where it was seen last
                self._listings[other] = {s: spec for s, spec in listing.items() if s not in now}
        await self._settle()

    def check(self, serial: str) -> None:
        """Raises NoSuchDevice for a serial that is not attached."""
        if serial not in self.specs:
            raise NoSuchDevice(f"no device {serial!r} is attached; there are {', '.join(self.specs) or 'none'}")

    # Facts

    @property
    def facts(self) -> Mapping[str, DeviceFacts]:
        """By serial, of the devices that were reached since they were attached."""
        return self._facts

    def admit(self, facts: DeviceFacts) -> None:
        """Takes note of a device that was reached. Raises Refused for one that may not join."""
        check_admissible(facts, self._facts.values())
        self._facts[facts.serial] = facts
        self._news.set()
        self._news = asyncio.Event()

    async def news(self) -> None:
        """Returns when the next device was reached."""
        await self._news.wait()

    def facts_of_model(self, model: str) -> DeviceFacts | None:
        """Of any device of a model: they agree in what an artifact depends on."""
        return next((facts for facts in self._facts.values() if facts.model == model), None)

    @property
    def all_were_reached(self) -> bool:
        return self._facts.keys() >= self.specs.keys()

    def _wanted(self) -> dict[str, DeviceSpec]:
        """What ought to be there."""
        wanted: dict[str, DeviceSpec] = {}
        for specs in (*self._listings.values(), self._configured, self._by_hand):
            wanted |= specs
        return {serial: spec for serial, spec in wanted.items() if serial not in self._detached}

    async def _settle(self) -> None:
        """Employ and dismiss until what is there is what ought to be, as it is by then."""
        async with self._settling:
            wanted = self._wanted()
            for serial, spec in list(self.specs.items()):
                if wanted.get(serial) != spec:
                    await self._dismiss(serial)
            for serial, spec in wanted.items():
                if serial not in self.specs:
                    self._employ(spec)

    def _employ(self, spec: DeviceSpec) -> None:
        assert self._employer is not None, "begin() comes first"
        _log.info("%s is attached", spec.serial)
        self.specs[spec.serial] = spec
        self._employer.employ(spec)

    async def _dismiss(self, serial: str) -> None:
        assert self._employer is not None, "begin() comes first"
        _log.info("%s is detached", serial)
        del self.specs[serial]
        self._facts.pop(serial, None)
        await self._employer.dismiss(serial)


def check_admissible(facts: DeviceFacts, known: Iterable[DeviceFacts]) -> None:
    """Devices of one model run the same artifacts and are equally fast. Raises Refused for one that would not."""
    if facts.target not in TARGETS:
        raise Refused(f"{facts.serial} has target {facts.target!r}; the compiler knows {', '.join(TARGETS)}")
    for other in known:
        if other.serial != facts.serial and other.model == facts.model and kind_of(other) != kind_of(facts):
            raise Refused(
                f"{facts.serial} is {kind_of(facts)}, but {other.serial} of the same model {facts.model!r} "
                f"is {kind_of(other)}; name their models apart"
            )


def kind_of(facts: DeviceFacts) -> str:
    """What devices of one model must have in common to be interchangeable."""
    threads = f"of {facts.threads} threads" if facts.threads > 1 else None
    return ", ".join(str(part) for part in (facts.target, facts.details.get("processor"), threads) if part)


# Descriptions in the journal. Only kinds of device_farm.fleet.devices are read back: what a file names is not imported.


def _spec_to_json(spec: DeviceSpec) -> dict[str, Any]:
    kind = type(spec)
    if getattr(device_specs, kind.__name__, None) is not kind:
        return {"kind": None}
    fields: dict[str, Any] = TypeAdapter[Any](kind).dump_python(spec, mode="json")
    return {"kind": kind.__name__, "fields": fields}


def _spec_from_json(data: Mapping[str, Any]) -> DeviceSpec | None:
    kind = getattr(device_specs, str(data.get("kind")), None)
    if not (isinstance(kind, type) and kind.__module__ == device_specs.__name__ and is_dataclass(kind)):
        return None
    try:
        spec: DeviceSpec = TypeAdapter[Any](kind).validate_python(data["fields"])
    except (ValidationError, KeyError) as error:
        _log.warning("a device that was attached is not understood, attach it again: %s", error)
        return None
    return spec
