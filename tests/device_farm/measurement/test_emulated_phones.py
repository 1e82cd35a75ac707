"""The protocol on emulated phones behind the real adb: throttled, hot, empty, flipped, used by somebody."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.compile import compile_network
from device_farm.compiler.target import TARGETS
from device_farm.emulator.faults import PhoneFault
from device_farm.errors import FarmError, Unfit, Unstable
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.codec import conditions_from_json, measurement_from_json, measurement_to_json
from device_farm.measurement.drift import baseline_of_model
from device_farm.measurement.sentinel import Sentinel, sentinel_graph
from device_farm.measurement.session import Meter
from device_farm.measurement.types import Measurement, Protocol
from device_farm.testing.phones import EmulatedPhone, EmulatedPhones
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.transport import AdbTransport

MODELS = ["emu-x86-mid", "emu-x86-mid", "emu-x86-mid"]
QUICK = Protocol(min_time_s=0.05, max_time_s=0.2, sentinel_every_s=60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    with AdbServer.start_private(home=tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture(scope="module")
def phones(server: AdbServer) -> Iterator[list[tuple[EmulatedPhone, AdbTransport]]]:
    with EmulatedPhones(MODELS, seed=3, pace=0.0) as started:
        for address in started.addresses:
            server.connect(address)
        transports = [AdbTransport(server, address, client="meter") for address in started.addresses]
        yield list(zip(started, transports, strict=True))
        for transport in transports:
            transport.close()


@pytest.fixture
def phone(phones: list[tuple[EmulatedPhone, AdbTransport]]) -> Iterator[EmulatedPhone]:
    yield phones[0][0]
    phones[0][0].heal()
    phones[0][0].set(battery_percent=80, screen_on=False, heat_c=33.0)


@pytest.fixture
def device(phones: list[tuple[EmulatedPhone, AdbTransport]], phone: EmulatedPhone) -> AdbTransport:
    phone.set(battery_percent=80, screen_on=False, heat_c=33.0)
    return phones[0][1]


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, phones: list[tuple[EmulatedPhone, AdbTransport]]
) -> tuple[Artifact, Artifact]:
    """The sentinel and a small network for the phones' processor."""
    folder = tmp_path_factory.mktemp("artifacts")
    target = TARGETS[phones[0][1].facts().target]
    sentinel = compile_network(sentinel_graph(), target=target, out_dir=folder, cache_dir=folder / "cache")
    return sentinel, tiny_artifact(folder, target)


@pytest.fixture
def meter(device: AdbTransport, artifacts: tuple[Artifact, Artifact]) -> Meter:
    return Meter(device, sentinel=Sentinel(artifacts[0]), rules=AdmissionRules(cool_s=3.0))


def test_a_measurement_by_the_whole_protocol(
    meter: Meter, device: AdbTransport, artifacts: tuple[Artifact, Artifact]
) -> None:
    measurement = meter.measure(artifacts[1], QUICK)
    assert measurement.device.emulated
    assert measurement.conditions["affinity"] == {"asked": device.facts().cpu, "obtained": [device.facts().cpu]}
    before = conditions_from_json(measurement.conditions["device_before"])
    assert before.thermal_status == 0 and before.battery_level == 0.8 and before.cpu_khz
    assert measurement.conditions["sentinel"]["drift"] == pytest.approx(1.0, abs=0.02)
    assert 0.05 < measurement.conditions["sentinel"]["baseline_ms"] < 2.0


@pytest.mark.parametrize("clock", [0.4, 0.6, 0.96])  # the last one: one step of its clock, 7 %
def test_a_throttled_phone_gives_no_latency_and_measures_on_when_it_is_well(
    clock: float, meter: Meter, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact]
) -> None:
    clean = meter.measure(artifacts[1], QUICK).latency_ms
    phone.inject(PhoneFault.THROTTLED, value=clock)
    with pytest.raises(Unfit) as caught:
        meter.measure(artifacts[1], QUICK)
    assert caught.value.retry_after_s <= 3.0
    phone.heal()
    assert meter.measure(artifacts[1], QUICK).latency_ms == pytest.approx(clean, rel=0.02)


def test_throttling_that_comes_and_goes_at_random_is_never_a_number(
    meter: Meter, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact], device: AdbTransport
) -> None:
    clean = meter.measure(artifacts[1], QUICK).latency_ms
    draw = random.Random(5)
    said: list[Measurement | FarmError] = []
    for _ in range(16):
        phone.heal()
        if draw.random() < 0.5:
            phone.inject(PhoneFault.THROTTLED, value=draw.uniform(0.5, 1.0))
        elif draw.random() < 0.3:
            phone.inject(PhoneFault.NOISY)
        phone.set(heat_c=33.0)
        try:
            said.append(meter.measure(artifacts[1], QUICK))
        except (Unfit, Unstable) as error:
            said.append(error)
    measured = [m for m in said if isinstance(m, Measurement)]
    assert len(measured) >= 5
    assert [m.conditions for m in measured if abs(m.latency_ms / clean - 1) > 0.03] == []
    assert sum(isinstance(s, Unfit) for s in said) >= 4


def test_what_the_phone_says_of_itself_is_enough_to_refuse(
    meter: Meter, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact]
) -> None:
    phone.set(battery_percent=12)
    with pytest.raises(Unfit, match="the battery holds 12 %"):
        meter.measure(artifacts[1], QUICK)
    phone.set(battery_percent=80, heat_c=70.0)
    with pytest.raises(Unfit, match=r"thermal status 4 \(critical\).*; cpu-1-0 has \d+\.\d C, at most 60 C"):
        meter.measure(artifacts[1], QUICK)


@pytest.mark.parametrize("fault", [PhoneFault.FLIPPED, PhoneFault.CRASH])
def test_a_phone_that_breaks_everything_does_not_accuse_the_artifact(
    fault: PhoneFault, meter: Meter, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact]
) -> None:
    meter.measure(artifacts[1], QUICK)
    phone.inject(fault)
    with pytest.raises(Unfit, match="it fails its sentinel"):
        meter.measure(artifacts[1], QUICK)


def test_an_answer_that_is_wrong_once_and_right_the_next_time_proves_nothing(
    meter: Meter, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact]
) -> None:
    """The phone's sentinel is well; a program counts as wrong only where it is wrong twice."""
    meter.measure(artifacts[1], QUICK)
    phone.inject(PhoneFault.FLIPPED, times=1)
    with pytest.raises(Unstable, match="contradicts itself"):
        meter.measure(artifacts[1], QUICK)


def test_a_core_that_the_phone_does_not_have_is_refused(
    server: AdbServer, phone: EmulatedPhone, artifacts: tuple[Artifact, Artifact]
) -> None:
    elsewhere = AdbTransport(server, phone.address, client="elsewhere", cpu=63)
    try:
        with pytest.raises(FarmError, match="63"):
            Meter(elsewhere, rules=AdmissionRules()).measure(artifacts[1], QUICK)
    finally:
        elsewhere.close()


def test_phones_of_a_model_agree_and_one_that_is_slow_from_the_start_does_not(
    phones: list[tuple[EmulatedPhone, AdbTransport]], artifacts: tuple[Artifact, Artifact]
) -> None:
    baselines: dict[str, float] = {}
    for phone, transport in phones:
        phone.heal()
        phone.set(heat_c=33.0)
        meter = Meter(transport, sentinel=Sentinel(artifacts[0]), rules=AdmissionRules())
        baselines[phone.address] = meter.calibrate(QUICK).baseline_ms
    model = baseline_of_model(baselines)
    assert model is not None and model.off == ()
    slow, transport = phones[2]
    slow.inject(PhoneFault.THROTTLED, value=0.8)
    try:
        taken_slow = Meter(transport, sentinel=Sentinel(artifacts[0]), rules=None).calibrate(QUICK).baseline_ms
        model = baseline_of_model(baselines | {slow.address: taken_slow})
        assert model is not None and model.off == (slow.address,)
        meter = Meter(transport, sentinel=Sentinel(artifacts[0], baseline_ms=taken_slow, model_ms=model.baseline_ms))
        with pytest.raises(Unfit, match=r"takes 2\d% longer than on the median phone of its model"):
            meter.measure(artifacts[1], QUICK)
    finally:
        slow.heal()


def test_a_measurement_comes_back_from_a_journal_as_it_was(
    device: AdbTransport, artifacts: tuple[Artifact, Artifact]
) -> None:
    sentinel, artifact = artifacts
    measurement = Meter(device, sentinel=Sentinel(sentinel), rules=AdmissionRules()).measure(artifact, QUICK)
    assert measurement_from_json(json.loads(json.dumps(measurement_to_json(measurement)))) == measurement
