"""Which taps a seed keeps: those of the smallest numbers, and of equal ones the first."""

from __future__ import annotations

import numpy as np
import pytest

from device_farm.compiler.weights import _smallest


@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_the_smallest_are_marked_and_ties_go_by_index(distinct: int) -> None:
    draw = np.random.default_rng(distinct)
    values = draw.integers(0, distinct, (40, 31)).astype(np.float32)
    counts = draw.integers(0, 32, 40)
    for row, count, marks in zip(values, counts, _smallest(values, counts), strict=True):
        expected = sorted(range(31), key=lambda index: (row[index], index))[:count]
        assert marks.nonzero()[0].tolist() == sorted(expected)


def test_rows_without_numbers() -> None:
    assert _smallest(np.zeros((3, 0), np.float32), [0, 0, 0]).shape == (3, 0)
