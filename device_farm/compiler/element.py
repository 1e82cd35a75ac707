"""The number type of activations and weights. Sums, exponentials and what a network takes and gives are float32 anyway
where that matters; the taps' offsets are int32 always.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.errors import InvalidGraph


class Element(StrEnum):
    """Its value is the name that TVM and numpy have for it."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def bytes(self) -> int:
        return {Element.FLOAT32: 4, Element.FLOAT16: 2}[self]

    @property
    def c_type(self) -> str:
        """What csrc/prepare.h takes as NPAS_ELEMENT."""
        return {Element.FLOAT32: "float", Element.FLOAT16: "__fp16"}[self]

    @property
    def largest(self) -> float:
        """Largest finite value."""
        return float(np.finfo(self.value).max)

    @property
    def tolerance(self) -> float:
        """Relative to the largest expected magnitude: an output further away from a float32 reference is wrong."""
        return {Element.FLOAT32: 1e-4, Element.FLOAT16: 5e-3}[self]

    def converted(self, array: NDArray[Any], what: str) -> NDArray[Any]:
        """A float32 array in this type, rounded to nearest, ties to even: as the device rounds what it makes itself.

        Raises InvalidGraph, in the name of `what`, where a value is too large.
        """
        if self is Element.FLOAT32:
            return array.astype(np.float32, copy=False)
        with np.errstate(over="ignore"):
            narrow = array.astype(self.value)
        if not np.isfinite(narrow).all():
            largest = float(np.abs(array).max())
            raise InvalidGraph(
                f"{what} holds {largest:.6g}, but {self.value} ends at {self.largest:.0f}: "
                f"scale the layer down, or compile for a float32 target"
            )
        return narrow
