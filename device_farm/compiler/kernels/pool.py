"""Average and maximum pooling, global pooling included."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.graph import PoolKind
from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PoolKernel
from device_farm.compiler.target import Target

LOWEST = -3.4028234663852886e38


def emit(spec: PoolKernel, symbol: str, target: Target) -> Any:
    """A window is cut at the image's edge, so that a maximum never sees the padding, and an average adds no zeros."""
    e = Emitter(spec, target)
    zero = tirx.IntImm("int32", 0)

    def reduce(total: Any, value: Any) -> Any:
        return tirx.Max(total, value) if spec.pool is PoolKind.MAX else total + value

    def pixel(row: Any, column: Any) -> Any:
        names = ("y_first", "y_last", "x_first", "x_last", "at", "out")
        y_first, y_last, x_first, x_last, at, out = (e.integer(name) for name in names)
        y, x = row * e.stride_y - e.top, column * e.stride_x - e.left

        def channels(vector: Any) -> Any:
            total = e.accumulator("total")

            def in_window(i: Any, j: Any) -> Any:
                return e.store(total, reduce(e.load(total), e.load(e.x, at + (i * e.x_row + j * e.x_pixel))))

            result = e.load(total)
            if spec.pool is PoolKind.AVERAGE:
                result = result * tirx.Broadcast(e.scale, e.lanes)
            return sequence(
                tirx.Bind(at, y_first * e.x_row + x_first * e.x_pixel + vector * e.lanes),
                tirx.AllocBuffer(total),
                e.store(total, e.splat(LOWEST if spec.pool is PoolKind.MAX else 0.0)),
                loop("i", y_last - y_first, lambda i: loop("j", x_last - x_first, lambda j: in_window(i, j))),
                e.store(e.y, result, out + vector * e.lanes),
            )

        return sequence(
            tirx.Bind(y_first, tirx.Max(y, zero)),
            tirx.Bind(y_last, tirx.Min(y + e.window_height, e.height)),
            tirx.Bind(x_first, tirx.Max(x, zero)),
            tirx.Bind(x_last, tirx.Min(x + e.window_width, e.width)),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            loop("vector", e.vectors, channels),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
