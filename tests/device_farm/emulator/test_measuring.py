"""Real artifacts through the real adb: the answer is computed, the times are the model's."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.target import AVX2, NEON
from device_farm.emulator.faults import PhoneFault
from device_farm.errors import DeadlineExceeded, DeviceGone, RunnerFailed, Unstable, WrongAnswer
from device_farm.measurement.report import BenchReport, parse_report
from device_farm.measurement.session import measure
from device_farm.measurement.types import Measurement, Protocol
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.transport import AdbTransport
from device_farm.transport.base import Completed

PROGRAM = "/data/local/tmp/artifact"
Measures = Callable[..., Measurement]
Fleets = Callable[..., list[Measurement]]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("artifacts"), AVX2)


@pytest.fixture
def opens(server: AdbServer) -> Iterator[Callable[..., AdbTransport]]:
    """Transports that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def open_transport(serial: str, **options: Any) -> AdbTransport:
            return opened.enter_context(contextlib.closing(AdbTransport(server, serial, **options)))

        yield open_transport


@pytest.fixture
def measured(opens: Callable[..., AdbTransport]) -> Measures:
    def measure_it(serial: str, artifact: Artifact, *, cpu: int | None = None, protocol: Protocol | None = None) -> Any:
        return measure(opens(serial, cpu=cpu), artifact, protocol or Protocol())

    return measure_it


@pytest.fixture
def run_fleet(adb: Adb, measured: Measures) -> Fleets:
    """One measurement on each of new phones, on its fastest core."""

    def run(models: Sequence[str], artifact: Artifact, *, seed: int = 0) -> list[Measurement]:
        with EmulatedPhones(models, seed=seed, pace=0.0) as phones:
            for address in phones.addresses:
                adb.connect(address)
            return [measured(address, artifact) for address in phones.addresses]

    return run


def test_models_differ_and_repeat(artifact: Artifact, run_fleet: Fleets) -> None:
    models = ["emu-x86-fast", "emu-x86-mid", "emu-x86-slow"]
    first, second = (run_fleet(models, artifact) for _ in range(2))
    fast, mid, slow = (measurement.latency_ms for measurement in first)
    assert 1.3 * fast < mid and 1.3 * mid < slow
    assert [m.latency_ms for m in second] == [m.latency_ms for m in first]
    for measurement in first:
        assert measurement.conditions["quiet"] and measurement.conditions["attempts"] == 1
        assert measurement.max_relative_error < 1e-5
        assert measurement.conditions["affinity"]["obtained"] == [measurement.device.cpu]
        profile_ms = sum(ms for _, ms in measurement.steps_ms)
        assert profile_ms == pytest.approx(measurement.latency_ms, rel=0.03)


def test_phones_of_a_model_differ_a_little_and_so_do_their_sessions(
    adb: Adb, artifact: Artifact, run_fleet: Fleets, measured: Measures
) -> None:
    one, other = run_fleet(["emu-x86-mid"] * 2, artifact, seed=3)
    assert one.latency_ms != other.latency_ms
    assert one.latency_ms == pytest.approx(other.latency_ms, rel=0.05)
    with EmulatedPhones(["emu-x86-mid"], seed=3, pace=0.0) as phones:
        adb.connect(phones.addresses[0])
        sessions = [measured(phones.addresses[0], artifact).latency_ms for _ in range(3)]
    assert len(set(sessions)) == 3 and sessions[0] == one.latency_ms
    assert max(sessions) < 1.02 * min(sessions)


def test_the_clock_of_the_core_and_the_latency_agree(
    adb: Adb, phone: EmulatedPhones, artifact: Artifact, measured: Measures
) -> None:
    """A throttled phone is slower by as much as its own clock says, whichever way one asks it."""
    serial = phone.addresses[0]
    cool = measured(serial, artifact)
    phone[0].inject(PhoneFault.THROTTLED, value=0.6)
    hot = measured(serial, artifact)
    factor = hot.latency_ms / cool.latency_ms
    assert 1.5 < factor < 2.1
    for measurement in (cool, hot):
        khz, spin_ns = (measurement.conditions["before"][name] for name in ("cpu_khz", "spin_ns"))
        assert spin_ns * khz["4"] == pytest.approx(300_000 * 1e6, rel=0.002)
    ratio = cool.conditions["before"]["cpu_khz"]["4"] / hot.conditions["before"]["cpu_khz"]["4"]
    assert factor == pytest.approx(ratio, rel=0.02)
    assert int(adb.text(serial, "cat /sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq")) == int(
        hot.conditions["before"]["cpu_khz"]["4"]
    )
    phone[0].heal()
    assert measured(serial, artifact).latency_ms == pytest.approx(cool.latency_ms, rel=0.02)


def test_a_hot_phone_is_slow_until_it_has_cooled(
    adb: Adb, phone: EmulatedPhones, artifact: Artifact, measured: Measures
) -> None:
    serial = phone.addresses[0]
    cool = measured(serial, artifact)
    phone[0].set(heat_c=57.0)
    hot = measured(serial, artifact)
    assert hot.latency_ms > 1.3 * cool.latency_ms
    zones = dict(hot.conditions["before"]["thermal_millicelsius"])
    assert 50_000 < zones["cpu-1-0"] <= 57_000
    assert "Thermal Status: 3" in adb.text(serial, "dumpsys thermalservice")


def test_little_cores_are_slower(phone: EmulatedPhones, artifact: Artifact, measured: Measures) -> None:
    big, little = (measured(phone.addresses[0], artifact, cpu=cpu) for cpu in (4, 0))
    assert little.latency_ms > 1.3 * big.latency_ms
    assert little.conditions["affinity"] == {"asked": 0, "obtained": [0]}


def bench(adb: Adb, serial: str, artifact: Artifact, *options: str) -> Completed:
    """The artifact by hand, with an open stdin."""
    assert adb("push", str(artifact.path), PROGRAM, serial=serial).returncode == 0
    client = adb.start("shell", shlex.join([PROGRAM, "bench", *options]), serial=serial)
    assert client.stdin is not None and client.stdout is not None and client.stderr is not None
    with client:
        stdout, stderr = client.stdout.read(), client.stderr.read()
    return Completed(client.returncode, stdout, stderr)


def test_a_core_that_is_not_there(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    done = bench(adb, phone.addresses[0], artifact, "--cpu", "17")
    assert done.exit_status == 11 and b"core 17 is switched off or not for this program; allowed are" in done.stderr


def test_noise_is_told_from_a_latency(phone: EmulatedPhones, artifact: Artifact, measured: Measures) -> None:
    phone[0].inject(PhoneFault.NOISY)
    with pytest.raises(Unstable):
        measured(phone.addresses[0], artifact, protocol=Protocol(require_quiet=True))


def test_a_wrong_answer_is_no_latency(phone: EmulatedPhones, artifact: Artifact, measured: Measures) -> None:
    phone[0].inject(PhoneFault.FLIPPED)
    with pytest.raises(WrongAnswer):
        measured(phone.addresses[0], artifact)


def test_a_crash_is_a_signal(phone: EmulatedPhones, artifact: Artifact, measured: Measures) -> None:
    phone[0].inject(PhoneFault.CRASH)
    with pytest.raises(RunnerFailed, match=r"134 \(signal 6\)"):
        measured(phone.addresses[0], artifact)


def test_a_modelled_second_takes_its_time(adb: Adb, artifact: Artifact) -> None:
    options = ["--die-with-stdin", "--min-time-s", "0.25", "--warmup-s", "0.1", "--max-samples", "50000"]
    with EmulatedPhones(["emu-x86-mid"]) as phones:
        serial = phones.addresses[0]
        adb.connect(serial)
        begin = time.monotonic()
        report = parse_report(BenchReport, bench(adb, serial, artifact, *options), key=artifact.key)
        assert time.monotonic() - begin > 0.35
        assert report.warmup_runs > 0 and report.profile is None
        assert sum(report.samples_ns) == pytest.approx(0.25e9, rel=0.05)
        limited = bench(adb, serial, artifact, *options, "--wall-limit-s", "0.2")
        with pytest.raises(DeadlineExceeded):
            parse_report(BenchReport, limited, key=artifact.key)
        client = adb.start("shell", f"{PROGRAM} bench --die-with-stdin --warmup-s 30", serial=serial)
        with client:
            assert client.stdin is not None and client.stderr is not None
            client.stdin.close()
            lost = Completed(client.wait(5), b"", client.stderr.read())
        with pytest.raises(DeviceGone):
            parse_report(BenchReport, lost, key=artifact.key)
        client = adb.start("shell", f"echo $$; {PROGRAM} bench --warmup-s 30", serial=serial)
        with client:
            assert client.stdout is not None
            group = client.stdout.readline().decode().strip()
            time.sleep(0.3)
            assert "artifact" in adb.text(serial, "ps") and phones[0].status.alive == 1  # it runs, says the phone
            adb.text(serial, f"kill -9 -{group}")
            assert client.wait(5) == 137
            assert phones[0].status.alive == 0
        ended = phones[0].runs[-1]  # as its host sees it: the real one was short, and ended well
        assert ended.exit_status == 137 and ended.ended_s is not None and ended.ended_s - ended.started_s > 0.3


def test_threads_run_on_the_cores_that_were_asked(
    phone: EmulatedPhones, tmp_path: Path, opens: Callable[..., AdbTransport]
) -> None:
    artifact = dataclasses.replace(tiny_artifact(tmp_path, AVX2, defines=["THREADS=2"]), threads=2)
    conditions = measure(opens(phone.addresses[0], threads=2), artifact).conditions
    assert conditions["affinity"] == {"asked": [4, 5], "obtained": [4, 5]}
    assert conditions["thread_cores"] == [[4], [5]]


def test_the_hosts_clock_passes_unchanged(adb: Adb, artifact: Artifact, measured: Measures) -> None:
    with EmulatedPhones(["emu-x86-mid"], clock="host") as phones:
        adb.connect(phones.addresses[0])
        loose = Protocol(warmup_s=0.0, min_time_s=0.02, max_time_s=0.04, max_relative_ci=10.0)
        measurement = measured(phones.addresses[0], artifact, protocol=loose)
        assert measurement.conditions["affinity"] == {"asked": 4, "obtained": [4]}
        zones = dict(measurement.conditions["before"]["thermal_millicelsius"])
        assert "skin-therm" not in zones  # of this machine, not of the model


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-aarch64 (qemu-user)")
def test_arm_phones_run_arm_programs(tmp_path: Path, run_fleet: Fleets) -> None:
    artifact = tiny_artifact(tmp_path, NEON)
    flagship, midrange, entry = run_fleet(["emu-flagship", "emu-midrange", "emu-entry"], artifact)
    assert flagship.latency_ms < midrange.latency_ms < entry.latency_ms
    assert flagship.max_relative_error < 1e-5
