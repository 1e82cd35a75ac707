"""How an output image is cut into register tiles and bands of rows."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from device_farm.compiler.element import Element
from device_farm.compiler.target import RegisterTile, Target

TILE_OVERHEAD = 0.5  # what a tile costs beyond its pixels, in pixels: loading weights, starting and storing sums
DEPTHWISE_OVERHEAD = 4.0  # the same for depthwise, in vector instructions
FEWEST_SUMS = 8  # accumulators that hide the latency of a multiply-add
PREFETCHED_TAPS = 24  # from so many on, a block's weights are asked for ahead
PREFETCHING_TILES = 32  # of a block; more would not wait for its weights
PART_PRODUCTS = 64  # that are summed in float16 at once


@dataclass(frozen=True)
class Tiling:
    """An image of rows x columns output pixels, cut into tiles of tile_rows x tile_columns pixels."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int

    @property
    def pixels(self) -> int:
        return self.tile_rows * self.tile_columns

    @property
    def tiles(self) -> int:
        return math.ceil(self.rows / self.tile_rows) * math.ceil(self.columns / self.tile_columns)


def most_pixels(vectors: int, target: Target) -> int:
    """Largest tile whose sums, weights and one value stay in registers."""
    return target.tile_pixels * 2 // vectors


def conv_pixels(tile: RegisterTile, tap_channels: int, target: Target) -> int:
    """Largest tile of the gathered GEMM. With several channels a tap, their values for all pixels are in registers.

    A tile of one vector then has room for two pixels more: with four more, LLVM spills. Halves want the lower registers
    as operands, so they have no room.
    """
    if tap_channels == 1:
        return tile.pixels
    more = 2 * (2 - tile.vectors) if target.element is Element.FLOAT32 else 0
    return target.quad_pixels + more


@cache
def conv_tiling(
    height: int, width: int, *, flat: bool, vectors: int, target: Target, pixels: int | None = None
) -> Tiling:
    """The cheapest tiling of at most `pixels` a tile (by default, those that fit blocks of `vectors` whole vectors).

    A `flat` image may be cut at any pixel, since its rows follow one another without a gap.
    """
    largest = most_pixels(vectors, target) if pixels is None else pixels
    fewest = math.ceil(FEWEST_SUMS / vectors / 2)
    images = [(height, width)]
    if flat:
        area = height * width
        divisors = [low for low in range(1, math.isqrt(area) + 1) if area % low == 0]
        images += [(area // low, low) for low in divisors] + [(low, area // low) for low in divisors]

    def cost(tiling: Tiling) -> float:
        return tiling.tiles * (max(tiling.pixels, fewest) + TILE_OVERHEAD)

    return min(_tilings(images, largest), key=lambda t: (cost(t), t.tile_rows, t.columns, t.pixels))


@cache
def depthwise_tiling(
    height: int, width: int, *, kernel: tuple[int, int], stride: tuple[int, int], target: Target
) -> Tiling:
    """Every input vector of a tile is loaded once, so a tile near a square loads least."""
    weights = kernel[0] * kernel[1]
    largest = max(target.registers - weights - 1, 4)

    def cost(tiling: Tiling) -> float:
        loads = ((tiling.tile_rows - 1) * stride[0] + kernel[0]) * ((tiling.tile_columns - 1) * stride[1] + kernel[1])
        return tiling.tiles * (tiling.pixels * weights + loads + DEPTHWISE_OVERHEAD)

    return min(_tilings([(height, width)], min(largest, 14)), key=lambda t: (cost(t), t.pixels))


def _tilings(images: list[tuple[int, int]], largest: int) -> list[Tiling]:
    return [
        Tiling(rows, columns, tile_rows, tile_columns)
        for rows, columns in images
        for tile_columns in range(1, min(columns, largest) + 1)
        for tile_rows in range(1, min(rows, largest // tile_columns) + 1)
    ]


def tap_unroll(tiling: Tiling, vectors: int) -> int:
    """Independent sums over taps that a small tile needs to keep the multipliers busy."""
    unroll = 1
    while tiling.pixels * vectors * unroll < FEWEST_SUMS:
        unroll *= 2
    return unroll


def prefetches_weights(kept: Collection[int], tiling: Tiling, tiles: int, target: Target) -> bool:
    """Whether blocks of `kept` taps, each for so many tiles in a row, should ask for the next block's weights.

    For a single pixel they are one stream, which the processor follows better alone (docs/kernels.md).
    """
    longest = max(kept, default=0)
    again = tiling.rows * tiling.columns > 1 and tiles <= PREFETCHING_TILES
    return target.prefetches and again and len(kept) > 1 and longest >= PREFETCHED_TAPS


def part_taps(kept: Collection[int], tap_channels: int, target: Target) -> int:
    """Taps of `tap_channels` channels that are summed in float16 at once; 0 where no block's `kept` products are more.

    So far the error of the sums is as large as that of rounding activations and weights (docs/fp16.md).
    """
    if target.element is Element.FLOAT32 or max(kept, default=0) <= PART_PRODUCTS:
        return 0
    return PART_PRODUCTS // tap_channels
