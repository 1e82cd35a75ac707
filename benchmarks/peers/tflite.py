"""(Graph, weights) -> a .tflite file in NHWC, written with the schema that LiteRT ships: no TensorFlow needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
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
    Shape,
    Softmax,
)
from device_farm.errors import UnsupportedOperator

SCHEMA_VERSION = 3
FUSED = {
    Activation.NONE: schema.ActivationFunctionType.NONE,
    Activation.RELU: schema.ActivationFunctionType.RELU,
    Activation.RELU6: schema.ActivationFunctionType.RELU6,
}


def to_tflite(graph: Graph, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """The model [1, H, W, C] -> [1, h, w, c], as TensorFlow's converter would write it.

    A padding that TFLite's SAME does not mean is an operator PAD, which XNNPACK fuses into a convolution behind it.
    Raises UnsupportedOperator.
    """
    writer = _Writer(graph, weights)
    for op in graph.ops:
        writer.write(op)
    return writer.model()


class _Writer:
    def __init__(self, graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
        self.graph, self.weights = graph, weights
        self.buffers = [schema.BufferT()]  # the first one is empty by convention
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[int] = []
        self.values: dict[str, int] = {}

    def model(self) -> bytes:
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs = [self.values[self.graph.input.name]]
        subgraph.outputs = [self.values[self.graph.output.name]]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = SCHEMA_VERSION, [subgraph], self.buffers
        model.operatorCodes = [_code(code) for code in self.codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    # --- tensors and operators ---

    def tensor(self, name: str, shape: Sequence[int], kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, buffer
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> int:
        array = np.ascontiguousarray(value, dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.buffers.append(buffer)
        kind = schema.TensorType.INT32 if dtype is np.int32 else schema.TensorType.FLOAT32
        return self.tensor(name, array.shape, kind, len(self.buffers) - 1)

    def operator(self, code: str, name: str, shape: Shape, inputs: Sequence[int], **options: Any) -> int:
        """Append one operator; `options` are fields of its options table. Returns its output."""
        number = getattr(schema.BuiltinOperator, code)
        if number not in self.codes:
            self.codes.append(number)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs = self.codes.index(number), list(inputs)
        made.outputs = [self.tensor(name, (1, *shape))]
        table = OPTIONS[code]
        if table is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            made.builtinOptions = getattr(schema, f"{table}T")()
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        self.operators.append(made)
        return int(made.outputs[0])

    # --- the graph ---

    def write(self, op: Op) -> None:
        shape = self.graph.shapes[op.name]
        if isinstance(op, Input):
            self.values[op.name] = self.tensor(op.name, (1, *shape))
            return
        inputs = [self.values[name] for name in op.inputs]
        activation = getattr(op, "activation", Activation.NONE)
        fused = FUSED.get(activation, FUSED[Activation.NONE])
        if isinstance(op, Activate):
            value = inputs[0]
        elif isinstance(op, Conv2d) and len(inputs) == 2:
            value = self.convolution(op, inputs[0], FUSED[Activation.NONE])
            value = self.operator("ADD", op.name, shape, [value, inputs[1]], fusedActivationFunction=fused)
        else:
            value = self.plain(op, shape, inputs, fused)
        if isinstance(op, Activate) or activation not in FUSED:
            value = self.activation(op.name, shape, activation, value)
        self.values[op.name] = value

    def plain(self, op: Op, shape: Shape, inputs: list[int], fused: int) -> int:
        match op:
            case Conv2d() | DepthwiseConv2d():
                return self.convolution(op, inputs[0], fused)
            case Pool2d():
                return self.pool(op, inputs[0])
            case Add() | Multiply():
                code = "ADD" if isinstance(op, Add) else "MUL"
                return self.operator(code, op.name, shape, inputs, fusedActivationFunction=fused)
            case Softmax():
                return self.operator("SOFTMAX", op.name, shape, inputs, beta=1.0)
            case Concat():
                return self.operator("CONCATENATION", op.name, shape, inputs, axis=3)
        raise UnsupportedOperator(f"{op.name}: {op.kind} cannot be written as TFLite")

    def convolution(self, op: Conv2d | DepthwiseConv2d, source: int, fused: int) -> int:
        image, shape = self.graph.shapes[op.inputs[0]], self.graph.shapes[op.name]
        weight = np.asarray(self.weights[f"{op.name}.weight"])  # filters x channels x kh x kw
        bias = self.constant(f"{op.name}.bias", self.weights[f"{op.name}.bias"])
        if isinstance(op, Conv2d) and image[:2] == op.kernel == (1, 1) and op.groups == 1:
            matrix = self.constant(f"{op.name}.weight", weight[:, :, 0, 0])
            return self.operator(
                "FULLY_CONNECTED",
                op.name,
                shape,
                [source, matrix, bias],
                fusedActivationFunction=fused,
                keepNumDims=True,
            )
        depthwise = isinstance(op, DepthwiseConv2d)
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        filters = self.constant(f"{op.name}.weight", weight.transpose(order))
        source, padding = self.padded(op, image, shape, source)
        return self.operator(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", op.name, shape, [source, filters, bias],
            fusedActivationFunction=fused, padding=padding, strideH=op.stride[0], strideW=op.stride[1],
            dilationHFactor=op.dilation[0], dilationWFactor=op.dilation[1],
            **({"depthMultiplier": 1} if depthwise else {}),
        )  # fmt: skip

    def pool(self, op: Pool2d, source: int) -> int:
        image, shape = self.graph.shapes[op.inputs[0]], self.graph.shapes[op.name]
        average = op.pool is PoolKind.AVERAGE
        if average and op.kernel == image[:2] and op.padding == Padding():
            axes = self.constant(f"{op.name}/axes", [1, 2], np.int32)
            return self.operator("MEAN", op.name, shape, [source, axes], keepDims=True)
        source, padding = self.padded(op, image, shape, source)
        return self.operator(
            "AVERAGE_POOL_2D" if average else "MAX_POOL_2D", op.name, shape, [source], padding=padding,
            strideH=op.stride[0], strideW=op.stride[1], filterHeight=op.kernel[0], filterWidth=op.kernel[1],
        )  # fmt: skip

    def padded(self, op: Conv2d | DepthwiseConv2d | Pool2d, image: Shape, shape: Shape, source: int) -> tuple[int, int]:
        """(the tensor that the window runs over, TFLite's word for the padding that is left to do)."""
        if op.padding == Padding():
            return source, schema.Padding.VALID
        averaging = isinstance(op, Pool2d) and op.pool is PoolKind.AVERAGE  # SAME leaves the border out of the mean
        if op.padding == _same(op, image) and not averaging:
            return source, schema.Padding.SAME
        top, left, bottom, right = op.padding
        larger = Shape(image.height + top + bottom, image.width + left + right, image.channels)
        widths = self.constant(f"{op.name}/pads", [(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
        name = f"{op.name}/padded"
        producer = next(before for before in self.graph.ops if before.name == op.inputs[0])
        above_zero = getattr(producer, "activation", None) in (Activation.RELU, Activation.RELU6)
        if isinstance(op, Pool2d) and op.pool is PoolKind.MAX and not above_zero:
            lowest = self.constant(f"{op.name}/lowest", [np.finfo(np.float32).min])
            return self.operator("PADV2", name, larger, [source, widths, lowest]), schema.Padding.VALID
        return self.operator("PAD", name, larger, [source, widths]), schema.Padding.VALID

    def activation(self, name: str, shape: Shape, activation: Activation, source: int) -> int:
        relu6 = FUSED[Activation.RELU6]
        match activation:
            case Activation.NONE:
                return source
            case Activation.RELU | Activation.RELU6:
                return self.operator(activation.upper(), f"{name}/activated", shape, [source])
            case Activation.HARD_SWISH:
                return self.operator("HARD_SWISH", f"{name}/activated", shape, [source])
            case Activation.SIGMOID:
                return self.operator("LOGISTIC", f"{name}/activated", shape, [source])
            case Activation.SWISH:
                sigmoid = self.operator("LOGISTIC", f"{name}/sigmoid", shape, [source])
                return self.operator("MUL", f"{name}/activated", shape, [source, sigmoid])
            case Activation.HARD_SIGMOID:
                three, sixth = self.constant(f"{name}/three", [3.0]), self.constant(f"{name}/sixth", [1 / 6])
                shifted = self.operator("ADD", f"{name}/shifted", shape, [source, three], fusedActivationFunction=relu6)
                return self.operator("MUL", f"{name}/activated", shape, [shifted, sixth])


OPTIONS = {  # operator -> its table of options
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "HARD_SWISH": "HardSwishOptions", "LOGISTIC": None,
    "MAX_POOL_2D": "Pool2DOptions", "MEAN": "ReducerOptions", "MUL": "MulOptions", "PAD": "PadOptions",
    "PADV2": "PadV2Options", "RELU": None, "RELU6": None, "SOFTMAX": "SoftmaxOptions",
}  # fmt: skip


def _code(number: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = number
    made.deprecatedBuiltinCode = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    made.version = 1
    return made


def _same(op: Conv2d | DepthwiseConv2d | Pool2d, image: Shape) -> Padding:
    """What TFLite means by SAME: as many outputs as ceil(extent / stride), an odd pixel below and to the right."""
    dilation = (1, 1) if isinstance(op, Pool2d) else op.dilation
    sides = []
    for extent, k, s, d in zip(image[:2], op.kernel, op.stride, dilation, strict=True):
        total = max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
        sides.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = sides
    return Padding(top, left, bottom, right)
