"""Architectures as numbers that explain accuracy and latency."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from npas_ray.networks.backbone import Block
from npas_ray.networks.operators import body_layers, pruned_layers
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.space.choices import LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]


class Features:
    """Of rows `[m, L]` of a space's encoding, in one table lookup a layer."""

    def __init__(self, space: SearchSpace) -> None:
        self.encoding = Encoding(space)
        layers = list(zip(space.backbone.blocks, self.encoding.choices, strict=True))
        self._traits = [np.array([_traits(choice) for choice in choices]) for _, choices in layers]
        works = [np.array([_work(block, choice) for choice in choices]) for block, choices in layers]
        unit = np.mean([work[:, 0].mean() for work in works])
        self._works = [work / unit for work in works]
        kinds = sorted({(choice.operator, choice.scheme) for _, choices in layers for choice in choices})
        self._kinds = [np.array([kinds.index((c.operator, c.scheme)) for c in choices]) for _, choices in layers]
        self._times = [
            np.concatenate([np.eye(len(kinds))[kind] * amount for amount in (1.0, *work.T[:, :, None])], axis=1)
            for kind, work in zip(
                self._kinds, (_with_outputs(work, layers[i][0]) for i, work in enumerate(self._works)), strict=True
            )
        ]
        self._operators = [np.array([list(Operator).index(c.operator) for c in choices]) for _, choices in layers]

    def __call__(self, rows: IntArray) -> Floats:
        """`[m, d]`: each layer's operator, scheme, rate and work, and the sums of them."""
        traits, works = self._look_up(self._traits, rows), self._look_up(self._works, rows)
        sums = [np.sum(traits, axis=0), np.sum(works, axis=0)]
        return np.concatenate([*traits, *works, *sums, np.log(sums[1] + 0.1)], axis=1)

    def of_time(self, rows: IntArray) -> Floats:
        """`[m, e]`, those that a time is a sum of.

        Uses, work and outputs of each operator and scheme, in all and of each layer; which choice each layer is; and
        which operators meet.
        """
        times = self._look_up(self._times, rows)
        single = [np.eye(size)[rows[:, layer]] for layer, size in enumerate(self.encoding.sizes)]
        operators = self._look_up(self._operators, rows)
        pairs = [a * len(Operator) + b for a, b in pairwise(operators)]
        meet = np.sum([np.eye(len(Operator) ** 2)[pair] for pair in pairs], axis=0)
        return np.concatenate([*times, np.sum(times, axis=0), *single, meet], axis=1)

    @staticmethod
    def _look_up(tables: list[Floats], rows: IntArray) -> list[Floats]:
        return [table[rows[:, layer]] for layer, table in enumerate(tables)]


def _with_outputs(work: Floats, block: Block) -> Floats:
    """Work `[k, 2]` and, relative to an image of 8x8x32, the values that the block gives."""
    outputs = -(-block.height // block.stride) * -(-block.width // block.stride) * block.out_channels / 2048
    return np.column_stack([work, np.full(len(work), outputs)])


def _traits(choice: LayerChoice) -> list[float]:
    """Operator, scheme, and log rate by scheme."""
    operators = [float(choice.operator is operator) for operator in Operator]
    schemes = [float(choice.scheme is scheme) for scheme in Scheme]
    return [*operators, *schemes, *(float(np.log(choice.rate)) * scheme for scheme in schemes)]


def _work(block: Block, choice: LayerChoice) -> tuple[float, float]:
    """MACs with and without pruning."""
    kept = dense = 0.0
    height, width = block.height, block.width
    pruned = pruned_layers(choice)
    for layer in body_layers(block, choice.operator):
        height, width = -(-height // layer.stride), -(-width // layer.stride)
        macs = float(np.prod(layer.weight_shape)) * height * width
        dense += macs
        kept += macs / choice.rate if pruned is not None and layer.name in pruned.layers else macs
    return kept, dense
