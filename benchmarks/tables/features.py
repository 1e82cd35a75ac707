"""Architectures as numbers that explain accuracy and latency."""

from __future__ import annotations

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
        self._times = [
            np.concatenate([work[:, :1] * traits, work[:, 1:] * traits[:, : len(Operator)]], axis=1)
            for traits, work in zip(self._traits, self._works, strict=True)
        ]

    def __call__(self, rows: IntArray) -> Floats:
        """`[m, d]`: each layer's operator, scheme, rate and work, and the sums of them."""
        traits, works = self._look_up(self._traits, rows), self._look_up(self._works, rows)
        sums = [np.sum(traits, axis=0), np.sum(works, axis=0)]
        return np.concatenate([*traits, *works, *sums, np.log(sums[1] + 0.1)], axis=1)

    def of_time(self, rows: IntArray) -> Floats:
        """`[m, e]`, those that a time is a sum of: the work of each kind, in all and of each layer, and each choice."""
        times = self._look_up(self._times, rows)
        single = [np.eye(size)[rows[:, layer]] for layer, size in enumerate(self.encoding.sizes)]
        return np.concatenate([*self._look_up(self._traits, rows), *times, np.sum(times, axis=0), *single], axis=1)

    @staticmethod
    def _look_up(tables: list[Floats], rows: IntArray) -> list[Floats]:
        return [table[rows[:, layer]] for layer, table in enumerate(tables)]


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
