"""The phones of an adb server, as what a host has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_farm.compiler.target import Precision
from device_farm.errors import DeviceGone, FarmError
from device_farm.fleet.devices import AdbDevice, DeviceSpec
from device_farm.transport.adb.device_list import ListedDevice
from device_farm.transport.adb.server import AdbServer, is_tcp

_CONNECT_S = 2.0


@dataclass(frozen=True)
class AdbPhones:
    """All phones that an adb server lists, in whatever state, and those of `addresses` even if it does not.

    `server` is "HOST:PORT" as seen from the host that follows it; one on the host itself is started if it is not there.
    `addresses` are phones at HOST:PORT that the server is told of, and again when it was restarted or lost them. Of
    phones in `ignored` nothing is said, nor of others than `only`, if given, which the server is told of like
    `addresses` if they are at HOST:PORT. `cpu`, `home`, `threads` and `precision`
    are as for AdbDevice; the phones' models are what they say, or `models` by serial.
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

    def follow(self) -> Iterator[Sequence[DeviceSpec]]:
        """See PhoneSource. Raises TransportError when the server goes, or is none."""
        server = AdbServer.at(self.server, None if self.home is None else Path(self.home))
        before: list[DeviceSpec] | None = None
        while True:
            self._see_to(server)
            for listed in server.track(timeout_s=self.look_every_s):
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
        for address in self._told:
            if address not in known:
                with suppress(FarmError):  # its device's actor finds the reason, and tells it
                    server.connect(address, timeout_s=_CONNECT_S)

    @property
    def _told(self) -> tuple[str, ...]:
        """What the server is told of: phones that are named and reached by TCP are nobody else's to connect."""
        return tuple(dict.fromkeys((*self.addresses, *(serial for serial in self.only or () if is_tcp(serial)))))

    def _devices(self, listed: Sequence[ListedDevice]) -> list[DeviceSpec]:
        models = dict(self.models)
        serials = dict.fromkeys([*(device.serial for device in listed), *self._told])
        devices: list[DeviceSpec] = []
        for serial in serials:
            if serial in self.ignored or (self.only is not None and serial not in self.only):
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
