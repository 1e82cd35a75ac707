from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npas_ray.reports.pareto import Point, front, hypervolume

points = st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.integers(1, 8).map(float)), max_size=12)


def dominates(a: Point, b: Point) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@given(points)
def test_the_front_is_what_nothing_dominates(found: list[Point]) -> None:
    members = front(found, lambda point: point)
    assert sorted(members) == sorted(p for p in found if not any(dominates(q, p) for q in found))
    assert members == sorted(members, key=lambda point: point[1])


@given(points)
def test_hypervolume_is_the_counted_area(found: list[Point]) -> None:
    # cells of 1/8 x 1 below and to the right of some point, left of the reference at 9
    cells = sum(any(p[0] >= (i + 1) / 8 and p[1] <= j for p in found) for i in range(8) for j in range(1, 9))
    assert hypervolume(found, accuracy=0.0, latency_ms=9.0) == pytest.approx(cells / 8)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([(0.9, 3.0), (0.1, 1.0)], accuracy=0.2, latency_ms=3.0) == 0.0
