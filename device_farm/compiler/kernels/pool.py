"""Average and maximum pooling, global pooling included."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.graph import PoolKind
from device_farm.compiler.kernels.emit import INDEX, Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PoolKernel
from device_farm.compiler.target import Target

VECTORS = 4  # of channels at once: one sum alone waits for the adder


def emit(spec: PoolKernel, symbol: str, target: Target) -> Any:
    """A window is cut at the image's edge, so that a maximum never sees the padding, and an average adds no zeros."""
    e = Emitter(spec, target)
    sums = e if spec.pool is PoolKind.MAX else e.wide  # a sum over a large window outgrows float16's digits
    lowest = -target.element.largest
    zero = tirx.IntImm(INDEX, 0)

    def reduce(total: Any, value: Any) -> Any:
        return tirx.Max(total, value) if spec.pool is PoolKind.MAX else total + value

    def pixel(row: Any, column: Any) -> Any:
        names = ("y_first", "y_last", "x_first", "x_last", "whole", "out")
        y_first, y_last, x_first, x_last, whole, out = (e.integer(name) for name in names)
        y, x = row * e.stride_y - e.top, column * e.stride_x - e.left

        def channels(vector: Any, count: int) -> Any:
            at, totals = e.integer("at"), [sums.accumulator(f"total_{u}") for u in range(count)]

            def in_window(i: Any, j: Any) -> Any:
                place, values = e.integer("place"), [sums.vector(f"value_{u}") for u in range(count)]
                return sequence(
                    tirx.Bind(place, at + (i * e.x_row + j * e.x_pixel)),
                    [
                        tirx.Bind(value, sums.converted(e.load(e.x, place + u * e.lanes)))
                        for u, value in enumerate(values)
                    ],
                    [sums.store(t, reduce(sums.load(t), value)) for t, value in zip(totals, values, strict=True)],
                )

            def result(total: Any) -> Any:
                value = sums.load(total)
                return e.converted(value * sums.splat(e.scale)) if spec.pool is PoolKind.AVERAGE else value

            return sequence(
                tirx.Bind(at, y_first * e.x_row + x_first * e.x_pixel + vector * e.lanes),
                [tirx.AllocBuffer(total) for total in totals],
                [sums.store(total, sums.splat(lowest if spec.pool is PoolKind.MAX else 0.0)) for total in totals],
                loop("i", y_last - y_first, lambda i: loop("j", x_last - x_first, lambda j: in_window(i, j))),
                [e.store(e.y, result(t), out + (vector + u) * e.lanes) for u, t in enumerate(totals)],
            )

        return sequence(
            tirx.Bind(y_first, tirx.Max(y, zero)),
            tirx.Bind(y_last, tirx.Min(y + e.window_height, e.height)),
            tirx.Bind(x_first, tirx.Max(x, zero)),
            tirx.Bind(x_last, tirx.Min(x + e.window_width, e.width)),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            tirx.Bind(whole, tirx.floordiv(e.vectors, VECTORS)),
            loop("block", whole, lambda block: channels(block * VECTORS, VECTORS)),
            loop("vector", e.vectors - whole * VECTORS, lambda v: channels(whole * VECTORS + v, 1)),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
