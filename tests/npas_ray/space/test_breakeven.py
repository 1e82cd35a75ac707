from __future__ import annotations

import pytest

from device_farm.calibration.breakeven import Point, Verdict
from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import DIGITS
from npas_ray.space.breakeven import leave_out
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(
    DIGITS,
    operators=(Operator.CONV3X3, Operator.SKIP),
    schemes=(Scheme.BLOCK_PUNCHED, Scheme.PATTERN),
    rates=(1, 2, 3, 5),
)
SLOW = LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, 2)


def slower(*places: tuple[str, str]) -> dict[tuple[str, str], Point]:
    return {
        (layer, choice): Point(layer, choice, "3x3", 0.0042, 0.0036, 0.0006, 0.0001, 3, Verdict.SLOWER)
        for layer, choice in places
    }


def test_only_the_points_go() -> None:
    before = SPACE.size
    smaller, report = leave_out(SPACE, slower(("block1", str(SLOW)), ("block4", str(SLOW)), ("block9", "3x3")))
    assert [len(SPACE.choices(i)) - len(smaller.choices(i)) for i in range(7)] == [0, 1, 0, 0, 1, 0, 0]
    assert SLOW not in smaller.choices(1)
    assert SLOW in smaller.choices(0)
    assert smaller.size == before * 6**2 // 7**2
    assert SPACE.size == before
    choices = sum(len(SPACE.choices(layer)) for layer in range(7))
    assert f"2 of {choices} choices" in str(report)
    assert "block1 3x3/block-punched@2: 4.2 us, 3x3 3.6 us (difference +0.6 +- 0.2)" in str(report)


def test_a_point_that_was_left_out_is_illegal_with_the_reason() -> None:
    smaller, _ = leave_out(SPACE, slower(("block1", str(SLOW))))
    texts = ["3x3", str(SLOW), *["3x3"] * 5]
    with pytest.raises(SpaceError, match=r"layer 1 \(block1\).*slower than 3x3.*nearest legal choice"):
        smaller.parse(texts)
    architecture = SPACE.parse(texts)
    assert architecture in SPACE
    assert architecture not in smaller
    assert not smaller.is_legal(architecture)
    assert smaller.why_illegal(1, LayerChoice(Operator.CONV3X3)) is None


def test_what_is_equal_to_it_goes_with_it() -> None:
    """Two rates that keep the same units are one network, whichever of them was measured."""
    narrow = SearchSpace(DIGITS, operators=(Operator.CONV3X3,), schemes=(Scheme.BLOCK_PUNCHED,), rates=(1, 2, 2.001))
    assert LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, 2.001) not in narrow.choices(0)
    smaller, _ = leave_out(narrow, slower(("block0", str(SLOW))))
    assert "slower" in (smaller.why_illegal(0, LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, 2.001)) or "")


def test_a_layer_is_never_left_without_a_choice() -> None:
    every = [("block2", str(choice)) for choice in SPACE.choices(2)]
    smaller, report = leave_out(SPACE, slower(*every, ("block0", str(SLOW))))
    assert smaller.choices(2) == SPACE.choices(2)
    assert SLOW not in smaller.choices(0)
    assert report.spared == ("block2",)
    assert "block2 keeps all of its choices" in str(report)
    with pytest.raises(SpaceError, match="without a choice"):
        SPACE.without({"block2": dict.fromkeys(SPACE.choices(2), "no reason")})


def test_nothing_to_leave_out() -> None:
    same, report = leave_out(SPACE, {})
    assert list(map(same.choices, range(7))) == list(map(SPACE.choices, range(7)))
    assert "nothing is slower" in str(report)


def test_walks_stay_inside_what_is_left() -> None:
    smaller, _ = leave_out(SPACE, slower(*((f"block{i}", str(SLOW)) for i in range(7))))
    start = Architecture(tuple(smaller.choices(layer)[0] for layer in range(7)))
    for walk in (smaller.neighbours(start), smaller.near_neighbours(start)):
        found = list(walk)
        assert found
        assert all(architecture in smaller and SLOW not in architecture.layers for architecture in found)


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(SpaceError, match="unknown layer 'block77'"):
        SPACE.without({"block77": {}})
