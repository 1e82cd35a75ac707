"""Scale and shift of channels (batch norm, a bias on its own, a zero border) folded into the convolutions beside them.

In a graph such an affine operator is a depthwise convolution with a 1x1 kernel: nothing new for the generator, and
when no neighbour can take it, it is simply compiled.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Activation, Conv2d, DepthwiseConv2d, Graph, Op, Padding
from device_farm.compiler.passes.rewriting import Rewrite, Weights

Array = NDArray[Any]


def fold_affines(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """Fold every affine operator into the convolution before it, else into the one behind it, where that is exact.

    The arithmetic keeps the weights' dtype: pass float64 weights to lose nothing.
    """
    graph, folded = _fold_backward(graph, dict(weights))
    return _fold_forward(graph, folded)


def _is_affine(op: Op) -> TypeGuard[DepthwiseConv2d]:
    return isinstance(op, DepthwiseConv2d) and op.kernel == (1, 1) and op.stride == (1, 1)


def _fold_backward(graph: Graph, weights: dict[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """convolution -> affine becomes convolution."""
    rewrite = Rewrite(graph)
    for op in map(rewrite.renamed, graph.ops):
        producer = rewrite.ops[op.inputs[0]] if op.inputs else op
        if (
            _is_affine(op)
            and op.padding == Padding()
            and isinstance(producer, Conv2d | DepthwiseConv2d)
            and len(producer.inputs) == 1
            and producer.activation is Activation.NONE
            and rewrite.uses[producer.name] == 1
        ):
            scale = weights.pop(f"{op.name}.weight").reshape(-1)
            shift = weights.pop(f"{op.name}.bias")
            weight, bias = f"{producer.name}.weight", f"{producer.name}.bias"
            weights[weight] = weights[weight] * scale[:, None, None, None]  # [filters, channels, kh, kw]
            weights[bias] = weights[bias] * scale + shift
            rewrite.absorb(op, into=dataclasses.replace(producer, activation=op.activation))
        else:
            rewrite.keep(op)
    return rewrite.graph(), weights


def _fold_forward(graph: Graph, weights: dict[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """affine -> convolution becomes convolution.

    A shift passes through a zero border only if the convolution has none of its own: border pixels would be shifted
    too. A shift of zero always passes, and the border of the affine operator is added to the convolution's.
    """
    rewrite = Rewrite(graph)
    for op in map(rewrite.renamed, graph.ops):
        affine = rewrite.ops[op.inputs[0]] if op.inputs else op
        if (
            isinstance(op, Conv2d | DepthwiseConv2d)
            and _is_affine(affine)
            and affine.activation is Activation.NONE
            and rewrite.uses[affine.name] == 1
            and (op.padding == Padding() or not weights[f"{affine.name}.bias"].any())
        ):
            scale = weights.pop(f"{affine.name}.weight").reshape(-1)
            shift = weights.pop(f"{affine.name}.bias")
            weight, bias = f"{op.name}.weight", f"{op.name}.bias"
            # of each filter: the channels of its group, one after the other; a depthwise filter has one
            groups = op.groups if isinstance(op, Conv2d) else len(scale)
            repeats = len(weights[weight]) // groups
            scale, shift = (
                np.repeat(numbers.reshape(groups, -1), repeats, axis=0)[:, :, None, None] for numbers in (scale, shift)
            )
            weights[bias] = weights[bias] + (weights[weight] * shift).sum(axis=(1, 2, 3))
            weights[weight] = weights[weight] * scale
            border = Padding(*(a + b for a, b in zip(affine.padding, op.padding, strict=True)))
            op = dataclasses.replace(op, inputs=(affine.inputs[0], *op.inputs[1:]), padding=border)
        rewrite.keep(op)
    return rewrite.graph(), weights
