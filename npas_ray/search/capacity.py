"""What can be said of a candidate before anything is measured: its work, and how much of a network it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.networks.backbone import Backbone, Block
from npas_ray.networks.operators import body_layers, head_layer, pruned_layers
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.space.choices import LayerChoice

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Of one layer choice."""

    macs: float  # that pruning keeps
    dense_macs: float  # without pruning
    weights: float  # that pruning keeps


def searchable_blocks(backbone: Backbone) -> list[Block | None]:
    """The block of every searchable layer, None for the head."""
    return [*backbone.blocks, *([None] if backbone.searchable_head else [])]


def work(backbone: Backbone, block: Block | None, choice: LayerChoice) -> Work:
    """Work of a choice in a block, or in the head if `block` is None."""
    if block is None:
        head = head_layer(backbone)
        dense = float(head.in_channels * head.out_channels)
        return Work(dense / choice.rate, dense, dense / choice.rate)
    kept = dense = weights = 0.0
    height, width = block.height, block.width
    pruned = pruned_layers(choice)
    for layer in body_layers(block, choice.operator):
        height, width = -(-height // layer.stride), -(-width // layer.stride)
        size = float(math.prod(layer.weight_shape))
        share = 1 / choice.rate if pruned is not None and layer.name in pruned.layers else 1.0
        weights += size * share
        kept += size * share * height * width
        dense += size * height * width
    return Work(kept, dense, weights)


class Capacity:
    """Two traits of a candidate that go with accuracy in every space looked at, standardised over the space.

    The mean over layers of log(kept weights / most that the layer can have + 0.1), and less the mean log rate. Among
    random candidates near a latency budget their Spearman with accuracy is 0.2-0.6 each, on really trained networks
    and on made-up landscapes alike (docs/npas_policy.md).
    """

    TRAITS = 2
    _FLOOR = 0.1  # a layer without weights is not the end of the network: there is its shortcut

    def __init__(self, encoding: Encoding, backbone: Backbone) -> None:
        tables, macs = [], []
        for block, choices in zip(searchable_blocks(backbone), encoding.choices, strict=True):
            costs = [work(backbone, block, choice) for choice in choices]
            weights = np.array([cost.weights for cost in costs])
            macs.append([cost.macs for cost in costs])
            kept = np.log(weights / max(weights.max(), 1.0) + self._FLOOR)
            tables.append(np.stack([kept, [-math.log(choice.rate) for choice in choices]], axis=1))
        spread = np.sqrt(np.sum([table.var(axis=0) for table in tables], axis=0))
        spread = np.where(spread > 1e-9, spread, 1.0)
        self._encoding = encoding
        #: what each choice of each layer adds to the traits, K x 2, and to the work, K x 1
        self.table: Floats = np.concatenate([(table - table.mean(axis=0)) / spread for table in tables])
        self._macs = np.concatenate(macs)[:, None]

    def __call__(self, rows: IntArray) -> Floats:
        """Traits `[m, 2]` of rows `[m, L]`: mean 0 and variance 1 over the space."""
        return self._encoding.sums(rows, self.table)

    def macs(self, rows: IntArray) -> Floats:
        """MACs that pruning keeps `[m]`."""
        return self._encoding.sums(rows, self._macs)[:, 0]
