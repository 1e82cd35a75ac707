from __future__ import annotations

import json
import math
from typing import Any

import pytest

from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.codec import conditions_from_json, conditions_to_json
from device_farm.measurement.conditioning import best_spin_ns, changed, clock_between, clock_changed, shared
from device_farm.measurement.types import DeviceConditions, DeviceFacts, Measurement

RULES = AdmissionRules()


def session(before: dict[str, Any] | None, after: dict[str, Any] | None, **conditions: Any) -> Measurement:
    facts = DeviceFacts("s", "m", "aarch64-neon", cpu=7)
    said = {"before": before, "after": after, "affinity": {"asked": 7, "obtained": [7]}, **conditions}
    return Measurement("a", facts, "p", 1.0, 1.0, 1.0, 1, {}, 0.0, (), said)


def end(spin_ns: int = 80_000, khz: int = 2_800_000) -> dict[str, Any]:
    return {"spin_ns": spin_ns, "cpu_khz": {"7": khz, "0": 300_000}}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"thermal_status": 0}, {"thermal_status": 2}, "its thermal status rose from 0 to 2"),
        ({"screen_on": False}, {"screen_on": True}, "its screen went on: somebody uses it"),
        ({"screen_on": True}, {"screen_on": False}, "its screen went off"),
        ({"thermal_status": 2}, {"thermal_status": 0}, None),
        ({"charging": True}, {"charging": False}, None),  # a battery that is full says so
        ({"screen_on": None}, {"screen_on": True}, None),
        ({}, {}, None),
    ],
)
def test_what_becomes_of_a_device(before: dict[str, Any], after: dict[str, Any], message: str | None) -> None:
    found = changed(DeviceConditions(**before), DeviceConditions(**after))
    assert (found is None) if message is None else (found is not None and found.startswith(message))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (end(), end(), None),
        (end(), end(spin_ns=82_000), None),
        (end(), end(spin_ns=100_000), "the core's clock fell by 20.0% (at most 3.0% is allowed)"),
        (end(spin_ns=100_000), end(), "the core's clock rose by 25.0% (at most 3.0% is allowed)"),
        (end(), end(khz=1_400_000), "the frequency of core 7 fell by 50.0% (at most 3.0% is allowed)"),
        (end(), end() | {"cpu_khz": {}}, None),
        (None, None, None),
    ],
)
def test_a_clock_that_changes_within_a_session(before: Any, after: Any, message: str | None) -> None:
    assert clock_changed(session(before, after), RULES) == message


def test_frequencies_of_cores_that_were_not_asked_for_do_not_count() -> None:
    free = session(end(), end(khz=1_000_000), affinity={"asked": None, "obtained": [7]})
    assert clock_changed(free, RULES) is None


def test_a_clock_that_is_another_beside_the_session() -> None:
    reading = session(end(), end())
    assert clock_between(session(end(spin_ns=81_000), end()), reading, RULES) is None
    slow = session(end(spin_ns=100_000), end(spin_ns=100_000))
    assert clock_between(slow, reading, RULES) == "the core's clock was 20.0% slower than beside it (at most 3.0%)"
    assert clock_between(session(None, None), reading, RULES) is None
    assert best_spin_ns(slow) == 100_000 and best_spin_ns(session(None, end())) == 80_000


def test_a_core_that_was_shared() -> None:
    assert shared(session(None, None, quiet=False), RULES) == "something shared its core all the time"
    assert shared(session(None, None, quiet=True), RULES) is None
    assert shared(session(None, None, quiet=False), AdmissionRules(need_quiet=False)) is None


def test_conditions_survive_json() -> None:
    conditions = DeviceConditions(
        cpu_khz={0: 300_000, 7: 2_800_000},
        temperature_c={"cpu-0": 41.5},
        thermal_status=0,
        battery_level=0.0,
        battery_temperature_c=29.1,
        charging=False,
        screen_on=True,
        load_1min=0.0,
    )
    for one in (conditions, DeviceConditions()):
        assert conditions_from_json(json.loads(json.dumps(conditions_to_json(one), allow_nan=False))) == one
    assert conditions_to_json(DeviceConditions()) == {}


def test_what_json_cannot_hold_is_left_out() -> None:
    odd = DeviceConditions(temperature_c={"a": math.nan, "b": 3.0}, load_1min=math.inf)
    assert conditions_to_json(odd) == {"temperature_c": {"b": 3.0}}


@pytest.mark.parametrize("data", [[], {"surprise": 1}, {"cpu_khz": {"x": 1}}, {"charging": "perhaps"}])
def test_json_of_something_else_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="not conditions of a device"):
        conditions_from_json(data)
