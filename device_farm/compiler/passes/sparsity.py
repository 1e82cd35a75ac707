"""Block sparsity of convolutions: asked for by rate, made in weights, found in weights.

A block is `block_height` consecutive filters, which keep or lose taps together (npas: block-punched for 3x3, columns of
block-based for 1x1 and FC). Taps go in units: one by one, by whole kernels, or four channels at a time (`TapUnit`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import BlockSparsity, Conv2d, Graph, Op, TapUnit
from device_farm.compiler.passes.rewriting import Weights
from device_farm.compiler.sparsity import Units
from device_farm.errors import InvalidGraph

Rates = float | Mapping[str, float]


def kept_taps(taps: int, rate: float) -> int:
    """How many of a block's taps survive at a rate (taps before / taps kept): at least taps / rate, so never none."""
    if not 1.0 <= rate < math.inf:
        raise InvalidGraph(f"a pruning rate is taps before / taps kept, so 1 or more; got {rate!r}")
    return math.ceil(taps / rate)


def kept_units(units: Units, rate: float) -> tuple[int, int]:
    """(whole, partial) units that survive at a rate in every block: of each size at least its share."""
    return kept_taps(units.whole, rate), kept_taps(units.partial, rate)


def prunable(graph: Graph) -> tuple[str, ...]:
    """Convolutions that a uniform rate is applied to: all but those that read the image, which are small and touchy."""
    return tuple(op.name for op in graph.ops if isinstance(op, Conv2d) and op.inputs[0] != graph.input.name)


def sparsify(
    graph: Graph,
    rates: Rates,
    block_height: int,
    *,
    layers: Collection[str] | None = None,
    unit: TapUnit = TapUnit.TAP,
) -> Graph:
    """The graph with sparsity set, without weights: what a benchmark of time needs.

    `rates` is one rate for all of `layers` (default: `prunable(graph)`), or a rate by name. A rate of 1 is dense.
    Raises InvalidGraph: unknown layer, a layer that is no convolution, a rate below 1.
    """
    chosen = _rates_by_name(graph, rates, layers)
    _check_height(block_height)

    def pruned(op: Op) -> Op:
        if not isinstance(op, Conv2d) or op.name not in chosen:
            return op
        units = _units(graph, op, unit)
        whole, partial = kept_units(units, chosen[op.name])
        kept = whole * units.size + partial * units.partial_size
        blocks = math.ceil(op.filters / block_height)
        dense = kept == units.channels * units.positions
        sparsity = None if dense else BlockSparsity(block_height, (kept,) * blocks, unit)
        return dataclasses.replace(op, sparsity=sparsity)

    return Graph(tuple(map(pruned, graph.ops)))


def prune_weights(
    graph: Graph,
    weights: Weights,
    rates: Rates,
    block_height: int,
    *,
    layers: Collection[str] | None = None,
    unit: TapUnit = TapUnit.TAP,
) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Zero the weakest units of every block (L2 norm over the block's filters) and set the sparsity that is left.

    Every block keeps exactly the taps that `sparsify` says, fewer only where the weights were zero before. Ties go to
    the earlier unit, so the result is the same everywhere. Raises as `sparsify`, and
    InvalidGraph if weights are missing.
    """
    chosen = _rates_by_name(graph, rates, layers)
    _check_height(block_height)
    pruned = dict(weights)
    ops = {op.name: op for op in graph.ops if isinstance(op, Conv2d)}
    for name, rate in chosen.items():
        key = f"{name}.weight"
        if key not in pruned:
            raise InvalidGraph(f"{name}: there is no {key!r} among the weights")
        weight = np.array(pruned[key])  # [filters, channels, kh, kw]
        columns = weight.reshape(len(weight), -1)  # filters x taps, a view
        units = _units(graph, ops[name], unit)
        whole, partial = kept_units(units, rate)
        for start in range(0, len(columns), block_height):
            block = columns[start : start + block_height]
            strength = units.sums(np.square(block, dtype=np.float64).sum(axis=0)[None])[0]
            dead = np.zeros(units.count, bool)
            dead[np.argsort(-strength[: units.whole], kind="stable")[whole:]] = True
            dead[units.whole + np.argsort(-strength[units.whole :], kind="stable")[partial:]] = True
            block[:, units.spread(dead[None])[0]] = 0
        pruned[key] = weight
    return find_sparsity(graph, pruned, block_height, layers=tuple(chosen), unit=unit), pruned


def find_sparsity(
    graph: Graph,
    weights: Weights,
    block_height: int,
    *,
    layers: Collection[str] | None = None,
    unit: TapUnit = TapUnit.TAP,
) -> Graph:
    """The graph with the sparsity that the weights already have: a unit lives if any weight of its block is not zero.

    `layers` defaults to all convolutions. A layer that has lost no unit is dense.
    """
    _check_height(block_height)
    chosen = _rates_by_name(
        graph, 1.0, [op.name for op in graph.ops if isinstance(op, Conv2d)] if layers is None else layers
    )

    def found(op: Op) -> Op:
        if not isinstance(op, Conv2d) or op.name not in chosen:
            return op
        live = weights[f"{op.name}.weight"].reshape(op.filters, -1) != 0  # filters x taps
        units, starts = _units(graph, op, unit), range(0, op.filters, block_height)
        blocks = np.stack([live[start : start + block_height].any(axis=0) for start in starts])
        kept = units.spread(units.sums(blocks) > 0).sum(axis=1)
        dense = kept.min() == live.shape[1]
        return dataclasses.replace(
            op, sparsity=None if dense else BlockSparsity(block_height, tuple(kept.tolist()), unit)
        )

    return Graph(tuple(map(found, graph.ops)))


def _units(graph: Graph, op: Conv2d, unit: TapUnit) -> Units:
    return op.tap_units(graph.shapes[op.inputs[0]], unit)


def _check_height(block_height: int) -> None:
    if block_height < 1:
        raise InvalidGraph(f"a block has at least one filter, got block_height={block_height}")


def _rates_by_name(graph: Graph, rates: Rates, layers: Collection[str] | None) -> dict[str, float]:
    if isinstance(rates, Mapping):
        chosen = {name: rate for name, rate in rates.items() if layers is None or name in layers}
    else:
        chosen = dict.fromkeys(prunable(graph) if layers is None else layers, rates)
    convolutions = {op.name for op in graph.ops if isinstance(op, Conv2d)}
    unknown = sorted(chosen.keys() - convolutions)
    if unknown:
        raise InvalidGraph(f"only convolutions can be pruned, and {unknown[0]!r} is none of this graph")
    return chosen
