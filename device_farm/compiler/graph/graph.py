"""The network itself: operators in order, checked, and its way through JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from device_farm.compiler.graph.channels import (
    Concat,
    ResizeChannels,
    ScatterChannels,
    ShuffleChannels,
    SliceChannels,
)
from device_farm.compiler.graph.elementwise import Activate, Add, Multiply, Softmax
from device_farm.compiler.graph.op import Activation, Input, Op
from device_farm.compiler.graph.shapes import Padding, Shape
from device_farm.compiler.graph.windows import Conv2d, DepthwiseConv2d, Pool2d, PoolKind
from device_farm.compiler.sparsity import BlockSparsity, TapUnit
from device_farm.errors import InvalidGraph

OPS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Input, Conv2d, DepthwiseConv2d, Pool2d, Add, Multiply, Activate, Softmax, Concat, SliceChannels,
        ShuffleChannels, ResizeChannels, ScatterChannels,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """Operators in topological order; the last one is the output. Checked when it is made.

    Raises InvalidGraph: duplicate name, unknown input, wrong number of inputs, impossible shape, no or several Inputs.
    """

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        if sum(isinstance(op, Input) for op in self.ops) != 1 or not isinstance(self.ops[0], Input):
            raise InvalidGraph("a graph begins with its one Input")
        _ = self.shapes

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Output shape of every operator, by name."""
        shapes: dict[str, Shape] = {}
        for op in self.ops:
            if op.name in shapes:
                raise InvalidGraph(f"two operators are called {op.name!r}")
            expected = (op.arity,) if op.arities is None else op.arities
            if len(op.inputs) not in expected:
                raise InvalidGraph(f"{op.name}: {len(op.inputs)} inputs, expected {expected[0]}")
            missing = [name for name in op.inputs if name not in shapes]
            if missing:
                raise InvalidGraph(f"{op.name}: input {missing[0]!r} is not defined before it")
            shape = op.output_shape(*(shapes[name] for name in op.inputs))
            if min(shape) < 1:
                raise InvalidGraph(f"{op.name}: empty output {tuple(shape)}")
            shapes[op.name] = shape
        return shapes

    @property
    def input(self) -> Input:
        first = self.ops[0]
        assert isinstance(first, Input)
        return first

    @property
    def output(self) -> Op:
        return self.ops[-1]

    def input_shapes(self, op: Op) -> tuple[Shape, ...]:
        return tuple(self.shapes[name] for name in op.inputs)

    @property
    def macs(self) -> int:
        return sum(op.macs(*self.input_shapes(op)) for op in self.ops)

    @property
    def kept_macs(self) -> int:
        return sum(op.kept_macs(*self.input_shapes(op)) for op in self.ops)

    @cached_property
    def key(self) -> str:
        """Content hash: equal for equal graphs, on every machine."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> list[dict[str, Any]]:
        """Plain lists, dicts, strings and numbers; `from_json` gives an equal graph back."""
        return [_op_to_json(op) for op in self.ops]

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Inverse of `to_json`. Raises InvalidGraph on anything that it would not have written."""
        if not isinstance(data, list):
            raise InvalidGraph(f"a graph is a list of operators, got {type(data).__name__}")
        return cls(tuple(_op_from_json(item) for item in data))


def _op_to_json(op: Op) -> dict[str, Any]:
    """What dataclasses.asdict gives, without its copies of every count that a layer keeps."""
    fields = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    if isinstance(sparsity := fields.get("sparsity"), BlockSparsity):
        fields["sparsity"] = {field.name: getattr(sparsity, field.name) for field in dataclasses.fields(sparsity)}
    return {"kind": op.kind} | fields


def _op_from_json(item: Any) -> Op:
    if not isinstance(item, dict) or item.get("kind") not in OPS:
        raise InvalidGraph(f"not an operator: {str(item)[:80]}")
    op = OPS[item["kind"]]
    fields = {key: value for key, value in item.items() if key != "kind"}
    converters: dict[str, Callable[[Any], Any]] = {
        "inputs": tuple, "kernel": tuple, "stride": tuple, "dilation": tuple,
        "padding": lambda v: Padding(*v), "shape": lambda v: Shape(*v),
        "activation": Activation, "pool": PoolKind,
        "sparsity": lambda v: v and BlockSparsity(v["block_height"], tuple(v["kept"]), TapUnit(v["unit"])),
    }  # fmt: skip
    try:
        return op(**{key: converters[key](value) if key in converters else value for key, value in fields.items()})
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidGraph(f"{item.get('name', op.kind)}: {error}") from error
