from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.transport.adb.device_list import ListedDevice, parse_protobuf, parse_text


def test_text_of_a_real_server() -> None:
    text = (
        b"R5CT20ABCDE            device usb:1-4.2 product:b0sxxx model:SM_S908B device:b0s transport_id:7\n"
        b"0123456789ABCDEF       unauthorized usb:3-1 transport_id:2\n"
        b"????????????           no permissions (user in plugdev group; are your udev rules wrong?); see"
        b" [http://developer.android.com/tools/device.html] usb:1-1 transport_id:3\n"
        b"127.0.0.1:5555         offline product:x model:y device:z transport_id:4\n"
    )
    assert parse_text(text) == (
        ListedDevice("R5CT20ABCDE", "device", "SM_S908B", "1-4.2", 7),
        ListedDevice("0123456789ABCDEF", "unauthorized", "", "3-1", 2),
        ListedDevice("????????????", "no permissions", "", "1-1", 3),
        ListedDevice("127.0.0.1:5555", "offline", "y", "", 4),
    )


def test_a_serial_with_spaces_is_one_device() -> None:
    (device,) = parse_text(b"adb-R5CT (2)._adb-tls-connect._tcp device product:x model:y device:z transport_id:9\n")
    assert device.serial == "adb-R5CT (2)._adb-tls-connect._tcp"


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def test_protobuf_tells_a_hostile_serial_from_two_devices() -> None:
    serial = "evil\nR5CT device transport_id:1\tx"
    device = _field(1, serial.encode()) + _field(2, 8) + _field(3, b"1-4") + _field(5, b"Pixel") + _field(10, 3)
    other = _field(1, b"b") + _field(2, 3)
    assert parse_protobuf(_field(1, device) + _field(1, other)) == (
        ListedDevice(serial, "device", "Pixel", "1-4", 3),
        ListedDevice("b", "unauthorized", "", "", 0),
    )


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_devices(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(device, ListedDevice) for device in parse_protobuf(content))
    assert all(device.serial for device in parse_text(content))


def test_a_list_is_not_endless() -> None:
    with pytest.raises(ValueError, match="cut off"):
        parse_protobuf(b"\x0a\xff\xff\xff\xff\x7f")
    assert len(parse_text(b"a device\n" * 10_000)) == 4096
