"""Admission rules in a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from device_farm.measurement.admission import AdmissionRules
from npas_ray.config import SearchConfig
from npas_ray.config.admission import AdmissionConfig
from npas_ray.errors import ConfigError


def config(**measurement: Any) -> SearchConfig:
    return SearchConfig.from_json({"name": "t", "measurement": measurement})


def test_nothing_said_is_the_default_and_no_part_of_the_identity() -> None:
    assert config().measurement.rules() == AdmissionRules() == AdmissionConfig().rules()
    assert config().digest == config(admission={}).digest == config(finalists={"sessions": 1}).digest
    assert "admission" not in config().identity()["measurement"]
    assert config(admission={"charging": False}).digest != config().digest


def test_rules_go_there_and_back() -> None:
    found = config(admission={"max_temperature_c": "off", "charging": False, "max_load_1min": 3, "need_quiet": False})
    rules = found.measurement.rules()
    assert rules == AdmissionRules(max_temperature_c=None, charging=False, max_load_1min=3.0, need_quiet=False)
    assert SearchConfig.from_json(found.to_json()) == found
    assert AdmissionConfig.of(rules).rules() == rules and AdmissionConfig.of(None) == AdmissionConfig()


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"max_temperature_c": "of"}, "max_temperature_c: expected off, or a number in 0..120; got 'of'"),
        ({"max_thermal_status": 9}, "max_thermal_status: expected off, or a whole number in 0..6; got 9"),
        ({"charging": "no"}, "charging: expected either, or true or false; got 'no'"),
        ({"min_battery_level": 25}, "min_battery_level: expected off, or a number in 0..1; got 25"),
        ({"max_temp_c": 60}, "unknown key; did you mean 'max_temperature_c'?"),
        ({"ambient_c": 45}, "max_battery_temperature_c: expected more than ambient_c, which is 45"),
    ],
)
def test_impossible_rules_are_refused_in_words(rules: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(admission=rules)
    assert line in str(refused.value) and len(str(refused.value).splitlines()) == 1
