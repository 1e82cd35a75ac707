"""Softmax over the channels of a pixel."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, exponential, loop, sequence
from device_farm.compiler.kernels.spec import SoftmaxKernel
from device_farm.compiler.target import Target


def emit(spec: SoftmaxKernel, symbol: str, target: Target) -> Any:
    """Largest value, exponentials and their sum, division: three passes over a pixel, all in float32."""
    e, lowest = Emitter(spec, target), -target.element.largest
    wide = e.wide

    def masked(vector: Any, value: Any, other: float) -> Any:
        """`value` in the lanes that are channels, `other` behind them."""
        lane = tirx.Ramp(vector * e.lanes, 1, e.lanes)
        return tirx.Select(lane < tirx.Broadcast(e.channels, e.lanes), value, wide.splat(other))

    def across(lanes: Any, result: Any, combine: Any) -> Any:
        """All lanes of a vector combined into one number."""
        return loop(
            "lane", e.lanes, lambda i: e.store_scalar(result, combine(e.scalar(result, 0), e.scalar(lanes, i)), 0)
        )

    def pixel(row: Any, column: Any) -> Any:
        source, out = e.integer("source"), e.integer("out")
        largest, total = wide.accumulator("largest"), wide.accumulator("total")
        most = tirx.decl_buffer((1,), "float32", "most", scope="local")
        whole = tirx.decl_buffer((1,), "float32", "whole", scope="local")

        def find_largest(vector: Any) -> Any:
            value = masked(vector, wide.converted(e.load(e.x, source + vector * e.lanes)), lowest)
            return wide.store(largest, tirx.Max(wide.load(largest), value))

        def add_exponential(vector: Any) -> Any:
            value, power = wide.converted(e.load(e.x, source + vector * e.lanes)), wide.vector("power")
            return sequence(
                tirx.Bind(power, masked(vector, exponential(wide, value - wide.splat(e.scalar(most, 0))), 0.0)),
                wide.store(total, wide.load(total) + power),
                e.store(e.y, e.converted(power), out + vector * e.lanes),
            )

        def divide(vector: Any) -> Any:
            place = out + vector * e.lanes
            value = wide.converted(e.load(e.y, place)) * wide.splat(e.scalar(whole, 0))
            return e.store(e.y, e.converted(value), place)

        return sequence(
            tirx.Bind(source, row * e.x_row + column * e.x_pixel),
            tirx.Bind(out, row * e.y_row + column * e.y_pixel),
            [tirx.AllocBuffer(buffer) for buffer in (largest, total, most, whole)],
            wide.store(largest, wide.splat(lowest)),
            wide.store(total, wide.splat(0.0)),
            e.store_scalar(most, wide.number(lowest), 0),
            e.store_scalar(whole, wide.number(0.0), 0),
            loop("vector", e.vectors, find_largest),
            across(largest, most, tirx.Max),
            loop("vector", e.vectors, add_exponential),
            across(total, whole, lambda a, b: a + b),
            e.store_scalar(whole, wide.number(1.0) / e.scalar(whole, 0), 0),
            loop("vector", e.vectors, divide),
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
