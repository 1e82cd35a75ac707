"""(Graph, weights) -> an ONNX model in NCHW, for the peers: no exporter needed, one node a fused piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
    Shape,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)
from device_farm.errors import UnsupportedOperator

OPSET, IR_VERSION = 17, 9  # what every engine of the last years reads


def to_onnx(graph: Graph, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """The model `input` [1, C, H, W] -> `output`: [1, classes] if it is a vector, else [1, C, H, W].

    Sparsity shows only as zeros in the weights. A convolution that covers its whole input is written as Flatten and
    Gemm, as torch's own exporter writes a linear layer.
    """
    writer = _Writer(graph, weights)
    for op in graph.ops:
        writer.write(op)
    return writer.model()


class _Writer:
    def __init__(self, graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
        self.graph, self.weights = graph, weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        shape = self.graph.shapes[self.graph.output.name]
        flat = _is_linear(self.graph, self.graph.output)
        dims = [1, shape.channels] if flat else _nchw(shape)
        self.node("Identity", "output", [self.graph.output.name])
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, _nchw(self.graph.input.shape))],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, dims)],
            list(self.initializers.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def node(self, kind: str, output: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def write(self, op: Op) -> None:
        """Append the nodes of one operator; the last one has the operator's name."""
        if isinstance(op, Input):
            if op.name != "input":
                self.node("Identity", op.name, ["input"])
            return
        steps: list[Callable[[str, str], str]] = [lambda source, output: self.operator(op, source, output)]
        if isinstance(op, Conv2d) and len(op.inputs) == 2:
            residual = op.inputs[1]
            steps.append(lambda source, output: self.node("Add", output, [source, residual]))
        activation = getattr(op, "activation", Activation.NONE)
        if activation is not Activation.NONE and not isinstance(op, Activate):
            steps.append(lambda source, output: self.activation(activation, source, output))
        source = op.inputs[0]
        for index, step in enumerate(steps):
            source = step(source, op.name if index == len(steps) - 1 else f"{op.name}/{index}")

    def operator(self, op: Op, source: str, output: str) -> str:
        shape = self.graph.shapes[op.inputs[0]]
        if isinstance(op, Conv2d | DepthwiseConv2d):
            weight = np.asarray(self.weights[f"{op.name}.weight"])
            names = [self.constant(f"{op.name}.bias", self.weights[f"{op.name}.bias"])]
            if _is_linear(self.graph, op):
                names.insert(0, self.constant(f"{op.name}.weight", weight.reshape(len(weight), -1)))
                return self.node("Gemm", output, [self.node("Flatten", f"{op.name}/flat", [source]), *names], transB=1)
            names.insert(0, self.constant(f"{op.name}.weight", weight))
            return self.node(
                "Conv", output, [source, *names], kernel_shape=op.kernel, strides=op.stride, dilations=op.dilation,
                pads=_pads(op.padding), group=op.groups if isinstance(op, Conv2d) else shape.channels,
            )  # fmt: skip
        if isinstance(op, Pool2d):
            return self.pool(op, shape, source, output)
        if isinstance(op, Add):
            return self.node("Add", output, list(op.inputs))
        if isinstance(op, Multiply):
            return self.node("Mul", output, list(op.inputs))
        if isinstance(op, Concat):
            return self.node("Concat", output, list(op.inputs), axis=1)
        if isinstance(op, Softmax):
            return self.node("Softmax", output, [source], axis=1)
        if isinstance(op, SliceChannels):
            return self.slice(op, op.first, op.first + op.channels, source, output)
        if isinstance(op, ShuffleChannels):
            return self.shuffle(op, shape, source, output)
        if isinstance(op, Activate):
            return self.activation(op.activation, source, output)
        if isinstance(op, ResizeChannels):
            return self.resize(op, shape, source, output)
        if isinstance(op, ScatterChannels):
            return self.scatter(op, shape, source, output)
        raise UnsupportedOperator(f"{op.name}: {op.kind} cannot be written as ONNX")

    def pool(self, op: Pool2d, shape: Shape, source: str, output: str) -> str:
        average = op.pool is PoolKind.AVERAGE
        if op.kernel == (shape.height, shape.width) and op.padding == Padding():
            return self.node("GlobalAveragePool" if average else "GlobalMaxPool", output, [source])
        kind, extra = ("AveragePool", {"count_include_pad": 1}) if average else ("MaxPool", {})
        return self.node(
            kind, output, [source], kernel_shape=op.kernel, strides=op.stride, pads=_pads(op.padding), **extra
        )

    def activation(self, activation: Activation, source: str, output: str) -> str:
        if activation is Activation.NONE:
            return self.node("Identity", output, [source])
        if activation is Activation.RELU:
            return self.node("Relu", output, [source])
        match activation:
            case Activation.RELU6:
                bounds = [self.constant("zero", 0.0), self.constant("six", 6.0)]
                return self.node("Clip", output, [source, *bounds])
            case Activation.HARD_SIGMOID:
                return self.node("HardSigmoid", output, [source], alpha=1 / 6, beta=0.5)
            case Activation.HARD_SWISH:
                return self.node("HardSwish", output, [source])
            case Activation.SIGMOID:
                return self.node("Sigmoid", output, [source])
            case Activation.SWISH:
                return self.node("Mul", output, [source, self.node("Sigmoid", f"{output}/sigmoid", [source])])
        raise UnsupportedOperator(f"{output}: the activation {activation} cannot be written as ONNX")

    def slice(self, op: Op, first: int, last: int, source: str, output: str) -> str:
        numbers = {"begin": [first], "end": [last], "axis": [1]}
        names = [self.constant(f"{op.name}/{key}", value, np.int64) for key, value in numbers.items()]
        return self.node("Slice", output, [source, *names])

    def shuffle(self, op: ShuffleChannels, shape: Shape, source: str, output: str) -> str:
        dims = [1, op.groups, shape.channels // op.groups, shape.height, shape.width]
        names = [
            self.constant(f"{op.name}/{key}", value, np.int64)
            for key, value in (("split", dims), ("whole", _nchw(shape)))
        ]
        parts = self.node("Reshape", f"{op.name}/parts", [source, names[0]])
        turned = self.node("Transpose", f"{op.name}/turned", [parts], perm=[0, 2, 1, 3, 4])
        return self.node("Reshape", output, [turned, names[1]])

    def resize(self, op: ResizeChannels, shape: Shape, source: str, output: str) -> str:
        if op.channels >= shape.channels:
            pads = [0, 0, 0, 0, 0, op.channels - shape.channels, 0, 0]
            return self.node("Pad", output, [source, self.constant(f"{op.name}/pads", pads, np.int64)])
        return self.slice(op, 0, op.channels, source, output)

    def scatter(self, op: ScatterChannels, shape: Shape, source: str, output: str) -> str:
        """As a 1x1 convolution with ones: ONNX has no cheaper word for it."""
        weight = np.zeros((op.channels, shape.channels, 1, 1), np.float32)
        weight[self.weights[f"{op.name}.index"], np.arange(shape.channels)] = 1
        return self.node("Conv", output, [source, self.constant(f"{op.name}.weight", weight)], kernel_shape=(1, 1))


def _is_linear(graph: Graph, op: Op) -> bool:
    if (
        not isinstance(op, Conv2d)
        or len(op.inputs) == 2
        or op.padding != Padding()
        or op.dilation != (1, 1)
        or op.groups > 1
    ):
        return False
    shape = graph.shapes[op.inputs[0]]
    return op.kernel == (shape.height, shape.width) and all(
        _is_linear(graph, user) for user in graph.ops if op.name in user.inputs
    )


def _nchw(shape: Shape) -> list[int]:
    return [1, shape.channels, shape.height, shape.width]


def _pads(padding: Padding) -> list[int]:
    return [padding.top, padding.left, padding.bottom, padding.right]
