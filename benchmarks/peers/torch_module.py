"""A graph as a torch module, so that torch runs what every other engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Multiply,
    Op,
    Padding,
    Pool2d,
    PoolKind,
    Softmax,
)
from device_farm.errors import UnsupportedOperator

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.NONE: nn.Identity,
    Activation.RELU: nn.ReLU,
    Activation.RELU6: nn.ReLU6,
    Activation.HARD_SIGMOID: nn.Hardsigmoid,
    Activation.HARD_SWISH: nn.Hardswish,
    Activation.SIGMOID: nn.Sigmoid,
    Activation.SWISH: nn.SiLU,
}


class GraphModule(nn.Module):
    """[1, channels, height, width] -> the graph's output, the same way round."""

    def __init__(self, graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleDict({_key(op): _layer(op, graph, weights) for op in graph.ops[1:]})

    def forward(self, image: Tensor) -> Tensor:
        values = {self.graph.input.name: image}
        for op in self.graph.ops[1:]:
            values[op.name] = self.layers[_key(op)](*(values[name] for name in op.inputs))
        return values[self.graph.output.name]


def _key(op: Op) -> str:
    return op.name.replace(".", "/")  # a name in a ModuleDict has no dots


def _layer(op: Op, graph: Graph, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    shape = graph.shapes[op.inputs[0]]
    match op:
        case Conv2d() | DepthwiseConv2d():
            return _Convolution(op, shape.channels, weights)
        case Pool2d(pool=PoolKind.AVERAGE) if op.kernel == shape[:2] and op.padding == Padding():
            return nn.AdaptiveAvgPool2d(1)
        case Pool2d(pool=PoolKind.AVERAGE):
            return nn.AvgPool2d(op.kernel, op.stride, _symmetric(op, op.padding))
        case Pool2d():
            return nn.MaxPool2d(op.kernel, op.stride, _symmetric(op, op.padding))
        case Add() | Multiply():
            return _Binary(torch.add if isinstance(op, Add) else torch.mul, op.activation)
        case Activate():
            return ACTIVATIONS[op.activation]()
        case Softmax():
            return nn.Softmax(1)
        case Concat():
            return _Concat()
    raise UnsupportedOperator(f"{op.name}: {op.kind} has no counterpart in the benchmarks' torch module")


class _Convolution(nn.Module):
    def __init__(self, op: Conv2d | DepthwiseConv2d, channels: int, weights: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        weight = torch.from_numpy(np.array(weights[f"{op.name}.weight"], np.float32))
        groups = channels if isinstance(op, DepthwiseConv2d) else op.groups
        self.convolution = nn.Conv2d(
            channels, len(weight), op.kernel, op.stride, _symmetric(op, op.padding), op.dilation, groups
        )
        self.convolution.weight.data = weight
        assert self.convolution.bias is not None
        self.convolution.bias.data = torch.from_numpy(np.array(weights[f"{op.name}.bias"], np.float32))
        self.activation = ACTIVATIONS[op.activation]()

    def forward(self, image: Tensor, residual: Tensor | None = None) -> Tensor:
        result = self.convolution(image)
        activated: Tensor = self.activation(result if residual is None else result + residual)
        return activated


class _Binary(nn.Module):
    def __init__(self, function: Any, activation: Activation) -> None:
        super().__init__()
        self.function, self.activation = function, ACTIVATIONS[activation]()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.function(a, b))
        return activated


class _Concat(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


def _symmetric(op: Op, padding: Padding) -> tuple[int, int]:
    if (padding.top, padding.left) != (padding.bottom, padding.right):
        raise UnsupportedOperator(f"{op.name}: torch pads both sides alike, this operator needs {tuple(padding)}")
    return padding.top, padding.left
