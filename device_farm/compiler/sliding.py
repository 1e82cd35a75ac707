"""How depthwise convolutions are computed: tiles of direct sums, or pairs of rows by Winograd's F(2, 3).

A pair of output rows under a window of three rows needs four products a column for six: the four input rows d of a
column become d0 - d2, d1 + d2, d2 - d1, d1 - d3, each times its own transform of the window's column; summed over the
window's columns as m0 .. m3, the outputs are m0 + m1 + m2 and m1 - m2 - m3. Marching along the rows, every input column
is transformed once and feeds three columns of outputs. That trades multiply-adds for additions, which pays where those
have pipes of their own (Zen 4), and needs 12 weights and 12 sums in registers.
The two rows of a pair are not rounded alike: no row may belong to two pairs that different threads compute.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from device_farm.compiler.element import Element
from device_farm.compiler.graph import DepthwiseConv2d
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import Tiling, depthwise_tiling

PAIR_LANES = 16  # of AVX-512: 32 registers, and (on Zen 4) additions beside multiply-adds
MOST_COLUMNS = 16  # of a tile: code of 600 instructions
NEAR_SHARE = (
    0.5  # of the second-level cache that input and output may take; where they come from afar, pairs are slower
)
COLUMN_COST, INPUT_COST, TILE_COST = 14.0, 2.0, 4.0  # cycles: a column of outputs, one of the input, a tile


class Cut(NamedTuple):
    """A tiling, and whether its tiles are pairs of rows."""

    tiling: Tiling
    row_pairs: bool


def map_cut(op: DepthwiseConv2d, x: Layout, y: Layout, target: Target) -> Cut:
    """For a whole layer, whose rows several threads may share."""
    near = (x.elements + y.elements) * target.element.bytes <= NEAR_SHARE * target.far_bytes
    return _cut(op, y, target, pairs=near and y.shape.height % 2 == 0)


def band_cut(op: DepthwiseConv2d, y: Layout, map_rows: int, target: Target) -> Cut:
    """For one band of a map of so many rows, the last of which is shifted back and may be another thread's."""
    rows = y.shape.height
    return _cut(op, y, target, pairs=rows > 1 and (rows == map_rows or rows % 2 == map_rows % 2 == 0))


def _cut(op: DepthwiseConv2d, y: Layout, target: Target, *, pairs: bool) -> Cut:
    height, width, _ = y.shape
    if pairs and _pairs_pay(op, target):
        return Cut(Tiling(height, width, 2, _pair_columns(width)), True)
    return Cut(depthwise_tiling(height, width, kernel=op.kernel, stride=op.stride, target=target), False)


def _pairs_pay(op: DepthwiseConv2d, target: Target) -> bool:
    shape = (op.kernel, op.stride, op.dilation) == ((3, 3), (1, 1), (1, 1))
    return shape and target.simd_lanes == PAIR_LANES and target.element is Element.FLOAT32


@cache
def _pair_columns(width: int) -> int:
    def cost(columns: int) -> float:
        tiles = -(-width // columns)
        return tiles * (columns * COLUMN_COST + (columns + 2) * INPUT_COST + TILE_COST)

    return min(range(1, min(width, MOST_COLUMNS) + 1), key=cost)
