"""A kernel's call as a run of items, and the calls for some of them: the same kernel on a smaller range.

An item is the least that is worth a call: a tile of pixels of one block of filters, a row, a tile of Winograd, a plane
of products. Where a last tile is shifted back to fit, two runs of items may compute some of the same pixels; they write
the same bits. Costs are in multiply-adds of one vector, the unit of tiling.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from device_farm.compiler.kernels.spec import (
    ConvKernel,
    DepthwiseKernel,
    ElementwiseKernel,
    PhasesKernel,
    PlanarKernel,
    PlanesKernel,
    PoolKernel,
    RingDepthwiseKernel,
    ShuffleKernel,
    SoftmaxKernel,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from device_farm.compiler.runs import rectangles
from device_farm.compiler.steps import Call, Place, Table
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import DEPTHWISE_OVERHEAD, FEWEST_SUMS, TILE_OVERHEAD
from device_farm.compiler.winograd import costs

LOADED = 3.0  # a vector of a pool's window: it comes from an outer cache
COPIED = 2.0  # a vector that is read and written
STORED = 3.0  # a vector of sums: its first and last value, its activation
TRANSPOSED = 6.0  # a vector of pixels of one channel
PHASES = 2.0  # vectors of a pixel that hold the phases of four
SINGLY = 2.0  # a channel that is copied alone
EXPONENTIAL = 40.0  # a vector of softmax
SMALLER_WEIGHTS = 1.0  # times the input: up to here all weights are read by every thread, and the input is shared


@dataclass(frozen=True)
class Cuttable:
    """What every item costs, and the calls for the items from `first` to before `last`."""

    costs: Sequence[float]
    piece: Callable[[int, int], tuple[Call, ...]]

    @property
    def cost(self) -> float:
        return sum(self.costs)


def cuttable(call: Call, target: Target) -> tuple[Cuttable, ...]:
    """The ways to cut a call; the first one shares least."""
    match call.spec:
        case ConvKernel() as spec:
            return _conv(call, spec, target)
        case PlanarKernel() as spec:
            return _planar(call, spec, target)
        case PlanesKernel():
            return (_planes_of_image(call, target),)
        case DepthwiseKernel() as spec:
            return (_depthwise(call, spec, target),)
        case WinogradInput() as spec:
            return (_tiles(call, "v", costs(target).input[spec.tile]),)
        case WinogradOutput() as spec if overlaps(call):
            return (_channels(call, costs(target).output[spec.tile] * number(call, "tiles"), target),)
        case WinogradOutput() as spec:
            return (_tiles(call, "m", costs(target).output[spec.tile]),)
        case WinogradProduct() as spec:
            return (_planes(call, spec, target),)
        case PoolKernel():
            windows = number(call, "rows") * number(call, "columns")
            return _rows(call), _channels(call, windows * _pixel_cost(call) / number(call, "vectors"), target)
        case PhasesKernel():
            cost = COPIED * number(call, "rows") * number(call, "columns") * PHASES
            return (Cuttable([cost], lambda first, last: (call,) * (last - first)),)
        case _:
            return (_rows(call),)


def number(call: Call, name: str) -> int:
    """An argument that is a number."""
    return cast(int, call.arguments[name])


def moved(call: Call, **floats: int) -> dict[str, Place]:
    """The named places, so many floats (or words) further."""
    places = {name: cast(Place, call.arguments[name]) for name in floats}
    return {name: dataclasses.replace(place, offset=place.offset + floats[name]) for name, place in places.items()}


def tile_span(tiles: range, size: int, extent: int) -> tuple[int, int]:
    """First pixel and number of pixels of some tiles, the last of which is shifted back where it would stick out."""
    first = min(tiles.start * size, extent - size)
    return first, min(tiles.stop * size, extent) - first


def _conv(call: Call, spec: ConvKernel, target: Target) -> tuple[Cuttable, ...]:
    """Blocks of filters x strips: rows of tiles, or single tiles where there is one row of them."""
    rows, columns, blocks = (number(call, name) for name in ("rows", "columns", "blocks"))
    row_tiles, column_tiles = math.ceil(rows / spec.tile_rows), math.ceil(columns / spec.tile_columns)
    by_row = row_tiles > 1
    strips = row_tiles if by_row else column_tiles
    pixels, height = spec.tile_rows * spec.tile_columns, spec.vectors * spec.vector_lanes
    a_tap = spec.tap_channels * spec.vectors * (max(pixels, FEWEST_SUMS / spec.vectors / 2) + TILE_OVERHEAD)
    tiles = column_tiles if by_row else 1
    costs = [tiles * (taps * a_tap + STORED * pixels * spec.vectors) for taps in call.block_taps]

    def piece(filters: range, of_strips: range) -> Call:
        skipped = filters.start * height
        if by_row:
            first, count = tile_span(of_strips, spec.tile_rows, rows)
            x, y, r = (first * number(call, name) for name in ("x_row", "y_row", "r_row"))
        else:
            first, count = tile_span(of_strips, spec.tile_columns, columns)
            x, y, r = first * spec.pixel_stride, first * number(call, "y_pixel"), first * number(call, "r_pixel")
        places = moved(
            call, x=x, y=y + skipped, residual=r + skipped, bias=skipped, pointers=filters.start
        )  # fmt: skip
        extents = {"blocks": len(filters), "rows" if by_row else "columns": count}
        return dataclasses.replace(
            call.replaced(**places, **extents), block_taps=call.block_taps[filters.start : filters.stop]
        )

    def by_filters(first: int, last: int) -> tuple[Call, ...]:
        return tuple(piece(major, minor) for major, minor in rectangles(first, last, strips))

    def by_strips(first: int, last: int) -> tuple[Call, ...]:
        return tuple(piece(minor, major) for major, minor in rectangles(first, last, blocks))

    def whole_filters(first: int, last: int) -> tuple[Call, ...]:
        return (piece(range(first, last), range(strips)),)

    def whole_strips(first: int, last: int) -> tuple[Call, ...]:
        return (piece(range(blocks), range(first, last)),)

    filters_first = (
        Cuttable([cost * strips for cost in costs], whole_filters),
        Cuttable([cost for cost in costs for _ in range(strips)], by_filters),
    )
    strips_first = (Cuttable([sum(costs)] * strips, whole_strips), Cuttable(costs * strips, by_strips))
    weights, image = sum(call.block_taps) * spec.tap_channels * height, rows * number(call, "x_row")
    few_weights = strips > 1 and weights <= SMALLER_WEIGHTS * image
    return strips_first + filters_first if few_weights else filters_first + strips_first


def _planar(call: Call, spec: PlanarKernel, target: Target) -> tuple[Cuttable, ...]:
    """By blocks of filters; and by tiles, if the input is tiled. Else pixels between rows must be overwritten by those
    behind them, so pixels stay together."""
    height, pixels = target.tiles[-1].height, spec.vectors * target.simd_lanes + spec.singles
    tiles = math.ceil(number(call, "pixels") / pixels)
    a_tile = height * pixels / target.simd_lanes

    def piece(first: int, last: int) -> tuple[Call, ...]:
        skipped, vector_pixels = first * height, spec.vectors * target.simd_lanes
        y, r = (skipped * (vector_pixels if tiled else 1) for tiled in (spec.y_tiled, spec.r_tiled))
        places = moved(call, y=y, residual=r, bias=skipped, pointers=first)
        singles = {
            "y_singles": number(call, "y_singles") + skipped - y,
            "r_singles": number(call, "r_singles") + skipped - r,
        }
        cut = call.replaced(**places, **singles, blocks=last - first)
        return (dataclasses.replace(cut, block_taps=call.block_taps[first:last]),)

    def tiled_piece(first: int, last: int) -> tuple[Call, ...]:
        moves, tables = {"x": first * number(call, "x_tile")}, {}
        for name, tiled, table in (("y", spec.y_tiled, "targets"), ("residual", spec.r_tiled, "r_targets")):
            if tiled:
                moves[name] = first * number(call, f"{name[0]}_tile")
            else:
                places = cast(Table, call.arguments[table])
                tables[table] = dataclasses.replace(places, first=places.first + first * pixels)
        return (call.replaced(**moved(call, **moves), **tables, pixels=(last - first) * pixels),)

    blocks = [taps * (a_tile + TILE_OVERHEAD) + STORED * a_tile for taps in call.block_taps]
    by_blocks = Cuttable([tiles * cost for cost in blocks], piece)
    return (Cuttable([sum(blocks)] * tiles, tiled_piece), by_blocks) if spec.x_tiled else (by_blocks,)


def _planes_of_image(call: Call, target: Target) -> Cuttable:
    """By vectors of channels."""
    lanes = target.simd_lanes

    def piece(first: int, last: int) -> tuple[Call, ...]:
        places = moved(call, x=first * lanes, y=first * lanes * number(call, "plane"))
        return (call.replaced(**places, vectors=last - first),)

    return Cuttable([TRANSPOSED * lanes * number(call, "groups")] * number(call, "vectors"), piece)


def _depthwise(call: Call, spec: DepthwiseKernel, target: Target) -> Cuttable:
    rows, columns = number(call, "rows"), number(call, "columns")
    in_ring = isinstance(spec, RingDepthwiseKernel)
    vectors = number(call, "vectors") if in_ring else spec.pixel_stride // target.simd_lanes
    (kh, kw), (sy, sx) = spec.kernel, spec.stride
    loads = ((spec.tile_rows - 1) * sy + kh) * ((spec.tile_columns - 1) * sx + kw)
    pixels = spec.tile_rows * spec.tile_columns
    a_tile = pixels * kh * kw + loads + DEPTHWISE_OVERHEAD + STORED * pixels
    tiles = math.ceil(rows / spec.tile_rows)

    def piece(first: int, last: int) -> tuple[Call, ...]:
        start, count = tile_span(range(first, last), spec.tile_rows, rows)
        places = moved(call, x=start * sy * number(call, "x_row"), y=start * number(call, "y_row"))
        return (call.replaced(**places, rows=count),)

    return Cuttable([math.ceil(columns / spec.tile_columns) * vectors * a_tile] * tiles, piece)


# How far places move from one row to the next, by the argument that tells.
_ROW_STRIDES = {"a": "a_row", "b": "b_row", "x": "x_row", "y": "y_row"}


def _rows(call: Call) -> Cuttable:
    """Of all kernels that go row by row and pixel by pixel."""
    rows = number(call, "rows")

    def piece(first: int, last: int) -> tuple[Call, ...]:
        names = [name for name in _ROW_STRIDES if name in call.arguments]
        if not isinstance(call.spec, PoolKernel):
            places = moved(call, **{name: first * number(call, _ROW_STRIDES[name]) for name in names})
            return (call.replaced(**places, rows=last - first),)
        # Windows are cut at the image's edge, so the image stays where it is and the first window moves.
        top = number(call, "top") - first * number(call, "stride_y")
        return (call.replaced(**moved(call, y=first * number(call, "y_row")), top=top, rows=last - first),)

    return Cuttable([number(call, "columns") * _pixel_cost(call)] * rows, piece)


def _channels(call: Call, cost: float, target: Target) -> Cuttable:
    """By vectors of channels, `cost` each, of which a kernel takes any number."""
    pointers = [name for name in ("x", "m", "y", "bias", "residual") if name in call.arguments]

    def piece(first: int, last: int) -> tuple[Call, ...]:
        places = moved(call, **dict.fromkeys(pointers, first * target.simd_lanes))
        return (call.replaced(**places, vectors=last - first),)

    return Cuttable([cost] * number(call, "vectors"), piece)


def _pixel_cost(call: Call) -> float:
    if isinstance(call.spec, PhasesKernel):
        return COPIED
    vectors = number(call, "vectors")
    match call.spec:
        case PoolKernel():
            return vectors * (LOADED * number(call, "window_height") * number(call, "window_width") + STORED)
        case SoftmaxKernel():
            return vectors * EXPONENTIAL
        case ShuffleKernel():
            return SINGLY * number(call, "groups") * number(call, "channels")
        case ElementwiseKernel():
            return vectors * STORED
        case _:  # copies: whole vectors, and what is left singly
            singly = [cast(int, call.arguments.get(name, 0)) for name in ("channels", "tail")]
            return vectors * COPIED + sum(singly) * SINGLY


def overlaps(call: Call) -> bool:
    """Whether tiles of Winograd compute some pixels twice: not to the same bits, so their order counts."""
    spec = call.spec
    assert isinstance(spec, WinogradInput | WinogradOutput)
    return any(number(call, name) % spec.tile for name in ("rows", "columns"))


def _tiles(call: Call, name: str, cost: float) -> Cuttable:
    """A transform of Winograd by tiles, `cost` for a vector of each, of which it takes any number."""

    def piece(first: int, last: int) -> tuple[Call, ...]:
        place = moved(call, **{name: first * number(call, f"{name}_tile")})
        return (call.replaced(**place, first=number(call, "first") + first, tiles=last - first),)

    return Cuttable([cost * number(call, "vectors")] * number(call, "tiles"), piece)


def _planes(call: Call, spec: WinogradProduct, target: Target) -> Cuttable:
    """By planes: weights, input and output of a plane belong to nobody else."""
    channels, tiles = number(call, "all_channels"), number(call, "tiles")
    plane = channels * spec.vectors * target.simd_lanes
    cost = math.ceil(tiles / spec.tiles) * channels * spec.vectors * (spec.tiles + TILE_OVERHEAD)

    def piece(first: int, last: int) -> tuple[Call, ...]:
        places = moved(
            call, v=first * number(call, "v_plane"), m=first * number(call, "m_plane"), weights=first * plane
        )  # fmt: skip
        return (call.replaced(**places, planes=last - first),)

    return Cuttable([cost] * number(call, "planes"), piece)
