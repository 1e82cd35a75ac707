"""relax operators -> operators of the graph. No TVM in here: a call is plain values.

Whatever is not mapped exactly is refused with UnsupportedOperator; nothing is approximated or skipped.
"""

from __future__ import annotations

import math
from typing import Any

from device_farm.compiler.frontend import convolutions, elementwise, pooling, shapes
from device_farm.compiler.frontend.calls import USE_RELU, Builder, Call, Handler, Tensor
from device_farm.compiler.graph import Activation, PoolKind


def map_call(builder: Builder, call: Call) -> Any:
    """Append what the call computes to the graph; returns its value, a Tensor or a tuple.

    Raises UnsupportedOperator.
    """
    handler = _HANDLERS.get(call.operator)
    if handler is None:
        raise call.unsupported("has no kernel", _REMEDIES.get(call.operator, "replace it by supported operators"))
    if call.dtype != "float32":
        raise call.unsupported(f"computes in {call.dtype}", "only float32 is compiled; convert the model with .float()")
    value = handler(builder, call)
    first = value[0] if isinstance(value, tuple) else value
    if isinstance(first, Tensor) and math.prod(first.dims) != builder.shapes[first.op].elements:
        raise call.unsupported(
            f"gives {first.dims} where the graph has {tuple(builder.shapes[first.op])}",
            "this is a bug: please report it",
        )
    return value


_HANDLERS: dict[str, Handler] = {
    "add": elementwise.add,
    "astype": elementwise.identity,  # from float32 to float32: every other dtype is refused
    "clip": elementwise.clip,
    "concat": shapes.concat,
    "divide": elementwise.divide,
    "expand_dims": shapes.reshape,
    "flatten": shapes.reshape,
    "matmul": convolutions.matmul,
    "max": pooling.reduce(PoolKind.MAX),
    "maximum": elementwise.maximum,
    "mean": pooling.reduce(PoolKind.AVERAGE),
    "minimum": elementwise.minimum,
    "multiply": elementwise.multiply,
    "negative": elementwise.negative,
    "nn.adaptive_avg_pool2d": pooling.adaptive_pool2d(PoolKind.AVERAGE),
    "nn.adaptive_max_pool2d": pooling.adaptive_pool2d(PoolKind.MAX),
    "nn.avg_pool2d": pooling.pool2d(PoolKind.AVERAGE),
    "nn.batch_flatten": shapes.reshape,
    "nn.batch_norm": convolutions.batch_norm,
    "nn.conv2d": convolutions.conv2d,
    "nn.dropout": lambda _, call: (call.tensor(), None),  # inference: nothing is dropped
    "nn.max_pool2d": pooling.pool2d(PoolKind.MAX),
    "nn.pad": convolutions.pad,
    "nn.relu": elementwise.activate(Activation.RELU),
    "nn.relu6": elementwise.activate(Activation.RELU6),
    "nn.silu": elementwise.activate(Activation.SWISH),
    "nn.softmax": shapes.softmax,
    "permute_dims": shapes.permute_dims,
    "reshape": shapes.reshape,
    "sigmoid": elementwise.activate(Activation.SIGMOID),
    "split": shapes.split,
    "squeeze": shapes.reshape,
    "strided_slice": shapes.strided_slice,
    "subtract": elementwise.subtract,
}

_REMEDIES = {
    "greater": USE_RELU,  # as which PReLU arrives
    "nn.conv2d_transpose": "upsampling has no kernel: leave it out",
    "nn.gelu": USE_RELU,
    "nn.leakyrelu": USE_RELU,
    "nn.log_softmax": "leave it out of the network: the order of the logits is the same",
    "tanh": USE_RELU,
}
