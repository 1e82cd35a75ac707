"""Devices of a configuration: this machine, and phones on adb servers."""

from __future__ import annotations

from typing import Any

import pytest

from npas_ray.config import AdbDevice, LocalDevice, SearchConfig
from npas_ray.config.schema import keys_at
from npas_ray.errors import ConfigError


def config(*devices: Any) -> SearchConfig:
    return SearchConfig.from_json({"name": "t", "devices": list(devices)})


def test_phones_of_one_model_are_one_device_of_the_search() -> None:
    both = config({"kind": "local"}, {"kind": "adb", "model": "Pixel 6"})
    assert both.models == ("local", "Pixel 6")
    assert both.devices == (LocalDevice(), AdbDevice(model="Pixel 6"))
    assert SearchConfig.from_json(both.to_json()) == both
    assert both.identity()["devices"] == ["local", "Pixel 6"]


def test_which_phones_they_are_is_not_the_searchs_identity() -> None:
    some = config({"kind": "adb", "model": "Pixel 6", "serials": ["a"], "server": "lab:5037"})
    assert some.digest == config({"kind": "adb", "model": "Pixel 6"}).digest


def test_budgets_name_models() -> None:
    data = {"name": "t", "devices": [{"kind": "adb", "model": "Pixel 6"}], "objective": {"budgets_ms": {"Pixel": 3}}}
    with pytest.raises(ConfigError, match=r"budgets_ms\.Pixel: expected a model among the devices: Pixel 6"):
        SearchConfig.from_json(data)


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ({"kind": "adb"}, "devices[0].model: expected a value; got nothing"),
        ({"kind": "usb"}, "devices[0].kind: expected one of local, adb, farm; got 'usb'"),
        ({"kind": ["adb"]}, "devices[0].kind: expected one of local, adb, farm; got ['adb']"),
        ({}, "devices[0].kind: expected one of local, adb, farm; got nothing"),
        ({"kind": "adb", "model": "P", "serials": []}, "devices[0].serials: expected a list of serials, at least one"),
        ({"kind": "adb", "model": "P", "serials": ["a", "a"]}, "devices[0].serials[1]: expected every item once"),
        ({"kind": "adb", "model": "P", "serials": ["a\nb"]}, "devices[0].serials[0]: expected a serial, as"),
        ({"kind": "adb", "model": "P\x1b[2J"}, "devices[0].model: expected a phone's model"),
        ({"kind": "adb", "model": "../P"}, "devices[0].model: expected a phone's model"),
        ({"kind": "adb", "model": "P", "server": "lab"}, "devices[0].server: expected the address of an adb server"),
        ({"kind": "adb", "model": "P", "sorials": ["a"]}, "did you mean 'serials'?"),
        ({"kind": "adb", "model": "P", "target": "aarch64-noen"}, "did you mean 'aarch64-neon'?"),
    ],
)
def test_impossible_devices_are_refused_in_words(device: Any, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(device)
    assert line in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_phones_are_compiled_for_is_the_searchs_identity() -> None:
    neon, half = ({"kind": "adb", "model": "P", "target": f"aarch64-{name}"} for name in ("neon", "neon-fp16"))
    assert config(neon).identity()["devices"] == ["P (aarch64-neon)"]
    assert config(neon).digest != config(half).digest


def test_keys_of_a_choice_are_those_of_all() -> None:
    keys = keys_at(("devices", 0))
    assert keys is not None and {"kind", "precision", "model", "serials"} <= set(keys)
    assert keys_at(("devices",)) is None and keys_at(("seed",)) is None
    assert keys_at(("space", "layers", "block0")) == ("operators", "schemes", "rates")
