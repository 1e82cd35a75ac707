"""The host's answer, by torch: what a device's output is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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
from device_farm.compiler.importing import without_collection
from device_farm.compiler.weights import Array, checked_weights
from device_farm.errors import InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    from torch import Tensor


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
    with without_collection():
        import torch  # a second to import, and only needed here

    expected = tuple(graph.input.shape)
    if x.size != graph.input.shape.elements:
        raise InvalidGraph(f"the input has {x.size} elements, expected {expected}")
    dtype = torch.float64 if double else torch.float32

    def kept(tensor: Tensor) -> Tensor:
        return tensor if stored is Element.FLOAT32 else tensor.to(getattr(torch, stored.value)).to(tensor.dtype)

    tensors = {
        name: torch.tensor(array).to(torch.int64) if array.dtype == np.int32 else kept(torch.tensor(array).to(dtype))
        for name, array in checked_weights(graph, weights).items()
    }
    image = torch.tensor(np.ascontiguousarray(x, np.float32).reshape(expected)).to(dtype)
    values = {graph.input.name: kept(image.permute(2, 0, 1)[None])}  # 1 x channels x height x width
    last_use = {name: op.name for op in graph.ops for name in op.inputs}
    with torch.inference_mode():
        for op in graph.ops:
            if isinstance(op, Input):
                continue
            values[op.name] = kept(_compute(op, [values[name] for name in op.inputs], tensors))
            for name in set(op.inputs):
                if last_use[name] == op.name:
                    del values[name]
        output: NDArray[np.float32] = values[graph.output.name][0].permute(1, 2, 0).to(torch.float32).numpy()
    return np.ascontiguousarray(output)


def _compute(op: Op, inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    import torch
    from torch.nn import functional

    def pad(image: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
        left_right_top_bottom = (padding.left, padding.right, padding.top, padding.bottom)
        return functional.pad(image, left_right_top_bottom, value=value) if any(padding) else image

    x = inputs[0]
    if isinstance(op, Conv2d | DepthwiseConv2d):
        y = functional.conv2d(
            pad(x, op.padding),
            weights[f"{op.name}.weight"],
            weights[f"{op.name}.bias"],
            stride=op.stride,
            dilation=op.dilation,
            groups=x.shape[1] if isinstance(op, DepthwiseConv2d) else op.groups,
        )
        return _activate(y + inputs[1] if len(inputs) == 2 else y, op.activation)
    if isinstance(op, Pool2d) and op.pool is PoolKind.MAX:
        return functional.max_pool2d(pad(x, op.padding, -math.inf), op.kernel, op.stride)
    if isinstance(op, Pool2d):
        return functional.avg_pool2d(pad(x, op.padding), op.kernel, op.stride)
    if isinstance(op, Add):
        return _activate(x + inputs[1], op.activation)
    if isinstance(op, Multiply):
        return _activate(x * inputs[1], op.activation)
    if isinstance(op, Softmax):
        return x.softmax(1)
    if isinstance(op, Concat):
        return torch.cat(inputs, 1)
    if isinstance(op, SliceChannels):
        return x[:, op.first : op.first + op.channels]
    if isinstance(op, ShuffleChannels):
        return functional.channel_shuffle(x, op.groups)
    if isinstance(op, Activate):
        return _activate(x, op.activation)
    if isinstance(op, ResizeChannels):
        return functional.pad(x[:, : op.channels], (0, 0, 0, 0, 0, max(op.channels - x.shape[1], 0)))
    if isinstance(op, ScatterChannels):
        y = x.new_zeros(1, op.channels, *x.shape[2:])
        y[:, weights[f"{op.name}.index"]] = x
        return y
    raise UnsupportedOperator(f"{op.name}: the reference cannot compute {op.kind!r}")


def _activate(x: Tensor, activation: Activation) -> Tensor:
    from torch.nn import functional

    match activation:
        case Activation.NONE:
            return x
        case Activation.RELU:
            return x.clamp_min(0.0)
        case Activation.RELU6:
            return x.clamp(0.0, 6.0)
        case Activation.HARD_SIGMOID:
            return functional.hardsigmoid(x)
        case Activation.HARD_SWISH:
            return functional.hardswish(x)
        case Activation.SIGMOID:
            return x.sigmoid()
        case Activation.SWISH:
            return functional.silu(x)
