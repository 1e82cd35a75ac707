"""Winograd's three stations: the transform of the input, the products in every plane, the transform back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import INDEX, Emitter, Vectors, loop, sequence, tile_count, tile_start
from device_farm.compiler.kernels.parts import sum_in_parts
from device_farm.compiler.kernels.spec import (
    KernelSpec,
    WinogradGatheredProduct,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from device_farm.compiler.target import Target

LINE = 16  # floats of a cache line
Transform = Callable[["_Binder", Sequence[Any]], list[Any]]


def emit(spec: KernelSpec, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)
    match spec:
        case WinogradInput():
            return e.function(symbol, _input(spec, e))
        case WinogradProduct():
            return e.function(symbol, _product(spec, e))
        case WinogradOutput():
            return e.function(symbol, _output(spec, e))
    raise TypeError(spec)


class _Binder:
    """Values by name, so that each is computed once and in this order."""

    def __init__(self, e: Vectors) -> None:
        self.e = e
        self.statements: list[Any] = []

    def __call__(self, value: Any) -> Any:
        variable = self.e.vector(f"t_{len(self.statements)}")
        self.statements.append(tirx.Bind(variable, value))
        return variable

    def times(self, factor: float, value: Any) -> Any:
        return self.e.splat(factor) * value


def _input_of_2(b: _Binder, d: Sequence[Any]) -> list[Any]:
    return [b(d[0] - d[2]), b(d[1] + d[2]), b(d[2] - d[1]), b(d[1] - d[3])]


def _input_of_4(b: _Binder, d: Sequence[Any]) -> list[Any]:
    even, odd = b(d[4] - b.times(4, d[2])), b(d[3] - b.times(4, d[1]))
    even_2, odd_2 = b(d[4] - d[2]), b(d[3] - d[1])
    return [
        b(b.times(4, d[0]) - b.times(5, d[2]) + d[4]),
        b(even + odd),
        b(even - odd),
        b(even_2 + b.times(2, odd_2)),
        b(even_2 - b.times(2, odd_2)),
        b(b.times(4, d[1]) - b.times(5, d[3]) + d[5]),
    ]


def _output_of_2(b: _Binder, m: Sequence[Any]) -> list[Any]:
    return [b(m[0] + m[1] + m[2]), b(m[1] - m[2] - m[3])]


def _output_of_4(b: _Binder, m: Sequence[Any]) -> list[Any]:
    near, near_odd = b(m[1] + m[2]), b(m[1] - m[2])
    far, far_odd = b(m[3] + m[4]), b(m[3] - m[4])
    return [
        b(m[0] + near + far),
        b(near_odd + b.times(2, far_odd)),
        b(near + b.times(4, far)),
        b(near_odd + b.times(8, far_odd) + m[5]),
    ]


def _input_of_stem(b: _Binder, d: Sequence[Any]) -> list[Any]:
    def outer(d: Sequence[Any]) -> Any:
        even = b(d[5] - b.times(2, d[4]) + b.times(0.25, d[1]))
        return b(even + b.times(2.5, d[2]) - b.times(1.25, d[3]) - b.times(0.5, d[0]))

    step, double = b(d[5] - b.times(2, d[4])), b(d[4] - b.times(2, d[3]))
    one, one_odd = (
        b(step - b.times(0.25, d[3]) + b.times(0.5, d[2])),
        b(double - b.times(0.25, d[2]) + b.times(0.5, d[1])),
    )
    half = b(step + b.times(2, d[2]) - d[3])
    half_odd = b(b.times(0.5, d[4]) - d[3] - b.times(0.5, d[2]) + d[1])
    return [
        outer(d[:6]),
        b(one + one_odd),
        b(one - one_odd),
        b(half + half_odd),
        b(half - half_odd),
        b(d[5] - b.times(1.25, d[3]) + b.times(0.25, d[1])),
        outer(d[1:]),
    ]


def _output_of_stem(b: _Binder, m: Sequence[Any]) -> list[Any]:
    one, one_odd = b(m[1] + m[2]), b(m[1] - m[2])
    half, half_odd = b(m[3] + m[4]), b(m[3] - m[4])
    return [
        b(m[0] + one + half + m[5]),
        b(one_odd + b.times(0.5, half_odd) + b.times(2, m[5])),
        b(one + b.times(0.25, half) + b.times(4, m[5])),
        b(one_odd + b.times(0.125, half_odd) + b.times(8, m[5]) + m[6]),
    ]


# by pixels of a tile and taps of a kernel, in each direction
_INPUT: dict[tuple[int, int], Transform] = {(2, 3): _input_of_2, (4, 3): _input_of_4, (4, 4): _input_of_stem}
_OUTPUT: dict[tuple[int, int], Transform] = {(2, 3): _output_of_2, (4, 3): _output_of_4, (4, 4): _output_of_stem}


def _both_ways(transform: Transform, b: _Binder, square: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Of the columns of a square, then of its rows: T square T'."""
    by_column = [transform(b, column) for column in zip(*square, strict=True)]
    return [transform(b, row) for row in zip(*by_column, strict=True)]


def _input(spec: WinogradInput, e: Emitter) -> Any:
    size = spec.tile + spec.taps - 1

    def in_tile(index: Any) -> Any:
        x_start, row, column, tile = (e.integer(name) for name in ("x_start", "row", "column", "tile"))

        def in_vector(vector: Any) -> Any:
            b = _Binder(e)
            at = e.integer("at")
            rows = [e.integer(f"row_{i}") for i in range(size)]
            binds = [tirx.Bind(at, index * e.v_tile + vector * e.lanes)]
            binds += [tirx.Bind(start, x_start + i * e.x_row + vector * e.lanes) for i, start in enumerate(rows)]
            square = [[b(e.load(e.x, start + j * e.x_pixel)) for j in range(size)] for start in rows]
            planes = [value for line in _both_ways(_INPUT[spec.tile, spec.taps], b, square) for value in line]
            stores = [e.store(e.v, value, at + p * e.v_plane) for p, value in enumerate(planes)]
            return sequence(binds, b.statements, stores)

        return sequence(
            _tile_place(spec.tile, e, index, tile=tile, row=row, column=column),
            tirx.Bind(x_start, row * e.x_row + column * e.x_pixel),
            loop("vector", e.vectors, in_vector),
        )

    return loop("index", e.tiles, in_tile)


def _tile_place(size: int, e: Emitter, index: Any, *, tile: Any, row: Any, column: Any) -> list[Any]:
    """Binds the tile of a block to its first pixel in the output."""
    return [
        tirx.Bind(tile, e.first + index),
        tirx.Bind(row, tile_start(tirx.floordiv(tile, e.tile_columns), size, e.rows)),
        tirx.Bind(column, tile_start(tirx.floormod(tile, e.tile_columns), size, e.columns)),
    ]


def _product(spec: WinogradProduct, e: Emitter) -> Any:
    """plane -> block of filters -> tiles -> channels: a plane of V stays in the cache for all filters."""
    lanes, height = e.lanes, spec.vectors * e.lanes
    gathered = isinstance(spec, WinogradGatheredProduct)
    v_tile = spec.v_tile if isinstance(spec, WinogradGatheredProduct) else e.v_tile

    passes = tile_count(e.tiles, spec.tiles)

    def in_tiles(plane: Any, block: Any, index: Any) -> Any:
        sums = [[e.accumulator(f"sum_{p}_{v}") for v in range(spec.vectors)] for p in range(spec.tiles)]
        first, x_start, w_start, m_start, begin, channels = (
            e.integer(name) for name in ("first", "x_start", "w_start", "m_start", "begin", "channels")
        )
        if gathered:
            counts = [
                tirx.Bind(begin, e.scalar(e.pointers, block)),
                tirx.Bind(channels, e.scalar(e.pointers, block + 1) - begin),
                tirx.Bind(w_start, (plane * e.scalar(e.pointers, e.blocks) + begin) * height),
            ]
        else:
            counts = [
                tirx.Bind(channels, e.channels),
                tirx.Bind(w_start, (plane * e.blocks + block) * (channels * height)),
            ]
        statements = [
            *counts,
            tirx.Bind(first, tile_start(index, spec.tiles, e.tiles)),
            tirx.Bind(x_start, plane * e.v_plane + first * v_tile),
            tirx.Bind(m_start, plane * e.m_plane + first * e.m_tile + block * height),
        ]
        statements += [tirx.AllocBuffer(vector) for tile in sums for vector in tile]
        start = [e.store(vector, e.splat(0.0)) for tile in sums for vector in tile]
        next_start, next_step = e.integer("next_start"), e.integer("next_step")
        if spec.prefetch_weights:  # a share in every pass over the tiles
            statements += [
                tirx.Bind(next_step, tirx.floordiv(height + passes - 1, passes)),
                tirx.Bind(next_start, w_start + channels * (height + index * next_step)),
            ]

        def in_channel(channel: Any) -> Any:
            weights, at = [e.vector(f"w_{v}") for v in range(spec.vectors)], e.integer("at")
            body = [tirx.Bind(at, x_start + (e.scalar(e.lists, begin + channel) if gathered else channel))]
            body += [
                tirx.Bind(w, e.load(e.weights, w_start + channel * height + v * lanes)) for v, w in enumerate(weights)
            ]
            for p, tile in enumerate(sums):
                value = e.vector(f"x_{p}")
                body.append(tirx.Bind(value, e.splat(e.scalar(e.v, at + p * v_tile))))
                for vector, w in zip(tile, weights, strict=True):
                    body.append(e.store(vector, e.load(vector) + value * w))
            if spec.prefetch_weights:
                body += [
                    e.prefetch(e.weights, next_start + channel * next_step + line, locality=2)
                    for line in range(0, height, LINE)
                ]
            return sequence(body)

        if spec.part_channels:
            totals = [[e.wide.accumulator(f"total_{p}_{v}") for v in range(spec.vectors)] for p in range(spec.tiles)]
            statements += [tirx.AllocBuffer(total) for tile in totals for total in tile]
            statements += [e.wide.store(total, e.wide.splat(0.0)) for tile in totals for total in tile]
            statements += sum_in_parts(
                e,
                [total for tile in totals for total in tile],
                [e.load(vector) for tile in sums for vector in tile],
                begin=tirx.IntImm(INDEX, 0),
                end=channels,
                longest=spec.part_channels,
                part=lambda first, last: [*start, loop("channel", last - first, in_channel, start=first)],
            )
        else:
            totals = sums
            statements += [*start, loop("channel", channels, in_channel)]
        statements += [
            e.store(e.m, e.converted(e.load(total)), m_start + p * e.m_tile + v * lanes)
            for p, tile in enumerate(totals)
            for v, total in enumerate(tile)
        ]
        return sequence(statements)

    def in_block(plane: Any, block: Any) -> Any:
        return loop("tile", passes, lambda index: in_tiles(plane, block, index))

    return loop("plane", e.planes, lambda plane: loop("block", e.blocks, lambda block: in_block(plane, block)))


def _output(spec: WinogradOutput, e: Emitter) -> Any:
    size = spec.tile + spec.taps - 1

    def load(buffer: Any, index: Any) -> Any:
        return e.wide.converted(e.load(buffer, index))

    def in_tile(index: Any) -> Any:
        y_start, r_start, row, column, tile = (
            e.integer(name) for name in ("y_start", "r_start", "row", "column", "tile")
        )

        def in_vector(vector: Any) -> Any:
            b = _Binder(e.wide)  # what is summed here is not rounded before it is whole
            at, channel = e.integer("at"), e.integer("channel")
            binds = [
                tirx.Bind(channel, vector * e.lanes),
                tirx.Bind(at, index * e.m_tile + channel),
            ]
            square = [[b(load(e.m, at + (i * size + j) * e.m_plane)) for j in range(size)] for i in range(size)]
            bias = b(load(e.bias, channel))
            stores = []
            for i, line in enumerate(_both_ways(_OUTPUT[spec.tile, spec.taps], b, square)):
                for j, value in enumerate(line):
                    value = value + bias
                    if spec.residual:
                        value = value + load(e.residual, r_start + channel + (i * e.r_row + j * e.r_pixel))
                    place = y_start + channel + (i * e.y_row + j * e.y_pixel)
                    stores.append(e.store(e.y, e.activate(value, spec.activation), place))
            return sequence(binds, b.statements, stores)

        places = [tirx.Bind(y_start, row * e.y_row + column * e.y_pixel)]
        if spec.residual:
            places.append(tirx.Bind(r_start, row * e.r_row + column * e.r_pixel))
        return sequence(
            _tile_place(spec.tile, e, index, tile=tile, row=row, column=column),
            places,
            loop("vector", e.vectors, in_vector),
        )

    return loop("index", e.tiles, in_tile)
