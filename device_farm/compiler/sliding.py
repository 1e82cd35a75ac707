"""How depthwise convolutions in bands are computed: tiles of direct sums, or pairs of rows by Winograd's F(2, 3).

A pair of output rows under a window of three rows needs four products a column for six: the four input rows d of a
column become d0 - d2, d1 + d2, d2 - d1, d1 - d3, each times its own transform of the window's column; summed over the
window's columns as m0 .. m3, the outputs are m0 + m1 + m2 and m1 - m2 - m3. Marching along the rows, every input column
is transformed once and feeds three columns of outputs. That trades multiply-adds for additions, which pays where those
have pipes of their own (Zen 4), and needs 12 weights and 12 sums in registers.
Whole layers stay direct (docs/kernels.md): their input comes from afar, and without a table of rows LLVM spills sums.
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
MOST_COLUMNS = 14  # of a tile: with more, LLVM spills
COLUMN_COST, INPUT_COST, TILE_COST = 14.0, 2.0, 4.0  # cycles: a column of outputs, one of the input, a tile


class Cut(NamedTuple):
    """A tiling, and whether its tiles are pairs of rows."""

    tiling: Tiling
    row_pairs: bool


def band_cut(op: DepthwiseConv2d, y: Layout, map_rows: int, target: Target) -> Cut:
    """For one band of a map of so many rows, the last of which is shifted back and may be another thread's."""
    rows, width, _ = y.shape
    pairs = rows > 1 and (rows == map_rows or rows % 2 == map_rows % 2 == 0)
    if pairs and _pairs_pay(op, target):
        return Cut(Tiling(rows, width, 2, _pair_columns(width)), True)
    return Cut(depthwise_tiling(rows, width, kernel=op.kernel, stride=op.stride, target=target), False)


def _pairs_pay(op: DepthwiseConv2d, target: Target) -> bool:
    shape = (op.kernel, op.stride, op.dilation) == ((3, 3), (1, 1), (1, 1))
    return shape and target.simd_lanes == PAIR_LANES and target.element is Element.FLOAT32


@cache
def _pair_columns(width: int) -> int:
    def cost(columns: int) -> float:
        tiles = -(-width // columns)
        return tiles * (columns * COLUMN_COST + (columns + 2) * INPUT_COST + TILE_COST)

    return min(range(1, min(width, MOST_COLUMNS) + 1), key=cost)
