"""The seeded numbers that host and device make alike, so that weights and inputs need not be pushed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INPUT_STREAM = 0  # weights use streams from 1
_PIECE = 16384  # elements at once: what lies between the operations stays in the second-level cache


def uniform(seed: int, stream: int, count: int, *, start: int = 0) -> NDArray[np.float32]:
    """Elements start .. start+count of a stream: float32 in [-1, 1), the same bits as npas_uniform in plan.h."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    values = np.empty(count, np.float32)
    with np.errstate(over="ignore"):
        first = np.uint64(seed) * golden + (np.uint64(stream) << np.uint64(40)) + golden
        for low in range(0, count, _PIECE):
            high = min(low + _PIECE, count)
            z = np.arange(start + low, start + high, dtype=np.uint64)
            z += first
            z ^= z >> np.uint64(30)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(27)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            z >>= np.uint64(40)
            values[low:high] = z
    values *= np.float32(1.0 / 8388608.0)
    values -= np.float32(1.0)
    return values
