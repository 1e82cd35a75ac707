"""What pruning leaves of the layers that Winograd could compute, block by block as they are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Conv2d, Graph
from device_farm.compiler.packing import block_groups
from device_farm.compiler.target import Target
from device_farm.compiler.weights import Array, seeded_taps, weight_shape
from device_farm.compiler.winograd import LivingBlock, eligible


def living_blocks(
    graph: Graph, target: Target, *, weights: Mapping[str, Array] | None, seed: int
) -> dict[str, tuple[LivingBlock, ...]]:
    """Counts by layer, from the zeros of the given weights or from the taps that the seed gives."""
    return {
        op.name: _blocks(graph, op, target, weights=weights, seed=seed)
        for op in graph.ops
        if isinstance(op, Conv2d) and eligible(op)
    }


def _blocks(
    graph: Graph, op: Conv2d, target: Target, *, weights: Mapping[str, Array] | None, seed: int
) -> tuple[LivingBlock, ...]:
    """Blocks as Winograd's products have them. Sparsity of lower blocks counts with the mean of their taps, as the
    direct convolution computes those by themselves (blocking.py)."""
    alive, own = _living(graph, op, weights=weights, seed=seed), 0 if op.sparsity is None else op.sparsity.block_height
    blocks = []
    for vectors, first, count in block_groups(op, target):
        step = vectors * target.simd_lanes
        lower = own if 0 < own < step and step % own == 0 else step
        for start in range(first, first + count * step, step):
            stop = min(start + step, op.filters)
            taps = [int(alive(low, min(low + lower, stop)).sum()) for low in range(start, stop, lower)]
            blocks.append((vectors, round(sum(taps) / len(taps)), alive(start, stop)))
    # Where single taps are gone, no channel counts as left out.
    whole = all(bool((mask.all(axis=1) == mask.any(axis=1)).all()) for _, _, mask in blocks)
    return tuple(
        LivingBlock(vectors, taps, int(mask.any(axis=1).sum()) if whole else len(mask))
        for vectors, taps, mask in blocks
    )


def _living(
    graph: Graph, op: Conv2d, *, weights: Mapping[str, Array] | None, seed: int
) -> Callable[[int, int], NDArray[np.bool_]]:
    """The taps [channels, kh * kw] that any of the filters low .. high - 1 uses."""
    filters, channels, kh, kw = weight_shape(graph, op)
    seeded = None if weights is not None else seeded_taps(graph, op, seed=seed)
    if weights is not None:
        rows, height = weights[f"{op.name}.weight"] != 0, 1
    elif seeded is None or op.sparsity is None:
        rows, height = np.ones((1, channels, kh, kw), bool), filters
    else:
        rows, height = seeded, op.sparsity.block_height
    rows = rows.reshape(-1, channels, kh * kw)
    return lambda low, high: np.asarray(rows[low // height : (high - 1) // height + 1].any(axis=0))
