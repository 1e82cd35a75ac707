"""What every pass needs: who uses what, and how a rewritten list of operators becomes a graph again."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from device_farm.compiler.graph import Graph, Op

Weights = Mapping[str, NDArray[Any]]


class Rewrite:
    """Operators rewritten one after the other, in topological order.

    A pass takes the operators of `graph`, each through `renamed`, and either keeps them (`keep`) or says that another
    one now computes their output (`absorb`). `graph()` drops what nobody needs any more.
    """

    def __init__(self, graph: Graph) -> None:
        self.ops: dict[str, Op] = {}
        self.uses = Counter(name for op in graph.ops for name in op.inputs)
        self.uses[graph.output.name] += 1
        self._output = graph.output.name
        self._aliases: dict[str, str] = {}

    def renamed(self, op: Op) -> Op:
        """The operator, reading from those that absorbed its inputs."""
        return dataclasses.replace(op, inputs=tuple(self._aliases.get(name, name) for name in op.inputs))

    def keep(self, op: Op) -> None:
        self.ops[op.name] = op

    def absorb(self, op: Op, into: Op) -> None:
        """`into` (whose name is known here) now computes what `op` computed; it moves to the end of the list."""
        self.ops.pop(into.name, None)
        self.ops[into.name] = into
        self.alias(op.name, into.name)
        self.uses[into.name] = self.uses[op.name]

    def alias(self, name: str, target: str) -> None:
        """Users of `name` read `target` from now on."""
        self._aliases = {key: target if value == name else value for key, value in self._aliases.items()}
        self._aliases[name] = target

    def graph(self) -> Graph:
        """The operators that the output needs, and the input."""
        needed = {self._aliases.get(self._output, self._output)}
        kept: list[Op] = []
        for op in reversed(self.ops.values()):
            if op.name in needed or not op.inputs:
                needed.update(op.inputs)
                kept.append(op)
        return Graph(tuple(reversed(kept)))


def drop_dead(graph: Graph) -> Graph:
    """The graph without the operators that its output does not need."""
    rewrite = Rewrite(graph)
    for op in graph.ops:
        rewrite.keep(op)
    return rewrite.graph()


def weights_of(graph: Graph, weights: Weights) -> dict[str, NDArray[Any]]:
    """The weights that belong to operators of the graph."""
    names = {op.name for op in graph.ops}
    return {key: value for key, value in weights.items() if key.rpartition(".")[0] in names}
