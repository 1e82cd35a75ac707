"""The gathered GEMM: one micro-kernel for every convolution and every pruning of it."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence, tile_count, tile_start
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.target import Target


LINE = 16  # floats of a cache line


def emit(spec: ConvKernel, symbol: str, target: Target) -> Any:
    """band of rows -> block -> row -> column -> taps, so that a band of the input stays in the cache for all blocks."""
    e = Emitter(spec, target)
    row_tiles, column_tiles = tile_count(e.rows, spec.tile_rows), tile_count(e.columns, spec.tile_columns)

    def in_column(block: Any, row: Any, column: Any) -> Any:
        return _tile(
            spec, e, block, tile_start(row, spec.tile_rows, e.rows), tile_start(column, spec.tile_columns, e.columns)
        )

    def in_band(band: Any) -> Any:
        first = band * e.band
        return loop(
            "block",
            e.blocks,
            lambda block: loop(
                "row",
                tirx.Min(e.band, row_tiles - first),
                lambda row: loop("column", column_tiles, lambda column: in_column(block, row, column)),
                start=first,
            ),
        )

    return e.function(symbol, loop("band_index", tirx.floordiv(row_tiles + e.band - 1, e.band), in_band))


def _tile(spec: ConvKernel, e: Emitter, block: Any, row: Any, column: Any) -> Any:
    """All taps of one block for one tile of pixels; accumulators live in registers."""
    lanes, height = e.lanes, spec.vectors * e.lanes
    pixels = [(r, c) for r in range(spec.tile_rows) for c in range(spec.tile_columns)]
    sums = [
        [[e.accumulator(f"sum_{u}_{p}_{v}") for v in range(spec.vectors)] for p in range(len(pixels))]
        for u in range(spec.tap_unroll)
    ]
    x_start, y_start, r_start = e.integer("x_start"), e.integer("y_start"), e.integer("r_start")
    statements = [
        tirx.Bind(x_start, row * e.x_row + column * spec.pixel_stride),
        tirx.Bind(y_start, row * e.y_row + column * e.y_pixel + block * height),
    ]
    if spec.residual:
        statements.append(tirx.Bind(r_start, row * e.r_row + column * e.r_pixel + block * height))
    statements += [tirx.AllocBuffer(vector) for unrolled in sums for pixel in unrolled for vector in pixel]
    for u, unrolled in enumerate(sums):
        for pixel in unrolled:
            for v, vector in enumerate(pixel):
                start = e.load(e.bias, block * height + v * lanes) if u == 0 else e.splat(0.0)
                statements.append(e.store(vector, start))

    def add_tap(tap: Any, u: int) -> list[Any]:
        at = e.integer(f"at_{u}")
        weights = [e.vector(f"w_{u}_{v}") for v in range(spec.vectors)]
        body = [tirx.Bind(at, x_start + e.scalar(e.taps, tap))]
        body += [tirx.Bind(w, e.load(e.weights, tap * height + v * lanes)) for v, w in enumerate(weights)]
        for p, (r, c) in enumerate(pixels):
            value = e.vector(f"x_{u}_{p}")
            body.append(tirx.Bind(value, e.splat(e.scalar(e.x, at + (r * spec.line_stride + c * spec.pixel_stride)))))
            body += [e.store(vector, e.load(vector) + value * w) for vector, w in zip(sums[u][p], weights, strict=True)]
        return body

    if spec.residual:  # read when all taps are done, in pieces that no prefetcher of the processor follows
        for r, c in pixels:
            for channel in range(0, height, LINE):
                statements.append(e.prefetch(e.residual, r_start + (r * e.r_row + c * e.r_pixel + channel)))

    begin, end, whole = e.integer("begin"), e.integer("end"), e.integer("whole")
    statements += [tirx.Bind(begin, e.scalar(e.pointers, block)), tirx.Bind(end, e.scalar(e.pointers, block + 1))]
    if spec.tap_unroll == 1:
        statements.append(loop("tap", end - begin, lambda tap: sequence(add_tap(tap, 0)), start=begin))
    else:
        unroll = spec.tap_unroll
        statements += [
            tirx.Bind(whole, tirx.floordiv(end - begin, unroll)),
            loop(
                "taps",
                whole,
                lambda t: sequence([s for u in range(unroll) for s in add_tap(begin + t * unroll + u, u)]),
            ),
            loop("tap", end - begin - whole * unroll, lambda t: sequence(add_tap(begin + whole * unroll + t, 0))),
        ]
    for p, (r, c) in enumerate(pixels):
        for v in range(spec.vectors):
            value = e.load(sums[0][p][v])
            for u in range(1, spec.tap_unroll):
                value = value + e.load(sums[u][p][v])
            if spec.residual:
                value = value + e.load(e.residual, r_start + (r * e.r_row + c * e.r_pixel + v * lanes))
            place = y_start + (r * e.y_row + c * e.y_pixel + v * lanes)
            statements.append(e.store(e.y, e.activate(value, spec.activation), place))
    return sequence(statements)
