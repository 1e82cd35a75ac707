"""The messages of an ADB link as bytes: a header of six little-endian words, then the payload."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<6I")  # command, arg0, arg1, payload length, checksum, magic
VERSION = 0x01000001  # from this one on, both sides leave the checksum out
VERSION_WITH_CHECKSUM = 0x01000000
MAX_PAYLOAD_BYTES = 256 * 1024  # what a phone announces; adb's server sends no longer payloads then

_ALL_BITS = 0xFFFFFFFF


class Command(IntEnum):
    """Four ASCII letters each."""

    SYNC = 0x434E5953
    CNXN = 0x4E584E43
    AUTH = 0x48545541
    OPEN = 0x4E45504F
    OKAY = 0x59414B4F
    CLSE = 0x45534C43
    WRTE = 0x45545257
    STLS = 0x534C5453


class ProtocolError(Exception):
    """The other side broke the protocol; the link is of no use any more."""


@dataclass(frozen=True)
class Packet:
    """One message. What the two arguments mean depends on the command."""

    command: Command
    arg0: int
    arg1: int
    payload: bytes = b""

    def encode(self, *, with_checksum: bool = True) -> bytes:
        """With a true checksum, which every version accepts, or with none."""
        said = checksum(self.payload) if with_checksum else 0
        magic = self.command ^ _ALL_BITS
        return HEADER.pack(self.command, self.arg0, self.arg1, len(self.payload), said, magic) + self.payload


def checksum(payload: bytes) -> int:
    """The sum of all bytes: ADB calls it a CRC."""
    return sum(payload) & _ALL_BITS


class PacketReader:
    """Bytes, in whatever pieces they come, to packets. Holds at most one packet's bytes.

    `checks_payload` is True until both sides have announced a version that leaves the checksum out.
    """

    def __init__(self, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self.checks_payload = True
        self._max_payload_bytes = max_payload_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Adds what has arrived. Take all packets before more is fed: what is held stays bounded."""
        self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next whole packet. Raises ProtocolError at a wrong magic, command, length or checksum."""
        if len(self._buffer) < HEADER.size:
            return None
        number, arg0, arg1, length, said_checksum, magic = HEADER.unpack_from(self._buffer)
        if magic != number ^ _ALL_BITS:
            raise ProtocolError(f"magic {magic:#010x} does not fit command {number:#010x}")
        if length > self._max_payload_bytes:
            raise ProtocolError(f"a payload of {length} bytes, at most {self._max_payload_bytes} are allowed")
        try:
            command = Command(number)
        except ValueError:
            raise ProtocolError(f"unknown command {number:#010x}") from None
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        if self.checks_payload and said_checksum != checksum(payload):
            raise ProtocolError(f"checksum {said_checksum:#x} of a {command.name}, its payload sums to something else")
        return Packet(command, arg0, arg1, payload)
