from __future__ import annotations

import re
from typing import Any

import pytest

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import DIGITS, Backbone, make_backbone
from npas_ray.space.names import did_you_mean
from npas_ray.space.search_space import SearchSpace

EMPTY = make_backbone("empty", input_shape=(3, 8, 8), stem=(8, 1), blocks=(), classes=10)


def test_what_is_left_out_is_allowed_by_default() -> None:
    assert SearchSpace.from_spec(DIGITS, None).size == SearchSpace(DIGITS).size
    assert SearchSpace.from_spec(DIGITS, {}).size == SearchSpace(DIGITS).size
    assert not any(choice.scheme == "unstructured" for choice in SearchSpace(DIGITS).choices(0))


def test_layers_inherit_the_lists_of_all() -> None:
    space = SearchSpace.from_spec(
        DIGITS,
        {"operators": ["3x3"], "rates": [1, 2], "schemes": ["filter"], "layers": {"block3": {"operators": ["1x1"]}}},
    )
    assert [str(choice) for choice in space.choices(3)] == ["1x1", "1x1/filter@2"]
    assert [str(choice) for choice in space.choices(4)] == ["3x3", "3x3/filter@2"]


def test_without_rate_one_nothing_is_dense() -> None:
    space = SearchSpace.from_spec(DIGITS, {"operators": ["3x3", "skip"], "schemes": ["filter"], "rates": [2]})
    assert [str(choice) for choice in space.choices(0)] == ["3x3/filter@2", "skip"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"operators": ["3x3d"]}, "space.operators[0]: unknown operator '3x3d', did you mean '3x3dw+1x1'?"),
        ({"operators": ["3x3", None]}, "space.operators[1]: unknown operator None"),
        ({"operators": "3x3"}, "space.operators: expected a list, got '3x3'"),
        ({"operators": []}, "space.operators: the list is empty"),
        ({"operator": ["3x3"]}, "space: unknown key 'operator', did you mean 'operators'?"),
        (
            {"schemes": ["Block_Punched"]},
            "space.schemes[0]: unknown scheme 'Block_Punched', did you mean 'block-punched'?",
        ),
        ({"schemes": ["dense"], "rates": [2]}, "space.schemes: 'dense' is rate 1, and the rates lack it"),
        ({"rates": [1, 0.5]}, "space.rates[1]: a rate is weights before / weights kept, a number >= 1"),
        ({"rates": ["2"]}, "got '2'"),
        ({"rates": [True]}, "got True"),
        ({"rates": [float("nan")]}, "got nan"),
        ({"rates": [2.3333333]}, "at most six digits, got 2.3333333; use 2.33333"),
        ({"layers": {"blok3": {}}}, "space.layers: unknown layer 'blok3', did you mean 'block3'?"),
        ({"layers": {"block3": {"schemes": ["filtre"]}}}, "space.layers.block3.schemes[0]: unknown scheme 'filtre'"),
        ({"layers": [1]}, "space.layers: expected a mapping"),
        ([1], "space: expected a mapping with keys operators, schemes, rates, layers; got [1]"),
        ({"operators": ["skip"]}, "space: layer 'block2' has no legal choice; skip: skip hands its input on"),
        ({"operators": ["fc"]}, "space: layer 'block0' has no legal choice; fc: 'fc' is the operator of the fully"),
        (
            {"operators": ["3x3"], "schemes": ["pattern"], "rates": [2]},
            "layer 'block0' has no legal choice; 3x3/pattern@2: a pattern keeps 4 of 9",
        ),
    ],
)
def test_wrong_specs_say_what_and_where(spec: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(message)):
        SearchSpace.from_spec(DIGITS, spec)


@pytest.mark.parametrize("frame", [EMPTY])
def test_a_backbone_without_searchable_layers_is_refused(frame: Backbone) -> None:
    with pytest.raises(SpaceError, match="'empty' has no searchable layer"):
        SearchSpace(frame)


def test_near_names() -> None:
    assert did_you_mean("3X3 dw", ["3x3", "3x3dw+1x1"]) == ", did you mean '3x3dw+1x1'?"
    assert did_you_mean("zzzz", ["3x3", "3x3dw+1x1"]) == ""
    assert did_you_mean("", ["3x3"]) == ""
