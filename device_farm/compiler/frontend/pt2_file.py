"""`.pt2` files of torch.export.save -> ExportedProgram, without running anything that a file brings along.

torch.export.load is made for files that one trusts: it unpickles tensors and sample inputs, evaluates expressions of
shapes, resolves any function by name and loads compiled libraries. Here the archive is read by hand instead. Weights
are the raw bytes of their entries; the description of the graph, which is JSON, goes to torch's deserialiser after
everything but plain aten operators on tensors of fixed shapes was refused or left out.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.compiler.frontend.calls import last_line
from device_farm.compiler.frontend.files import read_bounded
from device_farm.compiler.frontend.onnx_checks import cut
from device_farm.errors import FarmError, InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

_MAX_ENTRIES = 100_000
_MAX_JSON_BYTES = 256 * 1024**2
_OPERATOR = re.compile(r"torch\.ops\.aten\.[a-z0-9_]+\.[A-Za-z0-9_]+|_operator\.getitem")
_AGAIN = "save it again with torch.export.save"
# of the schema's scalar types; what else there is, is no network of ours
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"}
_DTYPES |= {12: "bool", 13: "bfloat16"}
_BYTES = {"uint8": 1, "int8": 1, "bool": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4}
_HARMLESS = frozenset({
    "as_none", "as_tensor", "as_tensors", "as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools",
    "as_string", "as_optional_tensors", "as_scalar_type", "as_memory_format", "as_layout", "as_device",
})  # fmt: skip
_PLAIN_TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


def read_pt2(path: Path) -> ExportedProgram:
    """The program of a `.pt2` file. Raises InvalidGraph, UnsupportedOperator."""
    content = read_bounded(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _program(_Archive(path, archive))
    except FarmError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InvalidGraph(f"{path}: not a .pt2 file ({last_line(error)}): truncated, or another format?") from error
    except MemoryError:
        raise
    except Exception as error:  # torch's deserialiser raises whatever a wrong description leads it to
        raise InvalidGraph(
            f"{path}: not a program of torch.export: {type(error).__name__}: {last_line(error)}"
        ) from error


class _Archive:
    """Entries by their path behind the archive's root folder. Nothing in it is compressed, so it cannot swell."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        entries = archive.infolist()
        if len(entries) > _MAX_ENTRIES:
            raise InvalidGraph(f"{path}: {len(entries)} entries, at most {_MAX_ENTRIES} are read")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise InvalidGraph(f"{path}: {cut(entry.filename)!r} is compressed, which torch never does; {_AGAIN}")
        self.names = {entry.filename.partition("/")[2]: entry for entry in entries}

    def bytes(self, name: str) -> bytes:
        if name not in self.names:
            raise InvalidGraph(f"{self.path}: no entry {cut(name)!r}: not a .pt2 file of torch 2.8 or newer; {_AGAIN}")
        return self._archive.read(self.names[name])

    def json(self, name: str) -> Any:
        content = self.bytes(name)
        if len(content) > _MAX_JSON_BYTES:
            raise InvalidGraph(f"{self.path}: {cut(name)!r} has {len(content)} bytes, at most {_MAX_JSON_BYTES}")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InvalidGraph(f"{self.path}: {cut(name)!r} is not JSON: {last_line(error)}") from error


def _program(archive: _Archive) -> ExportedProgram:
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass

    models = [name for name in archive.names if re.fullmatch(r"models/[^/]+\.json", name)]
    if len(models) != 1:
        raise InvalidGraph(f"{archive.path}: {len(models)} exported programs, expected one; {_AGAIN}")
    model = models[0].removeprefix("models/").removesuffix(".json")
    weights = _tensors(archive, f"data/weights/{model}_weights_config.json", "data/weights/")
    constants = _tensors(archive, f"data/constants/{model}_constants_config.json", "data/constants/")
    described = _checked(archive.json(models[0]), archive.path)
    program: Any = _dict_to_dataclass(schema.ExportedProgram, described)
    return ExportedProgramDeserializer().deserialize(program, weights, constants, None)


def _tensors(archive: _Archive, config: str, folder: str) -> dict[str, Tensor]:
    """Tensors by name, from entries that hold nothing but their numbers."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name, payload in archive.json(config)["config"].items():
        meta = payload["tensor_meta"]
        if payload["use_pickle"] or meta is None:
            raise InvalidGraph(
                f"{archive.path}: the tensor {cut(name)!r} is pickled, and nothing is unpickled here; "
                "export a module whose parameters are plain contiguous tensors"
            )
        if meta["dtype"] not in _DTYPES:
            raise InvalidGraph(f"{archive.path}: the tensor {cut(name)!r} has an unknown type; expected float32")
        dtype = _DTYPES[meta["dtype"]]
        sizes = [_fixed(size, archive.path) for size in meta["sizes"]]
        strides = [_fixed(stride, archive.path) for stride in meta["strides"]]
        offset = _fixed(meta["storage_offset"], archive.path)
        content = archive.bytes(folder + str(payload["path_name"]))
        count, rest = divmod(len(content), _BYTES.get(dtype, 8))
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        empty = math.prod(sizes) == 0
        if rest or min([offset, *sizes, *strides]) < 0 or not (empty or last < count) or math.prod(sizes) > count:
            raise InvalidGraph(
                f"{archive.path}: the tensor {cut(name)!r} is {'x'.join(map(str, sizes))} {dtype}, "
                f"its entry has {len(content)} bytes: truncated?"
            )
        flat = torch.frombuffer(bytearray(content), dtype=getattr(torch, dtype)) if content else torch.zeros(0)
        tensor = flat.as_strided(sizes, strides, offset).contiguous().clone()
        tensors[name] = torch.nn.Parameter(tensor, requires_grad=False) if payload["is_param"] else tensor
    return tensors


def _fixed(extent: Any, path: Path) -> int:
    if not isinstance(extent, dict) or type(extent.get("as_int")) is not int:
        raise InvalidGraph(f"{path}: a dynamic shape; export without dynamic_shapes, for one image of fixed size")
    return int(extent["as_int"])


def _checked(program: Any, path: Path) -> Any:
    """The description without what only programs that one trusts may have. Raises for what cannot be left out."""
    module = program["graph_module"]
    graph = module["graph"]
    if any(values for kind, values in graph.items() if kind.startswith("sym_")):
        raise InvalidGraph(f"{path}: a dynamic shape; export without dynamic_shapes, for one image of fixed size")
    for meta in graph["tensor_values"].values():
        for extent in (*meta["sizes"], *meta["strides"], meta["storage_offset"]):
            _fixed(extent, path)
        meta["device"] = {"type": "cpu", "index": None}
    if graph.get("custom_obj_values"):
        raise UnsupportedOperator(f"{path}: the program holds custom objects; export a module of plain layers")
    for node in graph["nodes"]:
        _check_node(node, path)
    for argument in (*graph["inputs"], *graph["outputs"]):
        _check_argument(argument, "its inputs and outputs", path)
    for call in module["module_call_graph"]:
        for spec in ("in_spec", "out_spec"):
            if call.get("signature") and not _is_plain(json.loads(call["signature"][spec])[1]):
                raise InvalidGraph(f"{path}: reads or returns an object of its own; pass and return tensors")
    module["module_call_graph"] = module["module_call_graph"][:1]
    module["metadata"] = {}
    program["range_constraints"], program["guards_code"] = {}, []
    return program


def _check_node(node: Any, path: Path) -> None:
    metadata = node["metadata"]
    node["metadata"] = {key: metadata[key] for key in ("nn_module_stack",) if key in metadata}
    stack = str(metadata.get("nn_module_stack", "")).split(";")[-1].split(",")
    layer = cut(stack[1] if len(stack) > 2 and stack[1] else str(node.get("name") or node["target"]))
    if not _OPERATOR.fullmatch(str(node["target"])):
        raise UnsupportedOperator(
            f"layer {layer!r}: operator {cut(str(node['target']))!r} is no plain operator of torch (aten); "
            "replace it by supported operators"
        )
    for item in node["inputs"]:
        _check_argument(item["arg"], f"layer {layer!r}", path)
    for item in node["outputs"]:
        _check_argument(item, f"layer {layer!r}", path)


def _check_argument(argument: Any, where: str, path: Path) -> None:
    (kind,) = (key for key, value in argument.items() if value is not None)
    if kind.startswith("as_sym") or kind == "as_expr":
        items = argument[kind] if isinstance(argument[kind], list) else [argument[kind]]
        if not all(isinstance(item, dict) and set(item) == {"as_int"} for item in items):
            raise InvalidGraph(f"{path}: {where}: a dynamic shape; export without dynamic_shapes")
    elif kind not in _HARMLESS:
        raise UnsupportedOperator(f"{path}: {where}: an argument of kind {cut(kind)!r} is not compiled")


def _is_plain(tree: Any) -> bool:
    """A tree of tuples, lists and dictionaries, as JSON; other kinds would be looked up as classes."""
    return (
        isinstance(tree, dict)
        and tree.get("type") in _PLAIN_TREES
        and all(map(_is_plain, tree.get("children_spec") or tree.get("children") or []))
    )
