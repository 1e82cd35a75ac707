from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.measurement.codec import replicated_from_json, replicated_to_json
from device_farm.measurement.replicates import Action, Scope, plan_next, replicate
from device_farm.measurement.types import DeviceFacts, Measurement


def measured(serial: str, ms: float, **fields: Any) -> Measurement:
    measurement = Measurement(
        artifact_key="net",
        device=DeviceFacts(serial=serial, model="pixel", target="aarch64-neon"),
        protocol_key="p",
        latency_ms=ms,
        ci_low_ms=ms * 0.99,
        ci_high_ms=ms * 1.01,
        samples=100,
        percentiles_ms={"p50": ms},
        max_relative_error=0.0,
        steps_ms=(),
        conditions={},
    )
    return dataclasses.replace(measurement, **fields)


def drawn(
    random: np.random.Generator, *, phones: int, sessions: int, between_phones: float, between_sessions: float
) -> list[Measurement]:
    return [
        measured(f"p{i}", 5.0 * unit * (1 + between_sessions * noise))
        for i, unit in enumerate(1 + between_phones * random.standard_normal(phones))
        for noise in random.standard_normal(sessions)
    ]


def test_one_measurement_is_believed_as_far_as_experience_goes() -> None:
    one = replicate([measured("a", 5.0)])
    assert (one.latency_ms, one.phones, one.sessions) == (5.0, 1, 1)
    assert one.assumed == ("between_sessions", "between_phones")
    assert 0.08 < one.half_width < 0.15  # one phone does not speak for its model
    assert replicate([measured("a", 5.0)], scope=Scope.PHONES).half_width < 0.05


def test_sessions_and_phones_narrow_the_interval() -> None:
    a = [measured("a", ms) for ms in (5.0, 5.02, 4.99)]
    b = [measured("b", ms) for ms in (5.1, 5.08)]
    c = [measured("c", ms) for ms in (4.95, 4.97)]
    widths = [replicate(m).half_width for m in (a, a + b, a + b + c)]
    assert widths == sorted(widths, reverse=True)
    result = replicate(a + b + c)
    assert result.ci_low_ms < result.latency_ms < result.ci_high_ms
    assert result.latency_ms == pytest.approx(5.02, abs=0.03)
    assert (result.phones, result.sessions, result.assumed, result.left_out) == (3, 7, (), ())
    assert result.between_sessions < result.between_phones < 0.05


def test_intervals_cover_the_model_as_often_as_they_say() -> None:
    """Models whose phones differ by 2 to 4 %, sessions by 0.3 to 2 %. With two phones they are a little too careful."""
    random = np.random.default_rng(0)
    covered = {}
    for phones, sessions in [(2, 1), (2, 3), (3, 2), (5, 2), (6, 4)]:
        hits = []
        for _ in range(1000):
            spreads = {"between_phones": random.uniform(0.02, 0.04), "between_sessions": random.uniform(0.003, 0.02)}
            result = replicate(drawn(random, phones=phones, sessions=sessions, **spreads))
            hits.append(result.ci_low_ms <= 5.0 <= result.ci_high_ms)
        covered[phones, sessions] = float(np.mean(hits))
    assert min(covered.values()) >= 0.92, covered
    assert 0.93 <= np.mean(list(covered.values())) <= 0.985, covered


@pytest.mark.parametrize("sessions", [1, 2, 3, 6])
def test_intervals_of_the_phones_themselves_cover(sessions: int) -> None:
    random = np.random.default_rng(sessions)
    covered = []
    for _ in range(600):
        units = 1 + 0.03 * random.standard_normal(3)
        spread = random.uniform(0.005, 0.02)
        ms = [
            measured(f"p{i}", 5.0 * u * (1 + spread * n))
            for i, u in enumerate(units)
            for n in random.standard_normal(sessions)
        ]
        result = replicate(ms, scope=Scope.PHONES)
        covered.append(result.ci_low_ms <= 5.0 * units.mean() <= result.ci_high_ms)
    assert 0.90 <= np.mean(covered) <= 0.995


@pytest.mark.parametrize("between_phones", [0.0, 0.06])
def test_unlikely_models_are_not_far_off(between_phones: float) -> None:
    """Phones that do not differ at all, or twice as much as expected: too sure or too careful by a few percent."""
    random = np.random.default_rng(7)
    estimates = [
        replicate(drawn(random, phones=4, sessions=2, between_phones=between_phones, between_sessions=0.01))
        for _ in range(400)
    ]
    assert np.mean([estimate.ci_low_ms <= 5.0 <= estimate.ci_high_ms for estimate in estimates]) >= 0.86


def test_variances_are_found() -> None:
    random = np.random.default_rng(3)
    result = replicate(drawn(random, phones=60, sessions=5, between_phones=0.04, between_sessions=0.012))
    assert result.between_sessions == pytest.approx(0.012, rel=0.15)
    assert result.between_phones == pytest.approx(0.04, rel=0.3)


def test_an_odd_session_is_left_out_and_said() -> None:
    ms = [measured("a", v) for v in (5.0, 5.02, 6.1, 4.98)] + [measured("b", v) for v in (5.1, 5.1)]
    result = replicate(ms)
    assert result.sessions == 5
    assert result.latency_ms < 5.2
    assert [(left.serial, left.latency_ms) for left in result.left_out] == [("a", 6.1)]
    assert result.left_out[0].reason == "session +21.8% off the median of 4 on a (limit 3.0%)"


def test_an_odd_phone_is_left_out_and_said() -> None:
    ms = [measured(s, v) for s, v in (("a", 5.0), ("b", 5.1), ("c", 4.9), ("slow", 6.5), ("slow", 6.5))]
    result = replicate(ms)
    assert result.phones == 3 and result.latency_ms == pytest.approx(5.0, rel=0.01)
    assert result.left_out[0].reason == "phone +28.7% off the median of 4 phones (limit 11.7%)"


def test_what_contradicts_itself_is_wide_rather_than_sorted_out() -> None:
    halves = replicate([measured("a", v) for v in (5.0, 6.0)] + [measured("b", v) for v in (5.0, 6.0)])
    assert halves.left_out == () and halves.half_width > 0.1
    two = replicate([measured("a", 5.0), measured("b", 6.0)])
    assert two.phones == 2 and two.half_width > 0.15


def test_what_is_not_comparable_is_refused() -> None:
    with pytest.raises(ValueError, match="expected measurements, got none"):
        replicate([])
    with pytest.raises(ValueError, match="different artifacts are not replicates: net, other"):
        replicate([measured("a", 5.0), measured("a", 5.0, artifact_key="other")])
    with pytest.raises(ValueError, match="different protocols"):
        replicate([measured("a", 5.0), measured("a", 5.0, protocol_key="q")])
    other = DeviceFacts(serial="b", model="galaxy", target="aarch64-neon")
    with pytest.raises(ValueError, match="different models are not replicates: galaxy, pixel"):
        replicate([measured("a", 5.0), measured("b", 5.0, device=other)])
    with pytest.raises(ValueError, match="asked must be above 0"):
        plan_next([measured("a", 5.0)], asked=0.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.5, 50)), min_size=1, max_size=15))
def test_an_estimate_lies_among_what_was_measured(pairs: Sequence[tuple[str, float]]) -> None:
    measurements = [measured(serial, ms) for serial, ms in pairs]
    result = replicate(measurements)
    values = [ms for _, ms in pairs]
    assert min(values) * 0.999 <= result.latency_ms <= max(values) * 1.001
    assert result.ci_low_ms < result.latency_ms < result.ci_high_ms
    assert result.sessions <= len(pairs) and result.phones >= len({s for s, _ in pairs}) / 2
    assert replicate(list(reversed(measurements))).latency_ms == pytest.approx(result.latency_ms)
    assert replicated_from_json(json.loads(json.dumps(replicated_to_json(result)))) == result


def test_the_plan_asks_for_what_tells_most() -> None:
    one = [measured("a", 5.0)]
    plan = plan_next(one, asked=0.05, spare=["b", "c"])
    assert (plan.action, plan.serial) == (Action.PHONE, "b")
    assert plan.reason.startswith("the first session on b: +-11.6% becomes about +-")
    assert plan.half_width < replicate(one).half_width
    hopeless = plan_next(one, asked=0.05)
    assert (hopeless.action, hopeless.serial) == (Action.HOPELESS, None)
    assert "more phones of the model are needed" in hopeless.reason
    sessions = plan_next([measured("a", 5.0), measured("a", 5.1), measured("b", 5.0)], asked=0.01, scope=Scope.PHONES)
    assert (sessions.action, sessions.serial) == (Action.SESSION, "b")
    assert plan_next(one, asked=0.5).action is Action.DONE
    assert plan_next([*one, measured("b", 5.0)], asked=0.01, spare=["a", "b"]).action is Action.HOPELESS


@pytest.mark.parametrize(("asked", "fewest", "most"), [(0.05, 2, 6), (0.03, 4, 14)])
def test_following_the_plan_ends_at_what_was_asked(asked: float, fewest: int, most: int) -> None:
    random = np.random.default_rng(11)
    counts, covered = [], []
    for _ in range(40):
        units = dict(zip("abcdefghijkl", 1 + 0.02 * random.standard_normal(12), strict=True))
        measurements = [measured("a", 5.0 * units["a"])]
        while (plan := plan_next(measurements, asked=asked, spare=list(units))).action is not Action.DONE:
            assert plan.serial is not None and len(measurements) < 40
            measurements.append(measured(plan.serial, 5.0 * units[plan.serial] * (1 + 0.01 * random.standard_normal())))
        result = replicate(measurements)
        assert result.half_width <= asked * 1.001
        counts.append(len(measurements))
        covered.append(result.ci_low_ms <= 5.0 <= result.ci_high_ms)
    assert fewest <= np.median(counts) <= most
    assert np.mean(covered) >= 0.90


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"latency_ms": -1.0}, "latency_ms"),
        ({"latency_ms": 99.0}, "outside its interval"),
        ({"phones": 0}, "phones"),
        ({"scope": "galaxy"}, "scope"),
        ({"assumed": ["nothing"]}, "assumed"),
        ({"extra": 1}, "extra"),
    ],
)
def test_json_of_something_else_is_refused(edit: dict[str, Any], message: str) -> None:
    data = replicated_to_json(replicate([measured("a", 5.0)]))
    with pytest.raises(ValueError, match=f"not a replicated latency: .*{message}"):
        replicated_from_json(data | edit)
