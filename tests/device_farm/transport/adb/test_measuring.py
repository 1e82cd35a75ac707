"""A real artifact, pushed, run and compared, through the real adb server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from device_farm.compiler.target import AVX2, NEON, TARGETS
from device_farm.measurement.session import measure, remote_name
from device_farm.measurement.types import Protocol
from device_farm.testing.phones import EmulatedPhones
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.adb.link import PhoneLink
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.base import Deadline
from tests.device_farm.transport.adb.conftest import Opens

_QUICK = Protocol(min_time_s=0.02, max_time_s=0.2, warmup_s=0.01, deadline_s=30.0)
_ARM = pytest.param(
    1, NEON.name, marks=[pytest.mark.qemu, pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="needs qemu")]
)


@pytest.mark.parametrize(("number", "target"), [(0, AVX2.name), _ARM])
def test_a_latency_of_an_artifact_on_a_phone(
    server: AdbServer, shared_phones: EmulatedPhones, opens: Opens, tmp_path: Path, number: int, target: str
) -> None:
    address = shared_phones.addresses[number]
    transport = opens(server, address, client="measuring")
    artifact = tiny_artifact(tmp_path, TARGETS[target])
    measurement = measure(transport, artifact, _QUICK)
    assert measurement.latency_ms > 0 and measurement.max_relative_error < 1e-5
    assert (measurement.device.emulated, measurement.device.serial) == (True, address)
    listed = PhoneLink(server, address).shell("ls /data/local/tmp/npas/measuring", Deadline(5, "a look")).stdout
    assert listed.decode().split() == [remote_name(artifact.path)]
