"""The networks that a bench compares: dense, pruned uniformly by one scheme, and as the weights were given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from device_farm.compiler.frontend import Imported
from device_farm.compiler.graph import BlockSparsity, Conv2d, Graph, Op, TapUnit
from device_farm.compiler.passes import find_sparsity, prunable, sparsify
from device_farm.compiler.passes.narrowing import narrow
from device_farm.compiler.target import Target
from device_farm.errors import InvalidGraph

DENSE, GIVEN = "dense", "as given"
PATTERN_POSITIONS = 4  # of nine
PATTERN_MIN_RATE = 9 / PATTERN_POSITIONS


class Scheme(StrEnum):
    """How uniform pruning takes weights. Block-punched and block-based are one lowering: taps of a block of filters, in
    the unit that the target likes; kernel-block takes all positions of a channel at once, and Winograd stays possible.
    """

    BLOCK_PUNCHED = "block-punched"
    BLOCK_BASED = "block-based"
    KERNEL_BLOCK = "kernel-block"  # whole kernels of a filter block
    PATTERN = "pattern"
    FILTER = "filter"


@dataclass(frozen=True)
class Variant:
    """One column of the table. `rate` is what was asked for: None for the sparsity that the weights came with."""

    label: str
    rate: float | None
    graph: Graph


def make_variants(imported: Imported, scheme: Scheme, rates: Sequence[float], *, target: Target) -> tuple[Variant, ...]:
    """Dense first, always: everything is compared with it. Then the weights' own sparsity if they have any, then rates.

    Stem and depthwise layers stay dense; `pattern` prunes 3x3 layers alone, `filter` narrows layers (passes/narrowing).
    Raises InvalidGraph for impossible rates.
    """
    dense = Variant(DENSE, 1.0, imported.graph)
    variants = [dense]
    given = find_sparsity(imported.graph, imported.weights, target.block_height)
    if given != imported.graph:
        variants.append(Variant(GIVEN, None, given))
    for rate in sorted({float(rate) for rate in rates} - {1.0}):
        variants.append(Variant(f"{rate:g}x", rate, _PRUNE[Scheme(scheme)](imported.graph, rate, target)))
    return tuple(variants)


def check_rates(scheme: Scheme, rates: Sequence[float]) -> None:
    """Raises InvalidGraph unless the scheme can have all these rates."""
    for rate in rates:
        if not (math.isfinite(rate) and rate >= 1):
            raise InvalidGraph(f"a rate is weights before / weights kept, a number of 1 or more; got {rate:g}")
        if scheme is Scheme.PATTERN and 1 < rate < PATTERN_MIN_RATE:
            raise InvalidGraph(
                f"a pattern keeps 4 of 9 positions: its rate is 1 (dense), or {PATTERN_MIN_RATE:g} or more; "
                f"got {rate:g}"
            )


def _blocks(graph: Graph, rate: float, target: Target) -> Graph:
    return sparsify(graph, rate, target.block_height, unit=target.tap_unit)


def _kernel_blocks(graph: Graph, rate: float, target: Target) -> Graph:
    return sparsify(graph, rate, target.block_height, unit=TapUnit.KERNEL)


def _patterns(graph: Graph, rate: float, target: Target) -> Graph:
    """4 of 9 positions of some channels of every block, of all 3x3 convolutions but those that read the image."""
    chosen, block_height = set(prunable(graph)), target.block_height

    def pruned(op: Op) -> Op:
        if not isinstance(op, Conv2d) or op.kernel != (3, 3) or op.name not in chosen:
            return op
        channels = op.taps(graph.shapes[op.inputs[0]]) // 9
        kept = max(1, round(channels * 9 / (PATTERN_POSITIONS * rate)))
        blocks = math.ceil(op.filters / block_height)
        sparsity = BlockSparsity(block_height, (PATTERN_POSITIONS * min(kept, channels),) * blocks)
        return dataclasses.replace(op, sparsity=sparsity)

    return Graph(tuple(map(pruned, graph.ops)))


_PRUNE: dict[Scheme, Callable[[Graph, float, Target], Graph]] = {
    Scheme.BLOCK_PUNCHED: _blocks,
    Scheme.BLOCK_BASED: _blocks,
    Scheme.KERNEL_BLOCK: _kernel_blocks,
    Scheme.PATTERN: _patterns,
    Scheme.FILTER: lambda graph, rate, _: narrow(graph, rate),
}
