"""Activations and residual additions fused into the operators before them."""

from __future__ import annotations

import dataclasses
from typing import Any

from numpy.typing import NDArray

from device_farm.compiler.graph import Activate, Activation, Add, Conv2d, DepthwiseConv2d, Graph, Multiply, Op
from device_farm.compiler.passes.affine import fold_affines
from device_farm.compiler.passes.rewriting import Rewrite, Weights, drop_dead, weights_of


def fuse(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """The same function in fewer operators: convolution + scale, shift, residual and activation become one.

    Weights keep their dtype; those of vanished operators are dropped. Convolutions keep their names.
    """
    graph, folded = fold_affines(drop_dead(graph), weights)
    graph = merge_residuals(merge_activations(graph))
    return graph, weights_of(graph, folded)


def compose(first: Activation, second: Activation) -> Activation | None:
    """The one activation that equals `second` after `first`, if there is one."""
    if Activation.NONE in (first, second):
        return second if first is Activation.NONE else first
    rectifiers = [Activation.RELU, Activation.RELU6]
    return max(first, second, key=rectifiers.index) if first in rectifiers and second in rectifiers else None


_ACTIVATED = Conv2d | DepthwiseConv2d | Add | Multiply | Activate


def merge_activations(graph: Graph) -> Graph:
    """Every activation that stands alone moves into the operator before it, if nobody else reads that one."""
    rewrite = Rewrite(graph)
    for op in map(rewrite.renamed, graph.ops):
        if isinstance(op, Activate):
            producer = rewrite.ops[op.inputs[0]]
            if op.activation is Activation.NONE:
                rewrite.alias(op.name, producer.name)
                rewrite.uses[producer.name] += rewrite.uses[op.name] - 1
                continue
            if isinstance(producer, _ACTIVATED) and rewrite.uses[producer.name] == 1:
                fused = compose(producer.activation, op.activation)
                if fused is not None:
                    rewrite.absorb(op, into=dataclasses.replace(producer, activation=fused))
                    continue
        rewrite.keep(op)
    return rewrite.graph()


def merge_residuals(graph: Graph) -> Graph:
    """Every sum that reads a convolution nobody else reads becomes that convolution's residual.

    Of two such convolutions the later one takes the sum: its residual is then certainly there when it runs.
    """
    rewrite = Rewrite(graph)
    order = {op.name: index for index, op in enumerate(graph.ops)}

    def can_take(op: Op) -> bool:
        return (
            isinstance(op, Conv2d)
            and len(op.inputs) == 1
            and op.activation is Activation.NONE
            and rewrite.uses[op.name] == 1
        )

    for op in map(rewrite.renamed, graph.ops):
        candidates = [rewrite.ops[name] for name in op.inputs if can_take(rewrite.ops[name])]
        if not isinstance(op, Add) or not candidates:
            rewrite.keep(op)
            continue
        conv = max(candidates, key=lambda candidate: order[candidate.name])
        assert isinstance(conv, Conv2d)
        (residual,) = (name for name in op.inputs if name != conv.name)
        inputs = (conv.inputs[0], residual)
        rewrite.absorb(op, into=dataclasses.replace(conv, inputs=inputs, activation=op.activation))
    return rewrite.graph()
