"""ONNX files -> graph and weights, by way of TVM's relax front end."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.compiler.frontend.calls import last_line
from device_farm.compiler.frontend.onnx_checks import check_model, cut, node_name, read_model
from device_farm.compiler.frontend.walk import Imported, import_function
from device_farm.compiler.graph import Shape
from device_farm.errors import FarmError, InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    import onnx

FLOAT32 = 1  # onnx.TensorProto.FLOAT


def import_onnx(model: Path | str | onnx.ModelProto, input_shape: Shape | None = None) -> Imported:
    """The network of an ONNX model of one NCHW image.

    `input_shape` fixes an input whose shape is not fixed in the model, and is otherwise compared with it. A batch that
    is not fixed is 1.

    Raises InvalidGraph: not a model, damaged, opset below 11, not float32, batch other than 1, several inputs or
    outputs, dynamic shape, weights that are not finite.
    Raises UnsupportedOperator: an operator without a kernel; the message names the node.
    """
    try:
        import onnx
    except ImportError as error:
        raise InvalidGraph("reading an ONNX model needs the package onnx: pip install onnx") from error

    if not isinstance(model, onnx.ModelProto):
        model = read_model(Path(model))
    opset = check_model(model)
    name, shape = _input(model, input_shape)
    _check_operators(model)

    # TVM warns of renamed inputs and prints whole relax programs when a conversion fails.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            function, layers = _relax(model.graph, opset, {name: shape})
        except FarmError:
            raise
        except Exception as error:  # a converter raises whatever TVM's C++ raises
            raise UnsupportedOperator(f"TVM's ONNX front end failed: {last_line(error)}") from error
    return import_function(function, layers)


def _relax(graph: onnx.GraphProto, opset: int, shapes: dict[str, list[int]]) -> tuple[Any, dict[str, str]]:
    """The relax function of the model, and the node of its variables."""
    from tvm import relax
    from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

    layers: dict[str, str] = {}

    class Importer(ONNXGraphImporter):  # type: ignore[misc]
        """Binds what every node computes to a variable of its own, and remembers whose it is."""

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            layer = cut(attrs["tvm_custom"]["name"] or op_name)
            try:
                value = super()._convert_operator(op_name, inputs, attrs, opset)
            except MemoryError:
                raise
            except Exception as error:  # whatever TVM's C++ raises
                raise UnsupportedOperator(
                    f"layer {layer!r}: operator {op_name!r} is refused by TVM's front end: {last_line(error)}; "
                    "check its attributes and the shapes that it reads, or replace it by supported operators"
                ) from error
            return self._bound(value, layer)

        def _bound(self, value: Any, layer: str) -> Any:
            if isinstance(value, relax.Tuple):
                return relax.Tuple([self._bound(item, layer) for item in value.fields])
            if isinstance(value, relax.Call | relax.TupleGetItem) and isinstance(
                value.ty, relax.TensorType | relax.TupleType
            ):
                value = self.bb.emit(value)
            if isinstance(value, relax.Var):
                layers.setdefault(value.name, layer)  # a node that passes its input on did not make it
            return value

    importer = Importer(shapes, "float32", keep_params_in_input=False, sanitize=True)
    return importer.from_onnx(graph, opset)["main"], layers


def _input(model: onnx.ModelProto, asked: Shape | None) -> tuple[str, list[int]]:
    """Name and NCHW shape of the one input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InvalidGraph(f"a network reads one image, this one has {len(inputs)} inputs")
    kind, dims = inputs[0].type.tensor_type.elem_type, inputs[0].type.tensor_type.shape.dim
    name = cut(inputs[0].name)
    if kind != FLOAT32:
        raise InvalidGraph(f"the input {name!r} is not float32; convert the model with .float()")
    stated: list[Any] = [dim.dim_value if dim.HasField("dim_value") else cut(dim.dim_param) or "?" for dim in dims]
    if len(stated) != 4 or any(isinstance(dim, int) and dim < 1 for dim in stated):
        raise InvalidGraph(
            f"the input {name!r} has the shape {stated}; expected float32 (1, channels, height, width), "
            "every extent at least 1"
        )
    if isinstance(stated[0], str):
        stated[0] = 1
    expected = None if asked is None else [1, asked.channels, asked.height, asked.width]
    shape = stated if expected is None else expected
    if any(isinstance(dim, str) for dim in shape):
        raise InvalidGraph(
            f"the input {name!r} has the dynamic shape {stated}; give input_shape (npas bench: --input HxWxC)"
        )
    if len(shape) != len(stated) or any(isinstance(s, int) and s != e for s, e in zip(stated, shape, strict=True)):
        raise InvalidGraph(f"the input {name!r} has the shape {stated}, input_shape asks for {shape}")
    return inputs[0].name, shape


def _check_operators(model: onnx.ModelProto) -> None:
    from tvm.relax.frontend.onnx.onnx_frontend import _get_convert_map

    known = _get_convert_map().keys() | {"Constant"}
    for node in model.graph.node:
        if node.op_type not in known:
            raise UnsupportedOperator(
                f"layer {node_name(node)!r}: TVM's front end does not know the operator {cut(node.op_type)}; "
                "replace it by supported operators"
            )
