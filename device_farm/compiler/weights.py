"""Weights: those that a seed gives, alike on host and device, and the check of those that the caller gives.

The rules of the seeded ones, which csrc/prepare.c repeats bit by bit. Operator i of the graph owns the streams 3i, 3i+1
and 3i+2 of npas_uniform:

    taps     3i      sparsity block b keeps the units of smallest uniform(b * units + unit), ties by index: of the whole
                     units, and of the smaller ones by themselves, as many as Units.split makes of kept[b] taps
    weights  3i + 1  uniform(flat index in torch's layout) * sqrt(gain / fan-in), zero where the tap is pruned
    bias     3i + 2  uniform(filter) / 8
    index    3i      a ScatterChannels takes the smallest uniform(channel), in rising order

with gain 3 where there is no activation or a sigmoid and 6 before all others, and the kept taps of the block as fan-in:
so activations neither explode nor vanish, whatever the depth and the sparsity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Activation, Conv2d, DepthwiseConv2d, Graph, Op, ScatterChannels
from device_farm.compiler.seeded import uniform
from device_farm.compiler.sparsity import Units
from device_farm.errors import InvalidGraph

Array = NDArray[Any]


def tap_stream(graph: Graph, op: Op) -> int:
    """First of the operator's three streams."""
    return 3 * graph.ops.index(op)


def gain(activation: Activation) -> float:
    return 3.0 if activation in (Activation.NONE, Activation.SIGMOID, Activation.HARD_SIGMOID) else 6.0


def seeded_weights(graph: Graph, *, seed: int) -> dict[str, Array]:
    """The weights that a benchmark artifact makes on the device, by name, in torch's layout."""
    weights: dict[str, Array] = {}
    for op in graph.ops:
        stream = tap_stream(graph, op)
        if isinstance(op, ScatterChannels):
            channels = graph.input_shapes(op)[0].channels
            weights[f"{op.name}.index"] = (
                _smallest(uniform(seed, stream, op.channels)[None], [channels])[0].nonzero()[0].astype(np.int32)
            )
        if not isinstance(op, Conv2d | DepthwiseConv2d):
            continue
        shape = weight_shape(graph, op)
        fan_in = math.prod(shape[1:])
        values = uniform(seed, stream + 1, math.prod(shape)).reshape(shape)
        scale = np.full(shape[0], fan_in, np.float32)
        alive = seeded_taps(graph, op, seed=seed) if isinstance(op, Conv2d) else None
        if alive is not None and isinstance(op, Conv2d) and op.sparsity is not None:
            height = op.sparsity.block_height
            scale = np.repeat(np.maximum(op.sparsity.kept, 1).astype(np.float32), height)[: shape[0]]
            values *= np.repeat(alive, height, axis=0)[: shape[0]]
        scale = np.sqrt(np.float32(gain(op.activation)) / scale)
        values *= scale[:, None, None, None]
        weights[f"{op.name}.weight"] = values
        weights[f"{op.name}.bias"] = uniform(seed, stream + 2, shape[0]) * np.float32(0.125)
    return weights


def seeded_taps(graph: Graph, op: Conv2d, *, seed: int) -> NDArray[np.bool_] | None:
    """Which taps live in every sparsity block: [blocks, channels, kh, kw]; None where the operator is dense."""
    if op.sparsity is None:
        return None
    _, channels, kh, kw = weight_shape(graph, op)
    units = Units(op.sparsity.unit, channels, kh * kw)
    alive = _seeded_taps(units, op.sparsity.kept, seed, tap_stream(graph, op))
    return alive.reshape(len(op.sparsity.kept), channels, kh, kw)


@lru_cache(maxsize=128)  # one compilation asks two or three times for each layer
def _seeded_taps(units: Units, kept: tuple[int, ...], seed: int, stream: int) -> NDArray[np.bool_]:
    """[blocks, channels * positions], read-only."""
    blocks, whole = len(kept), units.whole
    splits = {taps: units.split(taps) for taps in dict.fromkeys(kept)}
    counts = np.array([splits[taps] for taps in kept])  # blocks x (whole, partial)
    ranks = uniform(seed, stream, blocks * units.count).reshape(blocks, units.count)
    alive = _smallest(ranks[:, :whole], counts[:, 0])
    if units.partial:
        alive = np.concatenate([alive, _smallest(ranks[:, whole:], counts[:, 1])], axis=1)
    taps: NDArray[np.bool_] = units.spread(alive)
    taps.flags.writeable = False
    return taps


def _smallest(values: Array, counts: Any) -> NDArray[np.bool_]:
    """Marks the counts[row] smallest of every row, ties by index."""
    counts = np.asarray(counts)
    if values.size == 0:
        return np.zeros(values.shape, bool)
    # Numbers alone sort many times faster than indices do; only rows with a tie at the limit need those.
    limits = np.take_along_axis(np.sort(values, axis=1), np.maximum(counts - 1, 0)[:, None], axis=1)
    marks = (values <= limits) & (counts > 0)[:, None]
    (tied,) = (marks.sum(axis=1) != counts).nonzero()
    for row in tied:
        order = np.argsort(values[row], kind="stable")
        marks[row] = False
        marks[row, order[: counts[row]]] = True
    return np.asarray(marks)


def weight_shape(graph: Graph, op: Conv2d | DepthwiseConv2d) -> tuple[int, int, int, int]:
    """In torch's layout."""
    channels = graph.input_shapes(op)[0].channels
    if isinstance(op, Conv2d):
        return (op.filters, channels // op.groups, *op.kernel)
    return (channels, 1, *op.kernel)


def checked_weights(graph: Graph, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Exactly the weights that the graph names, float32 and int32, contiguous. Raises InvalidGraph."""
    checked: dict[str, Array] = {}

    def take(op: Op, part: str, shape: tuple[int, ...], dtype: type) -> None:
        name = f"{op.name}.{part}"
        if name not in weights:
            raise InvalidGraph(f"{op.name}: the weights have no {name!r}, expected shape {shape}")
        array: Array = np.ascontiguousarray(weights[name], dtype)
        if array.shape != shape:
            raise InvalidGraph(f"{op.name}: {name!r} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise InvalidGraph(f"{op.name}: {name!r} holds NaN or infinity")
        checked[name] = array

    for op in graph.ops:
        if isinstance(op, Conv2d | DepthwiseConv2d):
            shape = weight_shape(graph, op)
            take(op, "weight", shape, np.float32)
            take(op, "bias", shape[:1], np.float32)
        elif isinstance(op, ScatterChannels):
            take(op, "index", (graph.input_shapes(op)[0].channels,), np.int32)
            index = checked[f"{op.name}.index"]
            if (np.diff(index) <= 0).any() or index.min() < 0 or index.max() >= op.channels:
                raise InvalidGraph(f"{op.name}: the index must rise strictly within 0..{op.channels - 1}")
    return checked
