"""The gathered GEMM: one micro-kernel for every convolution and every pruning of it."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence, tile_count, tile_start
from device_farm.compiler.kernels.parts import sum_in_parts
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.target import Target

LINE = 16  # floats of a cache line
EMBEDDING_LANES = 16  # of AVX-512


def emit(spec: ConvKernel, symbol: str, target: Target) -> Any:
    """band of rows -> strip of columns -> block -> row -> column -> taps.

    So the input of a strip stays near for all blocks, and a block's weights stay near for a strip.
    """
    e = Emitter(spec, target, lanes=spec.vector_lanes)
    row_tiles, column_tiles = tile_count(e.rows, spec.tile_rows), tile_count(e.columns, spec.tile_columns)

    def in_strip(first_row: Any, first_column: Any) -> Any:
        rows = tirx.Min(e.band, row_tiles - first_row)
        columns = tirx.Min(e.strip, column_tiles - first_column)

        def in_column(block: Any, row: Any, column: Any) -> Any:
            place = tile_start(row, spec.tile_rows, e.rows), tile_start(column, spec.tile_columns, e.columns)
            before = (row - first_row) * columns + (column - first_column)
            return _tile(spec, e, block, *place, share=(before, rows * columns))

        def in_row(block: Any, row: Any) -> Any:
            return loop("column", columns, lambda column: in_column(block, row, column), start=first_column)

        return loop("block", e.blocks, lambda block: loop("row", rows, lambda row: in_row(block, row), start=first_row))

    def in_band(band: Any) -> Any:
        strips = tirx.floordiv(column_tiles + e.strip - 1, e.strip)
        return loop("strip_index", strips, lambda strip: in_strip(band * e.band, strip * e.strip))

    body = loop("band_index", tirx.floordiv(row_tiles + e.band - 1, e.band), in_band)
    return e.function(symbol, body)


def _tile(spec: ConvKernel, e: Emitter, block: Any, row: Any, column: Any, *, share: tuple[Any, Any]) -> Any:
    """All taps of one block for one tile of pixels; accumulators live in registers.

    `share` is the tile's number in its rectangle, and their count: so much of the next block's weights it asks for.
    """
    lanes, height = e.lanes, spec.vectors * e.lanes
    y_pixel = spec.y_pixel or e.y_pixel
    pixels = [(r, c) for r in range(spec.tile_rows) for c in range(spec.tile_columns)]
    sums = [
        [[e.accumulator(f"sum_{u}_{p}_{v}") for v in range(spec.vectors)] for p in range(len(pixels))]
        for u in range(spec.tap_unroll)
    ]
    x_start, y_start, r_start = e.integer("x_start"), e.integer("y_start"), e.integer("r_start")
    statements = [
        tirx.Bind(x_start, row * e.x_row + column * spec.pixel_stride),
        tirx.Bind(y_start, row * e.y_row + column * y_pixel + block * height),
    ]
    if spec.residual:
        statements.append(tirx.Bind(r_start, row * e.r_row + column * e.r_pixel + block * height))

    statements += [tirx.AllocBuffer(vector) for unrolled in sums for pixel in unrolled for vector in pixel]
    totals = [[e.wide.accumulator(f"total_{p}_{v}") for v in range(spec.vectors)] for p in range(len(pixels))]
    totals = totals if spec.part_taps else []
    statements += [tirx.AllocBuffer(vector) for pixel in totals for vector in pixel]
    for pixel in totals:
        for v, vector in enumerate(pixel):
            statements.append(e.wide.store(vector, e.wide.converted(e.load(e.bias, block * height + v * lanes))))

    # A multiply-add of AVX-512 may take its number from memory, repeated. Used by two vectors of weights LLVM would
    # load it once instead, which is slower (docs/kernels.md): it must not see that both addresses are the same.
    from_memory = e.lanes == EMBEDDING_LANES and spec.vectors > 1 and spec.tap_channels == 1

    def start_sums() -> list[Any]:
        return [
            e.store(vector, e.splat(0.0) if totals or u else e.load(e.bias, block * height + v * lanes))
            for u, unrolled in enumerate(sums)
            for pixel in unrolled
            for v, vector in enumerate(pixel)
        ]

    def add_tap(tap: Any, u: int) -> list[Any]:
        at = e.integer(f"at_{u}")
        body = [tirx.Bind(at, x_start + e.scalar(e.taps, tap))]
        places = [at + (r * spec.line_stride + c * spec.pixel_stride) for r, c in pixels]
        quads = [e.quad(f"x_{u}_{p}") for p in range(len(pixels))] if spec.tap_channels > 1 else []
        body += [tirx.Bind(quad, e.load_quad(e.x, place)) for quad, place in zip(quads, places, strict=False)]
        for channel in range(spec.tap_channels):
            weights = [e.vector(f"w_{u}_{channel}_{v}") for v in range(spec.vectors)]
            first = (tap * spec.tap_channels + channel) * height
            body += [tirx.Bind(w, e.load(e.weights, first + v * lanes)) for v, w in enumerate(weights)]
            for p, place in enumerate(places):
                if from_memory:
                    body += [
                        e.store(vector, e.load(vector) + e.splat(e.scalar(e.x, place + v * e.apart)) * w)
                        for v, (vector, w) in enumerate(zip(sums[u][p], weights, strict=True))
                    ]
                    continue
                value = e.vector(f"x_{u}_{channel}_{p}")
                if quads:
                    activation = e.splat(tirx.Shuffle([quads[p]], [channel]))
                else:
                    activation = e.splat(e.scalar(e.x, place + channel))
                body.append(tirx.Bind(value, activation))
                body += [
                    e.store(vector, e.load(vector) + value * w) for vector, w in zip(sums[u][p], weights, strict=True)
                ]
        if spec.prefetch_weights:
            body.append(e.prefetch(e.weights, next_start + tap * next_step))
        return body

    def add_taps(begin: Any, end: Any) -> list[Any]:
        if spec.tap_unroll == 1:
            return [loop("tap", end - begin, lambda tap: sequence(add_tap(tap, 0)), start=begin)]
        whole, unroll = e.integer("whole"), spec.tap_unroll
        return [
            tirx.Bind(whole, tirx.floordiv(end - begin, unroll)),
            loop(
                "taps",
                whole,
                lambda t: sequence([s for u in range(unroll) for s in add_tap(begin + t * unroll + u, u)]),
            ),
            loop("tap", end - begin - whole * unroll, lambda t: sequence(add_tap(begin + whole * unroll + t, 0))),
        ]

    def summed(p: int, v: int) -> Any:
        value = e.load(sums[0][p][v])
        for u in range(1, spec.tap_unroll):
            value = value + e.load(sums[u][p][v])
        return value

    if spec.residual:  # read when all taps are done, in pieces that no prefetcher of the processor follows
        for r, c in pixels:
            for channel in range(0, height, LINE):
                statements.append(e.prefetch(e.residual, r_start + (r * e.r_row + c * e.r_pixel + channel)))

    begin, end = e.integer("begin"), e.integer("end")
    next_start, next_step = e.integer("next_start"), e.integer("next_step")
    bounds = [tirx.Bind(begin, e.scalar(e.pointers, block)), tirx.Bind(end, e.scalar(e.pointers, block + 1))]
    if spec.prefetch_weights:  # they begin at `end`; one line a tap, or a part of it
        number, count = share
        bounds += [
            tirx.Bind(next_step, tirx.floordiv(height + count - 1, count)),
            tirx.Bind(next_start, end * height + (number * (end - begin) - begin) * next_step),
        ]
    if totals:
        statements += bounds + sum_in_parts(
            e,
            [total for pixel in totals for total in pixel],
            [summed(p, v) for p in range(len(pixels)) for v in range(spec.vectors)],
            begin=begin,
            end=end,
            longest=spec.part_taps,
            part=lambda first, last: [*start_sums(), *add_taps(first, last)],
        )
    else:
        statements += [*start_sums(), *bounds, *add_taps(begin, end)]
    for p, (r, c) in enumerate(pixels):
        for v in range(spec.vectors):
            value = e.wide.load(totals[p][v]) if totals else summed(p, v)
            if spec.residual:
                other = e.load(e.residual, r_start + (r * e.r_row + c * e.r_pixel + v * lanes))
                value = value + (e.wide.converted(other) if totals else other)
            place = y_start + (r * e.y_row + c * y_pixel + v * lanes)
            statements.append(e.store(e.y, e.activate(value, spec.activation), place))
    return sequence(statements)
