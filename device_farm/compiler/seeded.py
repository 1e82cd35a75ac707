"""The seeded numbers that host and device make alike, so that weights and inputs need not be pushed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INPUT_STREAM = 0  # weights use streams from 1


def uniform(seed: int, stream: int, count: int, *, start: int = 0) -> NDArray[np.float32]:
    """Elements start .. start+count of a stream: float32 in [-1, 1), the same bits as npas_uniform in plan.h."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        first = np.uint64(seed) * golden + (np.uint64(stream) << np.uint64(40)) + golden
        z = first + np.arange(start, start + count, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values: NDArray[np.float32] = (z >> np.uint64(40)).astype(np.float32)
    values *= np.float32(1.0 / 8388608.0)
    values -= np.float32(1.0)
    return values
