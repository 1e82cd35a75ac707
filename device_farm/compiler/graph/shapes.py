"""Extents of activations, and the border around them."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Extent of one activation, NHWC with batch 1."""

    height: int
    width: int
    channels: int

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels


class Padding(NamedTuple):
    """Zeros around an image, in pixels."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @classmethod
    def same(cls, kernel: int) -> Padding:
        """The padding that torch's `padding=kernel // 2` gives."""
        return cls(*(kernel // 2,) * 4)


NO_PADDING = Padding()
