"""Which activations stay planes, one a channel, from the layer that writes them to all that read them.

Layers in blocks of eight filters compute with vectors of pixels (planar.py). Turning their sums back to NHWC costs as
much as four multiply-adds a pixel of a filter, and making planes of that again as much as one a number; between 1x1
layers both can be left out. What windows, depthwise convolutions or poolings read, or maps that are no whole number of
tiles, stay NHWC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from device_farm.compiler import planar
from device_farm.compiler.graph import Activate, Add, Conv2d, Graph, Op
from device_farm.compiler.planar import Kept, PlanarImage, Way
from device_farm.compiler.strides import Layout, TiledPlanes
from device_farm.compiler.target import Target


def kept_planes(
    graph: Graph, layouts: Mapping[str, Layout], low: Mapping[str, Conv2d], target: Target
) -> tuple[dict[str, PlanarImage], dict[str, TiledPlanes]]:
    """The layers that read planes, and the activations that are kept so.

    `low` are the direct layers in the target's lowest blocks, by name; nothing else reads or writes planes.
    """
    if not low:
        return {}, {}
    chains = _Chains(graph, layouts, low, target)
    kept = chains.best()
    ways = {name: chains.way(op, kept) for name, op in low.items()}
    images = {name: way.image for name, way in ways.items() if way is not None and way.image is not None}
    return images, {name: chains.tiled(name) for name in kept}


@dataclass(frozen=True)
class _Chains:
    graph: Graph
    layouts: Mapping[str, Layout]
    low: Mapping[str, Conv2d]
    target: Target

    @cached_property
    def ops(self) -> dict[str, Op]:
        return {op.name: op for op in self.graph.ops}

    @cached_property
    def readers(self) -> dict[str, list[Op]]:
        readers: dict[str, list[Op]] = {op.name: [] for op in self.graph.ops}
        for op in self.graph.ops:
            for name in dict.fromkeys(op.inputs):
                readers[name].append(op)
        return readers

    @cached_property
    def _ways(self) -> dict[tuple[str, Kept], Way | None]:
        return {}

    def tiled(self, name: str) -> TiledPlanes:
        height, width, channels = self.graph.shapes[name]
        lanes = self.target.simd_lanes
        return TiledPlanes(height * width, self.target.planar_tiles[0].pixels, math.ceil(channels / lanes) * lanes)

    def way(self, op: Conv2d, kept: frozenset[str]) -> Way | None:
        """The fastest one where these are kept; None where there is none."""
        how = Kept(op.inputs[0] in kept, op.name in kept, len(op.inputs) == 2 and op.inputs[1] in kept)
        if (op.name, how) not in self._ways:
            x, y = self.layouts[op.inputs[0]], self.layouts[op.name]
            self._ways[op.name, how] = planar.choose(op, x, y, self.target, how)
        return self._ways[op.name, how]

    def best(self) -> frozenset[str]:
        """All that can be kept, less what costs more than it saves: one after the other, as long as that helps."""
        candidates = [op.name for op in self.graph.ops if self._whole_tiles(op)]
        kept = self.legal(frozenset(candidates), frozenset(candidates))
        helped = True
        while helped:
            helped = False
            for name in candidates:
                if name in kept:
                    fewer = self.legal(kept - {name}, self._beside(name))
                    if self.saved(kept, fewer) < 0:
                        kept, helped = fewer, True
        return kept

    def saved(self, kept: frozenset[str], fewer: frozenset[str]) -> float:
        """Cycles by `kept`, compared with a part of it."""
        touched = {op.name: op for name in kept - fewer for op in (self.ops[name], *self.readers[name])}
        return sum(self._cycles(op, fewer) - self._cycles(op, kept) for name, op in self.low.items() if name in touched)

    def legal(self, kept: frozenset[str], suspects: frozenset[str]) -> frozenset[str]:
        """The largest part of `kept` that can be kept together, if all but the suspects can."""
        while wrong := {name for name in kept & suspects if not self._legal(name, kept)}:
            kept -= wrong
            suspects = frozenset().union(*(self._beside(name) for name in wrong))
        return kept

    def _cycles(self, op: Conv2d, kept: frozenset[str]) -> float:
        way = self.way(op, kept)
        return math.inf if way is None else way.cycles

    def _beside(self, name: str) -> frozenset[str]:
        """What the operators that write or read it read and write."""
        return frozenset(other for op in (self.ops[name], *self.readers[name]) for other in (op.name, *op.inputs))

    def _whole_tiles(self, op: Op) -> bool:
        height, width, _ = self.graph.shapes[op.name]
        written = op.name in self.low or isinstance(op, Add | Activate)
        return written and op != self.graph.output and height * width % self.target.planar_tiles[0].pixels == 0

    def _legal(self, name: str, kept: frozenset[str]) -> bool:
        return self._writes(self.ops[name], kept) and all(
            self._reads(reader, name, kept) for reader in self.readers[name]
        )

    def _writes(self, op: Op, kept: frozenset[str]) -> bool:
        """Whether it can write planes."""
        if not isinstance(op, Conv2d):
            return all(name in kept for name in op.inputs)
        return all(name in kept for name in op.inputs[1:]) and self.way(op, kept) is not None

    def _reads(self, op: Op, name: str, kept: frozenset[str]) -> bool:
        """Whether it can read that activation as planes."""
        if not isinstance(op, Conv2d):
            return op.name in kept  # a sum or an activation, as nothing else is
        if op.name not in self.low or (op.inputs[0] == name and not _is_pointwise(op)):
            return False
        return self.way(op, kept) is not None


def _is_pointwise(op: Conv2d) -> bool:
    return op.kernel == op.stride == (1, 1) and op.groups == 1 and not any(op.padding)
