from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_farm.measurement.types import DeviceConditions
from device_farm.transport.adb.conditions import make_conditions

_VALUES = """\
/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq 1800000
/sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq 2400000
/sys/devices/system/cpu/cpu5/cpufreq/scaling_cur_freq 0
/sys/class/thermal/thermal_zone0/type cpu-1-0
/sys/class/thermal/thermal_zone1/type battery
/sys/class/thermal/thermal_zone2/type tsens
/sys/class/thermal/thermal_zone3/type broken
/sys/class/thermal/thermal_zone4/type gone
/sys/class/thermal/thermal_zone0/temp 41250
/sys/class/thermal/thermal_zone1/temp 305
/sys/class/thermal/thermal_zone2/temp 39
/sys/class/thermal/thermal_zone3/temp -274000
/proc/loadavg 3.10 2.00 1.00 2/900 1234
"""
_BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 87
  scale: 100
  temperature: 301
"""
_THERMAL = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
 Temperature{mValue=30.0, mType=2, mName=old, mStatus=0}
Current temperatures from HAL:
 Temperature{mValue=38.5, mType=3, mName=skin, mStatus=2}
"""


def test_a_phone_that_tells_all() -> None:
    conditions = make_conditions(
        {"values": _VALUES, "battery": _BATTERY, "thermal": _THERMAL, "power": "  mWakefulness=Dozing\n"}
    )
    assert conditions == DeviceConditions(
        cpu_khz={0: 1_800_000, 4: 2_400_000},
        temperature_c={"cpu-1-0": 41.25, "battery": 30.5, "tsens": 39.0},
        thermal_status=2,
        battery_level=0.87,
        battery_temperature_c=30.1,
        charging=True,
        screen_on=False,
        load_1min=3.1,
    )


def test_a_phone_that_tells_nothing() -> None:
    assert make_conditions({}) == DeviceConditions()
    assert make_conditions({"battery": "Can't find service: battery\n", "power": ""}) == DeviceConditions()


def test_a_phone_that_hides_its_zones_tells_temperatures_of_the_hal() -> None:
    assert make_conditions({"thermal": _THERMAL}).temperature_c == {"skin": 38.5}


def test_a_full_battery_is_not_charging_and_old_phones_tell_by_their_plugs() -> None:
    assert make_conditions({"battery": "status: 5\nUSB powered: true\n"}).charging is False
    assert make_conditions({"battery": "AC powered: false\nUSB powered: true\n"}).charging is True
    assert make_conditions({"battery": "AC powered: false\n"}).charging is False


def test_the_display_says_more_than_the_wakefulness() -> None:
    assert make_conditions({"power": "mWakefulness=Awake\nDisplay Power: state=OFF\n"}).screen_on is False
    assert make_conditions({"power": "mWakefulness=Awake\n"}).screen_on is True


@given(st.dictionaries(st.sampled_from(["values", "battery", "thermal", "power"]), st.text(max_size=300)))
def test_anything_makes_possible_values(parts: dict[str, str]) -> None:
    conditions = make_conditions(parts)
    assert conditions.battery_level is None or 0 <= conditions.battery_level <= 1


def test_impossible_numbers_are_left_out() -> None:
    battery = "level: 180\nscale: 100\ntemperature: 99999\n"
    assert make_conditions({"battery": battery}) == DeviceConditions()
    assert make_conditions({"battery": "level: 5\nscale: 0\n"}).battery_level == 0.05
    assert make_conditions({"battery": "level: 5\nscale: -3\n"}).battery_level is None
