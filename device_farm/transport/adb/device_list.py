"""The answers of an adb server to "which devices do you have": protobuf where it knows it (adb 35), else text.

Protobuf, as a serial may hold spaces, tabs and line ends, with which a phone could pretend in text to be two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEVICES = 4096
_MAX_LINE = 1000

# Of adb's devices.proto, in its words for people.
_STATES = {
    0: "any",
    1: "connecting",
    2: "authorizing",
    3: "unauthorized",
    4: "no permissions",
    5: "detached",
    6: "offline",
    7: "bootloader",
    8: "device",
    9: "host",
    10: "recovery",
    11: "sideload",
    12: "rescue",
}
_LINE = re.compile(
    r"(?P<serial>.*?)[ \t]+(?P<state>device|offline|unauthorized|authorizing|connecting|no permissions|recovery"
    r"|bootloader|sideload|rescue|host|detached|unknown)(?=$|[ \t;])(?P<rest>.*)"
)


@dataclass(frozen=True)
class ListedDevice:
    """One device as the server sees it. In state "device" it is ready, or has fallen mute."""

    serial: str
    state: str
    model: str = ""  # as its banner says, for people: facts() asks the phone itself
    usb: str = ""  # where it is plugged in; empty for TCP
    link: int = 0  # another number after every loss of its link; 0 if the server does not tell


def parse_text(content: bytes) -> tuple[ListedDevice, ...]:
    """`host:devices-l`. Lines that are none are left out."""
    found = []
    for line in content.decode(errors="surrogateescape").split("\n")[:MAX_DEVICES]:
        match = _LINE.fullmatch(line[:_MAX_LINE])
        if match is None or not match["serial"]:
            continue
        fields = dict(word.partition(":")[::2] for word in match["rest"].split())
        link = fields.get("transport_id", "")
        found.append(
            ListedDevice(
                serial=match["serial"],
                state=match["state"],
                model=fields.get("model", ""),
                usb=fields.get("usb", ""),
                link=int(link) if re.fullmatch("[0-9]{1,18}", link) else 0,
            )
        )
    return tuple(found)


def parse_protobuf(content: bytes) -> tuple[ListedDevice, ...]:
    """`host:track-devices-proto-binary`. Raises ValueError."""
    found = []
    for number, value in _fields(content):
        if number != 1 or not isinstance(value, bytes):
            continue
        device = dict(_fields(value))
        state, link = device.get(2, 0), device.get(10, 0)
        found.append(
            ListedDevice(
                serial=_text(device.get(1)),
                state=_STATES.get(state, "unknown") if isinstance(state, int) else "unknown",
                model=_text(device.get(5)),
                usb=_text(device.get(3)),
                link=link if isinstance(link, int) else 0,
            )
        )
        if len(found) == MAX_DEVICES:
            break
    return tuple(found)


def _text(value: bytes | int | None) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else ""


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and values of a protobuf message: integers and bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
        if not 0 <= length <= len(message) - at:
            raise ValueError("the adb server's list of devices is cut off or no protobuf")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError("the adb server's list of devices is cut off or no protobuf")
