"""The walk over a relax function: bindings become calls, calls become the graph. All of TVM's classes end here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.frontend.calls import Builder, Call, Tensor
from device_farm.compiler.frontend.constants import evaluate
from device_farm.compiler.frontend.limits import check_network
from device_farm.compiler.frontend.operators import map_call
from device_farm.compiler.graph import Graph, Shape
from device_farm.compiler.passes import fuse
from device_farm.errors import InvalidGraph, UnsupportedOperator


@dataclass(frozen=True)
class Imported:
    """A network ready for the compiler: batch norm folded, activations and residuals fused, weights in float32."""

    graph: Graph
    weights: Mapping[str, NDArray[Any]]


def import_function(function: Any, layers: Mapping[str, str]) -> Imported:
    """A relax function of one image to the fused graph.

    `layers` names the user's layer for variables of the function, as far as it is known; a variable without a name
    belongs to the next named one, since a layer's result comes last.

    Raises InvalidGraph: several inputs or outputs, batch other than 1, dynamic shape, dtype other than float32.
    Raises UnsupportedOperator: an operator without a kernel.
    """
    from tvm import relax

    if len(function.params) != 1:
        raise InvalidGraph(f"a network reads one image, this one has {len(function.params)} inputs")
    parameter = function.params[0]
    channels, height, width = _image(parameter)
    builder = Builder(Shape(height, width, channels))
    values: dict[Any, Any] = {parameter: Tensor("input", (1, channels, height, width))}

    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    names = _names(bindings, layers)
    for binding, layer in zip(bindings, names, strict=True):
        if not isinstance(binding, relax.VarBinding):
            raise UnsupportedOperator(
                f"layer {layer!r}: {type(binding).__name__} depends on values; export with fixed shapes"
            )
        values[binding.var] = _value(binding.value, layer, values, builder)
    return _finish(builder, values[function.body.body])


def _finish(builder: Builder, output: Any) -> Imported:
    if isinstance(output, tuple) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        count = len(output) if isinstance(output, tuple) else "constant"
        raise InvalidGraph(f"a network has one output that depends on its input, this one has {count}")
    channels, height, width = builder.chw(output)
    if len(output.dims) == 2 and height * width > 1:
        raise InvalidGraph(
            f"the output is a flattened image of {channels}x{height}x{width}, whose order (NCHW) is not the device's "
            "(NHWC); return the image itself"
        )
    ops = list(builder.ops.values())
    last = next(index for index, op in enumerate(ops) if op.name == output.op)
    graph, weights = fuse(Graph(tuple(ops[: last + 1])), builder.weights)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinity, and is refused
        single = {key: _single(value) for key, value in weights.items()}
    check_network(graph, single)
    return Imported(graph, single)


def _single(value: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else np.int32)


def _names(bindings: list[Any], layers: Mapping[str, str]) -> list[str]:
    """The layer of every binding; the operator's own name where nothing is known."""
    names: list[str] = []
    following: str | None = None
    for binding in reversed(bindings):
        following = layers.get(binding.var.name, following)
        names.append(following or binding.var.name)
    return names[::-1]


def _value(expression: Any, layer: str, values: Mapping[Any, Any], builder: Builder) -> Any:
    """A relax expression as a Tensor, a numpy constant, a number or a tuple of those."""
    from tvm import ir, relax, tirx

    if isinstance(expression, ir.GenericConst):
        return _constant(expression)
    if isinstance(expression, tirx.IntImm | tirx.FloatImm):
        return expression.value
    if isinstance(expression, relax.Var) and expression in values:
        return values[expression]
    if isinstance(expression, relax.ShapeExpr):
        return _integers(expression.values, layer)
    if isinstance(expression, relax.Tuple):
        return tuple(_value(item, layer, values, builder) for item in expression.fields)
    if isinstance(expression, relax.TupleGetItem):
        return _value(expression.tuple_value, layer, values, builder)[expression.index]
    if isinstance(expression, relax.Call) and isinstance(expression.op, ir.Op):
        call = _call(expression, layer, lambda item: _value(item, layer, values, builder))
        constant = evaluate(call)
        return map_call(builder, call) if constant is None else constant
    raise UnsupportedOperator(f"layer {layer!r}: a relax {type(expression).__name__} cannot be compiled")


def _call(expression: Any, layer: str, convert: Callable[[Any], Any]) -> Call:
    """A relax call in plain values. TE code, which the ONNX front end emits, goes by its function's name."""
    operator, arguments = expression.op.name.removeprefix("relax."), list(expression.args)
    if operator == "call_tir":
        operator = arguments[0].name_hint.rstrip("0123456789_")
        arguments = list(arguments[1].fields)
    result = _first(expression.ty)
    dims = _integers(result.shape, layer)
    return Call(operator, layer, tuple(map(convert, arguments)), expression.attrs, dims, str(result.dtype))


def _first(ty: Any) -> Any:
    """The type of a tensor, or of the first tensor of a tuple."""
    return _first(ty.fields[0]) if hasattr(ty, "fields") else ty


def _constant(expression: Any) -> NDArray[Any]:
    array: NDArray[Any] = expression.value.numpy()
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _integers(values: Any, layer: str) -> tuple[int, ...]:
    """Extents as integers. Raises InvalidGraph if one of them is only known at run time."""
    extents = [getattr(value, "value", value) for value in (() if values is None else values)]
    if values is None or not all(isinstance(extent, int) for extent in extents):
        shape = "?" if values is None else "x".join(map(str, values))
        raise InvalidGraph(f"{layer}: the shape {shape} is not fixed; export the model with one fixed input shape")
    return tuple(extents)


def _image(parameter: Any) -> tuple[int, int, int]:
    """(channels, height, width) of the network's input."""
    shape, dtype = _integers(parameter.ty.shape, f"input {parameter.name!r}"), str(parameter.ty.dtype)
    if len(shape) != 4 or shape[0] != 1 or dtype != "float32":
        raise InvalidGraph(
            f"the input {parameter.name!r} is {dtype} {shape}; expected float32 (1, channels, height, width): "
            "export the model for one image"
        )
    return shape[1], shape[2], shape[3]
