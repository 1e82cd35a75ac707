"""In which order a convolution walks through its tiles and blocks: by the bytes that each order moves.

Loops go: band of rows -> strip of columns -> block of filters -> tiles of that rectangle -> taps. A large rectangle
reads the weights seldom, a small one keeps its input near while all blocks use it. Which is better depends on the sizes
of both and of the caches, so the bytes that come into each level are counted for every
rectangle, and the cheapest is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from device_farm.compiler.target import Target
from device_farm.compiler.tiling import Tiling

LINE = 64  # bytes of a cache line
USABLE = 0.75  # share of a cache that a loop may count on: sets fill unevenly, and others live there too
FAR_COST = 4.0  # a byte from behind the second level, in bytes from there
RECTANGLE_BYTES = 64  # what a block costs in each rectangle: its pointers, and loops that start
NEAR_RATE = 24.0  # bytes from the second level a cycle
TILE_CYCLES = 30.0  # what a tile costs beside its multiply-adds and a store a pixel
LATENCY = 4.0  # cycles of a multiply-add: a tap takes no less


@dataclass(frozen=True)
class Work:
    """One call of the kernel, in pixels, elements and bytes."""

    tiling: Tiling
    stride: tuple[int, int]
    reach: tuple[int, int]  # rows and columns of a window beyond its first pixel
    pixel_floats: int  # channels of the input that are read
    blocks: int
    block_filters: int
    weight_bytes: int  # of all blocks, taps included
    element_bytes: int = 4  # of an activation


@dataclass(frozen=True)
class Order:
    """A rectangle of band x strip tiles."""

    band: int
    strip: int


@dataclass(frozen=True)
class Plan:
    """How one call is cut, and in which order."""

    tiling: Tiling
    order: Order


def plan(tilings: Iterable[Tiling], work: Work, target: Target) -> Plan:
    """The cheapest of several tilings for `work`, whose own tiling is not looked at.

    Small tiles load more weights for each pixel; of large ones the input may not fit into the first level.
    """

    best: tuple[float, Plan] | None = None
    for tiling in tilings:
        own = dataclasses.replace(work, tiling=tiling)
        order, moved = _least(own, target)
        cycles = compute_cycles(own, target) + moved / NEAR_RATE
        if best is None or cycles < best[0]:
            best = cycles, Plan(tiling, order)
    if best is None:
        raise ValueError("no tilings to choose from")
    return best[1]


def compute_cycles(work: Work, target: Target) -> float:
    """One vector of the target's full width a cycle; a tap waits for the one before it."""
    taps = work.weight_bytes / (work.element_bytes * work.block_filters + 4)
    a_tap = max(work.tiling.pixels * work.block_filters / target.simd_lanes, LATENCY)
    return work.tiling.tiles * (taps * (a_tap + 1) + work.blocks * (TILE_CYCLES + work.tiling.pixels))


def loop_order(work: Work, target: Target) -> Order:
    """The rectangle that moves least; of equals the largest."""
    return _least(work, target)[0]


def cost(work: Work, order: Order, target: Target) -> float:
    """In bytes from the second level."""
    return _cost(work, _extent(_without_taps(work), order), target)


def moved_bytes(work: Work, order: Order, cache_bytes: int) -> int:
    """What comes into a cache of that size, and what partly written lines cost, over the whole call. A model."""
    return _moved(work, _extent(_without_taps(work), order), cache_bytes)


@dataclass(frozen=True)
class _Extent:
    """What an order makes of a call, in bytes, whatever taps it has."""

    order: Order
    rectangles: int
    tiles: int  # of a rectangle
    source: int  # input of a rectangle
    tile_source: int
    slice_bytes: int  # output of a block in a rectangle


def _without_taps(work: Work) -> Work:
    """Equal for equal shapes, as pruning changes only the taps."""
    return dataclasses.replace(work, weight_bytes=0)


def _extent(work: Work, order: Order) -> _Extent:
    tiling = work.tiling
    rows, columns = min(order.band, _row_tiles(tiling)), min(order.strip, _column_tiles(tiling))
    return _Extent(
        order,
        rectangles=_count(tiling, order),
        tiles=rows * columns,
        source=_input_bytes(work, rows * tiling.tile_rows, columns * tiling.tile_columns),
        tile_source=_input_bytes(work, tiling.tile_rows, tiling.tile_columns),
        slice_bytes=rows * columns * tiling.pixels * work.block_filters * work.element_bytes,
    )


@lru_cache(maxsize=4096)
def _extents_of(work: Work) -> tuple[_Extent, ...]:
    """Of all orders, those first that win where several cost the same."""
    orders = sorted(_orders(work.tiling), key=lambda order: (-order.strip, -order.band))
    return tuple(_extent(work, order) for order in orders)


@lru_cache(maxsize=4096)
def _least(work: Work, target: Target) -> tuple[Order, float]:
    """The order that costs least, and what it costs."""
    costs = ((_cost(work, extent, target), extent) for extent in _extents_of(_without_taps(work)))
    least, extent = min(costs, key=lambda pair: pair[0])
    return extent.order, least


def _cost(work: Work, extent: _Extent, target: Target) -> float:
    near, far = (_moved(work, extent, size) for size in (target.near_bytes, target.far_bytes))
    return near + FAR_COST * far + extent.rectangles * work.blocks * RECTANGLE_BYTES


def _moved(work: Work, extent: _Extent, cache_bytes: int) -> int:
    room, rectangles, source = USABLE * cache_bytes, extent.rectangles, extent.source
    result, block = extent.slice_bytes * work.blocks, work.weight_bytes / work.blocks
    all_stays = source + work.weight_bytes + result <= room
    weights = work.weight_bytes * (1 if all_stays else rectangles)
    if extent.tile_source + block > room:  # not even from one tile to the next
        weights = work.weight_bytes * rectangles * extent.tiles
    source_stays = work.blocks == 1 or source + block + extent.slice_bytes <= room
    reads = source * rectangles * (1 if source_stays else work.blocks)
    visits = max(1.0, LINE / (work.element_bytes * work.block_filters))  # how often a line of the result is written to
    writes = result * rectangles * (1 if source + result + block <= room else 2 * visits - 1)
    return round(weights + reads + writes)


def _input_bytes(work: Work, rows: int, columns: int) -> int:
    """Of a rectangle of output pixels."""
    height = (min(rows, work.tiling.rows) - 1) * work.stride[0] + work.reach[0] + 1
    width = (min(columns, work.tiling.columns) - 1) * work.stride[1] + work.reach[1] + 1
    return work.element_bytes * height * width * work.pixel_floats


def _row_tiles(tiling: Tiling) -> int:
    return math.ceil(tiling.rows / tiling.tile_rows)


def _column_tiles(tiling: Tiling) -> int:
    return math.ceil(tiling.columns / tiling.tile_columns)


def _count(tiling: Tiling, order: Order) -> int:
    """Rectangles of the image."""
    return math.ceil(_row_tiles(tiling) / order.band) * math.ceil(_column_tiles(tiling) / order.strip)


def _orders(tiling: Tiling) -> Iterator[Order]:
    for band in _extents(_row_tiles(tiling)):
        for strip in _extents(_column_tiles(tiling)):
            yield Order(band, strip)


def _extents(tiles: int) -> list[int]:
    """Powers of two below `tiles`, made even over the image, and all of them."""
    parts = (math.ceil(tiles / (1 << shift)) for shift in range(tiles.bit_length() + 1))
    return sorted({math.ceil(tiles / count) for count in parts})
