"""Depthwise convolution: every input vector of a tile is loaded once and used for all outputs that it reaches."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence, tile_count, tile_start
from device_farm.compiler.kernels.spec import DepthwiseKernel, RingDepthwiseKernel
from device_farm.compiler.target import Target

SMALL_WINDOW = 16  # weights
WIDE = 16  # lanes of AVX-512


def emit(spec: DepthwiseKernel, symbol: str, target: Target) -> Any:
    """row -> vector of channels -> column: the weights stay in registers along a row."""
    e = Emitter(spec, target)
    lanes, pixel = e.lanes, spec.pixel_stride
    in_ring = isinstance(spec, RingDepthwiseKernel)
    row_pairs = isinstance(spec, RingDepthwiseKernel) and spec.row_pairs
    vectors, w_row, y_pixel = (e.vectors, e.w_row, e.y_pixel) if in_ring else (pixel // lanes, pixel, pixel)
    (kh, kw), (sy, sx), (dy, dx) = spec.kernel, spec.stride, spec.dilation
    outputs = [(r, c) for r in range(spec.tile_rows) for c in range(spec.tile_columns)]
    # Column by column fewer sums are in flight, and at stride 2 no vector is spilled.
    marches = sx > 1 and math.prod(spec.kernel) <= SMALL_WINDOW and lanes == WIDE
    # Which (output, weight) pairs an input position feeds.
    uses: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for o, (r, c) in enumerate(outputs):
        for i in range(kh):
            for j in range(kw):
                uses.setdefault((r * sy + i * dy, c * sx + j * dx), []).append((o, i * kw + j))

    def places(row: Any, lines: list[Any], channel: Any, column: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """Where a tile's input begins in every row, and its first row of output in every column.

        Bound to names, or LLVM computes each address by itself, and keeps them where it should keep sums.
        """
        x_places = [e.integer(f"x_place_{i}") for i in range(len(lines))]
        y_places = [e.integer(f"y_place_{c}") for c in range(spec.tile_columns)]
        statements = [
            tirx.Bind(place, line + (column * (sx * pixel) + channel))
            for place, line in zip(x_places, lines, strict=True)
        ]
        statements.append(tirx.Bind(y_places[0], row * e.y_row + column * y_pixel + channel))
        statements += [tirx.Bind(place, before + y_pixel) for before, place in itertools.pairwise(y_places)]
        return statements, x_places, y_places

    def in_tile(row: Any, lines: list[Any], channel: Any, column: Any, weights: list[Any], bias: Any) -> Any:
        sums = [e.accumulator(f"sum_{o}") for o in range(len(outputs))]
        statements, x_places, y_places = places(row, lines, channel, column)

        def stored(o: int) -> Any:
            r, c = outputs[o]
            value = e.activate(e.load(sums[o]), spec.activation)
            return e.store(e.y, value, y_places[c] + r * e.y_row)

        statements += [tirx.AllocBuffer(vector) for vector in sums]
        statements += [e.store(vector, bias) for vector in sums]
        left = Counter(o for targets in uses.values() for o, _ in targets)
        for (i, j), targets in sorted(uses.items(), key=lambda use: use[0][::-1] if marches else use[0]):
            value = e.vector(f"x_{i}_{j}")
            statements.append(tirx.Bind(value, e.load(e.x, x_places[i] + j * pixel)))
            statements += [e.store(sums[o], e.load(sums[o]) + value * weights[k]) for o, k in targets]
            left.subtract(o for o, _ in targets)
            if marches:
                statements += [stored(o) for o, _ in targets if not left[o]]
        if not marches:
            statements += [stored(o) for o in range(len(outputs))]
        return sequence(statements)

    def in_pair(row: Any, lines: list[Any], channel: Any, column: Any, weights: list[Any], bias: Any) -> Any:
        """Column by column of the input: a transform of four rows feeds the sums of three columns of outputs."""
        statements, x_places, y_places = places(row, lines, channel, column)
        sums = [[e.accumulator(f"sum_{c}_{p}") for p in range(4)] for c in range(spec.tile_columns)]
        statements += [tirx.AllocBuffer(vector) for column_sums in sums for vector in column_sums]
        for j in range(spec.tile_columns + 2):
            d = [e.vector(f"x_{i}_{j}") for i in range(4)]
            t = [e.vector(f"t_{p}_{j}") for p in range(4)]
            statements += [tirx.Bind(v, e.load(e.x, x_places[i] + j * pixel)) for i, v in enumerate(d)]
            transform = d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]
            statements += [tirx.Bind(v, value) for v, value in zip(t, transform, strict=True)]
            for tap in reversed(range(3)):
                if 0 <= (c := j - tap) < spec.tile_columns:
                    for p, vector in enumerate(sums[c]):
                        product = t[p] * weights[4 * tap + p]
                        before = e.load(vector) if tap else bias if p == 1 else None  # both outputs have +sum_1
                        statements.append(e.store(vector, product if before is None else before + product))
            if (c := j - 2) >= 0:
                m = [e.load(vector) for vector in sums[c]]
                near, odd = e.vector(f"near_{c}"), e.vector(f"odd_{c}")
                statements += [tirx.Bind(near, m[1] + m[2]), tirx.Bind(odd, m[1] - m[2])]
                for r, value in enumerate((near + m[0], odd - m[3])):
                    place = y_places[c] + r * e.y_row
                    statements.append(e.store(e.y, e.activate(value, spec.activation), place))
        return sequence(statements)

    def in_channels(row: Any, lines: list[Any], vector: Any) -> Any:
        channel = e.integer("channel")
        weights, bias = [e.vector(f"w_{k}") for k in range(kh * kw)], e.vector("b")
        binds = [tirx.Bind(w, e.load(e.weights, k * w_row + channel)) for k, w in enumerate(weights)]
        if row_pairs:
            given, weights = weights, [e.vector(f"u_{k}") for k in range(4 * kw)]
            for tap in range(kw):
                upper, middle, lower = given[tap::kw]
                outer, half = e.vector(f"outer_{tap}"), e.splat(0.5)
                binds.append(tirx.Bind(outer, upper + lower))
                column = upper, (outer + middle) * half, (outer - middle) * half, lower
                binds += [tirx.Bind(u, value) for u, value in zip(weights[4 * tap : 4 * tap + 4], column, strict=True)]
        return sequence(
            tirx.Bind(channel, vector * lanes),
            binds,
            tirx.Bind(bias, e.load(e.bias, channel)),
            loop(
                "column",
                tile_count(e.columns, spec.tile_columns),
                lambda column: (in_pair if row_pairs else in_tile)(
                    row, lines, channel, tile_start(column, spec.tile_columns, e.columns), weights, bias
                ),
            ),
        )

    def in_row(index: Any) -> Any:
        row = e.integer("row")
        lines = [e.integer(f"line_{i}") for i in range((spec.tile_rows - 1) * sy + (kh - 1) * dy + 1)]
        starts = [e.scalar(e.lines, row * sy + i) if in_ring else (row * sy + i) * e.x_row for i in range(len(lines))]
        return sequence(
            tirx.Bind(row, tile_start(index, spec.tile_rows, e.rows)),
            [tirx.Bind(line, start) for line, start in zip(lines, starts, strict=True)],
            loop("vector", vectors, lambda vector: in_channels(row, lines, vector)),
        )

    return e.function(symbol, loop("row_index", tile_count(e.rows, spec.tile_rows), in_row))
