"""Layers in low blocks of filters: an input as planes, one a channel, so that a vector is 16 pixels of one filter.

Blocks of half a vector would need a load for every multiply-add of half a vector. So the input is first written to
scratch memory channel by channel; a vector of pixels then serves all filters of a block, and a tap reads three
adjacent cache lines instead of one a pixel. Writing the planes costs as much as a few multiply-adds a number, so it
must pay: `choose` compares.

The output is cut into bands of rows, one after the other, whose planes stay in the second-level cache. A plane holds,
for all that windows can begin at, the numbers in the order of the output's pixels: so any 16 pixels of the output, in
whatever rows, read 16 adjacent numbers. There are two ways to have that with a kernel of several columns. `apart`: each
column of the kernel has a copy of the image of its own. Else they share one whose rows are a few columns longer, and
what is computed there for nothing is written where the next row's first pixel follows.

An input that is kept as planes from the layer before (chaining.py) is read as it lies, and needs no bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from device_farm.compiler.graph import Conv2d
from device_farm.compiler.ordering import USABLE
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import PlanarTile, Target

# Cycles on Zen 4 (docs/neon.md)
WRITTEN = 0.36  # a number of a plane
TAP, STORED = 0.4, 2.1  # a tap of a tile beside its multiply-adds, a pixel of a block
FAR_STORED = 1.1  # the same in addition where the output leaves the second level
KEPT, FAR_KEPT = 0.4, 0.5  # both, where the output is kept as planes
FAR_TAP, FAR_SHARE = 1.3, 0.75  # times a tap where the planes take more than that share of the second level
HALF_TAP, HALF_STORED, HALF_PIXELS = 0.58, 2.2, 28  # a tap and a pixel of blocks of half a vector; a tile's pixels
FAR_LINE = 1.0  # a line that half vectors read from beyond the first level
FEWEST_ROWS = 4  # of a band of several


@dataclass(frozen=True)
class Stream:
    """One image within a plane: `rows` rows of `pitch` numbers from pixel `first` of the bordered input on.

    `last` is the last column that is read of a row.
    """

    first: tuple[int, int]
    step: tuple[int, int]
    rows: int
    pitch: int
    last: int

    @property
    def length(self) -> int:
        """The last row is whole."""
        return (self.rows - 1) * self.pitch + self.last + 1

    def places(self, layout: Layout) -> Iterator[int]:
        """Elements from the bordered input's first pixel."""
        for index in range(self.length):
            row = min(index // self.pitch, self.rows - 1)
            column = index - row * self.pitch
            pixel = self.first[1] + min(column, self.last) * self.step[1]
            yield (self.first[0] + row * self.step[0]) * layout.row_stride + pixel * layout.pixel_stride


@dataclass(frozen=True)
class PlanarImage:
    """The planes of one band of `rows` x `columns` output pixels, and the tile that computes it.

    Without streams the input is planes already.
    """

    streams: tuple[Stream, ...]
    positions: tuple[int, ...]  # where each position of the kernel begins in a plane
    channels: int
    rows: int
    columns: int
    pitch: int  # from one row of the output to the next, in pixels that are computed
    starts: tuple[int, ...]  # first rows of the bands; the last one is shifted back to fit
    tile: PlanarTile

    @property
    def pixels(self) -> int:
        """That are computed."""
        return (self.rows - 1) * self.pitch + self.columns

    @property
    def tiles(self) -> int:
        return math.ceil(self.pixels / self.tile.pixels)

    @property
    def groups(self) -> int:
        """Vectors of a plane."""
        return math.ceil(sum(stream.length for stream in self.streams) / self.tile.lanes)

    @property
    def plane(self) -> int:
        """Elements from one channel to the next: an odd number of vectors, so that channels spread over the cache."""
        return (self.groups | 1) * self.tile.lanes

    @property
    def whole(self) -> bool:
        """Whether its tiles, and those of every band, are those of an activation that is kept as planes."""
        pixels = (self.rows * self.columns, *(start * self.columns for start in self.starts))
        return self.pitch == self.columns and not any(count % self.tile.pixels for count in pixels)

    @property
    def elements(self) -> int:
        if not self.streams:
            return 0
        return math.ceil(self.channels / self.tile.lanes) * self.tile.lanes * self.plane

    def sources(self, layout: Layout) -> tuple[int, ...]:
        """Where each number of a plane comes from, in whole vectors."""
        places = [place for stream in self.streams for place in stream.places(layout)]
        return tuple(places + places[-1:] * (self.groups * self.tile.lanes - len(places)))

    def targets(self, layout: Layout) -> tuple[int, ...]:
        """Where each pixel of the output goes; those between rows, where the next row's first pixel follows."""
        places = []
        for index in range(self.pixels):
            row, column = divmod(index, self.pitch)
            row, column = (row + 1, 0) if column >= self.columns else (row, column)
            places.append(row * layout.row_stride + column * layout.pixel_stride)
        return tuple(places)


class Kept(NamedTuple):
    """Which activations of a layer are kept as planes."""

    x: bool = False
    y: bool = False
    residual: bool = False


NOTHING_KEPT = Kept()


@dataclass(frozen=True)
class Way:
    """How a layer in lowest blocks is computed, in half vectors if there is no image; `cycles` by the model."""

    cycles: float
    image: PlanarImage | None


def choose(op: Conv2d, x: Layout, y: Layout, target: Target, kept: Kept = NOTHING_KEPT) -> Way | None:
    """The fastest way for a layer from x to y; None where there is none, as the layer cannot keep what it should."""
    taps, blocks = block_taps(op, x.shape.channels, target)
    images = iter((kept_image(x, y, target),)) if kept.x else planar_images(op, x, y, target)
    ways = [
        Way(cycles(image, y, taps, blocks, target, kept=kept.y), image)
        for image in images
        if kept == NOTHING_KEPT or (image.whole and image.tile == target.planar_tiles[0])
    ]
    if kept == NOTHING_KEPT:
        ways.append(Way(half_cycles(op, x, y, taps, blocks, target), None))
    return min(ways, key=lambda way: way.cycles, default=None)


def kept_image(x: Layout, y: Layout, target: Target) -> PlanarImage:
    """Of a 1x1 layer whose input is kept as planes."""
    height, width, _ = y.shape
    return PlanarImage((), (0,), x.shape.channels, height, width, width, (0,), target.planar_tiles[0])


def block_taps(op: Conv2d, channels: int, target: Target) -> tuple[float, int]:
    """Taps and number of the lowest blocks of a layer."""
    height = target.tiles[-1].height
    blocks = math.ceil(op.filters / height)
    taps = blocks * op.kernel[0] * op.kernel[1] * channels / op.groups
    if op.sparsity is not None:
        taps = sum(op.sparsity.kept) * op.sparsity.block_height / height
    return taps, blocks


def cycles(image: PlanarImage, y: Layout, taps: float, blocks: int, target: Target, *, kept: bool = False) -> float:
    """A model. Planes beyond the second level are read from there by every tap. `kept`: the output stays planes."""
    tile, bands = image.tile, len(image.starts)
    a_tap = tile.cycles + TAP
    if image.elements * target.element.bytes > FAR_SHARE * target.far_bytes:
        a_tap *= FAR_TAP
    near, far = (KEPT, FAR_KEPT) if kept else (STORED, FAR_STORED)
    stored = near + (far if y.elements * target.element.bytes > target.far_bytes else 0.0)
    tiles = image.tiles * (taps * a_tap + blocks * stored * tile.pixels)
    return bands * (tiles + WRITTEN * image.channels * image.groups * tile.lanes)


def half_cycles(op: Conv2d, x: Layout, y: Layout, taps: float, blocks: int, target: Target) -> float:
    """Of blocks of half a vector. A line of 16 channels serves as many taps of a block as the rate leaves."""
    pixels = y.shape.height * y.shape.width
    dense = blocks * op.kernel[0] * op.kernel[1] * x.shape.channels / op.groups
    window = min(HALF_PIXELS, pixels) * x.shape.channels * target.element.bytes
    window *= op.kernel[0] * op.kernel[1]
    lines = min(1.0, dense / max(taps, 1) / target.simd_lanes) * max(0.0, 1 - USABLE * target.near_bytes / window)
    return pixels * (taps * (HALF_TAP + FAR_LINE * lines) + blocks * HALF_STORED)


def planar_images(op: Conv2d, x: Layout, y: Layout, target: Target) -> Iterator[PlanarImage]:
    """All that are worth comparing."""
    height = y.shape.height
    counts = {1, *(count for count in range(2, height // FEWEST_ROWS + 1))}
    for rows in sorted({math.ceil(height / count) for count in counts}):
        starts = tuple(min(first, height - rows) for first in range(0, height, rows))
        for apart in (False, True):
            if apart and op.kernel[1] == 1:
                continue
            streams, positions, pitch = _streams(op, x, rows, y.shape.width, apart=apart)
            for tile in target.planar_tiles:
                image = PlanarImage(
                    streams, positions, x.shape.channels, rows, y.shape.width, pitch, starts, tile
                )  # fmt: skip
                if image.pixels >= tile.pixels:
                    yield image


def _streams(
    op: Conv2d, x: Layout, rows: int, columns: int, *, apart: bool
) -> tuple[tuple[Stream, ...], tuple[int, ...], int]:
    """The images of a plane, where each position of the kernel begins in it, and the pitch of their rows."""
    (kh, kw), (sy, sx), (dy, dx) = op.kernel, op.stride, op.dilation
    down = [divmod(row * dy, sy) for row in range(kh)]  # (rows further, phase)
    across = [(0, column * dx) if apart else divmod(column * dx, sx) for column in range(kw)]
    reach = max(further for further, _ in across)
    pitch = columns + reach - _shared_border(op, x, columns, reach)
    streams, begins, at = [], {}, 0
    for phase in sorted({phase for _, phase in down}):
        deepest = max(further for further, own in down if own == phase)
        for first in sorted({first for _, first in across}):
            widest = max(further for further, own in across if own == first)
            stream = Stream((phase, first), (sy, sx), rows + deepest, pitch, columns - 1 + widest)
            begins[phase, first] = at
            streams.append(stream)
            at += stream.length
    positions = tuple(
        begins[phase, first] + further * pitch + beside for further, phase in down for beside, first in across
    )
    return tuple(streams), positions, pitch


def _shared_border(op: Conv2d, x: Layout, columns: int, reach: int) -> int:
    """Zero columns on the right of a row that may be those on the left of the next one."""
    if op.stride[1] > 1:
        return 0
    right = columns + reach - op.padding.left - x.shape.width
    return max(0, min(op.padding.left, right, reach))
