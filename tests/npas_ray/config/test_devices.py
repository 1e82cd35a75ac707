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


def farmed(*devices: dict[str, str], address: str = "lab:6379", **more: Any) -> SearchConfig:
    plain = [{"kind": "farm", **device} for device in devices]
    return SearchConfig.from_json({"name": "t", "devices": plain, "cluster": {"address": address}, **more})


def test_devices_of_a_shared_farm() -> None:
    both = farmed(
        {"farm": "lab", "model": "P"}, {"farm": "lab", "model": "Q"}, objective={"budgets_ms": {"P": 3, "Q": 9}}
    )
    assert (both.farm, both.models) == ("lab", ("P", "Q"))
    assert SearchConfig.from_json(both.to_json()) == both
    # whose phones they are does not matter
    assert farmed({"farm": "lab", "model": "P"}).digest == config({"kind": "adb", "model": "P"}).digest


def test_a_search_measures_in_one_place_that_is_there() -> None:
    with pytest.raises(ConfigError, match=r"devices: expected devices of one farm, and no others beside them"):
        farmed({"farm": "lab", "model": "P"}, {"farm": "other", "model": "P"})
    with pytest.raises(ConfigError, match=r"cluster\.address: expected the Ray cluster of the farm 'lab': HOST:PORT"):
        farmed({"farm": "lab", "model": "P"}, address="local")
