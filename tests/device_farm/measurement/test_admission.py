from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.errors import Unfit
from device_farm.measurement.admission import AdmissionRules, admit
from device_farm.measurement.types import DeviceConditions

RULES = AdmissionRules()
WELL = DeviceConditions(
    cpu_khz={0: 1_800_000, 7: 2_800_000},
    temperature_c={"cpu-0-0": 38.0, "battery": 29.0},
    thermal_status=0,
    battery_level=0.8,
    battery_temperature_c=29.0,
    charging=True,
    screen_on=False,
    load_1min=9.0,
)


def refusal(rules: AdmissionRules = RULES, cpus: tuple[int, ...] = (7,), **fields: object) -> Unfit:
    unfit = admit(dataclasses.replace(WELL, **fields), rules, cpus=cpus)  # type: ignore[arg-type]
    assert unfit is not None
    return unfit


def test_a_phone_that_is_well_and_one_that_tells_nothing_are_admitted() -> None:
    assert admit(WELL, RULES, cpus=(7,)) is None
    assert admit(DeviceConditions(), RULES, cpus=(7,)) is None


@pytest.mark.parametrize(
    ("fields", "message", "retry_after_s"),
    [
        ({"thermal_status": 1}, r"thermal status 1 \(light\), at most 0 \(none\) is allowed", 90),
        ({"thermal_status": 3}, r"thermal status 3 \(severe\)", 270),
        ({"thermal_status": 99}, r"thermal status 99 \(unknown\)", 600),
        ({"temperature_c": {"cpu-1": 61.0, "gpu": 75.0}}, r"gpu has 75\.0 C, at most 60 C", 60 * math.log(50 / 31.5)),
        ({"battery_temperature_c": 43.0}, r"the battery has 43\.0 C, at most 40 C", 600 * math.log(18 / 13.5)),
        ({"battery_temperature_c": 80.0}, r"the battery has 80\.0 C", 600),
        ({"battery_level": 0.24}, r"the battery holds 24 %, at least 25 % is needed$", 240),
        ({"battery_level": 0.05, "charging": False}, r"holds 5 %, .*: connect a charger", 600),
        ({"cpu_khz": {0: 1_800_000}}, r"core 7 is switched off", 90),
    ],
)
def test_what_speaks_against_a_phone_and_how_long(fields: dict[str, Any], message: str, retry_after_s: float) -> None:
    unfit = refusal(**fields)
    with pytest.raises(Unfit, match=message):
        raise unfit
    assert unfit.retry_after_s == pytest.approx(retry_after_s, rel=1e-6)


def test_all_reasons_are_told_and_the_longest_wait() -> None:
    unfit = refusal(thermal_status=2, battery_level=0.1)
    assert str(unfit) == (
        "thermal status 2 (moderate), at most 0 (none) is allowed; the battery holds 10 %, at least 25 % is needed"
    )
    assert unfit.retry_after_s == 600


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (AdmissionRules(charging=False), "it charges, and the rules want the opposite"),
        (AdmissionRules(screen_on=True), "its screen is off, and the rules want the opposite"),
        (AdmissionRules(max_load_1min=4.0), r"its load is 9\.0, at most 4 is allowed"),
        (AdmissionRules(max_temperature_c=30.0), r"cpu-0-0 has 38\.0 C, at most 30 C"),
    ],
)
def test_rules_that_are_off_by_default(rules: AdmissionRules, message: str) -> None:
    with pytest.raises(Unfit, match=message):
        raise refusal(rules)


def test_rules_can_be_switched_off() -> None:
    none = AdmissionRules(
        max_thermal_status=None, max_temperature_c=None, max_battery_temperature_c=None, min_battery_level=None
    )
    bad = dataclasses.replace(
        WELL, thermal_status=5, temperature_c={"cpu": 99.0}, battery_temperature_c=60.0, battery_level=0.0
    )
    assert admit(bad, none) is None
    assert admit(bad, RULES) is not None


@pytest.mark.parametrize(
    "zone", ["soc", "pm8998-ibat-lvl0", "battery-vbat", "lmh-dcvs-01", "PMI-BCL-LVL0", "cpu0-step"]
)
def test_zones_that_are_no_temperatures_do_not_count(zone: str) -> None:
    assert admit(dataclasses.replace(WELL, temperature_c={zone: 75.0}), RULES) is None


@pytest.mark.parametrize("celsius", [87_000.0, -273.0, math.inf, math.nan])
def test_impossible_temperatures_do_not_count(celsius: float) -> None:
    conditions = dataclasses.replace(WELL, temperature_c={"cpu": celsius, "gpu": 30.0})
    assert admit(conditions, RULES) is None
    assert RULES.hottest(conditions) == ("gpu", 30.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cool_s": 0.0}, "cool_s must be above 0, got 0.0"),
        ({"max_cool_s": -1.0}, "max_cool_s"),
        ({"max_temperature_c": 25.0}, r"max_temperature_c must be above ambient_c \(25\), got 25\.0"),
        ({"min_battery_level": 25.0}, r"min_battery_level must lie in 0\.\.1, got 25\.0"),
        ({"max_clock_change": 0.0}, "max_clock_change"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdmissionRules(**fields)  # type: ignore[arg-type]


number = st.none() | st.floats(-1e6, 1e6)


@given(
    st.none() | st.integers(-5, 50),
    number,
    number,
    st.none() | st.floats(0, 1),
    st.none() | st.booleans(),
    st.dictionaries(st.text(max_size=8), st.floats(), max_size=4),
)
def test_every_answer_is_none_or_a_reason_and_a_bounded_wait(
    status: int | None,
    celsius: float | None,
    load: float | None,
    level: float | None,
    charging: bool | None,
    zones: dict[str, float],
) -> None:
    conditions = DeviceConditions(
        thermal_status=status,
        battery_temperature_c=celsius,
        load_1min=load,
        battery_level=level,
        charging=charging,
        temperature_c=zones,
    )
    unfit = admit(conditions, RULES, cpus=(0,))
    assert unfit is None or (str(unfit) and 1.0 <= unfit.retry_after_s <= RULES.max_cool_s)


@given(st.floats(60.5, 120), st.floats(0.1, 20))
def test_a_hotter_phone_rests_longer(celsius: float, more: float) -> None:
    waits = [refusal(temperature_c={"cpu": c}).retry_after_s for c in (celsius, min(celsius + more, 149))]
    assert waits[0] <= waits[1]


def test_rules_that_differ_in_what_they_admit_have_keys_of_their_own() -> None:
    assert AdmissionRules(cool_s=2.0, ambient_c=20).key == AdmissionRules().key == "rules"
    keys = {AdmissionRules(charging=False).key, AdmissionRules(max_temperature_c=None).key, AdmissionRules().key}
    assert len(keys) == 3 and all(key.startswith("rules") for key in keys)
