"""ONNX files -> graph and weights, by way of TVM's relax front end."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.compiler.frontend.walk import Imported, import_function
from device_farm.compiler.graph import Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 11  # before it, clips and pads carry their bounds where TVM compiles them in beyond recognition


def import_onnx(model: Path | str | onnx.ModelProto, input_shape: Shape | None = None) -> Imported:
    """The network of an ONNX model of one NCHW image.

    `input_shape` fixes an input whose shape is not fixed in the model, and is otherwise compared with it.

    Raises InvalidGraph: not a model, opset below 11, not float32, batch other than 1, several inputs or outputs, dynamic shape.
    Raises UnsupportedOperator: an operator without a kernel; the message names the node.
    """
    import onnx
    from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

    if not isinstance(model, onnx.ModelProto):
        try:
            model = onnx.load(model)
        except FileNotFoundError as error:
            raise InvalidGraph(f"{model}: there is no such file") from error
        except Exception as error:  # protobuf's errors differ between its implementations
            raise InvalidGraph(f"{model}: not an ONNX model ({error})") from error
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
    if opset < _OLDEST_OPSET:
        raise InvalidGraph(f"the model uses opset {opset}; export it with opset {_OLDEST_OPSET} or newer")
    name, shape = _input(model, input_shape)
    _check_operators(model)

    importer = ONNXGraphImporter({name: shape}, "float32", keep_params_in_input=False, sanitize=True)
    # TVM warns of renamed inputs and prints whole relax programs when a conversion fails.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            module = importer.from_onnx(model.graph, opset)
        except Exception as error:  # a converter raises whatever TVM's C++ raises
            raise UnsupportedOperator(f"TVM's ONNX front end failed: {str(error).strip().splitlines()[-1]}") from error
    nodes = {output: node.name or output for node in model.graph.node for output in node.output}
    variables = {output: getattr(value, "name", None) for output, value in importer._nodes.items()}
    layers: dict[str, str] = {}
    for output, variable in variables.items():
        if variable is not None and output in nodes:
            layers.setdefault(variable, nodes[output])
    return import_function(module["main"], layers)


def _input(model: onnx.ModelProto, asked: Shape | None) -> tuple[str, list[int]]:
    """Name and NCHW shape of the one input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InvalidGraph(f"a network reads one image, this one has {len(inputs)} inputs")
    dims = inputs[0].type.tensor_type.shape.dim
    stated: list[Any] = [dim.dim_value or dim.dim_param or "?" for dim in dims]
    expected = None if asked is None else [1, asked.channels, asked.height, asked.width]
    shape = stated if expected is None else expected
    if any(isinstance(dim, str) for dim in shape):
        raise InvalidGraph(f"the input {inputs[0].name!r} has the dynamic shape {stated}; give input_shape")
    if len(shape) != len(stated) or any(isinstance(s, int) and s != e for s, e in zip(stated, shape, strict=True)):
        raise InvalidGraph(f"the input {inputs[0].name!r} has the shape {stated}, input_shape asks for {shape}")
    return inputs[0].name, shape


def _check_operators(model: onnx.ModelProto) -> None:
    from tvm.relax.frontend.onnx.onnx_frontend import _get_convert_map

    known = _get_convert_map().keys() | {"Constant"}
    for node in model.graph.node:
        if node.op_type not in known:
            raise UnsupportedOperator(
                f"layer {node.name or node.output[0]!r}: TVM's front end does not know the operator {node.op_type}; "
                "replace it by supported operators"
            )
