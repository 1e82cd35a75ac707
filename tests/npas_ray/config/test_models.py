from __future__ import annotations

import pytest
from pydantic import ValidationError

from device_farm.measurement.types import Protocol
from npas_ray.config import SearchConfig, difference
from npas_ray.config.words import duration, nearest, printable, shown
from npas_ray.errors import ConfigError
from npas_ray.networks.backbone import DIGITS
from npas_ray.runs.setting import ladder_of
from npas_ray.search.ladder import Ladder
from npas_ray.space.search_space import SearchSpace


def config(**sections: object) -> SearchConfig:
    return SearchConfig.from_json({"name": "t", **sections})


def test_configurations_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().seed = 3


def test_the_order_of_writing_means_nothing() -> None:
    a = config(space={"operators": ["skip", "3x3"], "rates": [2, 1]})
    b = config(space={"operators": ["3x3", "skip"], "rates": [1.0, 2]})
    assert a == b
    assert a.digest == b.digest


@pytest.mark.parametrize(
    "same",
    [
        {"name": "other"},
        {"search": {"candidates": 1000}},
        {"training": {"workers": 3}},
        {"compilation": {"workers": 3}},
        {"cluster": {"address": "head:6379", "cpus": 64}},
        {"devices": [{"kind": "local", "cpu": 2}]},
        {"measurement": {"attempts": 9, "deadline_s": 99}},
    ],
)
def test_where_and_how_wide_it_runs_is_not_its_identity(same: dict[str, object]) -> None:
    other = SearchConfig.from_json({"name": "t", **same})
    assert other != config()
    assert other.digest == config().digest
    assert difference(config(), other) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"task": {"train_images": 500}}, "task.train_images: 2000 -> 500"),
        ({"search": {"policy": "random"}}, 'search.policy: "npas" -> "random"'),
        ({"search": {"settings": {"batch_size": 3}}}, "search.settings.batch_size: null -> 3"),
        ({"objective": {"budgets_ms": {"local": 2}}}, "objective.budgets_ms.local: null -> 2.0"),
        ({"training": {"epochs": 1}}, "training.epochs: 2 -> 1"),
        ({"training": {"ladder": [0]}}, "training.ladder: [] -> [0]"),
        ({"measurement": {"min_time_s": 1}}, "measurement.min_time_s: 0.2 -> 1.0"),
        ({"space": {"layers": {"block0": {"rates": [1]}}}}, "space.layers.block0.rates: null -> [1.0]"),
    ],
)
def test_what_decides_results_is_its_identity(changed: dict[str, object], line: str) -> None:
    other = config(**changed)
    assert other.digest != config().digest
    assert difference(config(), other) == [line]


def test_a_device_at_another_precision_is_another_model() -> None:
    other = config(devices=[{"kind": "local"}, {"kind": "local", "precision": "fp16"}])
    assert other.models == ("local", "local-fp16")
    assert difference(config(), other) == ['devices: ["local"] -> ["local", "local-fp16"]']
    assert SearchConfig.from_json(other.to_json()) == other
    with pytest.raises(ConfigError, match=r"devices\[0\]\.precision: expected one of fp32, fp16; got"):
        config(devices=[{"kind": "local", "precision": "fp8"}])


def test_measurement_is_the_protocol() -> None:
    assert config().measurement.protocol() == Protocol()


def test_a_ladder_leads_up_to_the_epochs() -> None:
    given = config(training={"epochs": 4, "ladder": [2, 0], "keep": 0.25})
    assert ladder_of(given) == Ladder((0, 2, 4), keep=0.25)
    assert SearchConfig.from_json(given.to_json()) == given
    assert ladder_of(config()) == Ladder((2,))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"ladder": [0, 2]}, r"training\.ladder\[1\]: expected fewer epochs than training\.epochs, which is 2"),
        ({"ladder": [1, 1]}, r"training\.ladder\[1\]: expected every item once; got 1"),
        ({"ladder": 1}, r"training\.ladder: expected a list of epochs; got 1"),
        ({"ladder": [0.5]}, r"training\.ladder\[0\]: expected a whole number in 0\.\.1000; got 0\.5"),
        ({"keep": 0.25}, r"training\.keep: expected nothing here, as there is no training\.ladder; got 0\.25"),
        ({"ladder": [0], "keep": 1}, r"training\.keep: expected a number > 0 and < 1; got 1"),
    ],
)
def test_a_ladder_that_leads_nowhere_is_refused_in_words(training: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(training=training)


def test_the_default_space_is_the_default_of_the_search_space() -> None:
    space = SearchSpace.from_spec(DIGITS, config().space.spec())
    assert space.size == SearchSpace(DIGITS).size


def test_a_layer_may_differ() -> None:
    spec = config(space={"layers": {"block0": {"operators": ["3x3"], "rates": [1]}}}).space.spec()
    assert [str(choice) for choice in SearchSpace.from_spec(DIGITS, spec).choices(0)] == ["3x3"]


def test_from_json_refuses_in_words() -> None:
    with pytest.raises(ConfigError, match=r"^journal: seed: expected a whole number in 0..4294967295; got -1$"):
        SearchConfig.from_json({"name": "t", "seed": -1}, name="journal")
    with pytest.raises(ConfigError, match="the configuration: expected a mapping with the keys name, seed"):
        SearchConfig.from_json([])


def test_words() -> None:
    assert nearest("3X3DW", ["1x1", "3x3", "3x3dw+1x1"]) == "3x3"
    assert nearest("zebra", ["1x1", "3x3"]) is None
    assert printable("a\x1b\n\u202e\ud800b") == r"a\x1b\n\u202e\ud800b"
    assert len(shown("x" * 1000)) == 60
    assert [duration(s) for s in (-1, 3.4, 200, 3720)] == ["0 s", "3 s", "3 min 20 s", "1 h 02 min"]
