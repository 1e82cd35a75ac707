"""The phones of an adb server, as what a host has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from device_farm.compiler.target import Precision
from device_farm.errors import DeviceGone, FarmError
from device_farm.fleet.devices import AdbDevice, DeviceSpec
from device_farm.transport.adb.device_list import ListedDevice
from device_farm.transport.adb.server import AdbServer, is_tcp

_CONNECT_S = 2.0
_SIDE_BY_SIDE = 8
_MOST_SEEN = 256


@dataclass(frozen=True)
class AdbPhones:
    """All phones that an adb server lists, in whatever state, and those of `addresses` even if it does not.

    `server` is "HOST:PORT" as seen from the host that follows it; one on the host itself is started if it is not there.
    `addresses` are phones at HOST:PORT that the server is told of, and again when it was restarted or lost them; so is
    whoever of `only` has such a serial, or was once listed under one, as a server forgets a phone that was away for a
    minute. Of phones in `ignored` nothing is said, nor of others than `only`, if given. `cpu`, `home`, `threads` and
    `precision` are as for AdbDevice; the phones' models are what they say, or `models` by serial.
    """

    server: str = "127.0.0.1:5037"
    addresses: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    models: tuple[tuple[str, str], ...] = ()  # (serial, model)
    home: str | None = None
    cpu: int | None = None
    threads: int = 1
    precision: Precision = Precision.FP32
    look_every_s: float = 10.0  # for addresses that the server has lost
    seen: dict[str, None] = field(default_factory=dict, compare=False, repr=False)  # by TCP, in this process

    def follow(self) -> Iterator[Sequence[DeviceSpec]]:
        """See PhoneSource. Raises TransportError when the server goes, or is none."""
        server = AdbServer.at(self.server, None if self.home is None else Path(self.home))
        before: list[DeviceSpec] | None = None
        while True:
            self._see_to(server)
            for listed in server.track(timeout_s=self.look_every_s):
                self._remember(listed)
                now = self._devices(listed)
                if now != before:
                    before = now
                    yield now

    def _see_to(self, server: AdbServer) -> None:
        """There is a server, if it is ours to start one, and it has been told of every address."""
        try:
            known = {device.serial for device in server.devices()}
        except DeviceGone:
            if not server.is_local:
                raise
            server.start()
            known = set()
        lost = [address for address in self._by_tcp if address not in known]
        if lost:
            with ThreadPoolExecutor(max_workers=min(len(lost), _SIDE_BY_SIDE)) as threads:
                list(threads.map(lambda address: self._connect(server, address), lost))

    @staticmethod
    def _connect(server: AdbServer, address: str) -> None:
        with suppress(FarmError):  # its device's actor finds the reason, and tells it
            server.connect(address, timeout_s=_CONNECT_S)

    def _remember(self, listed: Sequence[ListedDevice]) -> None:
        """Phones that worked and were reached by TCP; a server that makes up names costs no more than so many."""
        for device in listed:
            if device.state == "device" and is_tcp(device.serial) and len(self.seen) < _MOST_SEEN:
                self.seen[device.serial] = None

    @property
    def _by_tcp(self) -> list[str]:
        named = [serial for serial in self.only or () if is_tcp(serial)]
        known = dict.fromkeys([*self.addresses, *named, *self.seen])
        return [address for address in known if self._is_wanted(address)]

    def _is_wanted(self, serial: str) -> bool:
        return serial not in self.ignored and (self.only is None or serial in self.only)

    def _devices(self, listed: Sequence[ListedDevice]) -> list[DeviceSpec]:
        models = dict(self.models)
        serials = dict.fromkeys([*(device.serial for device in listed), *self._by_tcp])
        devices: list[DeviceSpec] = []
        for serial in serials:
            if not self._is_wanted(serial):
                continue
            with suppress(ValueError):  # what the server lists and cannot be a serial
                devices.append(
                    AdbDevice(
                        serial,
                        server=self.server,
                        model=models.get(serial),
                        cpu=self.cpu,
                        threads=self.threads,
                        precision=self.precision,
                        pinned=False,
                        home=self.home,
                    )
                )
        return devices
