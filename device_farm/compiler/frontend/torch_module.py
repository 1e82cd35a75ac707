"""torch modules and exported programs -> graph and weights, by way of torch.export and TVM's relax front end."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from device_farm.compiler.frontend.walk import Imported, import_function
from device_farm.compiler.graph import Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def import_module(module: torch.nn.Module | ExportedProgram, input_shape: Shape | None = None) -> Imported:
    """The network that a torch module computes in evaluation mode, for one image of `input_shape` (NHWC, batch 1).

    The module stays as it is, its training mode included. An exported program brings its own shape, and `input_shape`
    is only compared with it.

    Raises InvalidGraph: not float32, batch other than 1, dynamic shape, several inputs or outputs, cannot be traced.
    Raises UnsupportedOperator: an operator without a kernel; the message names the layer.

        imported = import_module(resnet18(), Shape(224, 224, 3))
        artifact = compile_network(imported.graph, imported.weights, ...)
    """
    from torch.export import ExportedProgram

    # Both libraries warn about their own internals (deprecated classes of each other); none concerns the caller.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = module if isinstance(module, ExportedProgram) else _export(module, input_shape)
        _check(program, input_shape)
        function, layers = _relax(program)
    return import_function(function, layers)


def _export(module: torch.nn.Module, shape: Shape | None) -> ExportedProgram:
    import torch

    if shape is None:
        raise InvalidGraph(
            "a module does not know the size of its image: give input_shape=Shape(height, width, channels) "
            "(npas bench: --input HxWxC)"
        )
    for name, tensor in module.named_parameters():
        if tensor.dtype != torch.float32:
            raise InvalidGraph(f"parameter {name!r} is {tensor.dtype}, expected torch.float32; call module.float()")
    image = torch.zeros(1, shape.channels, shape.height, shape.width)
    try:
        with torch.no_grad(), _evaluating(module) as evaluated:
            return torch.export.export(evaluated, (image,))
    except Exception as error:  # torch.export raises whatever the module raises, and a dozen classes of its own
        reason = str(error).strip().partition("\n")[0]
        raise InvalidGraph(
            f"torch.export could not trace {type(module).__name__} for an input of {tuple(image.shape)}: "
            f"{type(error).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The module on the CPU in evaluation mode; afterwards it is as it was."""
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        module = copy.deepcopy(module).cpu()  # only then: pruned and parametrised modules refuse to be copied
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield module.eval()
    finally:
        for part, training in modes:
            part.training = training


def _check(program: ExportedProgram, shape: Shape | None) -> None:
    import torch

    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise InvalidGraph(
            f"a network reads one image, this one has {len(inputs)} inputs: {', '.join(map(str, inputs))}"
        )
    (image,) = (node.meta["val"] for node in program.graph.nodes if node.name == inputs[0])
    if image.dtype != torch.float32:
        raise InvalidGraph(f"the program reads {image.dtype}, expected torch.float32; convert the model with .float()")
    expected = None if shape is None else (1, shape.channels, shape.height, shape.width)
    if expected is not None and tuple(image.shape) != expected:
        raise InvalidGraph(f"the program was exported for {tuple(image.shape)}, input_shape asks for {expected}")


def _relax(program: ExportedProgram) -> tuple[Any, dict[str, str]]:
    """The relax function of the program, and the layer of its variables."""
    # The class behind from_exported_program, because it knows which variable came from which node.
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    # Without this, TVM 0.27 reads the arguments of aten.batch_norm one off (epsilon becomes the momentum).
    program = program.run_decompositions()
    importer = ExportedProgramImporter()
    known = importer.convert_map.keys() | _MORE_OPERATORS.keys()
    for node in program.graph.nodes:
        if node.op == "call_function" and getattr(node.target, "__name__", "") not in known:
            raise UnsupportedOperator(
                f"layer {_layer(node)!r}: TVM's front end does not know the operator {node.target}; "
                "replace it by supported operators"
            )
    try:
        module = importer.from_exported_program(
            program,
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=_MORE_OPERATORS,
        )
    except Exception as error:  # a converter raises whatever TVM's C++ raises
        raise UnsupportedOperator(f"TVM's torch front end failed: {str(error).strip().splitlines()[-1]}") from error
    variables = {node: getattr(value, "name", None) for node, value in importer.env.items()}
    layers: dict[str, str] = {}
    for node, variable in variables.items():
        if variable is not None and node.op == "call_function":
            layers.setdefault(variable, _layer(node))  # the first node made the variable, later ones pass it on
    return module["main"], layers


def _amax(node: Any, importer: Any) -> Any:
    from tvm import relax

    image, axes, *keepdims = node.args
    return importer.block_builder.emit(relax.op.max(importer.env[image], axes, bool(keepdims and keepdims[0])))


_MORE_OPERATORS = {"amax.default": _amax}  # what TVM's front end lacks and the compiler has


def _layer(node: Any) -> str:
    """The module of a node by its path; a function called in a container's forward adds its name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    is_leaf = kind.startswith("torch.nn.modules.") and not kind.startswith("torch.nn.modules.container.")
    if path and is_leaf:
        return str(path)
    function = str(node.target).removeprefix("aten.").partition(".")[0]
    return f"{path}.{function}" if path else function
