"""Sizes beyond which nothing is compiled, said before anything of that size is allocated.

Activations and weights of an executable lie in static memory, which code addresses with 31 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Graph, Shape
from device_farm.errors import InvalidGraph

MAX_ELEMENTS = 2**28  # of one activation or constant: 1 GiB of float32
MAX_MACS = 10**12  # a pass of more takes longer than a measurement may


def check_constant(layer: str, dims: Sequence[int]) -> None:
    """The result of a call on constants. Raises InvalidGraph."""
    if math.prod(dims) > MAX_ELEMENTS:
        raise InvalidGraph(f"layer {layer!r}: makes a constant of {'x'.join(map(str, dims))}, more than 1 GiB")


def check_activation(layer: str, shape: Shape) -> None:
    """The output of one operator. Raises InvalidGraph."""
    if min(shape) < 1:
        raise InvalidGraph(f"layer {layer!r}: an empty output, {_text(shape)}; check kernel sizes, strides, channels")
    if shape.elements > MAX_ELEMENTS:
        raise InvalidGraph(f"layer {layer!r}: an activation of {_text(shape)}, more than 1 GiB; use a smaller image")


def check_network(graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
    """The whole, and every number in it. Raises InvalidGraph."""
    if graph.macs > MAX_MACS:
        raise InvalidGraph(
            f"{graph.macs / 1e9:.0f} billion multiply-adds a pass, at most {MAX_MACS / 1e9:.0f}; use a smaller image"
        )
    for name, value in weights.items():
        if not np.isfinite(value).all():
            kind = "NaN" if np.isnan(value).any() else "infinity (or is too large for float32)"
            raise InvalidGraph(
                f"layer {name.rpartition('.')[0]!r}: its weights, with batch norm and scales folded in, hold {kind}"
            )


def _text(shape: Shape) -> str:
    return f"{shape.height}x{shape.width}x{shape.channels}"
