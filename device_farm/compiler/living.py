"""What pruning leaves of the layers that Winograd could compute, block by block as they are computed."""

from __future__ import annotations

from collections.abc import Mapping

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
        op.name: _blocks(op, living_taps(graph, op, target, weights=weights, seed=seed), target)
        for op in graph.ops
        if isinstance(op, Conv2d) and eligible(op)
    }


def living_taps(
    graph: Graph, op: Conv2d, target: Target, *, weights: Mapping[str, Array] | None, seed: int
) -> NDArray[np.bool_]:
    """Which taps any filter of a block needs: [blocks of the kernels, channels, kh * kw]."""
    filters, channels, kh, kw = weight_shape(graph, op)
    if weights is not None:
        rows = weights[f"{op.name}.weight"].reshape(filters, channels, kh * kw) != 0
        height = 1
    else:
        alive = seeded_taps(graph, op, seed=seed)
        rows = np.ones((1, channels, kh * kw), bool) if alive is None else alive.reshape(-1, channels, kh * kw)
        height = filters if op.sparsity is None else op.sparsity.block_height
    blocks = []
    for vectors, first, count in block_groups(op, target):
        step = vectors * target.simd_lanes
        for start in range(first, first + count * step, step):
            blocks.append(rows[start // height : (min(start + step, filters) - 1) // height + 1].any(axis=0))
    return np.stack(blocks)


def _blocks(op: Conv2d, alive: NDArray[np.bool_], target: Target) -> tuple[LivingBlock, ...]:
    vectors = [vectors for vectors, _, count in block_groups(op, target) for _ in range(count)]
    kernels = alive.any(axis=2)  # blocks x channels
    if (alive.all(axis=2) != kernels).any():  # single taps: then no channel counts as left out
        kernels = np.ones_like(kernels)
    counts = zip(vectors, alive.sum(axis=(1, 2)).tolist(), kernels.sum(axis=1).tolist(), strict=True)
    return tuple(LivingBlock(vectors, taps, channels) for vectors, taps, channels in counts)
