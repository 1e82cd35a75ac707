"""What an ONNX model must be before TVM sees it. TVM believes what a file declares; these checks do not.

Everything here is cheap: sizes are compared before anything of that size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.compiler.frontend.files import MAX_BYTES, read_bounded
from device_farm.errors import InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 11  # before it, clips and pads carry their bounds where TVM compiles them in beyond recognition
MAX_NODES = 100_000
MAX_NAME = 1_000  # characters of a name, and bytes of an attribute that is text
_SHOWN = 80


def read_model(path: Path) -> onnx.ModelProto:
    """The model of a file, with the weights that it keeps in files beside it. Raises InvalidGraph."""
    import onnx

    content = read_bounded(path)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors differ between its implementations
        raise InvalidGraph(f"{path}: not an ONNX model ({cut(str(error))}): truncated, or another format?") from error
    if not model.ir_version or not model.graph.node:
        raise InvalidGraph(f"{path}: not an ONNX model: there is no operator in it")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _load_external(tensor, path)
    return model


def check_model(model: onnx.ModelProto) -> int:
    """Structure, types and sizes; returns the opset. Raises InvalidGraph, UnsupportedOperator."""
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
    if opset < OLDEST_OPSET:
        raise InvalidGraph(f"the model uses opset {opset}; export it with opset {OLDEST_OPSET} or newer")
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        what = "functions of its own" if model.functions else "sparse initializers"
        raise UnsupportedOperator(f"the model has {what}; export it with plain operators and dense weights")
    if len(graph.node) > MAX_NODES:
        raise InvalidGraph(f"the model has {len(graph.node)} operators, at most {MAX_NODES} are compiled")
    _check_texts(model)
    for tensor in _tensors(graph):
        _check_tensor(tensor)
    _check_edges(graph)
    if len(graph.output) != 1:
        raise InvalidGraph(
            f"a network has one output, this one has {len(graph.output)}: "
            f"{', '.join(cut(value.name) for value in graph.output[:10])}; export the one that counts"
        )
    return opset


def cut(text: str) -> str:
    """The first words of a text that a file chose."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def node_name(node: onnx.NodeProto) -> str:
    """The name of an operator as errors and profiles say it."""
    return cut(node.name or next(iter(node.output), "") or node.op_type)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_texts(model: onnx.ModelProto) -> None:
    """Every name is text: protobuf hands out what is not UTF-8 as bytes."""
    graph = model.graph
    names: list[Any] = [item.domain for item in model.opset_import]
    names += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
    names += [dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim]
    names += [tensor.name for tensor in _tensors(graph)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    broken = next((name for name in names if not isinstance(name, str)), None)
    if broken is not None:
        raise InvalidGraph(f"not an ONNX model: the name {cut(repr(broken))} is no text: damaged?")


def _check_edges(graph: onnx.GraphProto) -> None:
    """Every operator reads what is there before it: no cycle, nothing missing, nothing made twice."""
    import onnx

    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        layer = node_name(node)
        texts = [node.name, node.op_type, *node.input, *node.output, *(a.name for a in node.attribute)]
        longest = max([*map(len, texts), *(len(a.s) for a in node.attribute), 0])
        if longest > MAX_NAME:
            raise InvalidGraph(f"layer {layer!r}: a name or text of {longest} characters, at most {MAX_NAME} are read")
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise UnsupportedOperator(
                    f"layer {layer!r}: operator {cut(node.op_type)!r} chooses what runs by values; "
                    "export the network without loops and conditions"
                )
        missing = next((name for name in node.input if name and name not in known), None)
        if missing is not None:
            raise InvalidGraph(
                f"layer {layer!r}: reads {cut(missing)!r}, which nothing before it makes: "
                "a missing initializer, a cycle, or operators out of order"
            )
        for name in node.output:
            if name and name in known:
                raise InvalidGraph(f"layer {layer!r}: makes {cut(name)!r} a second time")
        known.update(node.output)
    for value in graph.output:
        if value.name not in known:
            raise InvalidGraph(f"the output {cut(value.name)!r} is made by no operator")


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Declared extents against the bytes that are there."""
    import onnx

    name = cut(tensor.name)
    if len(tensor.name) > MAX_NAME:
        raise InvalidGraph(f"tensor {name!r}: a name of {len(tensor.name)} characters, at most {MAX_NAME} are read")
    if any(dim < 0 for dim in tensor.dims):
        raise InvalidGraph(f"tensor {name!r}: negative extents {list(tensor.dims)[:8]}")
    sizes = _numeric_types()
    if tensor.data_type not in sizes:
        kind = (
            onnx.TensorProto.DataType.Name(tensor.data_type)
            if tensor.data_type in onnx.TensorProto.DataType.values()
            else tensor.data_type
        )
        raise InvalidGraph(f"tensor {name!r}: its type is {kind}; weights are float32, convert the model with .float()")
    declared = math.prod(tensor.dims) * sizes[tensor.data_type]
    held = len(tensor.raw_data) if tensor.HasField("raw_data") else _typed_bytes(tensor, sizes[tensor.data_type])
    if declared != held:
        raise InvalidGraph(
            f"tensor {name!r}: {'x'.join(map(str, list(tensor.dims)[:8]))} elements would be {declared} bytes, "
            f"{held} are there: truncated?"
        )


def _numeric_types() -> dict[int, int]:
    """Bytes of an element, of the types that are understood."""
    from onnx import TensorProto as T

    return {
        T.FLOAT: 4, T.DOUBLE: 8, T.FLOAT16: 2, T.BFLOAT16: 2, T.BOOL: 1, T.INT8: 1, T.UINT8: 1, T.INT16: 2,
        T.UINT16: 2, T.INT32: 4, T.UINT32: 4, T.INT64: 8, T.UINT64: 8,
    }  # fmt: skip


def _typed_bytes(tensor: onnx.TensorProto, size: int) -> int:
    """Of the elements in the field of the tensor's type: narrow types share int32_data."""
    fields: list[Any] = [
        tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data, tensor.uint64_data
    ]  # fmt: skip
    return size * sum(map(len, fields))


def _load_external(tensor: onnx.TensorProto, model: Path) -> None:
    """Fills in weights that lie in a file beside the model: beside it, and nowhere else."""
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, name = entries.get("location", ""), cut(tensor.name)
    folder = model.parent.resolve()
    path = (folder / location).resolve()  # follows links
    if not location or "\0" in location or not path.is_relative_to(folder) or path == folder:
        raise InvalidGraph(
            f"tensor {name!r}: its data lie at {cut(location)!r}; only files in the model's own folder are read"
        )
    size = math.prod(tensor.dims) * _numeric_types().get(tensor.data_type, 1)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError as error:
        raise InvalidGraph(f"tensor {name!r}: offset or length of its data is no number") from error
    if length != size:
        raise InvalidGraph(f"tensor {name!r}: {size} bytes are declared, its file gives {length}")
    tensor.raw_data = read_bounded(path, limit=MAX_BYTES, offset=offset, length=length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
