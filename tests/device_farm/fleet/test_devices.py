from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from device_farm.fleet.devices import AdbDevice, DeviceSpec, phone_resource
from device_farm.transport.adb.transport import AdbTransport

_HOSTILE = [
    "R5CT20ABCDE",
    "10.0.0.2:5555",
    "it's",
    'a "b"',
    "$(reboot)",
    "a\nb",
    "; rm -rf /",
    "adb-X (2)._tcp",
    "ä",
    "_",
]


def test_a_phone_is_pinned_to_its_host_by_a_resource_of_its_own() -> None:
    assert AdbDevice("10.0.0.2:5555").resource == "phone_10_2e0_2e0_2e2_3a5555"
    assert AdbDevice("x", pinned=False).resource is None
    assert AdbDevice("x", node_id="ab").resource is None
    resources = {phone_resource(serial) for serial in _HOSTILE}
    assert len(resources) == len(_HOSTILE)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", resource) for resource in resources)


@pytest.mark.parametrize("serial", _HOSTILE)
def test_any_serial_that_adb_lists_makes_a_spec(serial: str, tmp_path: Path) -> None:
    spec = AdbDevice(serial, model="m")
    assert isinstance(spec, DeviceSpec)
    assert pickle.loads(pickle.dumps(spec)) == spec
    transport = spec.open(tmp_path)
    assert isinstance(transport, AdbTransport)
    transport.close()  # it was never opened: no connection is made


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"serial": ""}, "serial has 1 to 255 bytes"),
        ({"serial": "a\0"}, "no NUL"),
        ({"serial": "x", "server": "nowhere"}, "adb server is at HOST:PORT"),
        ({"serial": "x", "folder": "/data/local/tmp/$(id)"}, "absolute path"),
        ({"serial": "x", "threads": 0}, "threads must be at least 1"),
    ],
)
def test_impossible_specs(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AdbDevice(**options)  # type: ignore[arg-type]
