from __future__ import annotations

from pathlib import Path

import pytest

from npas_ray.config import LocalDevice, SearchConfig, load_config
from npas_ray.config.document import parse
from npas_ray.config.farms import load_farm
from npas_ray.errors import ConfigError

EXAMPLES = Path(__file__).parents[3] / "examples"
FARM = EXAMPLES / "farm.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my-search.yaml"
    path.write_text("seed: 1\n")
    return path


@pytest.mark.parametrize("path", sorted(set(EXAMPLES.glob("*.yaml")) - {FARM}), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    assert SearchConfig.from_json(load_config(path).to_json()) == load_config(path)


def test_the_example_of_a_farm_is_valid() -> None:
    farm = load_farm(FARM)
    assert (farm.name, farm.measurement.admission.max_battery_temperature_c) == ("lab", 38)


def test_the_demo_says_the_defaults_but_for_what_makes_it_short() -> None:
    demo = load_config(EXAMPLES / "demo.yaml").to_json()
    short = {
        "name": "digits-demo",
        "search": {"candidates": 42},
        "objective": {"budgets_of_dense": {"local": 0.5}},
        "training": {"epochs": 1, "final_epochs": 10},
    }
    assert demo == SearchConfig.from_json(short).to_json()


def test_a_search_is_named_after_its_file(config: Path) -> None:
    assert load_config(config).name == "my-search"
    assert load_config(config, ["name=other"]).name == "other"


def test_an_empty_section_is_one_of_defaults(config: Path) -> None:
    config.write_text("training:\nsearch: ~\nmeasurement: {}\n")
    assert load_config(config) == load_config(config, ["seed=0"])


def test_overrides_win_and_are_yaml(config: Path) -> None:
    config.write_text("training: {epochs: 1}\nsearch: {settings: {a: 1}}\n")
    overrides = [
        "training.epochs=3",
        "training.epochs = 4",
        "space.operators=[3x3, skip]",
        "search.settings.b={c: [1e-3, true]}",
        "devices.0.cpu=2",
        "space.layers.block0.rates=[1, 2]",
        "objective.budgets_ms={local: 1}",
    ]
    found = load_config(config, overrides)
    assert found.training.epochs == 4
    assert found.search.settings == {"a": 1, "b": {"c": [0.001, True]}}
    assert isinstance(found.devices[0], LocalDevice) and found.devices[0].cpu == 2
    assert found.space.spec()["layers"] == {"block0": {"rates": [1.0, 2.0]}}
    assert found.objective.budgets_ms == {"local": 1.0}


def test_an_overridden_mistake_is_no_mistake(config: Path) -> None:
    config.write_text("training: {epochs: many}\n")
    assert load_config(config, ["training.epochs=3"]).training.epochs == 3
    with pytest.raises(ConfigError, match=r"^--set training=\{epochs: x\}: training.epochs: expected"):
        load_config(config, ["training={epochs: x}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, off]", ["yes", "no", "on", "off"]),
        ("[true, False, null, ~]", [True, False, None, None]),
        ("[010, +3, -0, 1e-3, 1.5e3, .5, 3.]", [10, 3, 0, 0.001, 1500.0, 0.5, 3.0]),
        ("[0x10, 1_000, 2:30, 2024-01-01, 1x1, '3']", ["0x10", "1_000", "2:30", "2024-01-01", "1x1", "3"]),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("", None),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    found, _ = parse(text, name="t")
    assert found == value
    assert repr(found) == repr(value)


def test_lines_are_known() -> None:
    _, lines = parse("a:\n  b: 1\nc:\n- x\n-\n  d: 2\n", name="t")
    assert lines == {("a",): 1, ("a", "b"): 2, ("c",): 3, ("c", 0): 4, ("c", 1): 6, ("c", 1, "d"): 6}
