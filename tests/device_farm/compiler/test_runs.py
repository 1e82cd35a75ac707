"""Dividing items among threads: contiguous, complete, and as even as runs can be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.compiler.runs import rectangles, runs

COSTS = st.lists(st.floats(0.1, 100), max_size=9)
# No subnormals: a library that another test loads into the process may flush them to zero.
LOADS = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=4)


def largest(costs: list[float], loads: list[float], limits: tuple[int, ...]) -> float:
    return max(load + sum(costs[a:b]) for load, (a, b) in zip(loads, itertools.pairwise(limits), strict=True))


@given(COSTS, LOADS)
def test_no_other_runs_have_a_smaller_largest_load(costs: list[float], loads: list[float]) -> None:
    limits = runs(costs, loads)
    assert limits[0] == 0 and limits[-1] == len(costs) and limits == sorted(limits) and len(limits) == len(loads) + 1
    inner = itertools.combinations_with_replacement(range(len(costs) + 1), len(loads) - 1)
    best = min(largest(costs, loads, (0, *cut, len(costs))) for cut in inner)
    assert largest(costs, loads, tuple(limits)) <= best * (1 + 1e-5)


@pytest.mark.parametrize(
    ("costs", "threads", "limits"),
    [
        ([1.0] * 8, 4, [0, 2, 4, 6, 8]),
        ([1.0] * 9, 4, [0, 2, 4, 7, 9]),
        ([8.0, 1, 1, 1, 1, 1, 1, 2], 2, [0, 1, 8]),
        ([1.0], 3, [0, 0, 1, 1]),
        ([], 2, [0, 0, 0]),
    ],
)
def test_even_runs(costs: list[float], threads: int, limits: list[int]) -> None:
    assert runs(costs, [0.0] * threads) == limits


def test_who_has_work_already_gets_less() -> None:
    assert runs([1.0] * 6, [4.0, 0.0, 2.0]) == [0, 0, 4, 6]


@given(st.integers(1, 7), st.data())
def test_rectangles_are_the_run(width: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 40))
    last = data.draw(st.integers(first, 40))
    pieces = list(rectangles(first, last, width))
    assert len(pieces) <= 3
    assert [row * width + column for rows, columns in pieces for row in rows for column in columns] == list(
        range(first, last)
    )
