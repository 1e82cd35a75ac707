"""Conditions of a Linux machine, from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_farm.measurement.types import DeviceConditions
from device_farm.transport.sysfs import read_conditions


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_what_there_is_is_read(tmp_path: Path) -> None:
    _write(tmp_path, "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq", "1800000\n")
    _write(tmp_path, "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq", "600000\n")
    _write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-0-0\n")
    _write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41500\n")
    _write(tmp_path, "proc/loadavg", "0.51 0.40 0.3 1/200 77\n")
    assert read_conditions(tmp_path) == DeviceConditions(
        cpu_khz={2: 600000, 10: 1800000}, temperature_c={"cpu-0-0": 41.5}, load_1min=0.51
    )


@pytest.mark.parametrize("garbage", ["", "nonsense", "12\n13"])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, garbage: str) -> None:
    _write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", garbage)
    _write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu")
    _write(tmp_path, "sys/class/thermal/thermal_zone0/temp", garbage)
    assert read_conditions(tmp_path) == DeviceConditions()
    assert read_conditions(tmp_path / "nothing") == DeviceConditions()
