from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npas_ray.search.hypervolume import contributions, hypervolume, nondominated

GRID = 4  # coordinates are 0 .. 4, the reference is 4 everywhere


def tables(most: int = 8) -> st.SearchStrategy[list[list[int]]]:
    return st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(0, GRID), min_size=d, max_size=d), min_size=1, max_size=most)
    )


def counted(points: list[list[int]]) -> int:
    """Cells of the grid that some point dominates."""
    cells = itertools.product(range(GRID), repeat=len(points[0]))
    return sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)


@settings(max_examples=300)
@given(tables())
def test_the_volume_is_the_counted_one(points: list[list[int]]) -> None:
    assert hypervolume(points, [GRID] * len(points[0])) == pytest.approx(counted(points))


@settings(max_examples=200)
@given(tables(), st.randoms(use_true_random=False))
def test_order_repetition_and_dominated_points_do_not_matter(points: list[list[int]], random: object) -> None:
    reference = [GRID] * len(points[0])
    volume = hypervolume(points, reference)
    front = [point for point, kept in zip(points, nondominated(points), strict=True) if kept]
    assert hypervolume(front, reference) == pytest.approx(volume)
    shuffled = points * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hypervolume(shuffled, reference) == pytest.approx(volume)


@given(tables())
def test_the_front_is_what_nothing_dominates(points: list[list[int]]) -> None:
    def dominates(a: list[int], b: list[int]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert nondominated(points).tolist() == expected


@settings(max_examples=100)
@given(tables(5))
def test_a_contribution_is_what_is_lost(points: list[list[int]]) -> None:
    reference = [GRID] * len(points[0])
    for index, lost in enumerate(contributions(points, reference)):
        rest = points[:index] + points[index + 1 :]
        assert lost == pytest.approx(counted(points) - (counted(rest) if rest else 0))


def test_coordinates_keep_their_scales() -> None:
    rng = np.random.default_rng(0)
    points, scale = rng.random((60, 4)), np.array([1.0, 1e-3, 1e6, 7.0])
    assert hypervolume(points * scale, scale) == pytest.approx(hypervolume(points, [1.0] * 4) * scale.prod())


def test_nothing_dominates_nothing() -> None:
    assert hypervolume([], [1.0, 1.0]) == 0.0
    assert hypervolume([[1.0, 0.5], [2.0, 0.1]], [1.0, 1.0]) == 0.0
    assert nondominated([]).tolist() == []


@pytest.mark.parametrize(
    ("points", "reference", "said"),
    [
        ([[1.0, 2.0]], [1.0], "2 coordinates, the reference has 1"),
        ([[float("nan"), 2.0]], [1.0, 1.0], "finite"),
        ([1.0, 2.0], [1.0, 1.0], r"\[n, d\]"),
        ([[1.0, 2.0]], [float("inf"), 1.0], "reference"),
        ([], [], "reference"),
    ],
)
def test_what_is_no_table_is_refused(points: object, reference: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hypervolume(points, reference)  # type: ignore[arg-type]
