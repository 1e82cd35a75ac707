"""The phone's end of one ADB link, as a state machine without sockets or time.

Bytes go in (`receive`), events come out; what shall be sent collects in `take_output`. The rules of the protocol:
each stream has a number on either side; whoever has sent a WRTE waits for the OKAY of the other side before the next.
Delayed acknowledgements and TLS are not announced, so no host may use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from device_farm.emulator.packets import (
    MAX_PAYLOAD_BYTES,
    VERSION,
    VERSION_WITH_CHECKSUM,
    Command,
    Packet,
    PacketReader,
    ProtocolError,
)

FEATURES = ("shell_v2", "stat_v2", "ls_v2", "sendrecv_v2", "fixed_push_mkdir", "fixed_push_symlink_timestamp")
MAX_STREAMS = 64
TOKEN_BYTES = 20
_MIN_PAYLOAD_BYTES = 4096  # every host takes at least so much


class Trust(Enum):
    """How a phone greets a host."""

    OPEN = "open"  # asks for no key
    ANY_KEY = "any key"  # asks, and believes whatever signature or key is offered
    NO_KEY = "no key"  # shows its owner a dialogue that nobody answers


class AuthType(IntEnum):
    TOKEN = 1
    SIGNATURE = 2
    PUBLIC_KEY = 3


@dataclass(frozen=True)
class Online:
    """The host is greeted. All streams that there were are closed."""

    host_banner: bytes


@dataclass(frozen=True)
class Opened:
    """The host asks for a service: `accept` or `refuse` the stream."""

    stream: int
    service: bytes


@dataclass(frozen=True)
class Received:
    """Data for a stream; `acknowledge` it when there is room for more."""

    stream: int
    data: bytes


@dataclass(frozen=True)
class Acknowledged:
    """The host has taken the last `write`; there is room for another."""

    stream: int


@dataclass(frozen=True)
class Closed:
    """The host closed a stream."""

    stream: int


Event = Online | Opened | Received | Acknowledged | Closed


@dataclass
class _Stream:
    host_number: int
    accepted: bool = False
    awaits_okay: bool = False  # our WRTE is on its way
    owes_okay: bool = False  # theirs is here


class Connection:
    """One link. Raises ProtocolError from `receive` when the host breaks the protocol: then the link must be closed."""

    def __init__(self, banner: bytes, *, trust: Trust = Trust.ANY_KEY, token: bytes = bytes(TOKEN_BYTES)) -> None:
        self._banner = banner
        self._trust = trust
        self._token = token
        self._reader = PacketReader()
        self._output = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._last_number = 0
        self._waiting_key: bytes | None = None  # offered while nobody trusts it
        self._host_banner = b""
        self._host_payload_bytes = _MIN_PAYLOAD_BYTES
        self.online = False

    def receive(self, data: bytes) -> list[Event]:
        """What follows from these bytes. Raises ProtocolError."""
        self._reader.feed(data)
        events: list[Event] = []
        while (packet := self._reader.next_packet()) is not None:
            events += self._handle(packet)
        return events

    def take_output(self) -> bytes:
        """What is to be sent, once."""
        output = bytes(self._output)
        self._output.clear()
        return output

    @property
    def pending_bytes(self) -> int:
        """Length of what is to be sent."""
        return len(self._output)

    def authorize(self) -> list[Event]:
        """The owner says yes: a key that was offered meanwhile is believed."""
        self._trust = Trust.ANY_KEY
        return self._greet() if self._waiting_key is not None and not self.online else []

    def accept(self, stream: int) -> None:
        """Opens a stream that the host asked for."""
        entry = self._streams[stream]
        entry.accepted = True
        self._send(Command.OKAY, stream, entry.host_number)

    def refuse(self, stream: int) -> None:
        """Says that there is no such service."""
        entry = self._streams.pop(stream)
        self._send(Command.CLSE, 0, entry.host_number)

    def may_write(self, stream: int) -> bool:
        """Whether the stream is open and its last `write` is acknowledged."""
        entry = self._streams.get(stream)
        return entry is not None and entry.accepted and not entry.awaits_okay

    def write(self, stream: int, data: bytes) -> int:
        """Sends the beginning of `data`, as much as one packet holds; returns how much. Only when `may_write`."""
        entry = self._streams[stream]
        if not entry.accepted or entry.awaits_okay:
            raise ValueError(f"stream {stream} waits for an acknowledgement")
        piece = data[: self._host_payload_bytes]
        entry.awaits_okay = True
        self._send(Command.WRTE, stream, entry.host_number, piece)
        return len(piece)

    def acknowledge(self, stream: int) -> None:
        """Lets the host send more. Does nothing for a stream that is gone."""
        entry = self._streams.get(stream)
        if entry is not None and entry.owes_okay:
            entry.owes_okay = False
            self._send(Command.OKAY, stream, entry.host_number)

    def close(self, stream: int) -> None:
        """Closes a stream; nothing happens if it is gone."""
        entry = self._streams.pop(stream, None)
        if entry is not None:
            self._send(Command.CLSE, stream, entry.host_number)

    def _handle(self, packet: Packet) -> list[Event]:
        if packet.command is Command.CNXN:
            return self._connect(packet)
        if packet.command is Command.AUTH:
            return self._authenticate(packet)
        if not self.online:
            raise ProtocolError(f"{packet.command.name} before the link is online")
        if packet.command is Command.OPEN:
            return self._open(packet)
        if packet.command is Command.WRTE:
            return self._receive(packet)
        if packet.command is Command.OKAY:
            return self._acknowledged(packet)
        if packet.command is Command.CLSE:
            return self._closed(packet)
        raise ProtocolError(f"{packet.command.name} was not announced")

    def _connect(self, packet: Packet) -> list[Event]:
        events: list[Event] = [Closed(stream) for stream in self._streams]
        self._streams.clear()
        self.online = False
        if packet.arg0 < VERSION_WITH_CHECKSUM:
            raise ProtocolError(f"version {packet.arg0:#x} of the host is older than any")
        self._reader.checks_payload = packet.arg0 < VERSION
        self._host_payload_bytes = min(max(packet.arg1, _MIN_PAYLOAD_BYTES), MAX_PAYLOAD_BYTES)
        self._host_banner = packet.payload.rstrip(b"\0")
        if self._trust is Trust.OPEN:
            return events + self._greet()
        self._send(Command.AUTH, AuthType.TOKEN, 0, self._token)
        return events

    def _authenticate(self, packet: Packet) -> list[Event]:
        if self.online or not self._host_banner:
            raise ProtocolError("AUTH that nobody asked for")
        if packet.arg0 not in (AuthType.SIGNATURE, AuthType.PUBLIC_KEY):
            raise ProtocolError(f"AUTH of an unknown type {packet.arg0}")
        if self._trust is not Trust.NO_KEY:
            return self._greet()
        if packet.arg0 == AuthType.SIGNATURE:
            self._send(Command.AUTH, AuthType.TOKEN, 0, self._token)  # not a key that is known here: the next, please
        else:
            self._waiting_key = packet.payload
        return []

    def _greet(self) -> list[Event]:
        self.online = True
        self._send(Command.CNXN, VERSION, MAX_PAYLOAD_BYTES, self._banner)
        return [Online(self._host_banner)]

    def _open(self, packet: Packet) -> list[Event]:
        if packet.arg0 == 0:
            raise ProtocolError("OPEN without a number")
        if len(self._streams) >= MAX_STREAMS:
            self._send(Command.CLSE, 0, packet.arg0)
            return []
        self._last_number += 1
        self._streams[self._last_number] = _Stream(packet.arg0)
        return [Opened(self._last_number, packet.payload.removesuffix(b"\0"))]

    def _find(self, packet: Packet) -> _Stream | None:
        """Nothing if we closed it meanwhile."""
        entry = self._streams.get(packet.arg1)
        return entry if entry is not None and packet.arg0 in (0, entry.host_number) else None

    def _receive(self, packet: Packet) -> list[Event]:
        entry = self._find(packet)
        if entry is None:
            return []
        if entry.owes_okay or not entry.accepted:
            raise ProtocolError("WRTE before the last one was acknowledged")
        entry.owes_okay = True
        return [Received(packet.arg1, packet.payload)]

    def _acknowledged(self, packet: Packet) -> list[Event]:
        entry = self._find(packet)
        if entry is None or not entry.awaits_okay:
            return []
        entry.awaits_okay = False
        return [Acknowledged(packet.arg1)]

    def _closed(self, packet: Packet) -> list[Event]:
        if self._find(packet) is None:
            return []
        del self._streams[packet.arg1]
        return [Closed(packet.arg1)]

    def _send(self, command: Command, arg0: int, arg1: int, payload: bytes = b"") -> None:
        with_checksum = self._reader.checks_payload or not self.online
        self._output += Packet(command, arg0, arg1, payload).encode(with_checksum=with_checksum)
