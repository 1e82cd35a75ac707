"""An image as planes, one a channel: squares of pixels x channels are transposed in registers."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PlanesKernel
from device_farm.compiler.target import Target


def emit(spec: PlanesKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def square(group: Any, vector: Any) -> Any:
        pixels = [e.vector(f"pixel_{i}") for i in range(e.lanes)]
        y_start = e.integer("y_start")
        loads = [e.load(e.x, e.scalar(e.sources, group * e.lanes + i) + vector * e.lanes) for i in range(e.lanes)]
        steps, planes = e.transposed(pixels)
        return sequence(
            [tirx.Bind(pixel, value) for pixel, value in zip(pixels, loads, strict=True)],
            tirx.Bind(y_start, group * e.lanes + vector * e.lanes * e.plane),
            steps,
            [e.store(e.y, plane, y_start + c * e.plane) for c, plane in enumerate(planes)],
        )

    body = loop("group", e.groups, lambda group: loop("vector", e.vectors, lambda vector: square(group, vector)))
    return e.function(symbol, body)
