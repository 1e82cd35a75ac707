from __future__ import annotations

from collections import Counter

import pytest

from npas_ray.calibration.design import default_count, design
from npas_ray.networks.backbone import DIGITS
from npas_ray.space.choices import Operator, Scheme
from npas_ray.space.search_space import SearchSpace


def test_every_choice_of_every_layer_is_measured_three_times() -> None:
    space = SearchSpace(DIGITS)
    count = default_count(space)
    candidates = design(space, count, seed=3)
    choices = max(len(space.choices(layer)) for layer in range(space.layers))
    assert len(candidates) == count == 3 * choices
    assert all(candidate in space for candidate in candidates)
    for layer in range(space.layers):
        seen = Counter(candidate.layers[layer] for candidate in candidates)
        assert set(seen) == set(space.choices(layer))
        assert set(seen.values()) <= {3, 4}


def test_it_depends_on_its_seed_alone_and_grows() -> None:
    space = SearchSpace(DIGITS)
    assert design(space, 60, seed=1) == design(space, 60, seed=1)
    assert design(space, 60, seed=1) != design(space, 60, seed=2)
    assert design(space, 170, seed=1)[:60] == design(space, 60, seed=1)


@pytest.mark.parametrize("count", [1, 5, 57, 58, 59, 200])
def test_any_count_is_as_even_as_it_can_be(count: int) -> None:
    space = SearchSpace(DIGITS)
    candidates = design(space, count, seed=0)
    assert len(candidates) == count
    for layer in range(space.layers):
        seen = Counter(candidate.layers[layer] for candidate in candidates)
        assert max(seen.values()) - min(seen[choice] for choice in space.choices(layer)) <= 1


def test_a_small_space_is_not_measured_twice() -> None:
    space = SearchSpace(DIGITS, operators=(Operator.CONV3X3,), schemes=(Scheme.FILTER,), rates=(1,))
    assert len(design(space, 50, seed=0)) == space.size == 1
