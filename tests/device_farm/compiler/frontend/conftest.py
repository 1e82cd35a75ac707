"""A second opinion on graphs: torch's own operators, so that an error of the front end cannot hide in shared code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

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

Evaluate = Callable[[Graph, Mapping[str, NDArray[Any]], torch.Tensor], torch.Tensor]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def evaluate() -> Evaluate:
    """(graph, weights, NCHW image) -> NCHW output, in the image's precision."""
    return _evaluate


def _evaluate(graph: Graph, weights: Mapping[str, NDArray[Any]], image: torch.Tensor) -> torch.Tensor:
    values: dict[str, torch.Tensor] = {}
    for op in graph.ops:
        inputs = [values[name] for name in op.inputs]
        values[op.name] = image if isinstance(op, Input) else _activated(op, _computed(op, inputs, weights))
        shape = graph.shapes[op.name]
        assert tuple(values[op.name].shape) == (1, shape.channels, shape.height, shape.width), op.name
    return values[graph.output.name]


def _computed(op: Op, inputs: list[torch.Tensor], weights: Mapping[str, NDArray[Any]]) -> torch.Tensor:
    x = inputs[0]
    if isinstance(op, Conv2d | DepthwiseConv2d):
        weight, bias = (torch.tensor(weights[f"{op.name}.{part}"], dtype=x.dtype) for part in ("weight", "bias"))
        groups = op.groups if isinstance(op, Conv2d) else x.shape[1]
        padded = _padded(x, op.padding)
        y = F.conv2d(padded, weight, bias, op.stride, dilation=op.dilation, groups=groups)
        return y + inputs[1] if len(inputs) == 2 else y
    if isinstance(op, Pool2d):
        if op.pool is PoolKind.AVERAGE:
            return F.avg_pool2d(_padded(x, op.padding), op.kernel, op.stride)
        return F.max_pool2d(_padded(x, op.padding, -np.inf), op.kernel, op.stride)
    if isinstance(op, Add):
        return inputs[0] + inputs[1]
    if isinstance(op, ResizeChannels):
        return _padded_channels(x, 0, op.channels)[:, : op.channels]
    if isinstance(op, ScatterChannels):
        y = torch.zeros(1, op.channels, *x.shape[2:], dtype=x.dtype)
        y[:, weights[f"{op.name}.index"]] = x
        return y
    if isinstance(op, Multiply):
        return inputs[0] * inputs[1]
    if isinstance(op, Concat):
        return torch.cat(inputs, 1)
    if isinstance(op, Softmax):
        return x.exp() / x.exp().sum(1, keepdim=True)
    if isinstance(op, SliceChannels):
        return x[:, op.first : op.first + op.channels]
    if isinstance(op, ShuffleChannels):
        order = torch.arange(x.shape[1]).reshape(op.groups, -1).T.reshape(-1)
        return x[:, order]
    assert isinstance(op, Activate)
    return x


def _padded(x: torch.Tensor, padding: Padding, value: float = 0.0) -> torch.Tensor:
    return F.pad(x, (padding.left, padding.right, padding.top, padding.bottom), value=value)


def _padded_channels(x: torch.Tensor, before: int, channels: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, 0, before, max(0, channels - x.shape[1] - before)))


def _activated(op: Op, x: torch.Tensor) -> torch.Tensor:
    activation = getattr(op, "activation", Activation.NONE)
    functions: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
        Activation.NONE: lambda x: x,
        Activation.RELU: F.relu,
        Activation.RELU6: F.relu6,
        Activation.HARD_SIGMOID: lambda x: F.relu6(x + 3) / 6,
        Activation.HARD_SWISH: lambda x: x * F.relu6(x + 3) / 6,
        Activation.SIGMOID: lambda x: 1 / (1 + torch.exp(-x)),
        Activation.SWISH: lambda x: x / (1 + torch.exp(-x)),
    }
    return functions[activation](x)
