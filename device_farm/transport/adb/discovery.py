"""Which phones a server has, which of them can be used, and what is to be done about the others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.transport.adb import advice, scripts
from device_farm.transport.adb.advice import Advice
from device_farm.transport.adb.device_list import ListedDevice
from device_farm.transport.adb.link import PhoneLink
from device_farm.transport.adb.properties import clean
from device_farm.transport.adb.quoting import check_serial
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.base import Deadline

_SIDE_BY_SIDE = 32
_WORD = "npas-is-there"
_OLD_VERSION = 39  # older ones know no shell,v2


@dataclass(frozen=True)
class Finding:
    """One device of a server. It can be used if there is no `advice`."""

    serial: str
    state: str  # adb's word
    model: str  # for people; empty if it is not ready
    usb: str  # where it is plugged in; empty for TCP
    answered_ms: float | None = None  # how long the smallest shell took
    advice: Advice | None = None

    @property
    def usable(self) -> bool:
        return self.advice is None


@dataclass(frozen=True)
class Survey:
    """What is to be said of a server and its devices. `problems` are those that are not of one device alone."""

    server: str
    version: int | None
    findings: tuple[Finding, ...]
    problems: tuple[Advice, ...]


def survey(server: AdbServer, *, timeout_s: float = 3.0) -> Survey:
    """Asks the server and every phone that it has, each for at most `timeout_s`. Raises nothing."""
    try:
        version = server.version(timeout_s=timeout_s)
        devices = server.devices(timeout_s=timeout_s)
    except TransportError as error:
        remedy = f"start it: adb -P {server.port} start-server" if server.is_local else "start it on its machine"
        return Survey(str(server), None, (), (Advice(str(error), remedy),))
    with ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE) as threads:
        findings = tuple(threads.map(lambda device: examine(server, device, timeout_s=timeout_s), devices))
    return Survey(str(server), version, findings, _problems(version, findings))


def examine(server: AdbServer, device: ListedDevice, *, timeout_s: float = 3.0) -> Finding:
    """One device of the server's list. Only a shell that answers shows that it lives: a mute phone stays "device"."""
    found = Finding(device.serial, device.state, clean(device.model), clean(device.usb))
    if device.state != "device":
        return _with(found, advice.of_state(device.state))
    try:
        check_serial(device.serial)
        return _with(found, None, answered_ms=probe(server, device.serial, timeout_s=timeout_s))
    except ValueError as error:
        return _with(found, Advice(str(error), "give it another serial, if its maker lets you"))
    except DeadlineExceeded:
        return _with(found, advice.MUTE)
    except Refused as error:
        return _with(found, Advice(str(error), advice.REFUSES.remedy))
    except DeviceGone as error:
        return _with(found, Advice(str(error), advice.ABSENT.remedy))


def probe(server: AdbServer, serial: str, *, timeout_s: float = 2.0) -> float:
    """Milliseconds until a shell on the phone has answered. Raises DeviceGone, DeadlineExceeded, Refused."""
    begin = time.monotonic()
    deadline = Deadline(timeout_s, f"probe of {serial!r}")
    done, _ = PhoneLink(server, serial).ask(scripts.probe(_WORD), deadline, max_output_bytes=4096)
    if (done.exit_status, done.stdout.strip()) != (0, _WORD.encode()):
        raise Refused(f"{deadline.what}: it was asked to say {_WORD!r}, and said {clean(repr(done.stdout[:100]))}")
    return 1000 * (time.monotonic() - begin)


def _with(found: Finding, about: Advice | None, *, answered_ms: float | None = None) -> Finding:
    return Finding(found.serial, found.state, found.model, found.usb, answered_ms, about)


def _problems(version: int, findings: tuple[Finding, ...]) -> tuple[Advice, ...]:
    problems = []
    if version < _OLD_VERSION:
        problems.append(
            Advice(
                f"the adb server speaks version {version}, of before 2017", "install newer platform-tools, restart it"
            )
        )
    mute = [finding for finding in findings if finding.advice is advice.MUTE and finding.usb]
    if len(mute) > 1:
        problems.append(
            Advice(f"{len(mute)} phones on USB are mute at once", "look after their hub: its power supply, its cable")
        )
    if not findings:
        problems.append(Advice("adb sees no phone at all", advice.ABSENT.remedy))
    return tuple(problems)
