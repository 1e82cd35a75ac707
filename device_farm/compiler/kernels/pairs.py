"""An image as pairs of pixels: each number beside its partner from the lower half."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PairsKernel
from device_farm.compiler.target import Target


def emit(spec: PairsKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def vector(row: Any, column: Any, index: Any) -> Any:
        source, out = e.integer("source"), e.integer("out")
        upper, lower = e.vector("upper"), e.vector("lower_half")
        lines = e.interleaved(upper, lower)
        return sequence(
            tirx.Bind(source, row * e.x_row + column * e.x_pixel + index * e.lanes),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel + index * (2 * e.lanes)),
            tirx.Bind(upper, e.load(e.x, source)),
            tirx.Bind(lower, e.load(e.x, source + e.lower)),
            [e.store(e.y, line, out + i * e.lanes) for i, line in enumerate(lines)],
        )

    def pixel(row: Any, column: Any) -> Any:
        return loop("vector", e.vectors, lambda index: vector(row, column, index))

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
