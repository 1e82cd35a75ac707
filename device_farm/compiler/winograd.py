"""Winograd's minimal filtering F(m x m, 3x3): which layers are computed so, how they are cut, and their weights.

The output is cut into tiles of m x m pixels, each of which needs m + 2 rows and columns of the input. Input tiles and
filters are transformed into (m + 2)^2 planes; in every plane the sum over the channels is a matrix product, whose
result is transformed back. Tiles go in blocks, so that what lies between the transforms stays near the processor:

    V  planes x tiles x channels    the transformed input of a block of tiles
    M  planes x tiles x filters     the products

A block of filters that lost whole kernels multiplies its own list of channels, the same in all planes. Where single
taps are lost, the transformed filters have no zeros: such a layer is computed as if it were dense, if that is cheaper.

The last tile of a row or column, and the last block, are shifted back to fit: some pixels are computed twice, and
nothing is read or written beyond the image and its border. (Lavin and Gray, "Fast algorithms for convolutional neural
networks", 2015.)

A stem, 7x7 at stride 2 on an image of a few channels, goes the same way: its four phases (pixels of even and odd rows
and columns) laid side by side are an image of half the size and four times the channels, on which it is a 4x4
convolution at stride 1, F(4 x 4, 4x4). A kernel of its own makes the rows of that image that a row of tiles needs,
behind V and M; blocks of tiles do not reach from one row of them into the next.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.element import Element
from device_farm.compiler.graph import Conv2d
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import FEWEST_SUMS, TILE_OVERHEAD, conv_tiling

if TYPE_CHECKING:
    from device_farm.compiler.layout import Layout

LINE = 16  # floats of a cache line
MOST_TILES = 49  # tiles of a block
# Tiles at once in registers, by architecture and lanes. NEON has room for 14, but each has an address, and LLVM spills
# from 10 on.
MOST_AT_ONCE = {("x86_64", 16): 14, ("x86_64", 8): 6, ("aarch64", 4): 8, ("aarch64", 8): 8}

# Outputs of a tile in each direction. In float16, F(4x4) has eleven times the error of direct sums, F(2x2) twice
# (docs/fp16.md).
TILES = {Element.FLOAT32: (4, 2), Element.FLOAT16: (2,)}

# G of the filter's transform G g G', by m; csrc/prepare.c repeats it. kernels/winograd.py spells out the other two.
FILTER_TRANSFORMS: dict[int, NDArray[np.float64]] = {
    2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}
STEM_KERNEL = (7, 7)
STEM_TAPS = 4  # rows and columns of a stem's kernel in an image of phases
STEM_TRANSFORM = np.array(
    [
        [-2, 0, 0, 0],
        [-2 / 3, -2 / 3, -2 / 3, -2 / 3],
        [-2 / 9, 2 / 9, -2 / 9, 2 / 9],
        [16 / 9, 8 / 9, 4 / 9, 2 / 9],
        [16 / 15, -8 / 15, 4 / 15, -2 / 15],
        [2 / 45, 4 / 45, 8 / 45, 16 / 45],
        [0, 0, 0, 1],
    ]
)


class LivingBlock(NamedTuple):
    """What pruning leaves of one block of filters."""

    vectors: int  # SIMD vectors of filters
    taps: int
    channels: int  # with a living kernel where whole kernels were pruned, else all


@dataclass(frozen=True)
class Winograd:
    """How one layer is cut. Strides and sizes are in floats."""

    tile: int  # m
    height: int  # of the output
    width: int
    channels: int
    filters: int
    lanes: int
    block: int  # tiles of a block
    living: tuple[LivingBlock, ...]  # blocks of filters
    taps: int = 3  # rows and columns of the kernel

    @property
    def gathered(self) -> bool:
        """Whether blocks of filters multiply lists of channels."""
        return any(block.channels < self.channels for block in self.living)

    @property
    def planes(self) -> int:
        return (self.tile + self.taps - 1) ** 2

    @property
    def is_stem(self) -> bool:
        """Whether `channels` are those of an image of phases."""
        return self.taps == STEM_TAPS

    @property
    def phase_rows(self) -> int:
        """Of the image of phases under one row of tiles; its pixels are LINE floats apart."""
        return self.tile + self.taps - 1

    @property
    def phase_columns(self) -> int:
        return self.width + self.taps - 1

    @property
    def phase_floats(self) -> int:
        """A vector written at the last pixel may stick out by less than a line."""
        return (self.phase_rows * self.phase_columns + 1) * LINE if self.is_stem else 0

    @property
    def tile_columns(self) -> int:
        return math.ceil(self.width / self.tile)

    @property
    def tiles(self) -> int:
        return math.ceil(self.height / self.tile) * self.tile_columns

    @property
    def first_of_row(self) -> tuple[int, ...]:
        """First tiles of the blocks of one row of tiles."""
        return tuple(min(first, self.tile_columns - self.block) for first in range(0, self.tile_columns, self.block))

    @property
    def first_tiles(self) -> tuple[int, ...]:
        """Of every block."""
        if self.is_stem:
            rows = range(0, self.tiles, self.tile_columns)
            return tuple(row + first for row in rows for first in self.first_of_row)
        return tuple(min(first, self.tiles - self.block) for first in range(0, self.tiles, self.block))

    @property
    def v_tile(self) -> int:
        return _apart(self.channels, self.lanes)

    @property
    def v_plane(self) -> int:
        return _apart(self.block * self.v_tile, LINE)

    @property
    def m_tile(self) -> int:
        return _apart(self.filters, self.lanes)

    @property
    def m_plane(self) -> int:
        return _apart(self.block * self.m_tile, LINE)

    @property
    def workspace(self) -> int:
        """V, behind it M, and behind that the image of phases, if there is one."""
        return self.planes * (self.v_plane + self.m_plane) + self.phase_floats


def _apart(floats: int, lanes: int) -> int:
    """A stride of at least `floats`, whole vectors and an odd number of cache lines.

    Rows at a stride of a power of two would meet in a few sets of the first-level cache.
    """
    lines = math.ceil(math.ceil(floats / lanes) * lanes / LINE)
    return (lines + (lines % 2 == 0)) * LINE


def product_pixels(block: int, vectors: int, target: Target) -> int:
    """Tiles at once in registers: those that cost least for a block."""
    most = min(block, MOST_AT_ONCE[target.triple.partition("-")[0], target.simd_lanes])
    fewest = math.ceil(FEWEST_SUMS / vectors)
    return min(range(1, most + 1), key=lambda p: (math.ceil(block / p) * (max(p, fewest) + TILE_OVERHEAD), -p))


def eligible(op: Conv2d) -> bool:
    """Whether Winograd can compute such a layer at all."""
    return op.kernel == (3, 3) and op.stride == op.dilation == (1, 1) and op.groups == 1


def choose(op: Conv2d, x: Layout, target: Target, blocks: tuple[LivingBlock, ...]) -> Winograd | None:
    """The cheapest way by Winograd, or None where the direct convolution is faster or the only one."""
    out = op.output_shape(x.shape)
    if is_stem(op, x.shape.channels) and x.pixel_stride == x.shape.channels:
        if target.element is not Element.FLOAT32:
            return None  # F(4x4) loses too many digits
        return _cheapest_stem(out.height, out.width, x.shape.channels, op.filters, target)
    if not blocks or not eligible(op) or x.pixel_stride % target.simd_lanes:
        return None  # or an image whose pixels are not whole vectors
    return _cheapest(out.height, out.width, x.shape.channels, op.filters, target, blocks)


@lru_cache(4096)
def _cheapest(
    height: int, width: int, channels: int, filters: int, target: Target, blocks: tuple[LivingBlock, ...]
) -> Winograd | None:
    dense = all(block.taps == 9 * channels for block in blocks)
    best, least = None, direct_cost(height, width, blocks, target) * (MARGIN if dense else PRUNED_MARGIN)
    for tile in TILES[target.element]:
        if min(height, width) < tile:
            continue
        tiles = math.ceil(height / tile) * math.ceil(width / tile)
        for block in range(min(tiles, 4), min(tiles, MOST_TILES) + 1):
            way = Winograd(tile, height, width, channels, filters, target.simd_lanes, block, blocks)
            if (cost := winograd_cost(way, target)) < least:
                best, least = way, cost
    return best


def is_stem(op: Conv2d, channels: int) -> bool:
    """Whether the layer is a 4x4 convolution of the phases of an image, whose pixels then fit into a cache line.

    Such an image needs a border that makes its rows and columns even.
    """
    shape = (op.kernel, op.stride, op.dilation, op.groups)
    return shape == (STEM_KERNEL, (2, 2), (1, 1), 1) and 4 * channels <= LINE and op.sparsity is None


@lru_cache(4096)
def _cheapest_stem(height: int, width: int, channels: int, filters: int, target: Target) -> Winograd | None:
    if min(height, width) < LEAST_STEM:
        return None
    vectors = math.ceil(filters / target.simd_lanes)
    blocks = tuple(LivingBlock(min(2, vectors - i), 49 * channels, 4 * channels) for i in range(0, vectors, 2))
    best, least = None, direct_cost(height, width, blocks, target) * MARGIN
    columns = math.ceil(width / 4)
    for block in range(min(columns, 4), min(columns, MOST_TILES) + 1):
        way = Winograd(4, height, width, 4 * channels, filters, target.simd_lanes, block, blocks, STEM_TAPS)
        near = way.workspace - way.phase_floats <= NEAR_STEM_WORKSPACE
        if near and (cost := winograd_cost(way, target)) < least:
            best, least = way, cost
    return best


# Output pixels a side: of all kernels F(4x4, 4x4) has the largest error (4e-6), which an ill-conditioned ResNet-50 at
# 64x64 makes 1.4e-4; on small images the stem is not worth that.
LEAST_STEM = 56
MARGIN = 0.9  # what Winograd must come below in dense layers, as its cost is known less well
PRUNED_MARGIN = 1.15  # in pruned ones: near a tie the way of the dense layer stays, as pruning must not make slower


@dataclass(frozen=True)
class Costs:
    """What a processor takes, in multiply-adds of one vector, the unit of tiling.py; sizes are in floats."""

    input: Mapping[int, float]  # transform of one vector of one tile, by m
    output: Mapping[int, float]
    near_workspace: int  # of V and M that stay near
    far_workspace: float  # a vector of a larger workspace
    near_weights: int  # that stay in a cache from run to run
    far_weight: float  # reading one vector of more of them; a near one costs 1
    band_weights: int  # that stay in a cache from one block of tiles to the next


# Fitted to times on Zen 4 (docs/kernel_blocks.md). Transforms cost as many multiply-adds at either width. A far weight
# of AVX-512 is half as much again as on the idle machine, as memory is slower where every core is busy.
_AVX512 = Costs({4: 320.0, 2: 70.0}, {4: 250.0, 2: 60.0}, 160_000, 1.0, 500_000, 6.0, 2_500_000)
# No ARM hardware was at hand: llvm-mca's cycles of the transforms' loops, times what Zen 4 takes beyond its own model
# (1.5); between Cortex-A76 and the in-order A55, which pays more. Caches of a phone's middle cores.
_NEON = Costs({4: 400.0, 2: 150.0}, {4: 280.0, 2: 140.0}, 64_000, 3.0, 500_000, 8.0, 500_000)
_AVX2 = dataclasses.replace(_AVX512, far_weight=12.0)
NEAR_STEM_WORKSPACE = 80_000  # with a dozen channels, products do little with what they read and write


def costs(target: Target) -> Costs:
    """Of the processors that a target stands for."""
    return _NEON if target.triple.startswith("aarch64") else _AVX512 if target.simd_lanes == 16 else _AVX2


def direct_cost(height: int, width: int, blocks: Sequence[LivingBlock], target: Target) -> float:
    """Of the direct convolution with the taps that are left."""
    a_read = _reading(sum(block.taps * block.vectors for block in blocks), 1, target)
    cost = 0.0
    for block in blocks:
        tiling = conv_tiling(height, width, flat=False, vectors=block.vectors, target=target)
        a_weight = tiling.tiles * (max(tiling.pixels, FEWEST_SUMS / block.vectors) + TILE_OVERHEAD)
        cost += block.taps * block.vectors * (a_weight + a_read)
    return cost


def winograd_cost(way: Winograd, target: Target) -> float:
    prices, passes = costs(target), len(way.first_tiles)
    a_read = _reading(way.planes * sum(block.channels * block.vectors for block in way.living), passes, target)
    products = 0.0
    for block in way.living:
        pixels = product_pixels(way.block, block.vectors, target)
        a_pass = math.ceil(way.block / pixels) * (max(pixels, FEWEST_SUMS / block.vectors) + TILE_OVERHEAD)
        products += way.planes * block.channels * block.vectors * (passes * a_pass + a_read)
    vectors = math.ceil(way.filters / way.lanes)
    a_tile = prices.input[way.tile] * math.ceil(way.channels / way.lanes) + prices.output[way.tile] * vectors
    if way.workspace - way.phase_floats > prices.near_workspace:
        a_tile += prices.far_workspace * way.planes * (way.v_tile + way.m_tile) / way.lanes
    return products + passes * way.block * a_tile


def _reading(vectors: int, passes: int, target: Target) -> float:
    """Cost of one of the layer's vectors of weights that are read so many times in a run."""
    prices, floats = costs(target), vectors * target.simd_lanes
    first = 1.0 if floats <= prices.near_weights else prices.far_weight
    again = 1.0 if floats <= prices.band_weights else prices.far_weight
    return first + (passes - 1) * again


def transformed(weight: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """[filters, channels, 3, 3] -> [planes, channels, filters], in double precision, rounded once."""
    return _transformed(weight, FILTER_TRANSFORMS[tile])


def transformed_stem(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """[filters, channels, 7, 7] -> [planes, 4 channels, filters]; the channels of phase (y, x) are those from
    (2 y + x) * channels on."""
    filters, channels = weight.shape[:2]
    even = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))
    phases = even.reshape(filters, channels, STEM_TAPS, 2, STEM_TAPS, 2).transpose(0, 3, 5, 1, 2, 4)
    return _transformed(phases.reshape(filters, 4 * channels, STEM_TAPS, STEM_TAPS), STEM_TRANSFORM)


def _transformed(weight: NDArray[np.float32], g: NDArray[np.float64]) -> NDArray[np.float32]:
    planes = np.einsum("ia,jb,fcab->ijcf", g, g, weight.astype(np.float64), optimize=True)
    rounded: NDArray[np.float32] = planes.reshape(-1, *planes.shape[2:]).astype(np.float32)
    return rounded
