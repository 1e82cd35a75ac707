"""Bringing the survivors of filter pruning to their places."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import ScatterKernel
from device_farm.compiler.target import Target


def emit(spec: ScatterKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def pixel(row: Any, column: Any) -> Any:
        source, out = e.integer("source"), e.integer("out")
        return sequence(
            tirx.Bind(source, row * e.x_row + column * e.x_pixel),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            loop("z", e.vectors, lambda z: e.store(e.y, e.splat(0.0), out + z * e.lanes)),
            loop("c", e.channels, lambda c: e.store_scalar(e.y, e.scalar(e.x, source + c), out + e.scalar(e.index, c))),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
