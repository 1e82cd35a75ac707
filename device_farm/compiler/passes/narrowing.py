"""Filter pruning as narrower layers: whole filters go, and with them the channels that others would have read.

Channels that meet (in sums, products, depthwise convolutions) must go together, so operators are grouped by the
channels that they share. Groups that cannot shrink alike keep their width: those that touch the image or the output,
grouped convolutions, and whatever names channels by number (slices, shuffles, resizes, scatters).
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from device_farm.compiler.graph import (
    Activate,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Op,
    Pool2d,
)
from device_farm.errors import InvalidGraph

_PASS_ON = DepthwiseConv2d | Pool2d | Activate


def narrow(graph: Graph, rate: float) -> Graph:
    """The graph whose convolutions keep max(1, round(filters / rate)) filters, wherever they may lose any (npas).

    A layer between two others loses channels on both sides, so its multiply-adds fall by up to rate squared.
    Raises InvalidGraph for a rate below 1.
    """
    if not 1 <= rate < float("inf"):
        raise InvalidGraph(f"a pruning rate is filters before / filters kept, so 1 or more; got {rate!r}")
    fixed = _fixed(graph)
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, Conv2d) and op.name not in fixed:
            op = dataclasses.replace(op, filters=max(1, round(op.filters / rate)), sparsity=None)
        ops.append(op)
    return Graph(tuple(ops))


def _fixed(graph: Graph) -> set[str]:
    """Operators whose outputs keep their width."""
    groups = _Groups([op.name for op in graph.ops])
    fixed: set[str] = {graph.output.name}
    for op in graph.ops:
        if isinstance(op, _PASS_ON):
            groups.join(op.name, op.inputs[0])
        elif isinstance(op, Add | Multiply):
            groups.join(op.name, *op.inputs)
        elif isinstance(op, Conv2d):
            groups.join(op.name, *op.inputs[1:])  # a residual
            if op.groups > 1:
                fixed |= {op.name, op.inputs[0]}
        elif not isinstance(op, Concat):
            fixed |= {op.name, *op.inputs}
    sources = Counter(groups.of(op.name) for op in graph.ops if isinstance(op, Concat | Input))
    makers = {groups.of(op.name) for op in graph.ops if isinstance(op, Conv2d)}
    joined = [op for op in graph.ops if isinstance(op, Concat)]
    # channels that were joined can shrink with their parts alone, so nothing else may make channels of that group
    fixed |= {op.name for op in joined if sources[groups.of(op.name)] > 1 or groups.of(op.name) in makers}
    while True:
        frozen = {groups.of(name) for name in fixed}
        parts = {part for op in joined if groups.of(op.name) in frozen for part in op.inputs}
        if parts <= fixed:
            return {op.name for op in graph.ops if groups.of(op.name) in frozen}
        fixed |= parts


class _Groups:
    """Disjoint sets of names."""

    def __init__(self, names: list[str]) -> None:
        self._parent = {name: name for name in names}

    def of(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, first: str, *others: str) -> None:
        for other in others:
            self._parent[self.of(other)] = self.of(first)
