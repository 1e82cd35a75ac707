"""An adb server, here or on another machine: its devices, and connections to services on them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.transport.adb import advice
from device_farm.transport.adb.device_list import ListedDevice, parse_protobuf, parse_text
from device_farm.transport.adb.program import adb_path, environment, free_port
from device_farm.transport.adb.properties import clean
from device_farm.transport.adb.quoting import check_serial
from device_farm.transport.adb.smart_socket import AdbFailure, LinkEnded, OtherLink, SmartSocket
from device_farm.transport.base import Deadline

DEFAULT_PORT = 5037
_TRACK = (("host:track-devices-proto-binary", parse_protobuf), ("host:track-devices-l", parse_text))
_TCP_SERIAL = re.compile(r"(?:\[[0-9A-Za-z:.%_-]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_POLL_S = 0.02
_START_S = 10.0
_SETTLE_S = 2.0
_PASSING = ("offline", "connecting", "authorizing")  # states that may end by themselves


class AdbServer:
    """Where an adb server is. Small and serialisable; every call makes a connection of its own.

    Several processes may use one server side by side. One on this machine can be started by `start`; one on another
    machine is that machine's business. `home` is for a server apart from the user's own: it keeps its key there.

    Every call raises DeviceGone if there is no server, DeadlineExceeded, and Refused if what answers is no adb server.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT, *, home: Path | None = None) -> None:
        if not host or not host.isprintable() or any(c.isspace() for c in host):
            raise ValueError(f"an adb server is on a host, got {host!r}")
        if not 1 <= port <= 65535:
            raise ValueError(f"an adb server listens on a port from 1 to 65535, got {port}")
        self.host = host
        self.port = port
        self.home = home

    def __reduce__(self) -> tuple[object, ...]:
        return AdbServer.at, (str(self), self.home)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdbServer) and (self.host, self.port) == (other.host, other.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))

    def __repr__(self) -> str:
        return f"AdbServer({self.host!r}, {self.port})"

    @staticmethod
    def at(address: str, home: Path | None = None) -> AdbServer:
        """From "HOST:PORT" or "[IPV6]:PORT". Raises ValueError."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or len(port) > 5:
            raise ValueError(f"an adb server is at HOST:PORT, got {address!r}")
        return AdbServer(host.strip("[]"), int(port), home=home)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, so that it can be started."""
        return self.host in _LOOPBACK

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def version(self, *, timeout_s: float = 5.0) -> int:
        """Of its protocol: 41 is adb 1.0.41."""
        with SmartSocket(self.host, self.port, Deadline(timeout_s, f"version of the adb server at {self}")) as link:
            block = self._block(link, "host:version")
        try:
            return int(block, 16)
        except ValueError:
            raise Refused(f"the adb server at {self} says that its version is {block[:20]!r}") from None

    def devices(self, *, timeout_s: float = 5.0) -> tuple[ListedDevice, ...]:
        """All, whatever their state, in the server's order."""
        with SmartSocket(self.host, self.port, Deadline(timeout_s, f"devices of the adb server at {self}")) as link:
            return next(self._snapshots(link))

    def track(self, *, timeout_s: float) -> Iterator[tuple[ListedDevice, ...]]:
        """The devices now, and again whenever something changes; ends after `timeout_s`.

        Raises DeviceGone when the server goes.
        """
        deadline = Deadline(timeout_s, f"devices of the adb server at {self}")
        try:
            with SmartSocket(self.host, self.port, deadline) as link:
                yield from self._snapshots(link)
        except DeadlineExceeded:
            return

    def connect(self, address: str, *, timeout_s: float = 10.0) -> None:
        """Makes a phone at host:port one of the server's devices; nothing happens if it is.

        The server says OKAY even if it failed: so its list is asked. Raises DeviceGone where nothing answers there,
        Refused where the phone is there and not ready, beside what every call raises; ValueError.
        """
        if not is_tcp(address):
            raise ValueError(f"a phone is connected by HOST:PORT, got {address!r}")
        deadline = Deadline(timeout_s, f"connection to {address}")
        patience = time.monotonic() + min(_SETTLE_S, timeout_s / 2)
        while True:
            with SmartSocket(self.host, self.port, deadline) as link:
                answer = self._block(link, f"host:connect:{address}").decode(errors="replace")
            state = self._settled(address, patience, deadline)
            if state == "device":
                return
            # A link that breaks just now is "already connected", and not in the list a moment later.
            if state or "connected to" not in answer or time.monotonic() > patience:
                break
        if state:
            raise Refused(f"{address} is connected, but not ready: {advice.of_state(state)}")
        raise DeviceGone(
            f"{address} cannot be connected: {clean(answer)}: is the phone on, in this network, and in TCP mode"
            " (adb tcpip 5555)?"
        )

    def disconnect(self, address: str, *, timeout_s: float = 5.0) -> None:
        """Forgets a phone that was connected by `connect`; nothing happens if there is none."""
        deadline = Deadline(timeout_s, f"disconnection of {address}")
        with SmartSocket(self.host, self.port, deadline) as link:
            try:
                link.ask(f"host:disconnect:{check_serial(address)}")
            except AdbFailure as failure:
                if "no such device" not in str(failure):
                    raise Refused(f"{deadline.what}: {failure}") from None
            except LinkEnded:
                raise self._ended(deadline) from None

    def open(self, serial: str, service: str, deadline: Deadline, *, known_link: int = 0) -> SmartSocket:
        """A connection to a service on a device, through the link of that number if it is not 0.

        Raises AdbFailure, LinkEnded and OtherLink, too: for this package only.
        """
        try:
            return self._open(f"host:tport:serial:{serial}", service, deadline, known_link)
        except AdbFailure as failure:
            if "unknown host service" not in str(failure):
                raise
        return self._open(f"host:transport:{serial}", service, deadline, 0)  # a server from before 2019

    def start(self, *, timeout_s: float = _START_S) -> None:
        """Sees to it that a server runs, as `adb start-server` does. Several processes may try at once.

        Raises DeviceGone if it does not come up, or is on another machine.
        """
        deadline = Deadline(timeout_s, f"start of the adb server at {self}")
        if not self.is_local:
            raise DeviceGone(
                f"there is no adb server at {self}, and one on another machine is not started from here: start it there"
            )
        try:
            done = subprocess.run(
                [adb_path(), "-L", f"tcp:localhost:{self.port}", "start-server"],
                env=environment(self.home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline.remaining_s,
            )
        except subprocess.TimeoutExpired:
            deadline.check()
            raise DeadlineExceeded(f"{deadline.what}: not done within {timeout_s:g} s") from None
        except OSError as error:
            raise DeviceGone(f"the adb server at {self} cannot be started: {error}") from error
        if done.returncode != 0:
            # Another process may have been faster by a hair: then there is one now.
            try:
                self.version(timeout_s=max(deadline.remaining_s, 0.1))
            except DeviceGone:
                said = done.stderr.strip()[-500:]
                raise DeviceGone(f"the adb server at {self} does not start: {said or done.returncode}") from None

    @staticmethod
    def start_private(port: int = 0, *, home: Path) -> PrivateAdbServer:
        """A server of one's own on loopback, with a key of its own in `home`; stopped by `close`.

        It looks neither for emulators nor in the network for phones. `port` 0 is a free one.
        """
        return PrivateAdbServer(port, home)

    def _open(self, to_phone: str, service: str, deadline: Deadline, known_link: int) -> SmartSocket:
        link = SmartSocket(self.host, self.port, deadline)
        try:
            link.ask(to_phone)
            if to_phone.startswith("host:tport:"):
                link.link = int.from_bytes(link.read_exact(8), "little")
            if known_link not in (0, link.link):
                raise OtherLink
            link.ask(service)
        except BaseException:
            link.close()
            raise
        return link

    def _snapshots(self, link: SmartSocket) -> Iterator[tuple[ListedDevice, ...]]:
        (preferred, parse), (fallback, parse_fallback) = _TRACK
        try:
            try:
                link.ask(preferred)
            except AdbFailure:  # an old server, and it has closed this connection
                with SmartSocket(self.host, self.port, link.deadline) as again:
                    again.ask(fallback)
                    while True:
                        yield parse_fallback(again.read_block())
            while True:
                yield parse(link.read_block())
        except AdbFailure as failure:
            raise Refused(f"{link.deadline.what}: {failure}") from None
        except LinkEnded:
            raise self._ended(link.deadline) from None
        except ValueError as error:
            raise Refused(f"{link.deadline.what}: {error}") from None

    def _block(self, link: SmartSocket, request: str) -> bytes:
        try:
            link.ask(request)
            return link.read_block()
        except AdbFailure as failure:
            raise Refused(f"{link.deadline.what}: {failure}") from None
        except LinkEnded:
            raise self._ended(link.deadline) from None

    def _ended(self, deadline: Deadline) -> DeviceGone:
        return DeviceGone(f"{deadline.what}: the adb server at {self} ended the connection: was it stopped?")

    def _settled(self, address: str, patience: float, deadline: Deadline) -> str:
        """The state when it is one that stays; some 10 ms after its link opened a phone is still "offline"."""
        while True:
            devices = self.devices(timeout_s=deadline.remaining_s)
            state = next((device.state for device in devices if device.serial == address), "")
            if state not in _PASSING or time.monotonic() > patience:
                return state
            time.sleep(_POLL_S)


class PrivateAdbServer(AdbServer):
    """A server that its owner stops. Serialised, it is an AdbServer. Raises DeviceGone if it cannot be started."""

    def __init__(self, port: int, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(5):  # somebody else may take the free port first
            super().__init__("127.0.0.1", port or free_port(), home=home)
            if self._launch():
                return
        said = self._log.read_text(errors="replace").strip()[-500:]
        raise DeviceGone(f"no adb server can be started on port {self.port}: {said}")

    @property
    def pid(self) -> int:
        """Of this object's child. Raises DeviceGone if it has ended."""
        if self._process is None:
            raise DeviceGone(f"the adb server at {self} has been stopped")
        return self._process.pid

    def kill(self) -> None:
        """Ends this object's child at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def start(self, *, timeout_s: float = _START_S) -> None:
        """Starts it again at the same port. Nothing happens if there is a server."""
        deadline = Deadline(timeout_s, f"start of the adb server at {self}")
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        while not self._answers():
            self._launch()
            deadline.check()

    def close(self) -> None:
        """Ends the server, be it this object's child or one that a transport started again at its port."""
        self.kill()
        try:
            with SmartSocket(self.host, self.port, Deadline(2.0, "stop of the adb server")) as link:
                link.ask("host:kill")
        except (TransportError, AdbFailure, LinkEnded):
            return

    def __enter__(self) -> PrivateAdbServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _log(self) -> Path:
        assert self.home is not None
        return self.home / "adb.log"

    def _launch(self) -> bool:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [adb_path(), "-L", f"tcp:localhost:{self.port}", "server", "nodaemon"],
                env=environment(self.home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < end:
            if self._answers() and process.poll() is None:
                self._process = process
                return True
            time.sleep(_POLL_S)
        process.kill()
        process.wait()
        return False

    def _answers(self) -> bool:
        try:
            self.version(timeout_s=1.0)
        except TransportError:
            return False
        return True


def is_tcp(serial: str) -> bool:
    """Whether a phone is reached by TCP, so that a restarted server must be told of it again."""
    return _TCP_SERIAL.fullmatch(serial) is not None
