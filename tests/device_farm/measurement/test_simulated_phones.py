"""Whole sessions on simulated phones: they heat up, throttle, drift, are slow from the start, are used by somebody.

What must hold: a latency that is reported is within 3 % of the phone's own at its best, or there is none.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.compiler.artifact import Artifact
from device_farm.errors import FarmError, Refused, RunnerFailed, Unfit, Unstable, WrongAnswer
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.codec import measurement_from_json, measurement_to_json
from device_farm.measurement.drift import BASELINE_READINGS, baseline_of_model
from device_farm.measurement.sentinel import Sentinel
from device_farm.measurement.session import Meter, remote_name
from device_farm.measurement.types import DeviceConditions, Measurement, Protocol
from device_farm.testing.simulated_phone import SCENARIOS, SimulatedPhone, write_program
from device_farm.transport.base import Completed

RULES = AdmissionRules()
PROTOCOL = Protocol(min_time_s=0.1, max_time_s=0.2)


Make = Callable[..., Artifact]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def artifact(key: str, ms: float, memory: float = 0.2) -> Artifact:
        return write_program(tmp_path, key, ms=ms, memory=memory)

    return artifact


def meter_of(
    phone: SimulatedPhone,
    make: Make,
    *,
    best: bool = False,
    baseline_ms: float | None = None,
    model_ms: float | None = None,
) -> Meter:
    """With `best`, it knows what the sentinel takes on these phones at their best."""
    artifact = make("sentinel", 0.4)
    sentinel = Sentinel(artifact, 0.4, 80_000.0) if best else Sentinel(artifact, baseline_ms, model_ms=model_ms)
    return Meter(phone, sentinel=sentinel, rules=RULES, clock=lambda: phone.now_s)


def work(
    phone: SimulatedPhone, meter: Meter, artifacts: Sequence[Artifact], *, times: int
) -> list[Measurement | FarmError]:
    """A farm's day: one job after the other; a phone that may not measure rests as long as it says."""
    said: list[Measurement | FarmError] = []
    for artifact in itertools.islice(itertools.cycle(artifacts), times):
        try:
            said.append(meter.measure(artifact, PROTOCOL))
        except (Unfit, Unstable) as error:
            said.append(error)
            phone.spend(error.retry_after_s if isinstance(error, Unfit) else 1.0, load=0.0)
    return said


def errors_of(said: Sequence[Measurement | FarmError], truth_ms: dict[str, float]) -> list[float]:
    return [m.latency_ms / truth_ms[m.artifact_key] - 1 for m in said if isinstance(m, Measurement)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_latency_is_within_three_percent_of_the_phones_best_or_there_is_none(scenario: str, make: Make) -> None:
    truth_ms = {"small": 0.9, "large": 5.0, "narrow": 2.0}
    artifacts = [make("small", 0.9, 0.05), make("large", 5.0, 0.3), make("narrow", 2.0, 0.2)]
    errors: list[float] = []
    for seed in range(3):
        phone = SCENARIOS[scenario](seed)
        said = work(phone, meter_of(phone, make), artifacts, times=24)
        errors += errors_of(said, truth_ms)
    assert len(errors) >= 12  # of 72: it waits until it is well, it does not give up
    assert max(map(abs, errors)) <= 0.03
    assert abs(float(np.median(errors))) <= 0.01


def test_without_a_sentinel_the_same_phones_report_wrong_numbers(make: Make) -> None:
    """The scenarios above are hard enough to need one."""
    wrong = []
    for name, scenario in SCENARIOS.items():
        phone = scenario(3)
        said: list[Measurement | FarmError] = []
        for _ in range(16):
            said += work(phone, Meter(phone), [make("small", 0.9)], times=1)
            phone.spend(5.0, load=1.0)
        if max(map(abs, errors_of(said, {"small": 0.9}))) > 0.03:
            wrong.append(name)
    assert len(wrong) >= 5


def test_intervals_of_drifting_phones_cover_the_truth(make: Make) -> None:
    covered: list[bool] = []
    for seed in range(24):
        drift = 1 + 0.045 * seed / 23  # up to what is still corrected
        phone = SimulatedPhone(seed, slow=lambda t, drift=drift: drift if t > 0.01 else 1.0, tells=False)  # type: ignore[misc]
        meter = meter_of(phone, make, best=True)
        for share in (0.05, 0.2, 0.4):
            m = meter.measure(make(f"a{share}", 2.0, share), PROTOCOL)
            covered.append(m.ci_low_ms <= 2.0 <= m.ci_high_ms)
    assert np.mean(covered) >= 0.90


def test_a_small_drift_is_corrected_and_said(make: Make) -> None:
    phone = SimulatedPhone(session_noise=0.0, slow=lambda t: 1.04)
    measurement = meter_of(phone, make, best=True).measure(make("a", 2.0), PROTOCOL)
    said = measurement.conditions["sentinel"]
    assert said["drift"] == pytest.approx(1.032, abs=0.002)  # a fifth of it waits for memory
    assert said["corrected"] and said["uncorrected_ms"] == pytest.approx(2.064, rel=0.003)
    assert measurement.latency_ms == pytest.approx(2.0, rel=0.005)
    assert (measurement.ci_high_ms - measurement.ci_low_ms) / measurement.latency_ms > 0.02
    assert measurement_from_json(json.loads(json.dumps(measurement_to_json(measurement)))) == measurement


def test_what_the_clock_does_not_explain_is_taken_again_and_then_refused(make: Make) -> None:
    """Noise on the sentinel alone, or a memory that lost half its speed: an artifact need not share it."""
    phone = SimulatedPhone(session_noise=0.0, memory=lambda t: 1.15)
    with pytest.raises(
        Unfit, match=r"[23]\.\d% above .* \(and its clock does not explain it: at most 1\.0%\)"
    ) as caught:
        meter_of(phone, make, best=True).measure(make("a", 2.0), PROTOCOL)
    assert caught.value.retry_after_s == RULES.cool_s / 2
    assert phone.runs == ["sentinel"] * 3
    noisy = SimulatedPhone(session_noise=0.0)
    noisy.memory = lambda t: 1.15 if noisy.runs.count("sentinel") in (1, 3) else 1.0
    measurement = meter_of(noisy, make, best=True).measure(make("a", 2.0), PROTOCOL)
    assert noisy.runs == ["sentinel", "sentinel", "a", "sentinel", "sentinel"]
    assert not measurement.conditions["sentinel"]["corrected"]


def test_a_baseline_without_a_clock_finds_it_and_corrects_then(make: Make) -> None:
    phone = SimulatedPhone(session_noise=0.0)
    meter = meter_of(phone, make, baseline_ms=0.4)
    meter.measure(make("a", 2.0), PROTOCOL)
    assert meter.baseline is not None and meter.baseline.spin_ns == 80_000
    phone.slow = lambda t: 1.04
    phone.spend(60.0, load=0.0)
    assert meter.measure(make("a", 2.0), PROTOCOL).conditions["sentinel"]["corrected"]
    with pytest.raises(Unfit, match="clock does not explain it"):
        meter_of(phone, make, baseline_ms=0.4).measure(make("a", 2.0), PROTOCOL)


def test_correction_can_be_switched_off_and_then_less_is_believed(make: Make) -> None:
    none = Protocol(min_time_s=0.1, max_time_s=0.2, max_correction=0.0)
    phone = SimulatedPhone(session_noise=0.0, slow=lambda t: 1.005)
    measurement = meter_of(phone, make, best=True).measure(make("a", 2.0), none)
    assert not measurement.conditions["sentinel"]["corrected"]
    phone.slow = lambda t: 1.03
    with pytest.raises(
        Unfit, match=r"its sentinel takes 0\.4\d+ ms, 2\.\d% above its baseline of 0\.4 ms \(at most 0%\)"
    ):
        meter_of(phone, make, best=True).measure(make("a", 2.0), none)


def test_a_phone_far_off_its_baseline_runs_nothing_but_its_sentinel(make: Make) -> None:
    phone = SimulatedPhone(slow=lambda t: 1.4)
    with pytest.raises(Unfit, match=r"% above its baseline of 0\.4 ms \(at most 10%\)") as caught:
        meter_of(phone, make, best=True).measure(make("a", 2.0), PROTOCOL)
    assert caught.value.retry_after_s == RULES.cool_s
    assert phone.runs == ["sentinel"]


def test_a_busy_phone_pays_one_reading_a_measurement(make: Make) -> None:
    phone = SimulatedPhone()
    meter = meter_of(phone, make, best=True)
    for _ in range(4):
        meter.measure(make("a", 2.0), PROTOCOL)
    assert phone.runs == ["sentinel", *["a", "sentinel"] * 4]
    phone.spend(60.0, load=0.0)
    meter.measure(make("a", 2.0), PROTOCOL)
    assert phone.runs[-3:] == ["sentinel", "a", "sentinel"]


def test_what_changes_between_the_readings_is_measured_again(make: Make) -> None:
    """The clock falls while the artifact runs and is back for the sentinel: only the session's own clock tells."""
    phone = SimulatedPhone(session_noise=0.0, tells=False)
    phone.slow = lambda t: 1.5 if phone.runs.count("a") == 1 and phone.runs[-1] == "a" else 1.0
    measurement = meter_of(phone, make, best=True).measure(make("a", 2.0), PROTOCOL)
    assert measurement.latency_ms == pytest.approx(2.0, rel=0.005)
    assert phone.runs.count("a") == 2
    phone.slow = lambda t: 1.5 if phone.runs[-1] == "a" else 1.0
    with pytest.raises(Unfit, match=r"in each of 3 attempts: the core's clock was 33\.\d% slower than beside it"):
        meter_of(phone, make, best=True).measure(make("a", 2.0), PROTOCOL)


def test_a_screen_that_goes_on_is_somebody_who_uses_the_phone(make: Make) -> None:
    phone = SimulatedPhone()

    class Used(SimulatedPhone):
        def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
            self.screen_on = not self.screen_on
            return super().conditions()

    used = Used()
    with pytest.raises(Unfit, match="its screen went o"):
        Meter(used, rules=RULES).measure(make("a", 2.0), Protocol(attempts=1))
    assert Meter(phone, rules=RULES).measure(make("a", 2.0), PROTOCOL).latency_ms == pytest.approx(2.0, rel=0.02)


def test_a_hot_phone_does_not_even_start_and_says_when_to_come_back(make: Make) -> None:
    phone = SimulatedPhone(temperature_c=75.0, throttles_c=80.0)
    meter = Meter(phone, rules=RULES, clock=lambda: phone.now_s)
    with pytest.raises(Unfit, match=r"cpu-7 has 75\.0 C, at most 60 C") as caught:
        meter.measure(make("a", 2.0), PROTOCOL)
    assert phone.runs == []
    phone.spend(caught.value.retry_after_s, load=0.0)
    assert meter.measure(make("a", 2.0), PROTOCOL).conditions["device_before"]["thermal_status"] == 0


def test_the_first_measurement_takes_the_baseline_and_it_can_be_remembered(make: Make) -> None:
    phone = SimulatedPhone(unit=1.05)
    meter = meter_of(phone, make)
    assert meter.baseline is None
    meter.measure(make("a", 2.0), PROTOCOL)
    assert meter.baseline is not None
    assert meter.baseline.baseline_ms == pytest.approx(0.42, rel=0.01)
    assert phone.runs == ["sentinel"] * BASELINE_READINGS + ["a", "sentinel"]
    again = meter_of(phone, make, baseline_ms=meter.baseline.baseline_ms)
    assert again.measure(make("a", 2.0), PROTOCOL).conditions["sentinel"]["baseline_ms"] == meter.baseline.baseline_ms


def test_a_baseline_of_a_bad_hour_replaces_itself(make: Make) -> None:
    """It was taken at 80 % of the clock; nobody noticed, as the phone tells nothing."""
    phone = SimulatedPhone(slow=lambda t: 1.25 if t < 30 else 1.0, tells=False)
    meter = meter_of(phone, make)
    meter.calibrate()
    phone.spend(60.0, load=0.0)
    said = work(phone, meter, [make("a", 2.0)], times=10)
    assert [type(s) for s in said] == [Unfit] * 3 + [Measurement] * 7
    assert "the baseline was taken while it was not at its best" in str(said[0])
    assert max(map(abs, errors_of(said, {"a": 2.0}))) <= 0.03


def test_a_phone_that_was_slow_from_the_start_is_told_by_its_sisters(make: Make) -> None:
    phones = [SimulatedPhone(seed, unit=unit) for seed, unit in enumerate((1.0, 1.01, 0.99, 1.02, 1.2))]
    meters = [meter_of(phone, make) for phone in phones]
    baselines = {f"phone-{i}": meter.calibrate().baseline_ms for i, meter in enumerate(meters)}
    model = baseline_of_model(baselines)
    assert model is not None and model.off == ("phone-4",)
    assert model.describe("phone-4") in (
        "phone-4 takes 19% longer than its model's median phone",
        "phone-4 takes 18% longer than its model's median phone",
        "phone-4 takes 20% longer than its model's median phone",
    )
    for i, phone in enumerate(phones):
        meter = meter_of(phone, make, baseline_ms=baselines[f"phone-{i}"], model_ms=model.baseline_ms)
        if i == 4:
            with pytest.raises(Unfit, match=r"takes \d+% longer than on the median phone of its model"):
                meter.measure(make("a", 2.0), PROTOCOL)
        else:
            assert meter.measure(make("a", 2.0), PROTOCOL).latency_ms == pytest.approx(2.0 * phone.unit, rel=0.03)


@pytest.mark.parametrize(("fault", "error"), [("wrong", WrongAnswer), ("crash", RunnerFailed)])
def test_a_device_that_fails_its_sentinel_too_says_nothing_about_the_artifact(
    fault: str, error: type[FarmError], make: Make
) -> None:
    artifact = make("a", 2.0)
    phone = SimulatedPhone(broken=lambda key: fault if key == "a" else "")
    with pytest.raises(error):
        meter_of(phone, make, best=True).measure(artifact, PROTOCOL)
    twice = ["a"] if fault == "wrong" else []  # what crashes is not let loose on it again
    assert phone.runs == ["sentinel", "a", "sentinel", *twice]  # the device is well, so it is the artifact
    broken = SimulatedPhone(broken=lambda key: fault if "a" in broken.runs else "")  # it breaks with this session
    with pytest.raises(Unfit, match="it fails its sentinel"):
        meter_of(broken, make, best=True).measure(artifact, PROTOCOL)
    with pytest.raises(Unfit, match="it fails its sentinel"):
        meter_of(broken, make, best=True).measure(artifact, PROTOCOL)
    assert broken.runs.count("a") == 1  # not tried again


def test_another_core_than_was_asked_for_is_refused(make: Make) -> None:
    for obtained, ran_on in ([0, 1, 2], "0, 1, 2"), ([], "none that is known"), ([6], "6"):
        phone = SimulatedPhone(obtained=obtained)
        with pytest.raises(Refused, match=rf"phone-0 did not keep the artifact on core 7: it ran on {ran_on}\."):
            Meter(phone).measure(make("a", 2.0), PROTOCOL)


def test_a_core_that_is_switched_off_is_told_before_anything_runs(make: Make) -> None:
    class Cold(SimulatedPhone):
        def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
            return DeviceConditions(cpu_khz={0: 300_000, 1: 300_000})

    phone = Cold()
    with pytest.raises(Unfit, match="core 7 is switched off"):
        Meter(phone, rules=RULES).measure(make("a", 2.0), PROTOCOL)
    assert phone.runs == []


def test_a_meter_without_a_sentinel_has_nothing_to_calibrate(make: Make) -> None:
    with pytest.raises(ValueError, match="no sentinel"):
        Meter(SimulatedPhone()).calibrate()


def test_without_rules_and_sentinel_nothing_is_asked_of_the_device(make: Make) -> None:
    class Silent(SimulatedPhone):
        def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
            raise AssertionError("nobody wants to know")

    phone, artifact = Silent(), make("a", 2.0)
    measurement = Meter(phone).measure(artifact, PROTOCOL)
    assert phone.runs == ["a"]
    assert not {"sentinel", "device_before", "device_after"} & set(measurement.conditions)
    assert remote_name(artifact.path) in phone._files


def test_a_phone_that_contradicts_itself_is_no_witness(make: Make) -> None:
    phone = SimulatedPhone()
    phone.broken = lambda key: "wrong" if key == "network" and phone.runs.count("network") == 1 else ""
    with pytest.raises(Unstable, match=r"contradicts itself.* gave the right answer; before, output 0 of 1 is 2"):
        meter_of(phone, make, best=True).measure(make("network", 2.0), PROTOCOL)


class SlowToTell(SimulatedPhone):
    """Every run takes so much of the host's time that no three fit into a deadline."""

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        completed = super().run(argv, **options)
        time.sleep(0.12)
        return completed


def test_a_phone_that_is_not_itself_is_unfit_and_not_late(make: Make) -> None:
    phone = SlowToTell(slow=lambda t: 1.0 + t)  # its clock falls in every session
    meter = Meter(phone, rules=RULES, clock=lambda: phone.now_s)
    # its samples may differ by as much as they like: what is wrong is the clock
    protocol = Protocol(min_time_s=0.1, max_time_s=0.2, attempts=20, deadline_s=0.6, max_relative_ci=0.5)
    began = time.monotonic()
    with pytest.raises(Unfit, match=r"not itself .*no time was left for another") as unfit:
        meter.measure(make("network", 2.0), protocol)
    # Twenty attempts would take seven seconds.
    assert unfit.value.retry_after_s == RULES.cool_s and time.monotonic() - began < 3


def test_samples_that_never_agree_are_unstable_and_not_late(make: Make) -> None:
    phone = SlowToTell(memory=lambda t: 1.0 if t % 0.07 < 0.03 else 3.0)
    strict = Protocol(min_time_s=0.1, max_time_s=0.2, attempts=20, deadline_s=0.6, max_relative_ci=1e-6)
    with pytest.raises(Unstable, match=r"not stable in [234] attempts"):
        Meter(phone).measure(make("network", 2.0, 0.9), strict)
