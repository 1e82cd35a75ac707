"""Cutting and filling up channels."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import ResizeKernel
from device_farm.compiler.target import Target


def emit(spec: ResizeKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def pixel(row: Any, column: Any) -> Any:
        source, out = e.integer("source"), e.integer("out")
        done = e.copied * e.lanes
        return sequence(
            tirx.Bind(source, row * e.x_row + column * e.x_pixel),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            loop("v", e.copied, lambda v: e.store(e.y, e.load(e.x, source + v * e.lanes), out + v * e.lanes)),
            loop("z", e.vectors - e.copied, lambda z: e.store(e.y, e.splat(0.0), out + done + z * e.lanes)),
            loop("c", e.tail, lambda c: e.store_scalar(e.y, e.scalar(e.x, source + done + c), out + done + c)),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
