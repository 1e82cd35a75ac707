"""Emulated phones through the real adb, the real compiler and a host watcher. Their times are modelled: see docs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Graph, Input, Padding, Pool2d, Shape
from device_farm.emulator.faults import PhoneFault
from device_farm.fleet.adb_phones import AdbPhones
from device_farm.fleet.config import SENTINEL
from device_farm.fleet.entries import Kind
from device_farm.fleet.farm import Farm, FarmConfig, PhoneHost
from device_farm.fleet.words import DeviceState, Policy
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.types import Protocol
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer

FAST, SLOW = "emu-x86-fast", "emu-x86-slow"


def network(kept: int) -> Graph:
    sparsity = BlockSparsity(16, (kept,) * 2)
    ops = (
        Input("image", (), Shape(8, 8, 3)),
        Conv2d("conv", ("image",), 32, (3, 3), padding=Padding.same(3), activation=Activation.RELU, sparsity=sparsity),
        Pool2d("pool", ("conv",), kernel=(8, 8), stride=(8, 8)),
        Conv2d("head", ("pool",), 10),
    )
    return Graph(ops)


@dataclass(frozen=True)
class Lab:
    farm: Farm
    phones: EmulatedPhones
    server: PrivateAdbServer

    def state(self, number: int) -> DeviceState | None:
        serial = self.phones.addresses[number]
        return next((device.state for device in self.farm.devices() if device.serial == serial), None)

    def history(self, number: int) -> list[Any]:
        return self.farm.history(self.phones.addresses[number], limit=1000)


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home: Path = tmp_path_factory.mktemp("adb")
    cache_dir = tmp_path_factory.mktemp("cache")
    with (
        AdbServer.start_private(home=home) as server,
        EmulatedPhones([FAST, FAST, SLOW], pace=0.0) as phones,
    ):
        source = AdbPhones(str(server), addresses=tuple(phones.addresses), home=str(home), look_every_s=1.0)
        config = FarmConfig(
            devices=(),
            cache_dir=cache_dir,
            hosts=(PhoneHost(source),),
            journal=cache_dir / "journal.sqlite",
            sentinel=SENTINEL,
            rules=AdmissionRules(),
            protocol=Protocol(warmup_s=0.01, min_time_s=0.02, deadline_s=20.0),
            policy=Policy(cool_s=0.05, unfit_times=1, absent_s=20),
            name="emulated",
            namespace="npas-tests",
        )
        farm = Farm.start(config)
        yield Lab(farm, phones, server)
        farm.stop()


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_network_is_measured_on_each_model_beside_its_sentinel(lab: Lab) -> None:
    pending = lab.farm.submit_each(network(9), models=[FAST, SLOW])
    fast, slow = (pending[model].result(120) for model in (FAST, SLOW))
    assert fast.device.emulated and slow.device.emulated and fast.latency_ms < slow.latency_ms
    for measurement in (fast, slow):
        sentinel = measurement.conditions["sentinel"]
        assert abs(sentinel["drift"] - 1) < 0.05 and len(sentinel["readings_ms"]) == 2
    assert any(entry.kind is Kind.BASELINE for entry in lab.history(2))


def test_an_idle_phone_that_is_unplugged_is_seen_to_be_gone_and_says_why(lab: Lab) -> None:
    """No job finds it out: adb keeps a phone by TCP in its list."""
    until(lambda: all(lab.state(n) is DeviceState.HEALTHY for n in range(3)))
    serial = lab.phones.addresses[0]

    def reason() -> str:
        return next(device.reason for device in lab.farm.devices() if device.serial == serial)

    lab.phones[0].inject(PhoneFault.UNPLUG)
    until(lambda: lab.state(0) is DeviceState.GONE, timeout_s=60)
    until(lambda: "cannot be connected" in reason(), timeout_s=60)
    lab.phones[0].heal()
    until(lambda: lab.state(0) is DeviceState.HEALTHY, timeout_s=60)


def test_an_unplugged_phone_is_gone_and_comes_back(lab: Lab) -> None:
    until(lambda: all(lab.state(n) is DeviceState.HEALTHY for n in range(3)))
    lab.phones[0].inject(PhoneFault.UNPLUG)
    pending = [lab.farm.submit(network(kept), model=FAST) for kept in range(1, 6)]
    assert {p.result(60).device.serial for p in pending} == {lab.phones.addresses[1]}
    lab.phones[0].heal()
    until(lambda: lab.state(0) is DeviceState.HEALTHY)


def test_a_throttled_phone_measures_nothing(lab: Lab) -> None:
    for kept in range(10, 14):  # each has its baseline
        lab.farm.measure(network(kept), model=FAST, timeout_s=60)
    lab.phones[1].inject(PhoneFault.THROTTLED, value=0.7)
    pending = [lab.farm.submit(network(kept), model=FAST) for kept in range(14, 20)]
    assert {p.result(60).device.serial for p in pending} == {lab.phones.addresses[0]}
    unfit = next(entry for entry in lab.history(1) if entry.kind is Kind.UNFIT)
    assert "above its baseline" in unfit.data["fault"]["message"] or "clock" in unfit.data["fault"]["message"]
    assert lab.state(1) is DeviceState.QUARANTINED
    lab.phones[1].heal()
    lab.farm.release(lab.phones.addresses[1])
    assert lab.state(1) is DeviceState.HEALTHY


def test_an_adb_server_that_dies_is_started_again_with_its_phones(lab: Lab) -> None:
    lab.server.kill()
    pending = [lab.farm.submit(network(kept), model=SLOW) for kept in range(1, 4)]
    assert {p.result(60).device.model for p in pending} == {SLOW}
    until(lambda: all(lab.state(n) is DeviceState.HEALTHY for n in range(3)))
    assert not [run for phone in lab.phones for run in phone.runs if run.ended_s is None]
