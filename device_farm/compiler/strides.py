"""One activation in memory: where its pixels lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_farm.compiler.graph import Padding, Shape
from device_farm.compiler.target import Target

ALIGNMENT = 16  # elements: one cache line of float32, one AVX-512 vector
SET_STRIDE = 512  # elements: pixels this far apart share two sets of a first-level cache of 4 KiB a way


@dataclass(frozen=True)
class Layout:
    """One activation in memory, NHWC: `border` zero pixels around `shape`, `pixel_stride` elements a pixel.

    Lanes beyond the last channel are finite, but any number (a sigmoid of zero is none): no kernel may read them into
    a channel.
    """

    shape: Shape
    border: Padding
    pixel_stride: int

    @property
    def row_stride(self) -> int:
        return (self.border.left + self.shape.width + self.border.right) * self.pixel_stride

    @property
    def rows(self) -> int:
        return self.border.top + self.shape.height + self.border.bottom

    @property
    def elements(self) -> int:
        return self.rows * self.row_stride

    def offset(self, y: int, x: int) -> int:
        """Of pixel (y, x) of the image; negative coordinates lie in the border."""
        return (self.border.top + y) * self.row_stride + (self.border.left + x) * self.pixel_stride

    @property
    def contiguous(self) -> bool:
        """Whether rows follow one another without a gap."""
        return self.border.left == self.border.right == 0


@dataclass(frozen=True)
class TiledPlanes:
    """One activation as planes, for layers that read it so (chaining.py): tiles of 49 pixels, each by itself.

    A tile holds `vector_pixels` pixels of every channel, channel after channel, and behind them the last pixel of every
    channel. So vectors are aligned, a tile of the next layer reads what one tile wrote, and no pages are far apart.
    """

    pixels: int  # of the image, whole tiles of them
    tile_pixels: int
    channels: int  # whole vectors of them

    @property
    def vector_pixels(self) -> int:
        return self.tile_pixels - 1

    @property
    def tile(self) -> int:
        """Elements from one tile to the next."""
        return self.channels * self.tile_pixels

    @property
    def singles(self) -> int:
        """Elements from the beginning of a tile to the last pixels."""
        return self.channels * self.vector_pixels

    @property
    def tiles(self) -> int:
        return self.pixels // self.tile_pixels

    @property
    def elements(self) -> int:
        return self.channels * self.pixels


def pad_channels(channels: int, target: Target) -> int:
    """Floats a pixel: whole vectors, and a cache line more where neighbours would meet in a few sets of the cache.

    The taps of a tile of 28 pixels that lie 4 KiB apart drive each other out: a layer of 1,024 channels took ten times
    as long. What the further line holds is nobody's business.
    """
    return spread(math.ceil(channels / target.simd_lanes) * target.simd_lanes)


def spread(floats: int) -> int:
    """A stride that is no multiple of a way of the cache."""
    return floats + (ALIGNMENT if floats % SET_STRIDE == 0 else 0)
