"""Real artifacts through the real adb: the answer is computed, the times are the model's."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.target import AVX2, NEON
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.models import find_model
from device_farm.errors import DeadlineExceeded, DeviceGone, RunnerFailed, Unstable, WrongAnswer
from device_farm.measurement.report import BenchReport, parse_report
from device_farm.measurement.session import measure
from device_farm.measurement.types import DeviceConditions, DeviceFacts, Measurement, Protocol
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed, Transport

WORK = "/data/local/tmp/npas"


class ShellTransport(Transport):
    """As much of a transport as `measure` needs, by the adb command. The real one is transport/adb."""

    def __init__(self, adb: Adb, serial: str, *, cpu: int = 0, cpus: tuple[int, ...] = ()) -> None:
        self._adb, self._serial = adb, serial
        self._facts = DeviceFacts(
            serial, "emulated", AVX2.name, emulated=True, cpu=cpu, cpus=cpus, threads=len(cpus) or 1
        )

    def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
        return self._facts

    def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
        raise NotImplementedError

    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        done = self._adb("push", str(local), f"{WORK}/{remote_name}", serial=self._serial)
        assert done.returncode == 0, done

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        client = self._adb.start("shell", f"cd {WORK} && ./{' '.join(argv)}", serial=self._serial)
        assert client.stdin is not None and client.stdout is not None and client.stderr is not None
        with client:  # stdin stays open until the program has ended
            stdout, stderr = client.stdout.read(), client.stderr.read()
        return Completed(client.returncode, stdout, stderr)

    def pull(self, remote_name: str, *, timeout_s: float = 30.0) -> bytes:
        raise NotImplementedError

    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_artifact(tmp_path_factory.mktemp("artifacts"), AVX2)


def measured(
    adb: Adb, serial: str, artifact: Artifact, *, cpu: int = 4, protocol: Protocol | None = None
) -> Measurement:
    transport = ShellTransport(adb, serial, cpu=cpu)
    transport.push(artifact.path, _name(artifact))
    return measure(transport, artifact, protocol or Protocol())


def _name(artifact: Artifact) -> str:
    from device_farm.measurement.session import remote_name

    return remote_name(artifact.path)


def run_fleet(adb: Adb, models: Sequence[str], artifact: Artifact, *, seed: int = 0) -> list[Measurement]:
    with EmulatedPhones(models, seed=seed, pace=0.0) as phones:
        for address in phones.addresses:
            adb.connect(address)
        cores = [find_model(name).big_core for name in models]
        return [measured(adb, address, artifact, cpu=cpu) for address, cpu in zip(phones.addresses, cores, strict=True)]


def test_models_differ_and_repeat(adb: Adb, artifact: Artifact) -> None:
    models = ["emu-x86-fast", "emu-x86-mid", "emu-x86-slow"]
    first, second = (run_fleet(adb, models, artifact) for _ in range(2))
    fast, mid, slow = (measurement.latency_ms for measurement in first)
    assert 1.3 * fast < mid and 1.3 * mid < slow
    assert [m.latency_ms for m in second] == [m.latency_ms for m in first]
    for measurement in first:
        assert measurement.conditions["quiet"] and measurement.conditions["attempts"] == 1
        assert measurement.max_relative_error < 1e-5
        assert measurement.conditions["affinity"] == {"asked": 4, "obtained": [4]} or measurement is first[2]
        profile_ms = sum(ms for _, ms in measurement.steps_ms)
        assert profile_ms == pytest.approx(measurement.latency_ms, rel=0.03)


def test_phones_of_a_model_differ_a_little_and_so_do_their_sessions(adb: Adb, artifact: Artifact) -> None:
    one, other = run_fleet(adb, ["emu-x86-mid"] * 2, artifact, seed=3)
    assert one.latency_ms != other.latency_ms
    assert one.latency_ms == pytest.approx(other.latency_ms, rel=0.05)
    with EmulatedPhones(["emu-x86-mid"], seed=3, pace=0.0) as phones:
        adb.connect(phones.addresses[0])
        sessions = [measured(adb, phones.addresses[0], artifact).latency_ms for _ in range(3)]
    assert len(set(sessions)) == 3 and sessions[0] == one.latency_ms
    assert max(sessions) < 1.02 * min(sessions)


def test_the_clock_of_the_core_and_the_latency_agree(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    """A throttled phone is slower by as much as its own clock says, whichever way one asks it."""
    serial = phone.addresses[0]
    cool = measured(adb, serial, artifact)
    phone[0].inject(PhoneFault.THROTTLED, value=0.6)
    hot = measured(adb, serial, artifact)
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
    assert measured(adb, serial, artifact).latency_ms == pytest.approx(cool.latency_ms, rel=0.02)


def test_a_hot_phone_is_slow_until_it_has_cooled(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    serial = phone.addresses[0]
    cool = measured(adb, serial, artifact)
    phone[0].set(heat_c=57.0)
    hot = measured(adb, serial, artifact)
    assert hot.latency_ms > 1.3 * cool.latency_ms
    zones = dict(hot.conditions["before"]["thermal_millicelsius"])
    assert 50_000 < zones["cpu-1-0"] <= 57_000
    assert "Thermal Status: 3" in adb.text(serial, "dumpsys thermalservice")


def test_little_cores_are_slower(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    big, little = (measured(adb, phone.addresses[0], artifact, cpu=cpu) for cpu in (4, 0))
    assert little.latency_ms > 1.3 * big.latency_ms
    assert little.conditions["affinity"] == {"asked": 0, "obtained": [0]}


def test_noise_is_told_from_a_latency(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    phone[0].inject(PhoneFault.NOISY)
    with pytest.raises(Unstable):
        measured(adb, phone.addresses[0], artifact, protocol=Protocol(require_quiet=True))


def test_a_wrong_answer_is_no_latency(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    phone[0].inject(PhoneFault.FLIPPED)
    with pytest.raises(WrongAnswer):
        measured(adb, phone.addresses[0], artifact)


def test_a_crash_is_a_signal(adb: Adb, phone: EmulatedPhones, artifact: Artifact) -> None:
    phone[0].inject(PhoneFault.CRASH)
    with pytest.raises(RunnerFailed, match=r"134 \(signal 6\)"):
        measured(adb, phone.addresses[0], artifact)


def test_a_modelled_second_takes_its_time(adb: Adb, artifact: Artifact) -> None:
    with EmulatedPhones(["emu-x86-mid"]) as phones:
        adb.connect(phones.addresses[0])
        transport = ShellTransport(adb, phones.addresses[0], cpu=4)
        transport.push(artifact.path, "artifact")
        bench = [
            "artifact",
            "bench",
            "--die-with-stdin",
            "--min-time-s",
            "0.3",
            "--warmup-s",
            "0.1",
            "--max-samples",
            "1000000",
        ]
        report = parse_report(BenchReport, transport.run(bench, timeout_s=10), key=artifact.key)
        assert report.warmup_runs > 0 and report.profile is None
        assert sum(report.samples_ns) == pytest.approx(0.3e9, rel=0.05)
        run = phones[0].runs[-1]
        assert run.ended_s is not None  # its own part is short
        with pytest.raises(DeadlineExceeded):
            parse_report(BenchReport, transport.run([*bench, "--wall-limit-s", "0.2"], timeout_s=10), key=artifact.key)
        client = adb.start(
            "shell",
            f"{WORK}/artifact {' '.join(bench[1:])} --min-time-s 30 --max-time-s 30",
            serial=phones.addresses[0],
        )
        assert client.stdin is not None
        client.stdin.close()
        assert client.wait(5) == 7
        done = Completed(7, b"", b"npas-runner: stdin ended, so the link is lost\n")
        with pytest.raises(DeviceGone):
            parse_report(BenchReport, done, key=artifact.key)
        client.stdin = None
        client.communicate()


def test_threads_are_faster_and_on_the_cores_that_were_asked(adb: Adb, phone: EmulatedPhones, tmp_path: Path) -> None:
    artifact = dataclasses.replace(tiny_artifact(tmp_path, AVX2, defines=["THREADS=2"]), threads=2)
    transport = ShellTransport(adb, phone.addresses[0], cpu=4, cpus=(4, 5))
    transport.push(artifact.path, _name(artifact))
    conditions = measure(transport, artifact).conditions
    assert conditions["affinity"] == {"asked": [4, 5], "obtained": [4, 5]}
    assert conditions["thread_cores"] == [[4], [5]]


def test_the_hosts_clock_passes_unchanged(adb: Adb, artifact: Artifact) -> None:
    with EmulatedPhones(["emu-x86-mid"], clock="host") as phones:
        adb.connect(phones.addresses[0])
        loose = Protocol(warmup_s=0.0, min_time_s=0.02, max_time_s=0.04, max_relative_ci=10.0)
        measurement = measured(adb, phones.addresses[0], artifact, protocol=loose)
        assert measurement.conditions["before"]["thermal_millicelsius"] == []  # of this machine, not of the model


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-aarch64 (qemu-user)")
def test_arm_phones_run_arm_programs(adb: Adb, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, NEON)
    models = ["emu-flagship", "emu-midrange", "emu-entry"]
    with EmulatedPhones(models, pace=0.0) as phones:
        for address in phones.addresses:
            adb.connect(address)
        cores = (7, 6, 0)  # the fastest of each
        flagship, midrange, entry = (
            measured(adb, address, artifact, cpu=cpu) for address, cpu in zip(phones.addresses, cores, strict=True)
        )
    assert flagship.latency_ms < midrange.latency_ms < entry.latency_ms
    assert flagship.max_relative_error < 1e-5
