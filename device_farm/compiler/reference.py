"""The host's answer, by numpy: what a device's output is compared with.

Not by torch, which takes a second to import: more than the answer of any network here, and every new process of a
compile actor would pay it. Images are (height, width, channels).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from device_farm.compiler.element import Element
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Op,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)
from device_farm.compiler.weights import Array, checked_weights
from device_farm.errors import InvalidGraph, UnsupportedOperator

_BAND = 1 << 18  # numbers at once: they stay in a second-level cache


def reference_output(
    graph: Graph,
    weights: Mapping[str, Array],
    x: NDArray[np.float32],
    *,
    double: bool = False,
    stored: Element = Element.FLOAT32,
) -> NDArray[np.float32]:
    """The graph's output (height, width, channels) for the NHWC input `x` of the graph's input shape.

    `double` computes in float64. Weights and every operator's output are rounded to `stored`: what the best kernels of
    that type could answer. Raises InvalidGraph where weights or input do not fit.
    """
    expected = tuple(graph.input.shape)
    if x.size != graph.input.shape.elements:
        raise InvalidGraph(f"the input has {x.size} elements, expected {expected}")
    dtype = np.dtype(np.float64 if double else np.float32)

    def kept(array: Array) -> Array:
        return array if stored is Element.FLOAT32 else array.astype(stored.value).astype(dtype)

    last_use = {name: op.name for op in graph.ops for name in op.inputs}
    # One thread: more of them on the one core of a pinned compiler wait for each other, ten times as long as it takes.
    with _blas().limit(limits=1), np.errstate(all="ignore"):  # what leaves the range becomes infinite, as on the device
        arrays = {
            name: array if array.dtype == np.int32 else kept(array.astype(dtype, copy=False))
            for name, array in checked_weights(graph, weights).items()
        }
        values = {graph.input.name: kept(np.ascontiguousarray(x, np.float32).reshape(expected).astype(dtype))}
        for op in graph.ops:
            if isinstance(op, Input):
                continue
            values[op.name] = kept(_compute(op, [values[name] for name in op.inputs], arrays))
            for name in set(op.inputs):
                if last_use[name] == op.name:
                    del values[name]
        return np.ascontiguousarray(values[graph.output.name], np.float32)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _compute(op: Op, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
    x = inputs[0]
    if isinstance(op, Conv2d | DepthwiseConv2d):
        windows = _windows(op, _padded(x, op.padding))
        weight, bias = weights[f"{op.name}.weight"], weights[f"{op.name}.bias"]
        groups = op.groups if isinstance(op, Conv2d) else 0
        y = _convolution(windows, weight, bias, groups) if groups else _depthwise(windows, weight, bias)
        return _activate(y + inputs[1] if len(inputs) == 2 else y, op.activation)
    if isinstance(op, Pool2d) and op.pool is PoolKind.MAX:
        largest: Array = _windows(op, _padded(x, op.padding, -np.inf)).max(axis=(2, 3))
        return largest
    if isinstance(op, Pool2d):
        mean: Array = _windows(op, _padded(x, op.padding)).mean(axis=(2, 3), dtype=np.float64)
        return mean.astype(x.dtype)
    if isinstance(op, Add):
        return _activate(x + inputs[1], op.activation)
    if isinstance(op, Multiply):
        return _activate(x * inputs[1], op.activation)
    if isinstance(op, Softmax):
        powers = np.exp(x - x.max(axis=2, keepdims=True))
        shares: Array = powers / powers.sum(axis=2, keepdims=True)
        return shares
    if isinstance(op, Concat):
        return np.concatenate(inputs, axis=2)
    if isinstance(op, SliceChannels):
        return x[:, :, op.first : op.first + op.channels]
    if isinstance(op, ShuffleChannels):
        return x.reshape(*x.shape[:2], op.groups, -1).swapaxes(2, 3).reshape(x.shape)
    if isinstance(op, Activate):
        return _activate(x.copy(), op.activation)
    if isinstance(op, ResizeChannels):
        y = np.zeros((*x.shape[:2], op.channels), x.dtype)
        y[:, :, : x.shape[2]] = x[:, :, : op.channels]
        return y
    if isinstance(op, ScatterChannels):
        y = np.zeros((*x.shape[:2], op.channels), x.dtype)
        y[:, :, weights[f"{op.name}.index"]] = x
        return y
    raise UnsupportedOperator(f"{op.name}: the reference cannot compute {op.kind!r}")


def _padded(x: Array, padding: Padding, value: float = 0.0) -> Array:
    if not any(padding):
        return x
    height, width, channels = x.shape
    shape = (height + padding.top + padding.bottom, width + padding.left + padding.right, channels)
    y = np.full(shape, value, x.dtype)
    y[padding.top : padding.top + height, padding.left : padding.left + width] = x
    return y


def _windows(op: Conv2d | DepthwiseConv2d | Pool2d, x: Array) -> Array:
    """A view of the padded image: rows x columns x kernel rows x kernel columns x channels."""
    dilation = (1, 1) if isinstance(op, Pool2d) else op.dilation
    reach = [(taps - 1) * apart + 1 for taps, apart in zip(op.kernel, dilation, strict=True)]
    windows = sliding_window_view(x, reach, axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    return windows[:: op.stride[0], :: op.stride[1], :: dilation[0], :: dilation[1]]


def _convolution(windows: Array, weight: Array, bias: Array, groups: int) -> Array:
    """By products of matrices, a band of rows at a time."""
    (rows, columns), channels, filters = windows.shape[:2], weight.shape[1], len(weight) // groups
    matrices = weight.reshape(groups, filters, channels, -1).transpose(0, 3, 2, 1).reshape(groups, -1, filters)
    y = np.empty((rows * columns, len(weight)), weight.dtype)
    band = max(1, _BAND // (columns * matrices.shape[1]))
    for row in range(0, rows, band):
        taken, sums = windows[row : row + band], y[row * columns : (row + band) * columns]
        for group, matrix in enumerate(matrices):
            of_group = taken[..., group * channels : (group + 1) * channels].reshape(-1, len(matrix))
            np.matmul(of_group, matrix, out=sums[:, group * filters : (group + 1) * filters])
        sums += bias
    return y.reshape(rows, columns, -1)


def _depthwise(windows: Array, weight: Array, bias: Array) -> Array:
    rows, columns, kh, kw, channels = windows.shape
    factors = np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
    y = np.empty((rows, columns, channels), weight.dtype)
    band = max(1, _BAND // (8 * columns * channels))
    products = np.empty_like(y[:band])
    for row in range(0, rows, band):
        taken, sums = windows[row : row + band], y[row : row + band]
        sums[:] = bias
        for i, j in np.ndindex(kh, kw):
            sums += np.multiply(taken[:, :, i, j], factors[i, j], out=products[: len(sums)])
    return y


def _activate(y: Array, activation: Activation) -> Array:
    """In the array's own place."""
    match activation:
        case Activation.RELU:
            np.maximum(y, 0, out=y)
        case Activation.RELU6:
            _clamp(y)
        case Activation.HARD_SIGMOID:
            y += 3
            _clamp(y)
            y /= 6
        case Activation.HARD_SWISH:
            y *= _activate(y.copy(), Activation.HARD_SIGMOID)
        case Activation.SIGMOID:
            np.negative(y, out=y)
            np.exp(y, out=y)
            y += 1
            np.reciprocal(y, out=y)
        case Activation.SWISH:
            y *= _activate(y.copy(), Activation.SIGMOID)
    return y


def _clamp(y: Array) -> None:
    np.minimum(np.maximum(y, 0, out=y), 6, out=y)
