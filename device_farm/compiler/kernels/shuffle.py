"""Channel shuffle: groups x channels of a pixel transposed."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import ShuffleKernel
from device_farm.compiler.target import Target


def emit(spec: ShuffleKernel, symbol: str, target: Target) -> Any:
    """The last vector is zeroed first, for the lanes behind the last channel."""
    e = Emitter(spec, target)

    def pixel(row: Any, column: Any) -> Any:
        source, out = e.integer("source"), e.integer("out")

        def channel(i: Any, g: Any) -> Any:
            return e.store_scalar(e.y, e.scalar(e.x, source + g * e.channels + i), out + i * e.groups + g)

        return sequence(
            tirx.Bind(source, row * e.x_row + column * e.x_pixel),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            e.store(e.y, e.splat(0.0), out + (e.vectors - 1) * e.lanes),
            loop("i", e.channels, lambda i: loop("g", e.groups, lambda g: channel(i, g))),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
